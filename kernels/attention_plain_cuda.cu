#include "kernels/attention_cuda.h"

/* Heads that tensor cores do not fit: a warp has one row, a lane every 32nd element of it. */
enum { WARPS = 4, MOST = SK_ATTENTION_LONGEST_HEAD / SK_WARP };

struct row_of_head {
    int64_t row;
    int head, lane;
};

/* The row of heads that this warp has; false behind the last. */
static __device__ __forceinline__ bool find_row(row_of_head &at, int rows, int heads)
{
    int64_t warp = (int64_t)blockIdx.x * WARPS + threadIdx.x / SK_WARP;
    at = {warp / heads, (int)(warp % heads), (int)threadIdx.x % SK_WARP};
    return at.row < rows;
}

static __device__ __forceinline__ void load_row(float out[MOST], const bf16 *p, int size, int lane)
{
#pragma unroll
    for (int i = 0; i < MOST; i++)
        out[i] = lane + SK_WARP * i < size ? __bfloat162float(p[lane + SK_WARP * i]) : 0;
}

static __device__ __forceinline__ void store_row(bf16 *p, const float in[MOST], float factor,
                                                 int size, int lane)
{
#pragma unroll
    for (int i = 0; i < MOST; i++)
        if (lane + SK_WARP * i < size)
            p[lane + SK_WARP * i] = __float2bfloat16(factor * in[i]);
}

static __device__ __forceinline__ float dot(const float a[MOST], const float b[MOST])
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < MOST; i++)
        sum += a[i] * b[i];
    return sk_warp_sum(sum);
}

static __device__ __forceinline__ void add(float to[MOST], float factor, const float x[MOST])
{
#pragma unroll
    for (int i = 0; i < MOST; i++)
        to[i] += factor * x[i];
}

static __device__ __forceinline__ int64_t place(int64_t row, int heads, int head, int head_size)
{
    return (row * heads + head) * head_size;
}

static __global__ void forward_kernel(const sk_attention_tensors t)
{
    row_of_head at;
    if (!find_row(at, t.rows, t.heads))
        return;
    int size = t.head_size, kv_head = at.head / (t.heads / t.kv_heads);
    int64_t mine = place(at.row, t.heads, at.head, size);
    float q[MOST], x[MOST], o[MOST] = {}, most = -INFINITY, sum = 0;
    load_row(q, t.q + mine, size, at.lane);
    for (int64_t j = t.bounds.lo[at.row]; j <= at.row; j++) {
        load_row(x, t.k + place(j, t.kv_heads, kv_head, size), size, at.lane);
        float score = t.scale * dot(q, x), larger = fmaxf(most, score);
        float shrink = expf(most - larger), p = expf(score - larger);
#pragma unroll
        for (int i = 0; i < MOST; i++)
            o[i] *= shrink;
        sum = sum * shrink + p;
        most = larger;
        load_row(x, t.v + place(j, t.kv_heads, kv_head, size), size, at.lane);
        add(o, p, x);
    }
    store_row(t.o + mine, o, 1 / sum, size, at.lane);
    if (at.lane == 0)
        t.lse[at.row * t.heads + at.head] = most + logf(sum);
}

/* p and ds of a query and a key, from their rows. */
struct pull {
    float p, ds;
};
static __device__ __forceinline__ pull pull_of(const sk_attention_tensors &t, int64_t softmax,
                                               const float q[MOST], const float k[MOST],
                                               const float d_o[MOST], const float v[MOST])
{
    float p = expf(t.scale * dot(q, k) - t.lse[softmax]);
    return {p, p * (dot(d_o, v) - t.delta[softmax])};
}

static __global__ void query_kernel(const sk_attention_tensors t)
{
    row_of_head at;
    if (!find_row(at, t.rows, t.heads))
        return;
    int size = t.head_size, kv_head = at.head / (t.heads / t.kv_heads);
    int64_t mine = place(at.row, t.heads, at.head, size);
    float q[MOST], d_o[MOST], k[MOST], v[MOST], dq[MOST] = {};
    load_row(q, t.q + mine, size, at.lane);
    load_row(d_o, t.d_o + mine, size, at.lane);
    for (int64_t j = t.bounds.lo[at.row]; j <= at.row; j++) {
        load_row(k, t.k + place(j, t.kv_heads, kv_head, size), size, at.lane);
        load_row(v, t.v + place(j, t.kv_heads, kv_head, size), size, at.lane);
        add(dq, pull_of(t, at.row * t.heads + at.head, q, k, d_o, v).ds, k);
    }
    store_row(t.dq + mine, dq, t.scale, size, at.lane);
}

static __global__ void key_kernel(const sk_attention_tensors t)
{
    row_of_head at;
    if (!find_row(at, t.rows, t.kv_heads))
        return;
    int size = t.head_size, group = t.heads / t.kv_heads;
    int64_t mine = place(at.row, t.kv_heads, at.head, size);
    float q[MOST], d_o[MOST], k[MOST], v[MOST], dk[MOST] = {}, dv[MOST] = {};
    load_row(k, t.k + mine, size, at.lane);
    load_row(v, t.v + mine, size, at.lane);
    for (int head = at.head * group; head < (at.head + 1) * group; head++)
        for (int64_t i = at.row; i < t.bounds.hi[at.row]; i++) {
            load_row(q, t.q + place(i, t.heads, head, size), size, at.lane);
            load_row(d_o, t.d_o + place(i, t.heads, head, size), size, at.lane);
            pull both = pull_of(t, i * t.heads + head, q, k, d_o, v);
            add(dv, both.p, d_o);
            add(dk, both.ds, q);
        }
    store_row(t.dk + mine, dk, t.scale, size, at.lane);
    store_row(t.dv + mine, dv, 1, size, at.lane);
}

int sk_attention_forward_plain(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    int blocks = sk_blocks((int64_t)t->rows * t->heads, WARPS);
    forward_kernel<<<blocks, WARPS * SK_WARP, 0, stream>>>(*t);
    SK_LAUNCHED("attention_forward, plain", err);
    return SF_OK;
}

int sk_attention_backward_plain(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    int blocks = sk_blocks((int64_t)t->rows * t->heads, WARPS);
    int key_blocks = sk_blocks((int64_t)t->rows * t->kv_heads, WARPS);
    key_kernel<<<key_blocks, WARPS * SK_WARP, 0, stream>>>(*t);
    SK_LAUNCHED("attention_backward of keys, plain", err);
    query_kernel<<<blocks, WARPS * SK_WARP, 0, stream>>>(*t);
    SK_LAUNCHED("attention_backward of queries, plain", err);
    return SF_OK;
}
