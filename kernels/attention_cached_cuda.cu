#include "kernels/attention_cached.h"

#include "kernels/cuda_math.cuh"
#include "kernels/cuda_table.h"

/* A thread block has one row of one head; its warps take every eighth key, a lane every 32nd element
 * of it. What the warps summed up is put together at the end, in the order of the warps. */
enum { WARPS = 8, LONGEST_HEAD = 256, MOST = LONGEST_HEAD / SK_WARP };

struct cached {
    const bf16 *q, *k, *v;
    bf16 *o, *k_cache, *v_cache;
    const int32_t *positions;
    int64_t room, chunk;
    int heads, kv_heads, head_size;
    float scale;
};

struct partial { /* what a warp has of softmax(q k) v */
    float most, sum;
    float o[LONGEST_HEAD];
};

static __global__ void keep_kernel(const cached c)
{
    int64_t position = (int64_t)c.positions[0] + blockIdx.x,
            width = (int64_t)c.kv_heads * c.head_size;
    if (position >= c.room)
        return;
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
        c.k_cache[position * width + i] = c.k[blockIdx.x * width + i];
        c.v_cache[position * width + i] = c.v[blockIdx.x * width + i];
    }
}

static __device__ __forceinline__ void load_row(float out[MOST], const bf16 *p, int size, int lane)
{
#pragma unroll
    for (int i = 0; i < MOST; i++)
        out[i] = lane + SK_WARP * i < size ? __bfloat162float(p[lane + SK_WARP * i]) : 0;
}

/* Keys first + warp, first + warp + WARPS, ... up to position. */
static __device__ void walk_keys(partial *out, const cached &c, const bf16 *query, int64_t first,
                                 int64_t position, int64_t offset)
{
    int warp = threadIdx.x / SK_WARP, lane = threadIdx.x % SK_WARP, size = c.head_size;
    int64_t width = (int64_t)c.kv_heads * size;
    float q[MOST], x[MOST], o[MOST] = {}, most = -INFINITY, sum = 0;
    load_row(q, query, size, lane);
    for (int64_t j = first + warp; j <= position; j += WARPS) {
        load_row(x, c.k_cache + j * width + offset, size, lane);
        float score = 0;
#pragma unroll
        for (int i = 0; i < MOST; i++)
            score += q[i] * x[i];
        score = c.scale * sk_warp_sum(score);
        float larger = fmaxf(most, score), shrink = expf(most - larger), p = expf(score - larger);
        load_row(x, c.v_cache + j * width + offset, size, lane);
#pragma unroll
        for (int i = 0; i < MOST; i++)
            o[i] = o[i] * shrink + p * x[i];
        sum = sum * shrink + p;
        most = larger;
    }
#pragma unroll
    for (int i = 0; i < MOST; i++)
        out[warp].o[lane + SK_WARP * i] = o[i];
    if (lane == 0) {
        out[warp].most = most;
        out[warp].sum = sum;
    }
}

static __global__ void attend_kernel(const cached c)
{
    __shared__ partial part[WARPS];
    int64_t row = blockIdx.x / c.heads, position = (int64_t)c.positions[0] + row;
    int head = (int)(blockIdx.x % c.heads), kv_head = head / (c.heads / c.kv_heads);
    int64_t mine = (row * c.heads + head) * c.head_size;
    int64_t first = c.chunk > 0 ? position / c.chunk * c.chunk : 0;
    if (position < c.room)
        walk_keys(part, c, c.q + mine, first, position, (int64_t)kv_head * c.head_size);
    __syncthreads();
    int e = threadIdx.x;
    if (e >= c.head_size)
        return;
    float most = -INFINITY, sum = 0, o = 0;
    for (int w = 0; w < WARPS && position < c.room; w++)
        most = fmaxf(most, part[w].most);
    for (int w = 0; w < WARPS && position < c.room; w++) {
        float share = expf(part[w].most - most); /* 0 for a warp without keys */
        sum += share * part[w].sum;
        o += share * part[w].o[e];
    }
    c.o[mine + e] = __float2bfloat16(sum > 0 ? o / sum : 0);
}

int sk_attention_cached_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_attention_cached *a = static_cast<const sk_attention_cached *>(args);
    if (a->head_size > LONGEST_HEAD)
        return sf_fail(err, SF_EUNSUPPORTED, "heads of %lld elements; CUDA attends with up to %d",
                       (long long)a->head_size, (int)LONGEST_HEAD);
    if (a->rows < 1)
        return SF_OK;
    cached c = {};
    c.q = reinterpret_cast<const bf16 *>(a->q);
    c.k = reinterpret_cast<const bf16 *>(a->k);
    c.v = reinterpret_cast<const bf16 *>(a->v);
    c.o = reinterpret_cast<bf16 *>(a->o);
    c.k_cache = reinterpret_cast<bf16 *>(a->k_cache);
    c.v_cache = reinterpret_cast<bf16 *>(a->v_cache);
    c.positions = a->positions;
    c.room = a->room;
    c.chunk = a->chunk;
    c.heads = (int)a->heads;
    c.kv_heads = (int)a->kv_heads;
    c.head_size = (int)a->head_size;
    c.scale = a->scale;
    keep_kernel<<<(unsigned)a->rows, WARPS * SK_WARP, 0, ctx->cuda->stream>>>(c);
    SK_LAUNCHED("keep_kernel", err);
    attend_kernel<<<(unsigned)(a->rows * a->heads), WARPS * SK_WARP, 0, ctx->cuda->stream>>>(c);
    SK_LAUNCHED("attend_kernel", err);
    return SF_OK;
}
