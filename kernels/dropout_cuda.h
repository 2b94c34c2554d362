/* dropout_cuda.h -- dropout.h on a device. Private to the CUDA fillings. */
#ifndef SCOUT_KERNELS_DROPOUT_CUDA_H
#define SCOUT_KERNELS_DROPOUT_CUDA_H

#include "kernels/cuda_private.h"
#include "kernels/dropout.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sk_drop {
    const struct sk_dropout *dropout;
    uint32_t site;
    int64_t before; /* elements that were counted before the first */
    bool add;
};
/* out = factors * x, or out += factors * x; `count` bfloat16 numbers each, rounded once. */
int sk_dropout_cuda(struct sk_ctx *ctx, uint16_t *out, const uint16_t *x, int64_t count,
                    struct sk_drop drop, struct sf_err *err);

#ifdef __cplusplus
}
#endif

#endif
