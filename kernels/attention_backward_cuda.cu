#include "kernels/attention_cuda_softmax.cuh"

/* Two kernels, each owning what it writes, so that nothing is added up in an order that could change:
 * one has 64 keys of a kv head and goes over the queries of its group's heads, one has 64 queries of
 * a head and goes over keys. Both compute the scores again; a warp has 16 rows. */
enum { ROWS = 64, STAGES = 2 };

/* ---- dk, dv ---- */

/* What travels for a step: 64 queries of a head and what is known of their softmax. */
template <int D> struct query_stage {
    bf16 q[ROWS * D], d_o[ROWS * D];
    float lse[ROWS], delta[ROWS];
};
template <int D> struct key_block {
    bf16 k[ROWS * D], v[ROWS * D];
    query_stage<D> stage[STAGES];
};

template <int D>
static __device__ __forceinline__ void
load_queries(query_stage<D> &to, const sk_attention_tensors &t, int head, int first)
{
    sk_tile_load<D, ROWS>(to.q, sk_tile_of(t.q, t.heads, head, t), first);
    sk_tile_load<D, ROWS>(to.d_o, sk_tile_of(t.d_o, t.heads, head, t), first);
    int row = first + threadIdx.x % ROWS;
    bool valid = row < t.rows;
    int64_t at = valid ? (int64_t)row * t.heads + head : 0;
    if (threadIdx.x < ROWS)
        sk_copy4(&to.lse[threadIdx.x % ROWS], t.lse + at, valid);
    else
        sk_copy4(&to.delta[threadIdx.x % ROWS], t.delta + at, valid);
}

/* grid: kv heads, tiles of keys, the first of which most queries see. Scores are formed turned,
 * [keys x queries]: as they come out of one product they go into the next. */
