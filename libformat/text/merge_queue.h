/* merge_queue.h -- the merges a pre-token may take next: lowest rank first, leftmost of equals.
 *
 * A short pre-token's candidates lie in a binary heap. A long one's lie in lanes, a list per rank, and
 * the heap holds the ranks that have a lane: byte-level BPE ranks a token's merge before those that
 * build on it, so a lane is complete when its turn comes, is put in order at once and handed out from
 * one end to the other. Candidates that come too late for that (a tokenizer.json may rank as it likes)
 * go to the heap by themselves, and are handed out between those of the lane, as they must.
 * The order is the same either way. A long run of one character costs time in proportion to it.
 *
 * Life: open, then for each pre-token begin, push and pop until it is empty; close. One thread. */
#ifndef SCOUT_LIBFORMAT_TEXT_MERGE_QUEUE_H
#define SCOUT_LIBFORMAT_TEXT_MERGE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"

struct sf_merge_candidate {
    int32_t rank, position; /* position: of the left token */
    int32_t id;             /* what the pair becomes */
};

struct sf_merge_queue;

/* For ranks 0..ranks-1. */
int sf_merge_queue_open(struct sf_merge_queue **out, int32_t ranks, struct sf_err *err);
void sf_merge_queue_close(struct sf_merge_queue *queue); /* NULL is welcome */

enum { SF_MERGE_QUEUE_LONG = 256 }; /* tokens from which on lanes pay */
/* The queue is empty. Room for `most` candidates in all, pushed before the next begin. */
int sf_merge_queue_begin(struct sf_merge_queue *queue, int64_t most, bool lanes,
                         struct sf_err *err);
void sf_merge_queue_push(struct sf_merge_queue *queue, struct sf_merge_candidate candidate);
/* False when nothing is left. */
bool sf_merge_queue_pop(struct sf_merge_candidate *out, struct sf_merge_queue *queue);

#endif
