/* merge.h -- an adapter goes into the Hugging Face checkpoint that it was trained on.
 *
 * weight' = round(weight + scale * B A), the sum in float32, rounded once to the weight's dtype (bf16
 * or f32): PEFT's merge_and_unload in float32. Routed experts fused or one by one. The new folder has
 * the shards of the old one: names, headers and order byte for byte; other tensors are copied. Plain files beside
 * the shards are copied too, but for weights in other formats, which would be the old model's.
 * Memory: a few tiles a thread and two modules of the adapter, whatever the model's size.
 * All is written in `directory`.partial, which takes the name `directory` when everything is there and
 * safe on disk; a run that was killed leaves that folder, and the next begins anew. */
#ifndef SCOUT_LIBFORMAT_CONVERT_MERGE_H
#define SCOUT_LIBFORMAT_CONVERT_MERGE_H

#include "libformat/adapter/adapter_source.h"

struct sf_merge_options {
    int threads;
    /* From the calling thread: bytes written of all; false stops (SF_EINTERRUPTED). May be NULL. */
    bool (*on_progress)(void *context, uint64_t done, uint64_t total);
    void *context;
};

struct sf_merge_result {
    int64_t modules, tensors, merged; /* of the adapter; of the checkpoint, and of them changed */
    int64_t shards;
    uint64_t bytes;              /* of the shards */
    const char *const *left_out; /* names in the base's folder that were not copied, in `arena` */
    int64_t left_outs;
};

/* SF_EINVAL: `directory` is there and not empty. SF_EUNSUPPORTED: what is adapted is no bf16 or f32
 * matrix in the base. SF_ENOSPC before anything is written if the disk is too full. */
int sf_merge_run(struct sf_merge_result *out, struct sf_arena *arena, const char *base,
                 const char *adapter, const char *directory, const struct sf_merge_options *options,
                 struct sf_err *err);

#endif
