/* gemm_cpu.h -- OpenBLAS's sgemm, row-major, on the calling thread. The one door to OpenBLAS.
 *
 * c[m, n] = alpha * op(a) op(b) + beta * c, where op(a) is [m, k] and op(b) is [k, n]; the last two
 * letters of a name say which operand lies transposed (t) in memory. c, a, b come with their row
 * strides; with beta 0 what c holds does not matter, NaN included. */
#ifndef SCOUT_KERNELS_GEMM_CPU_H
#define SCOUT_KERNELS_GEMM_CPU_H

#include <stdint.h>

#include "libformat/base/err.h"

/* a [m, k], b [k, n]: products with W, as dx = dy W. */
void sk_gemm_nn(float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b,
                int64_t b_stride, int64_t m, int64_t n, int64_t k, float alpha, float beta);
/* a [m, k], b [n, k]: products with W^T, as y = x W^T. */
void sk_gemm_nt(float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b,
                int64_t b_stride, int64_t m, int64_t n, int64_t k, float alpha, float beta);
/* a [k, m], b [k, n]: sums over rows, as dW = dy^T x. */
void sk_gemm_tn(float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b,
                int64_t b_stride, int64_t m, int64_t n, int64_t k, float alpha, float beta);

/* Pins OpenBLAS to one thread a call and holds the three products against plain loops on shapes
 * with and without tails, small and beyond the small-matrix paths; SF_EUNSUPPORTED with the figures
 * when they differ: some builds of OpenBLAS compute wrongly on processors younger than they are. */
int sk_gemm_start(struct sf_err *err);

#endif
