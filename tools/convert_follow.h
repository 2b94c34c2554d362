/* convert_follow.h -- sources as they come and go: waiting for shards, deleting those that are done.
 *
 * Prints what it waits for (on stderr, when that changes) and what it deletes (on stdout). */
#ifndef SCOUT_TOOLS_CONVERT_FOLLOW_H
#define SCOUT_TOOLS_CONVERT_FOLLOW_H

#include "libformat/convert/convert.h"

/* Until config.json and the list of shards are there and can be read. SF_EINTERRUPTED after a
 * signal, as below. */
int follow_start(struct sf_arrivals *arrivals, const char *directory, struct sf_err *err);
/* Until a shard that was not there when the index was opened is there as a whole; of those that are
 * `needed` (a plan's; NULL: all). */
int follow_shard(struct sf_arrivals *arrivals, const struct sf_hf_index *index, const bool *needed,
                 struct sf_err *err);
/* A file that is carried may still be written to: does it look whole? And a short wait for it. */
bool follow_file_is_whole(const struct sf_carried_file *file);
int follow_file(struct sf_arrivals *arrivals, const char *name, struct sf_err *err);

/* Are all shards of the index there, or done with? */
bool follow_is_complete(const struct sf_hf_index *index);
/* False when no shard at all was ever seen: nothing can be planned yet. */
bool follow_can_begin(const struct sf_hf_index *index);

/* Is `container` (or, if part_bytes is not 0, a set of files of at most that) already what these sources and options give, with shards among its sources that are
 * gone from `directory`? Then the conversion that deleted them came to its end. */
bool follow_is_finished(const char *container, uint64_t part_bytes, const char *directory,
                        const struct sf_carried_file *config, const char *model_id,
                        const char *options);

/* Deletes a shard. What a link leads to is named, and deleted if `blobs`. */
int follow_delete(const char *path, bool blobs, struct sf_err *err);

#endif
