/* convert.h -- carry out a conversion plan: read, turn, encode, hash, write where it belongs.
 *
 * One job per extent and one per source shard (its hash), on `threads` threads. An extent of layers
 * is built in memory and handed over whole; embedding, head and unused tensors, which are stored as
 * they are, stream through a window of a few MiB. The result does not depend on threads or time. */
#ifndef SCOUT_LIBFORMAT_CONVERT_CONVERT_H
#define SCOUT_LIBFORMAT_CONVERT_CONVERT_H

#include <stdbool.h>

#include "libformat/convert/convert_plan.h"

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
    /* From the calling thread, now and then: payload bytes done of all. Returns false to stop
     * (SF_EINTERRUPTED). May be NULL. */
    bool (*on_progress)(void *context, uint64_t done, uint64_t total);
    void *context;
};

/* Writes the container at `path` (temporary name, fsync, rename) and reads it back as a stranger
 * would: header, index, every checksum. On failure nothing new stands at `path`. */
int sf_convert_run(struct sf_convert_plan *plan, const char *path,
                   const struct sf_convert_options *options, struct sf_err *err);

#endif
