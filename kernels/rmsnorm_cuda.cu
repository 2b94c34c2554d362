#include "kernels/rmsnorm.h"

#include "kernels/cuda_table.h"
#include "kernels/row_cuda.cuh"

/* A thread block a row, which stays in registers between the sum over it and its use. */

struct forward {
    bf16 *y, *sum;
    float *rstd;
    const bf16 *x, *delta;
    sk_weights weight;
    int cols;
    float epsilon;
};

/* s is used as it is stored: who computes y again from the stored sum gets the same bits. */
template <int width>
static __global__ void __launch_bounds__(SK_ROW_THREADS) norm_forward(const forward f)
{
    enum { pieces = sk_row<width>::pieces };
    __shared__ float scratch[SK_WARP + 1];
    int64_t at = (int64_t)blockIdx.x * f.cols;
    float s[pieces][width], squares = 0;
#pragma unroll
    for (int k = 0; k < pieces; k++) {
        int i = (k * (int)blockDim.x + (int)threadIdx.x) * width;
        if (i >= f.cols)
            break;
        sk_piece_load<width>(s[k], f.x + at + i);
        if (f.delta) {
            float delta[width];
            sk_piece_load<width>(delta, f.delta + at + i);
#pragma unroll
            for (int j = 0; j < width; j++)
                s[k][j] = __bfloat162float(__float2bfloat16_rn(s[k][j] + delta[j]));
        }
        if (f.sum)
            sk_piece_store<width>(f.sum + at + i, s[k]);
#pragma unroll
        for (int j = 0; j < width; j++)
            squares += s[k][j] * s[k][j];
    }
    float mean = sk_block_sum(squares, scratch) / (float)f.cols;
    float rstd = 1 / sqrtf(mean + f.epsilon);
    if (threadIdx.x == 0)
        f.rstd[blockIdx.x] = rstd;
#pragma unroll
    for (int k = 0; k < pieces; k++) {
        int i = (k * (int)blockDim.x + (int)threadIdx.x) * width;
        if (i >= f.cols)
            break;
        float w[width];
        sk_weights_load<width>(w, f.weight, i);
#pragma unroll
        for (int j = 0; j < width; j++)
            w[j] *= s[k][j] * rstd;
        sk_piece_store<width>(f.y + at + i, w);
    }
}

struct backward {
    bf16 *ds;
    const bf16 *dy, *sum,
        *residual; /* residual may be ds: a thread reads its piece, then writes it */
    const float *rstd;
    sk_weights weight;
    int cols;
};

template <int width>
static __global__ void __launch_bounds__(SK_ROW_THREADS) norm_backward(const backward b)
{
    enum { pieces = sk_row<width>::pieces };
    __shared__ float scratch[SK_WARP + 1];
    int64_t at = (int64_t)blockIdx.x * b.cols;
    float g[pieces][width], n[pieces][width], rstd = b.rstd[blockIdx.x], sum = 0;
#pragma unroll
    for (int k = 0; k < pieces; k++) {
        int i = (k * (int)blockDim.x + (int)threadIdx.x) * width;
        if (i >= b.cols)
            break;
        float w[width];
        sk_piece_load<width>(g[k], b.dy + at + i);
        sk_piece_load<width>(n[k], b.sum + at + i);
        sk_weights_load<width>(w, b.weight, i);
#pragma unroll
        for (int j = 0; j < width; j++) {
            g[k][j] *= w[j];
            n[k][j] *= rstd;
            sum += g[k][j] * n[k][j];
        }
    }
    float mean = sk_block_sum(sum, scratch) / (float)b.cols;
#pragma unroll
    for (int k = 0; k < pieces; k++) {
        int i = (k * (int)blockDim.x + (int)threadIdx.x) * width;
        if (i >= b.cols)
            break;
        float residual[width] = {};
        if (b.residual)
            sk_piece_load<width>(residual, b.residual + at + i);
#pragma unroll
        for (int j = 0; j < width; j++)
            g[k][j] = rstd * (g[k][j] - n[k][j] * mean) + residual[j];
        sk_piece_store<width>(b.ds + at + i, g[k]);
    }
}

int sk_rmsnorm_forward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_rmsnorm_forward *a = static_cast<const sk_rmsnorm_forward *>(args);
    forward f = {reinterpret_cast<bf16 *>(a->y),
                 reinterpret_cast<bf16 *>(a->sum),
                 a->rstd,
                 reinterpret_cast<const bf16 *>(a->x),
                 reinterpret_cast<const bf16 *>(a->delta),
                 sk_weights_of(a->weight),
                 (int)a->cols,
                 a->epsilon};
    int code = sk_row_fits(a->cols, "rmsnorm", err);
    if (code || a->rows < 1)
        return code;
    bool vectors = a->cols % SK_VECTOR == 0 && sk_on16(a->y) && sk_on16(a->sum) && sk_on16(a->x) &&
                   sk_on16(a->delta) && sk_on16(a->weight->data);
    unsigned rows = (unsigned)a->rows;
    int threads = sk_row_threads(a->cols);
    if (vectors)
        norm_forward<SK_VECTOR><<<rows, threads, 0, ctx->cuda->stream>>>(f);
    else
        norm_forward<1><<<rows, threads, 0, ctx->cuda->stream>>>(f);
    SK_LAUNCHED("norm_forward", err);
    return SF_OK;
}

int sk_rmsnorm_backward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_rmsnorm_backward *a = static_cast<const sk_rmsnorm_backward *>(args);
    backward b = {reinterpret_cast<bf16 *>(a->ds),
                  reinterpret_cast<const bf16 *>(a->dy),
                  reinterpret_cast<const bf16 *>(a->sum),
                  reinterpret_cast<const bf16 *>(a->residual),
                  a->rstd,
                  sk_weights_of(a->weight),
                  (int)a->cols};
    int code = sk_row_fits(a->cols, "rmsnorm", err);
    if (code || a->rows < 1)
        return code;
    bool vectors = a->cols % SK_VECTOR == 0 && sk_on16(a->ds) && sk_on16(a->dy) &&
                   sk_on16(a->sum) && sk_on16(a->residual) && sk_on16(a->weight->data);
    unsigned rows = (unsigned)a->rows;
    int threads = sk_row_threads(a->cols);
    if (vectors)
        norm_backward<SK_VECTOR><<<rows, threads, 0, ctx->cuda->stream>>>(b);
    else
        norm_backward<1><<<rows, threads, 0, ctx->cuda->stream>>>(b);
    SK_LAUNCHED("norm_backward", err);
    return SF_OK;
}
