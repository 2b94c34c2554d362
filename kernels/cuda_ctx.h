/* cuda_ctx.h -- what the CUDA ops share: one stream, one cuBLAS handle, one place for faults.
 *
 * All ops of a run go to one stream, in order; nothing waits for the device but sk_memory.read and
 * sk_cuda_wait_counts. An op that finds something wrong in its data on the device raises a fault:
 * the first one stays, and the next read fails with it.
 *
 * Life: device first, then sk_cuda_start; sk_cuda_stop before the device is closed. Threads: one
 * caller at a time. Memory: cuBLAS's workspace and a page of small things, told by sk_cuda_bytes;
 * what the CUDA library takes for itself is not in that figure. */
#ifndef SCOUT_KERNELS_CUDA_CTX_H
#define SCOUT_KERNELS_CUDA_CTX_H

#include <stdbool.h>

#include "kernels/device.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills *ctx, which points to what is owned here until sk_cuda_stop. `threads`: for the little that
 * the host does (gathering embedding rows). SF_ENOMEM, SF_ECUDA. */
int sk_cuda_start(struct sk_ctx *ctx, const struct sk_device *device, int threads,
                  struct sf_err *err);
void sk_cuda_stop(struct sk_ctx *ctx); /* a zeroed one is welcome */
/* "CUDA 13.0, cuBLAS 13.1.0": what decides the last bits, beside the card. */
void sk_cuda_library(char text[SK_LIBRARY_TEXT], const struct sk_ctx *ctx);
/* Device memory that a started context holds. */
uint64_t sk_cuda_bytes(void);
/* The CUDA table: bfloat16 activations, float32 sums, bit-reproducible. */
const struct sk_ops *sk_ops_cuda(void);

/* Waits until the offsets that route_forward sent last are in host memory. */
int sk_cuda_wait_counts(struct sk_ctx *ctx, struct sf_err *err);

#ifdef __cplusplus
}
#endif

#endif
