#include "kernels/nf4_cuda.h"

#include <cuda_fp16.h>

#include "kernels/cuda_math.cuh"

/* A warp takes a tile of 32 blocks of 64: each lane restores one block's scale, and in each of 8
 * turns the warp reads 128 bytes of codes and writes 512 of weights. */
enum {
    BLOCK = 64,
    NEST = 256,
    THREADS = 256,
    TURNS = 8,
    TURN = SK_WARP * SK_VECTOR,
    TILE = TURNS * TURN,
    RESIDENT = 6 /* thread blocks a multiprocessor can hold: enough reads in flight */
};
static_assert(TILE == SK_WARP * BLOCK, "a lane restores one scale of its warp's tile");

struct nf4 {
    const uint8_t *codes;
    const void *scale;
    const float *scale2, *codebook, *map;
    float offset;
};

/* bitsandbytes' products flush what is not normal to zero; so does sf_nf4_flush. */
static __device__ __forceinline__ float product(float a, float b)
{
    float c;
    asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
    return c;
}

template <bool nested> static __device__ __forceinline__ float scale_of(const nf4 &m, int64_t block)
{
    if (!nested)
        return static_cast<const float *>(m.scale)[block];
    uint8_t q = static_cast<const uint8_t *>(m.scale)[block];
    return __fadd_rn(product(m.map[q], m.scale2[block / NEST]), m.offset);
}

/* The first element of each pair is in the high half of its byte. `table` is the codebook in shared
 * memory: 16 words in 16 banks, so lanes that want different ones do not wait for each other. */
static __device__ __forceinline__ void decode8(float out[SK_VECTOR], uint32_t codes, float scale,
                                               const float *table)
{
#pragma unroll
    for (int i = 0; i < SK_VECTOR / 2; i++) {
        out[2 * i] = product(table[(codes >> (8 * i + 4)) & 15], scale);
        out[2 * i + 1] = product(table[(codes >> (8 * i)) & 15], scale);
    }
}

static __device__ __forceinline__ void expand_tile(bf16 *out, const uint32_t word[TURNS],
                                                   float scale, const float *table)
{
    int lane = threadIdx.x % SK_WARP;
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
        float value[SK_VECTOR];
        int owner = i * (TURN / BLOCK) + lane / (BLOCK / SK_VECTOR);
        decode8(value, word[i], __shfl_sync(0xffffffffu, scale, owner), table);
        sk_store8(out + i * TURN + lane * SK_VECTOR, value);
    }
}

/* `left` < TILE elements. */
static __device__ __noinline__ void expand_rest(bf16 *out, const uint8_t *codes, float scale,
                                                const float *table, int left)
{
    int lane = threadIdx.x % SK_WARP;
    for (int i = 0; i < TILE; i += SK_WARP) { /* a warp's 32 elements are of one block */
        float s = __shfl_sync(0xffffffffu, scale, i / BLOCK);
        int at = i + lane;
        if (at < left) {
            uint8_t pair = codes[at / 2];
            out[at] = __float2bfloat16_rn(product(table[at % 2 ? pair & 15 : pair >> 4], s));
        }
    }
}

/* A tile a warp. Short thread blocks, so that a product beside them finds room soon; a tile's codes and
 * scales are under way before the block waits for its codebook. The last tile comes first: a product
 * begins with what the L2 cache got last. */
template <bool nested>
static __global__ void __launch_bounds__(THREADS, RESIDENT)
    expand_nf4(bf16 *out, const nf4 m, int64_t first, int64_t count)
{
    __shared__ float table[16];
    int lane = threadIdx.x % SK_WARP;
    int64_t tiles = (count + TILE - 1) / TILE;
    int64_t tile = (int64_t)blockIdx.x * (THREADS / SK_WARP) + threadIdx.x / SK_WARP;
    int64_t start = (tiles - 1 - tile) * TILE, mine = start + (int64_t)lane * BLOCK;
    bool whole = tile < tiles && count - start >= TILE;
    const uint8_t *codes = m.codes + (first + start) / 2;
    uint32_t word[TURNS] = {};
#pragma unroll
    for (int i = 0; i < TURNS; i++) /* read once: leave the caches to the weights */
        if (whole)
            word[i] = __ldcs(reinterpret_cast<const uint32_t *>(codes) + i * SK_WARP + lane);
    float scale = tile < tiles && mine < count ? scale_of<nested>(m, (first + mine) / BLOCK) : 0;
    if (threadIdx.x < 16)
        table[threadIdx.x] = m.codebook[threadIdx.x];
    __syncthreads();
    if (whole)
        expand_tile(out + start, word, scale, table);
    else if (tile < tiles)
        expand_rest(out + start, codes, scale, table, (int)(count - start));
}

