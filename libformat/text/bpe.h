/* bpe.h -- the byte-level BPE model: a vocabulary, ranked merges, and how one pre-token becomes
 * ids.
 *
 * Merging takes the lowest rank first, the leftmost of equals, as `tokenizers` does, over a linked
 * list with merge_queue.h. Short pre-tokens are remembered in the scratch. Filled by sf_bpe_read; then read-only and shared between threads, each with its own
 * scratch. */
#ifndef SCOUT_LIBFORMAT_TEXT_BPE_H
#define SCOUT_LIBFORMAT_TEXT_BPE_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/base/json.h"
#include "libformat/text/tokenizer.h"
#include "libformat/text/words.h"

enum { SF_BPE_MAX_ID = (1 << 22) - 1 };

struct sf_merge { /* key 0 and id -1: a free slot */
    uint64_t key; /* left id << 32 | right id */
    int32_t rank, id;
};

struct sf_bpe {
    struct sf_words words; /* as written in tokenizer.json */
    const char **token;    /* [ids], NULL: an id without a token; ids = highest + 1 */
    int64_t ids, count;    /* count: tokens there are */
    struct sf_merge *merge;
    uint64_t merge_mask;
    int32_t ranks;        /* merges have ranks 0..ranks-1 */
    int32_t byte_id[256]; /* the token of each single byte */
    uint32_t longest;     /* bytes of the longest token, as written */
    bool ignore_merges;   /* a pre-token that is a token is taken whole */
};

/* `model` is tokenizer.json's "model". Strings live in `arena`. On failure, sf_bpe_free as well. */
int sf_bpe_read(struct sf_bpe *bpe, const struct sf_json *model, struct sf_arena *arena,
                struct sf_err *err);
void sf_bpe_free(struct sf_bpe *bpe);

struct sf_bpe_scratch;
int sf_bpe_scratch_open(struct sf_bpe_scratch **out, struct sf_err *err);
void sf_bpe_scratch_close(struct sf_bpe_scratch *scratch); /* NULL is welcome */

/* Appends the ids of one pre-token of at least one byte. The scratch belongs to this bpe. */
int sf_bpe_encode(struct sf_ids *out, const struct sf_bpe *bpe, const char *piece, uint64_t bytes,
                  struct sf_bpe_scratch *scratch, struct sf_err *err);

/* The slot of a pair: its merge, or NULL. */
const struct sf_merge *sf_bpe_find_merge(const struct sf_bpe *bpe, int32_t left, int32_t right);

#endif
