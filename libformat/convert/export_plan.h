/* export_plan.h -- which tensors a Hugging Face folder made from a container holds, in order, and
 * which pieces of work fill each. Lives in the arena given; borrows from the map. */
#ifndef SCOUT_LIBFORMAT_CONVERT_EXPORT_PLAN_H
#define SCOUT_LIBFORMAT_CONVERT_EXPORT_PLAN_H

#include "libformat/convert/export.h"
#include "libformat/hf/safetensors.h"

/* Where the bytes of an exported tensor come from. */
enum sf_export_kind {
    SF_EXPORT_COPY,   /* `bytes` as they lie at `data` */
    SF_EXPORT_DECODE, /* entry, decoded to bf16, row-major */
    SF_EXPORT_STACK,  /* one plane of the entries of all experts, one behind the other */
    SF_EXPORT_EXPERTS /* entries of all experts, turned to [in, out] side by side */
};

struct sf_export_tensor {
    struct sf_named_tensor out; /* name, dtype, shape, bytes; data for COPY */
    enum sf_export_kind kind;
    int64_t module;                      /* DECODE, EXPERTS: of the adapter, added; or -1 */
    enum sf_plane_kind plane;            /* STACK */
    int64_t entries;                     /* EXPERTS: experts * (2 for gate_up, 1 for down) */
    const struct sf_entry *const *entry; /* EXPERTS: expert-major, gate before up */
};

struct sf_export_plan {
    int64_t tensors;
    struct sf_export_tensor *tensor;
    uint64_t bytes;
};

int sf_export_plan_build(struct sf_export_plan *out, struct sf_arena *arena,
                         const struct sf_map *map, const struct sf_export_options *options,
                         struct sf_err *err);

#endif
