/* attention_cuda_softmax.cuh -- what happens to scores between two products, in the registers that
 * products leave them in: 16 rows a warp, PARTS pieces of 8 columns, a thread has rows g and g + 8. */
#ifndef SCOUT_KERNELS_ATTENTION_CUDA_SOFTMAX_CUH
#define SCOUT_KERNELS_ATTENTION_CUDA_SOFTMAX_CUH

#include "kernels/attention_cuda_tile.cuh"

enum { PARTS = SK_TILE_KEYS / 8 };
static constexpr float log2_of_e = 1.44269504088896341f;

/* ---- forward ---- */

/* Online softmax of 16 queries. */
struct strip {
    float most[2], sum[2]; /* largest score so far; this thread's share of sum exp */
    int lo[2];
};

static __device__ __forceinline__ void mask_strip(float s[PARTS][4], const strip &state, int row,
                                                  int key)
{
    int t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < PARTS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int j = key + 8 * n + 2 * t + i % 2;
            if (j > row + 8 * (i / 2) || j < state.lo[i / 2])
                s[n][i] = -INFINITY;
        }
}

/* s becomes exp(scale (s - most)); what was summed before is scaled to the new `most`. */
template <int D>
static __device__ __forceinline__ void soften_strip(float s[PARTS][4], float o[D / 8][4],
                                                    strip &state, float scale_log2)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float most = state.most[i];
#pragma unroll
        for (int n = 0; n < PARTS; n++)
            most = fmaxf(most, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
        float base = most == -INFINITY ? 0 : most * scale_log2; /* a row that has seen no key yet */
        float shrink = sk_exp2(state.most[i] * scale_log2 - base), sum = state.sum[i] * shrink;
        state.most[i] = most;
#pragma unroll
        for (int n = 0; n < PARTS; n++) {
            s[n][2 * i] = sk_exp2(s[n][2 * i] * scale_log2 - base);
            s[n][2 * i + 1] = sk_exp2(s[n][2 * i + 1] * scale_log2 - base);
            sum += s[n][2 * i] + s[n][2 * i + 1];
        }
        state.sum[i] = sum;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            o[n][2 * i] *= shrink;
            o[n][2 * i + 1] *= shrink;
        }
    }
}

/* Divides by the sum, which four threads share, and writes o and lse of a strip. */
template <int D>
static __device__ __forceinline__ void finish_strip(const sk_attention_tensors &t, int head,
                                                    int row, bf16 *tile, const float o[D / 8][4],
                                                    const strip &state)
{
    int lane = threadIdx.x % SK_WARP;
    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = state.sum[i];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        factor[i] = 1 / sum;
        int r = row + lane / 4 + 8 * i;
        if (lane % 4 == 0 && r < t.rows)
            t.lse[(int64_t)r * t.heads + head] = state.most[i] * t.scale + logf(sum);
    }
    sk_tile_source to = sk_tile_of(t.o, t.heads, head, t);
    sk_tile_store<D>(t.o + (int64_t)head * t.head_size, to, row, tile, 0, o, factor);
}

/* ---- backward ---- */

/* s[keys x queries] becomes p = exp(scale s - lse), 0 where the query does not see the key. */
template <bool MASKED>
static __device__ __forceinline__ void weigh_keys(float s[PARTS][4], const float *lse, int key,
                                                  int query, const int hi[2], float scale_log2)
{
    int t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < PARTS; n++) {
        float2 two = *reinterpret_cast<const float2 *>(lse + 8 * n + 2 * t);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int column = query + 8 * n + 2 * t + i % 2;
            float p = sk_exp2(s[n][i] * scale_log2 - (i % 2 ? two.y : two.x) * log2_of_e);
            bool sees = !MASKED || (column >= key + 8 * (i / 2) && column < hi[i / 2]);
            s[n][i] = sees ? p : 0;
        }
    }
}

/* dp becomes ds = p (dp - delta). */
static __device__ __forceinline__ void slope_keys(float dp[PARTS][4], const float p[PARTS][4],
                                                  const float *delta)
{
    int t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < PARTS; n++) {
        float2 two = *reinterpret_cast<const float2 *>(delta + 8 * n + 2 * t);
#pragma unroll
        for (int i = 0; i < 4; i++)
            dp[n][i] = p[n][i] * (dp[n][i] - (i % 2 ? two.y : two.x));
    }
}

/* s[queries x keys] becomes p. */
template <bool MASKED>
static __device__ __forceinline__ void weigh_queries(float s[PARTS][4], const float lse_log2[2],
                                                     int query, int key, const int lo[2],
                                                     float scale_log2)
{
    int t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < PARTS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int column = key + 8 * n + 2 * t + i % 2;
            float p = sk_exp2(s[n][i] * scale_log2 - lse_log2[i / 2]);
            bool sees = !MASKED || (column <= query + 8 * (i / 2) && column >= lo[i / 2]);
            s[n][i] = sees ? p : 0;
        }
}

/* dp[queries x keys] becomes ds. */
static __device__ __forceinline__ void slope_queries(float dp[PARTS][4], const float p[PARTS][4],
                                                     const float delta[2])
{
#pragma unroll
    for (int n = 0; n < PARTS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            dp[n][i] = p[n][i] * (dp[n][i] - delta[i / 2]);
}

#endif
