/* merge_plan.h -- which tensors of a checkpoint an adapter changes, and how. Private to merge.c. */
#ifndef SCOUT_LIBFORMAT_CONVERT_MERGE_PLAN_H
#define SCOUT_LIBFORMAT_CONVERT_MERGE_PLAN_H

#include "libformat/adapter/adapter_source.h"
#include "libformat/hf/hf_index.h"

struct sf_merge_tensor {
    const struct sf_named_tensor *from;
    int64_t module; /* of the adapter; -1: copied */
    bool fused;     /* [experts, in, out], all groups */
    int64_t group;  /* not fused: of the module */
    int64_t out_first;
    int64_t rows, cols; /* of one matrix as the tensor has it */
};

struct sf_merge_shard {
    const struct sf_hf_shard *shard;
    int64_t tensors;
    struct sf_merge_tensor *tensor; /* in order of their bytes */
};

struct sf_merge_plan {
    int64_t shards, tensors, merged;
    struct sf_merge_shard *shard;
    uint64_t bytes; /* of all shards */
};

/* SF_EUNSUPPORTED: a tensor's name says that the checkpoint is quantized. */
int sf_merge_check_base(const struct sf_hf_index *index, struct sf_err *err);

/* Borrows from index and adapter; the plan itself lives in `arena`. Every module must find all of
 * its weight. */
int sf_merge_plan_build(struct sf_merge_plan *out, struct sf_arena *arena,
                        const struct sf_hf_index *index, const struct sf_adapter_source *adapter,
                        struct sf_err *err);

#endif
