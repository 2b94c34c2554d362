/* convert_plan.h -- what a conversion will write: one row per tensor of the container.
 *
 * Built from config and tensor list alone, before a weight is read: every name understood, every
 * weight the config demands there once and in its shape, every address and byte count final. It may
 * be built while shards are still expected: rows and addresses are those of the whole. The plan owns its arena; it borrows spec, index and the
 * policy's importance, which must outlive it. Read-only after building.
 */
#ifndef SCOUT_LIBFORMAT_CONVERT_CONVERT_PLAN_H
#define SCOUT_LIBFORMAT_CONVERT_CONVERT_PLAN_H

#include "libformat/base/arena.h"
#include "libformat/container/container_write.h"
#include "libformat/convert/policy.h"
#include "libformat/hf/bnb_tensor.h"
#include "libformat/hf/hf_index.h"

/* Where the elements of a weight lie: element (o, i) of [out, in] is at
 * first + o * in + i, or, transposed, at first + i * row_stride + o. Those of a packed one are
 * numbered so; its tensor is that of the codes. */
struct sf_source {
    const struct sf_tensor *tensor;
    bool transposed;
    int64_t first, row_stride;          /* in elements */
    const struct sf_bnb_tensor *packed; /* quantized in the source; NULL: plain elements */
    bool requantize;                    /* packed: decoded and quantized anew, not taken over */
};

struct sf_convert_row {
    struct sf_entry *entry; /* the layout's: addresses are final, errors are set by conversion */
    struct sf_source source;
    enum sf_scale_choice scale;
    const float *importance; /* [in] borrowed from the policy's; NULL: all the same */
    /* Set by conversion for what is quantized: sums over all elements, and which block of 64, in the
     * order of its scales, has entry->worst_block_error. */
    double squared_error, squared_norm;
    int64_t worst_block;
};

struct sf_convert_plan {
    struct sf_arena arena;
    const struct sf_model_spec *spec;
    const struct sf_hf_index *index;
    struct sf_layout *layout;
    int64_t rows;
    struct sf_convert_row *row; /* in layout order */
    int64_t parameters, parameters_text;
    uint64_t source_bytes; /* of tensor data */
    int64_t taken, down; /* rows taken over as they were quantized; of them with blocks along out */
    int64_t requantized;
    /* [shards] some of its tensors have no row yet, because others that would lie beside them are
     * expected and of unknown size (expect.h); the layout ends before them. NULL: all have rows. */
    bool *waits;
    bool *needed; /* [shards] NULL before a run; after it: something in there is still to be done */
};

/* keep_unknown: tensors whose name means nothing to us are carried unused instead of refused. */
int sf_convert_plan_build(struct sf_convert_plan *out, const struct sf_model_spec *spec,
                          const struct sf_hf_index *index, struct sf_policy *policy,
                          bool keep_unknown, struct sf_err *err);
void sf_convert_plan_free(struct sf_convert_plan *plan);

#endif