template <int D>
static __global__ void __launch_bounds__(SK_TILE_THREADS, 2)
    key_kernel(const sk_attention_tensors t)
{
    extern __shared__ __align__(128) unsigned char shared[];
    key_block<D> &block = *reinterpret_cast<key_block<D> *>(shared);
    int kv_head = blockIdx.x, first = blockIdx.y * ROWS, group = t.heads / t.kv_heads;
    sk_tile_source k = sk_tile_of(t.k, t.kv_heads, kv_head, t);
    sk_tile_source v = sk_tile_of(t.v, t.kv_heads, kv_head, t);
    int row = threadIdx.x / SK_WARP * SK_TILE_WARP_ROWS, key = first + row;
    int g = threadIdx.x % SK_WARP / 4, hi[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
        hi[i] = key + g + 8 * i < t.rows ? t.bounds.hi[key + g + 8 * i] : 0;
    int end = t.bounds.hi[min(first + ROWS, t.rows) - 1];
    /* of this warp's keys: until where queries see all of them, and any */
    int all_until = key + SK_TILE_WARP_ROWS <= t.rows ? t.bounds.hi[key] : 0;
    int any_until = t.bounds.hi[min(key + SK_TILE_WARP_ROWS, t.rows) - 1];
    int tiles = (end - first + ROWS - 1) / ROWS, steps = tiles * group;
    float scale_log2 = t.scale * log2_of_e;
    float dk[D / 8][4], dv[D / 8][4], p[PARTS][4], dp[PARTS][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            dk[n][i] = dv[n][i] = 0;
    sk_tile_load<D, ROWS>(block.k, k, first);
    sk_tile_load<D, ROWS>(block.v, v, first);
    load_queries<D>(block.stage[0], t, kv_head * group, first);
    sk_copy_commit();
    for (int step = 0, head = kv_head * group, query = first; step < steps; step++) {
        query_stage<D> &stage = block.stage[step % STAGES];
        int now = query;
        query += ROWS;
        if (query >= end) {
            query = first;
            head++;
        }
        sk_copy_wait<0>();
        __syncthreads(); /* the stage is there, and nobody reads the other one any more */
        if (step + 1 < steps)
            load_queries<D>(block.stage[(step + 1) % STAGES], t, head, query);
        sk_copy_commit();
        if (now >= any_until)
            continue;
        sk_tile_scores<D>(p, block.k, row, stage.q);
        if (now < key + SK_TILE_WARP_ROWS - 1 || now + ROWS > all_until)
            weigh_keys<true>(p, stage.lse, key + g, now, hi, scale_log2);
        else
            weigh_keys<false>(p, stage.lse, key + g, now, hi, scale_log2);
        sk_tile_accumulate<D>(dv, p, stage.d_o);
        sk_tile_scores<D>(dp, block.v, row, stage.d_o);
        slope_keys(dp, p, stage.delta);
        sk_tile_accumulate<D>(dk, dp, stage.q);
    }
    const float scales[2] = {t.scale, t.scale}, ones[2] = {1, 1};
    sk_tile_store<D>(t.dk + (int64_t)kv_head * t.head_size, k, key, block.k, row, dk, scales);
    sk_tile_store<D>(t.dv + (int64_t)kv_head * t.head_size, v, key, block.v, row, dv, ones);
}

/* ---- dq ---- */

template <int D> struct query_block {
    bf16 q[ROWS * D], d_o[ROWS * D];
    struct {
        bf16 k[SK_TILE_KEYS * D], v[SK_TILE_KEYS * D];
    } stage[STAGES];
};

/* grid: heads, tiles of queries, the last of which see most keys. */
template <int D>
static __global__ void __launch_bounds__(SK_TILE_THREADS, 2)
    query_kernel(const sk_attention_tensors t)
{
    extern __shared__ __align__(128) unsigned char shared[];
    query_block<D> &block = *reinterpret_cast<query_block<D> *>(shared);
    int head = blockIdx.x, first = (gridDim.y - 1 - blockIdx.y) * ROWS;
    int kv_head = head / (t.heads / t.kv_heads);
    sk_tile_source q = sk_tile_of(t.q, t.heads, head, t), d_o = sk_tile_of(t.d_o, t.heads, head, t);
    sk_tile_source k = sk_tile_of(t.k, t.kv_heads, kv_head, t);
    sk_tile_source v = sk_tile_of(t.v, t.kv_heads, kv_head, t);
    int row = threadIdx.x / SK_WARP * SK_TILE_WARP_ROWS, query = first + row;
    int g = threadIdx.x % SK_WARP / 4, lo[2];
    float lse_log2[2], delta[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int r = min(query + g + 8 * i, t.rows - 1);
        lo[i] = t.bounds.lo[r];
        lse_log2[i] = t.lse[(int64_t)r * t.heads + head] * log2_of_e;
        delta[i] = t.delta[(int64_t)r * t.heads + head];
    }
    int key = t.bounds.lo[first], end = min(first + ROWS, t.rows);
    /* of this warp's queries: from where keys are seen by any of them, and by all that are behind */
    int any_from = t.bounds.lo[min(query, t.rows - 1)];
    int all_from = t.bounds.lo[min(query + SK_TILE_WARP_ROWS, t.rows) - 1];
    float scale_log2 = t.scale * log2_of_e;
    float dq[D / 8][4], p[PARTS][4], dp[PARTS][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        dq[n][0] = dq[n][1] = dq[n][2] = dq[n][3] = 0;
    sk_tile_load<D, ROWS>(block.q, q, first);
    sk_tile_load<D, ROWS>(block.d_o, d_o, first);
    sk_tile_load<D, SK_TILE_KEYS>(block.stage[0].k, k, key);
    sk_tile_load<D, SK_TILE_KEYS>(block.stage[0].v, v, key);
    sk_copy_commit();
    for (int step = 0; key < end; step++, key += SK_TILE_KEYS) {
        auto &stage = block.stage[step % STAGES], &next = block.stage[(step + 1) % STAGES];
        sk_copy_wait<0>();
        __syncthreads(); /* the stage is there, and nobody reads the next one any more */
        if (key + SK_TILE_KEYS < end) {
            sk_tile_load<D, SK_TILE_KEYS>(next.k, k, key + SK_TILE_KEYS);
            sk_tile_load<D, SK_TILE_KEYS>(next.v, v, key + SK_TILE_KEYS);
        }
        sk_copy_commit();
        if (key + SK_TILE_KEYS <= any_from)
            continue;
        sk_tile_scores<D>(p, block.q, row, stage.k);
        if (key + SK_TILE_KEYS - 1 > query || key < all_from)
            weigh_queries<true>(p, lse_log2, query + g, key, lo, scale_log2);
        else
            weigh_queries<false>(p, lse_log2, query + g, key, lo, scale_log2);
        sk_tile_scores<D>(dp, block.d_o, row, stage.v);
        slope_queries(dp, p, delta);
        sk_tile_accumulate<D>(dq, dp, stage.k);
    }
    const float scales[2] = {t.scale, t.scale};
    sk_tile_store<D>(t.dq + (int64_t)head * t.head_size, q, query, block.q, row, dq, scales);
}

template <int D>
static int backward_of(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    constexpr int key_bytes = sizeof(key_block<D>), query_bytes = sizeof(query_block<D>);
    unsigned tiles = (unsigned)sk_blocks(t->rows, ROWS);
    SK_TILE_SHARED(key_kernel<D>, key_bytes, err);
    SK_TILE_SHARED(query_kernel<D>, query_bytes, err);
    key_kernel<D><<<dim3((unsigned)t->kv_heads, tiles), SK_TILE_THREADS, key_bytes, stream>>>(*t);
    SK_LAUNCHED("attention_backward of keys", err);
    query_kernel<D><<<dim3((unsigned)t->heads, tiles), SK_TILE_THREADS, query_bytes, stream>>>(*t);
    SK_LAUNCHED("attention_backward of queries", err);
    return SF_OK;
}

int sk_attention_backward_tiles(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    return t->head_size > 64 ? backward_of<128>(t, stream, err) : backward_of<64>(t, stream, err);
}
