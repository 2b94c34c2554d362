/* row_cuda.cuh -- what kernels share that take activations row by row: elements in pieces of 16
 * bytes where rows lie on 16, one by one elsewhere; frozen vectors of any format; rows that a thread
 * block holds in registers. Private to the CUDA fillings. */
#ifndef SCOUT_KERNELS_ROW_CUDA_CUH
#define SCOUT_KERNELS_ROW_CUDA_CUH

#include <cuda_fp16.h>

#include "kernels/cuda_math.cuh"
#include "kernels/matrix.h"

/* ---- pieces: `width` elements, 8 or 1 ---- */

template <int width>
static __device__ __forceinline__ void sk_piece_load(float out[], const bf16 *p)
{
    if constexpr (width == SK_VECTOR)
        sk_load8(out, p);
    else
        out[0] = __bfloat162float(*p);
}

template <int width>
static __device__ __forceinline__ void sk_piece_store(bf16 *p, const float in[])
{
    if constexpr (width == SK_VECTOR)
        sk_store8(p, in);
    else
        *p = __float2bfloat16_rn(in[0]);
}

/* As bits: for rows that only move. */
template <int width>
static __device__ __forceinline__ void sk_piece_copy(bf16 *to, const bf16 *from)
{
    if constexpr (width == SK_VECTOR)
        *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
    else
        *to = *from;
}

static inline bool sk_on16(const void *p)
{
    return reinterpret_cast<uintptr_t>(p) % 16 == 0; /* NULL is */
}

/* ---- frozen weights, element by element: for vectors and for the router ---- */

struct sk_weights {
    enum sk_format format;
    const void *data, *scale;
    const float *scale2, *codebook, *map;
    float offset;
};

static inline sk_weights sk_weights_of(const struct sk_matrix *m)
{
    return {m->format, m->data, m->scale, m->scale2, m->codebook, m->map, m->offset};
}

/* As nf4_cuda.cu restores it, for the few that are not expanded there: `i` counts elements of the
 * flattened matrix. */
static __device__ __noinline__ float sk_nf4_at(sk_weights w, int64_t i)
{
    int64_t block = i / 64;
    uint8_t pair = static_cast<const uint8_t *>(w.data)[i / 2];
    float scale, value;
    if (w.format == SK_FORMAT_NF4) {
        scale = static_cast<const float *>(w.scale)[block];
    } else {
        float coarse = w.map[static_cast<const uint8_t *>(w.scale)[block]];
        asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(scale) : "f"(coarse), "f"(w.scale2[block / 256]));
        scale = __fadd_rn(scale, w.offset);
    }
    asm("mul.rn.ftz.f32 %0, %1, %2;"
        : "=f"(value)
        : "f"(w.codebook[i % 2 ? pair & 15 : pair >> 4]), "f"(scale));
    return __bfloat162float(__float2bfloat16_rn(value));
}

/* out[width] = elements i .. i + width. Width 8 asks that data and i be such that bfloat16 is on 16
 * bytes; all threads take the same way through here. */
template <int width>
static __device__ __forceinline__ void sk_weights_load(float out[], const sk_weights &w, int64_t i)
{
    if (w.format == SK_FORMAT_BF16) {
        sk_piece_load<width>(out, static_cast<const bf16 *>(w.data) + i);
        return;
    }
#pragma unroll
    for (int j = 0; j < width; j++) {
        if (w.format == SK_FORMAT_F32)
            out[j] = static_cast<const float *>(w.data)[i + j];
        else if (w.format == SK_FORMAT_F16)
            out[j] = __half2float(static_cast<const __half *>(w.data)[i + j]);
        else
            out[j] = sk_nf4_at(w, i + j);
    }
}

/* ---- a row in the registers of a thread block ---- */

/* Piece k of thread t starts at column (k * threads + t) * width. */
enum { SK_ROW_HELD = 16, SK_ROW_THREADS = 1024, SK_ROW_COLUMNS = SK_ROW_HELD * SK_ROW_THREADS };
template <int width> struct sk_row {
    enum { pieces = SK_ROW_HELD / width };
};

/* Whole warps, two 16-byte pieces of every operand for each thread where the row is that long. */
static inline int sk_row_threads(int64_t cols)
{
    int64_t want = (cols + 2 * SK_VECTOR - 1) / (2 * SK_VECTOR);
    want = (want + SK_WARP - 1) / SK_WARP * SK_WARP;
    return (int)(want < SK_ROW_THREADS ? want : (int64_t)SK_ROW_THREADS);
}

static inline int sk_row_fits(int64_t cols, const char *op, struct sf_err *err)
{
    if (cols <= SK_ROW_COLUMNS)
        return SF_OK;
    return sf_fail(err, SF_EUNSUPPORTED, "%s under CUDA takes rows of at most %d, not %lld", op,
                   (int)SK_ROW_COLUMNS, (long long)cols);
}

#endif
