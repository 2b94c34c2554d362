/* nf4_cuda.h -- frozen weights as bfloat16 in device memory: what matrix_cpu.h is to the CPU.
 *
 * NF4 is restored as libformat/codec/nf4 does it, bit for bit: the scale with two roundings, one
 * product per weight, one rounding to bfloat16. float32 and float16 weights are rounded once.
 * bfloat16 is uint16_t here, on the host's side. All work goes to the context's stream. */
#ifndef SCOUT_KERNELS_NF4_CUDA_H
#define SCOUT_KERNELS_NF4_CUDA_H

#include "kernels/matrix.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[count] = elements first .. first + count of the row-major flattened matrix. `first` is a
 * multiple of 64, `out` on 16 bytes. */
int sk_matrix_expand_cuda(struct sk_ctx *ctx, uint16_t *out, const struct sk_matrix *matrix,
                          int64_t first, int64_t count, struct sf_err *err);
/* *out = the same elements: where they lie if they are bfloat16, else expanded into `scratch`. */
int sk_matrix_halves_cuda(const uint16_t **out, struct sk_ctx *ctx, uint16_t *scratch,
                          const struct sk_matrix *matrix, int64_t first, int64_t count,
                          struct sf_err *err);
/* out[groups][count] = float32 numbers of groups that lie `stride` apart, rounded. One launch. */
int sk_round_cuda(struct sk_ctx *ctx, uint16_t *out, const float *in, int64_t groups, int64_t count,
                  int64_t stride, struct sf_err *err);

#ifdef __cplusplus
}
#endif

#endif
