/* plan.h -- every byte of a run, by kind, before the first one is allocated.
 *
 * Made from finished tapes, the container's extents and the adapter's block; the run allocates the
 * same numbers, so the two cannot differ. Nothing is executed. */
#ifndef SCOUT_TRAIN_PLAN_PLAN_H
#define SCOUT_TRAIN_PLAN_PLAN_H

#include "libformat/container/container_map.h"
#include "train/plan/tape.h"

enum { SFT_PLAN_TOP = 16 };

struct sft_plan_buffer { /* one of the largest at the peak */
    const char *name;
    enum sft_kind kind;
    uint64_t bytes;
};

struct sft_plan {
    uint64_t weights[SF_EXTENT_KIND_COUNT]; /* payload bytes by extent kind */
    uint64_t resident_bytes; /* weights that every step reads: dense, expert, head, shared tables */
    uint64_t embedding_bytes; /* stays on the host */
    uint64_t unused_bytes;    /* never read */
    uint64_t adapter_parameter_bytes, adapter_gradient_bytes, adapter_moment_bytes;
    uint64_t step_bytes;                /* the step block: the largest tape's */
    uint64_t host_bytes;                /* host memory that ops reach, beside the step block */
    uint64_t step_live_bytes;           /* alive at its fullest node: what no packing can beat */
    uint64_t peak_kind[SFT_KIND_COUNT]; /* of those, by kind */
    const char *peak_op;                /* "head_loss" */
    int64_t tapes, nodes, nodes_again;  /* of the largest tape: nodes, and those recomputed */
    int64_t top_count;
    struct sft_plan_buffer top[SFT_PLAN_TOP]; /* largest first */
    uint64_t total_bytes;                     /* resident + embedding + adapter + step */
};

/* `*plan = {0}` first, then any of these in any order, then sft_plan_total. Names borrow from the
 * tape. */
void sft_plan_weights(struct sft_plan *plan, const struct sf_map *map);
void sft_plan_adapter(struct sft_plan *plan, uint64_t parameter_bytes, uint64_t moment_bytes,
                      bool training);
/* Keeps the largest tape's figures. */
void sft_plan_tape(struct sft_plan *plan, const struct sft_tape *tape);
void sft_plan_total(struct sft_plan *plan);

#endif
