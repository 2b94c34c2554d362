/* gemm_cuda.h -- cuBLAS's products, row-major, bfloat16 in, float32 inside. The one door to cuBLAS.
 *
 *     c[m, n] = alpha * op(a) op(b) + beta * c        op(a) is [m, k], op(b) is [k, n]
 * c is bfloat16, rounded once from float32, or float32. Strides are elements between rows as they
 * lie in memory: a [m, k], or [k, m] where a_turned; b [k, n], or [n, k] where b_turned. With beta
 * 0 what c holds does not matter. On the context's stream, in cuBLAS's own workspace: the same bits
 * in every run on one device and library. bfloat16 is uint16_t on the host's side. */
#ifndef SCOUT_KERNELS_GEMM_CUDA_H
#define SCOUT_KERNELS_GEMM_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sk_gemm {
    void *c;
    const uint16_t *a, *b;
    int64_t c_stride, a_stride, b_stride;
    int64_t m, n, k; /* each at least 1, below 2^31 */
    float alpha, beta;
    bool a_turned, b_turned;
    bool c_float; /* c is float32 */
};
int sk_gemm_cuda(struct sk_ctx *ctx, const struct sk_gemm *g, struct sf_err *err);

/* A handle of cuBLAS on cuda->stream, with a workspace of its own (so many bytes of device memory). */
struct sk_cuda;
int sk_blas_start(struct sk_cuda *cuda, struct sf_err *err);
void sk_blas_stop(struct sk_cuda *cuda);
uint64_t sk_blas_bytes(void);

#ifdef __cplusplus
}
#endif

#endif
