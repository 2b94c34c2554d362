/* convert.h -- carry out a conversion plan: read, turn, encode, hash, write where it belongs.
 *
 * Works wave by wave: some units of output are computed in memory while those before are written
 * and those before them synced and recorded in the journal. Memory: two waves of 128 MiB (or one
 * unit, where that is larger) and a few MiB a thread, whatever the model's size. A conversion that
 * is stopped, killed or fails keeps `path`.partial and `path`.journal, and the same call goes on;
 * one that has nothing recorded yet leaves nothing. The result does not depend on threads, time or
 * interruptions. */
#ifndef SCOUT_LIBFORMAT_CONVERT_CONVERT_H
#define SCOUT_LIBFORMAT_CONVERT_CONVERT_H

#include <stdbool.h>

#include "libformat/convert/convert_plan.h"
#include "libformat/convert/journal.h"

struct sf_carried_file {
    const char *name; /* "config.json" */
    const void *data;
    uint64_t bytes;
};

struct sf_convert_options {
    int threads;
    const char *model_id;
    const char *converter;    /* "scout-convert 0.1.0" */
    const char *options_text; /* what the summary says about options */
    const struct sf_carried_file *file;
    int64_t files;
    uint64_t wave_bytes; /* output computed at once; 0: the usual 128 MiB */
    /* From the calling thread, now and then: payload bytes done of all. Returns false to stop
     * (SF_EINTERRUPTED). May be NULL. */
    bool (*on_progress)(void *context, uint64_t done, uint64_t total);
    /* From the calling thread: all of a shard is safe in the partial file and in the journal, so it
     * may be deleted; it is not looked at again. Comes again in a later run for one that is still
     * there. Anything but SF_OK ends the run. NULL: nobody wants to know, the shard stays mapped. */
    int (*on_source_done)(void *context, const struct sf_hf_shard *shard, struct sf_err *err);
    void *context;
    bool may_wait; /* shards may be missing: what can be done without them is */
};

struct sf_convert_result {
    uint64_t kept_bytes; /* payload that an earlier run had left */
    uint64_t done_bytes; /* payload that is recorded now */
    bool waits;          /* only with may_wait: not finished, shards are missing */
};

/* Writes the container at `path` (or, if the plan's layout was split, at the names of set_name.h made
 * of it) and reads it back as a stranger would: header, index, every
 * checksum. `journal` is that of `path`, with its shards remembered in the plan's index; it is empty
 * after success. SF_EINVAL when it tells of other sources or options. `result` may be NULL. */
int sf_convert_go_on(struct sf_convert_result *result, struct sf_convert_plan *plan,
                     struct sf_journal *journal, const char *path,
                     const struct sf_convert_options *options, struct sf_err *err);
/* The same for a checkpoint that is there as a whole: opens and closes the journal itself. */
int sf_convert_run(struct sf_convert_plan *plan, const char *path,
                   const struct sf_convert_options *options, struct sf_err *err);

#endif
