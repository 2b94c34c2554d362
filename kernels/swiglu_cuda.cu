#include "kernels/swiglu.h"

#include "kernels/cuda_table.h"
#include "kernels/row_cuda.cuh"

enum { THREADS = 256 };

struct halves {
    bf16 *to_gate, *to_up;
    const bf16 *gate, *up;
    bf16 *h;        /* forward */
    const bf16 *dh; /* backward */
    int64_t width, stride;
    unsigned tiles; /* thread blocks a row */
};

/* exp(-x) is 0 or infinity where it leaves float32, and the sigmoid 1 or 0. The quick functions lose
 * 2^-21, far below what bfloat16 keeps. */
static __device__ __forceinline__ float sigmoid(float x)
{
    return __fdividef(1, 1 + __expf(-x));
}

template <int width> static __global__ void __launch_bounds__(THREADS) gate_forward(const halves s)
{
    int64_t row = blockIdx.x / s.tiles;
    int64_t i = ((int64_t)(blockIdx.x % s.tiles) * THREADS + threadIdx.x) * width;
    if (i >= s.width)
        return;
    float g[width], up[width];
    sk_piece_load<width>(g, s.gate + row * s.stride + i);
    sk_piece_load<width>(up, s.up + row * s.stride + i);
#pragma unroll
    for (int j = 0; j < width; j++)
        g[j] *= sigmoid(g[j]) * up[j];
    sk_piece_store<width>(s.h + row * s.width + i, g);
}

/* In place: a thread reads its pieces before it writes them. */
template <int width> static __global__ void __launch_bounds__(THREADS) gate_backward(const halves s)
{
    int64_t row = blockIdx.x / s.tiles;
    int64_t i = ((int64_t)(blockIdx.x % s.tiles) * THREADS + threadIdx.x) * width;
    if (i >= s.width)
        return;
    float g[width], up[width], dh[width];
    sk_piece_load<width>(g, s.gate + row * s.stride + i);
    sk_piece_load<width>(up, s.up + row * s.stride + i);
    sk_piece_load<width>(dh, s.dh + row * s.width + i);
#pragma unroll
    for (int j = 0; j < width; j++) {
        float x = g[j], p = sigmoid(x);
        g[j] = dh[j] * up[j] * (p * (1 + x * (1 - p)));
        up[j] = dh[j] * (x * p);
    }
    sk_piece_store<width>(s.to_gate + row * s.stride + i, g);
    sk_piece_store<width>(s.to_up + row * s.stride + i, up);
}

static bool on_vectors(const halves *s)
{
    return s->width % SK_VECTOR == 0 && s->stride % SK_VECTOR == 0 && sk_on16(s->gate) &&
           sk_on16(s->up) && sk_on16(s->h) && sk_on16(s->dh) && sk_on16(s->to_gate) &&
           sk_on16(s->to_up);
}

/* Thread blocks of all rows; they are one dimension of the grid, the only long one. */
static unsigned take_tiles(halves *s, int64_t rows, int width)
{
    s->tiles = (unsigned)sk_blocks(s->width, (int64_t)THREADS * width);
    return (unsigned)rows * s->tiles;
}

int sk_swiglu_forward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_swiglu_forward *a = static_cast<const sk_swiglu_forward *>(args);
    halves s = {};
    s.gate = reinterpret_cast<const bf16 *>(a->gate);
    s.up = reinterpret_cast<const bf16 *>(a->up);
    s.h = reinterpret_cast<bf16 *>(a->h);
    s.width = a->width;
    s.stride = a->stride;
    if (a->rows < 1)
        return SF_OK;
    bool vectors = on_vectors(&s);
    unsigned blocks = take_tiles(&s, a->rows, vectors ? SK_VECTOR : 1);
    if (vectors)
        gate_forward<SK_VECTOR><<<blocks, THREADS, 0, ctx->cuda->stream>>>(s);
    else
        gate_forward<1><<<blocks, THREADS, 0, ctx->cuda->stream>>>(s);
    SK_LAUNCHED("gate_forward", err);
    return SF_OK;
}

int sk_swiglu_backward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_swiglu_backward *a = static_cast<const sk_swiglu_backward *>(args);
    halves s = {};
    s.to_gate = reinterpret_cast<bf16 *>(a->d_gate);
    s.to_up = reinterpret_cast<bf16 *>(a->d_up);
    s.gate = reinterpret_cast<const bf16 *>(a->gate);
    s.up = reinterpret_cast<const bf16 *>(a->up);
    s.dh = reinterpret_cast<const bf16 *>(a->dh);
    s.width = a->width;
    s.stride = a->stride;
    if (a->rows < 1)
        return SF_OK;
    bool vectors = on_vectors(&s);
    unsigned blocks = take_tiles(&s, a->rows, vectors ? SK_VECTOR : 1);
    if (vectors)
        gate_backward<SK_VECTOR><<<blocks, THREADS, 0, ctx->cuda->stream>>>(s);
    else
        gate_backward<1><<<blocks, THREADS, 0, ctx->cuda->stream>>>(s);
    SK_LAUNCHED("gate_backward", err);
    return SF_OK;
}