static int launch_nf4(struct sk_ctx *ctx, uint16_t *out, const struct sk_matrix *matrix,
                      int64_t first, int64_t count, struct sf_err *err)
{
    nf4 m = {static_cast<const uint8_t *>(matrix->data),
             matrix->scale,
             matrix->scale2,
             matrix->codebook,
             matrix->map,
             matrix->offset};
    int blocks = sk_blocks(count, TILE * (THREADS / SK_WARP));
    bf16 *to = reinterpret_cast<bf16 *>(out);
    if (matrix->format == SK_FORMAT_NF4)
        expand_nf4<false><<<blocks, THREADS, 0, ctx->cuda->stream>>>(to, m, first, count);
    else
        expand_nf4<true><<<blocks, THREADS, 0, ctx->cuda->stream>>>(to, m, first, count);
    SK_LAUNCHED("expand_nf4", err);
    return SF_OK;
}

/* ---- float32 and float16 ---- */

static __device__ __forceinline__ float widen(float x)
{
    return x;
}

static __device__ __forceinline__ float widen(__half x)
{
    return __half2float(x);
}

/* 8 elements a thread, in 16-byte pieces. */
template <typename T>
static __global__ void round_vectors(bf16 *out, const T *in, int64_t count, int64_t stride)
{
    int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * SK_VECTOR;
    if (at >= count)
        return;
    uint4 raw[SK_VECTOR * sizeof(T) / sizeof(uint4)];
    const uint4 *from = reinterpret_cast<const uint4 *>(in + blockIdx.y * stride + at);
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++)
        raw[i] = from[i];
    float value[SK_VECTOR];
    for (int i = 0; i < SK_VECTOR; i++)
        value[i] = widen(reinterpret_cast<const T *>(raw)[i]);
    sk_store8(out + blockIdx.y * count + at, value);
}

template <typename T>
static __global__ void round_elements(bf16 *out, const T *in, int64_t count, int64_t stride)
{
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at < count)
        out[blockIdx.y * count + at] = __float2bfloat16_rn(widen(in[blockIdx.y * stride + at]));
}

template <typename T>
static int launch_round(struct sk_ctx *ctx, uint16_t *out, const T *in, int64_t groups,
                        int64_t count, int64_t stride, struct sf_err *err)
{
    bf16 *to = reinterpret_cast<bf16 *>(out);
    bool on16 = (reinterpret_cast<uintptr_t>(in) | reinterpret_cast<uintptr_t>(out)) % 16 == 0;
    bool vectors = on16 && count % SK_VECTOR == 0 && (groups == 1 || stride % SK_VECTOR == 0);
    dim3 grid(sk_blocks(count, vectors ? THREADS * SK_VECTOR : THREADS), (unsigned)groups);
    if (vectors)
        round_vectors<T><<<grid, THREADS, 0, ctx->cuda->stream>>>(to, in, count, stride);
    else
        round_elements<T><<<grid, THREADS, 0, ctx->cuda->stream>>>(to, in, count, stride);
    SK_LAUNCHED("round", err);
    return SF_OK;
}

/* ---- what others call ---- */

int sk_round_cuda(struct sk_ctx *ctx, uint16_t *out, const float *in, int64_t groups, int64_t count,
                  int64_t stride, struct sf_err *err)
{
    return launch_round(ctx, out, in, groups, count, stride, err);
}

int sk_matrix_expand_cuda(struct sk_ctx *ctx, uint16_t *out, const struct sk_matrix *matrix,
                          int64_t first, int64_t count, struct sf_err *err)
{
    switch (matrix->format) {
    case SK_FORMAT_F32:
        return launch_round(ctx, out, static_cast<const float *>(matrix->data) + first, 1, count,
                            count, err);
    case SK_FORMAT_F16:
        return launch_round(ctx, out, static_cast<const __half *>(matrix->data) + first, 1, count,
                            count, err);
    case SK_FORMAT_BF16:
        SK_CUDA(cudaMemcpyAsync(out, static_cast<const uint16_t *>(matrix->data) + first,
                                (size_t)count * sizeof *out, cudaMemcpyDeviceToDevice,
                                ctx->cuda->stream),
                err);
        return SF_OK;
    case SK_FORMAT_NF4:
    case SK_FORMAT_NF4_NESTED:
        return launch_nf4(ctx, out, matrix, first, count, err);
    }
    return SF_OK;
}

int sk_matrix_halves_cuda(const uint16_t **out, struct sk_ctx *ctx, uint16_t *scratch,
                          const struct sk_matrix *matrix, int64_t first, int64_t count,
                          struct sf_err *err)
{
    if (matrix->format == SK_FORMAT_BF16) {
        *out = static_cast<const uint16_t *>(matrix->data) + first;
        return SF_OK;
    }
    *out = scratch;
    return sk_matrix_expand_cuda(ctx, scratch, matrix, first, count, err);
}
