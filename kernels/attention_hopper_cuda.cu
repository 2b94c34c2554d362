#include "kernels/attention_cuda_softmax.cuh"
#include "kernels/attention_hopper_tile.cuh"

/* The kernels of attention_forward_cuda.cu and attention_backward_cuda.cu on wgmma: a warpgroup has 64
 * rows, and the tile that it multiplies with is read from shared memory once, not by every warp. */
enum { GROUP = 128, ROWS = SK_TILE_KEYS, STAGES = 2, FORWARD_GROUPS = 2 };

/* What was copied is there for all threads' tensor cores, and nobody is at what came before. */
static __device__ __forceinline__ void meet(void)
{
    sk_copy_wait<0>();
    sk_wgmma_publish();
    __syncthreads();
}

/* ---- forward ---- */

template <int D> struct forward_block {
    bf16 q[FORWARD_GROUPS][ROWS * D];
    struct {
        bf16 k[ROWS * D], v[ROWS * D];
    } stage[STAGES];
};

/* grid: heads, tiles of 128 queries, the last of which, that see most keys, start first. */
template <int D>
static __global__ void __launch_bounds__(FORWARD_GROUPS *GROUP, 1)
    forward_kernel(const sk_attention_tensors t)
{
#if SK_HOPPER_CODE
    constexpr int THREADS = FORWARD_GROUPS * GROUP, QUERIES = FORWARD_GROUPS * ROWS;
    extern __shared__ __align__(1024) unsigned char shared[];
    forward_block<D> &block = *reinterpret_cast<forward_block<D> *>(shared);
    int head = blockIdx.x, first = (gridDim.y - 1 - blockIdx.y) * QUERIES;
    int kv_head = head / (t.heads / t.kv_heads), thread = threadIdx.x, group = thread / GROUP;
    sk_tile_source q = sk_tile_of(t.q, t.heads, head, t);
    sk_tile_source k = sk_tile_of(t.k, t.kv_heads, kv_head, t);
    sk_tile_source v = sk_tile_of(t.v, t.kv_heads, kv_head, t);
    int row = first + thread / SK_WARP * SK_TILE_WARP_ROWS, g = thread % SK_WARP / 4;
    int end = min(first + QUERIES, t.rows), behind = first + (group + 1) * ROWS; /* this group */
    int all_from = t.bounds.lo[min(row + SK_TILE_WARP_ROWS, t.rows) - 1];
    float scale_log2 = t.scale * log2_of_e, s[PARTS][4], o[D / 8][4];
    uint32_t p[SK_TILE_KEYS / 16][4];
    strip state;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        state.most[i] = -INFINITY;
        state.sum[i] = 0;
        state.lo[i] = row + g + 8 * i < t.rows ? t.bounds.lo[row + g + 8 * i] : 0;
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0;
    int key = t.bounds.lo[first];
#pragma unroll
    for (int i = 0; i < FORWARD_GROUPS; i++)
        sk_panel_load<D, THREADS>(block.q[i], q, first + i * ROWS, thread);
    sk_panel_load<D, THREADS>(block.stage[0].k, k, key, thread);
    sk_panel_load<D, THREADS>(block.stage[0].v, v, key, thread);
    sk_copy_commit();
    for (int step = 0; key < end; step++, key += SK_TILE_KEYS) {
        auto &stage = block.stage[step % STAGES], &next = block.stage[(step + 1) % STAGES];
        meet();
        if (key + SK_TILE_KEYS < end) {
            sk_panel_load<D, THREADS>(next.k, k, key + SK_TILE_KEYS, thread);
            sk_panel_load<D, THREADS>(next.v, v, key + SK_TILE_KEYS, thread);
        }
        sk_copy_commit();
        if (key >= behind) /* for all four warps of a group alike */
            continue;
        sk_wgmma_begin();
        sk_panel_scores<D>(s, block.q[group], stage.k);
        sk_wgmma_wait<0>();
        sk_wgmma_settle(s);
        if (key + SK_TILE_KEYS - 1 > row || key < all_from)
            mask_strip(s, state, row + g, key);
        soften_strip<D>(s, o, state, scale_log2);
        sk_panel_round(p, s);
        sk_wgmma_begin();
        sk_panel_accumulate<D>(o, p, stage.v);
        sk_wgmma_wait<0>();
        sk_wgmma_settle(o);
        sk_wgmma_settle(p);
    }
    __syncthreads(); /* the queries' place is free for results */
    bf16 *mine = block.q[group] + (row - first - group * ROWS) * D;
    finish_strip<D>(t, head, row, mine, o, state);
#endif
}

/* ---- dk, dv ---- */

template <int D> struct key_block {
    bf16 k[ROWS * D], v[ROWS * D];
    struct {
        bf16 q[ROWS * D], d_o[ROWS * D];
    } stage[STAGES];
    struct {
        float lse[ROWS], delta[ROWS];
    } softmax[STAGES];
};

template <int D>
static __device__ __forceinline__ void
load_queries(key_block<D> &to, int stage, const sk_attention_tensors &t, int head, int first)
{
    int thread = threadIdx.x, row = first + thread % ROWS;
    bool valid = row < t.rows;
    int64_t at = valid ? (int64_t)row * t.heads + head : 0;
    sk_panel_load<D, GROUP>(to.stage[stage].q, sk_tile_of(t.q, t.heads, head, t), first, thread);
    sk_panel_load<D, GROUP>(to.stage[stage].d_o, sk_tile_of(t.d_o, t.heads, head, t), first,
                            thread);
    if (thread < ROWS)
        sk_copy4(&to.softmax[stage].lse[thread % ROWS], t.lse + at, valid);
    else
        sk_copy4(&to.softmax[stage].delta[thread % ROWS], t.delta + at, valid);
}

/* grid: kv heads, tiles of keys, the first of which most queries see. */
template <int D>
static __global__ void __launch_bounds__(GROUP, 2) key_kernel(const sk_attention_tensors t)
{
#if SK_HOPPER_CODE
    extern __shared__ __align__(1024) unsigned char shared[];
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
    int all_until = key + SK_TILE_WARP_ROWS <= t.rows ? t.bounds.hi[key] : 0;
    int steps = (end - first + ROWS - 1) / ROWS * group;
    float scale_log2 = t.scale * log2_of_e;
    float dk[D / 8][4], dv[D / 8][4], p[PARTS][4], dp[PARTS][4];
    uint32_t p_half[PARTS / 2][4], ds_half[PARTS / 2][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            dk[n][i] = dv[n][i] = 0;
    sk_panel_load<D, GROUP>(block.k, k, first, threadIdx.x);
    sk_panel_load<D, GROUP>(block.v, v, first, threadIdx.x);
    load_queries<D>(block, 0, t, kv_head * group, first);
    sk_copy_commit();
    for (int step = 0, head = kv_head * group, query = first; step < steps; step++) {
        auto &stage = block.stage[step % STAGES];
        auto &softmax = block.softmax[step % STAGES];
        int now = query;
        query += ROWS;
        if (query >= end) {
            query = first;
            head++;
        }
        meet();
        if (step + 1 < steps)
            load_queries<D>(block, (step + 1) % STAGES, t, head, query);
        sk_copy_commit();
        sk_wgmma_begin();
        sk_panel_scores<D>(p, block.k, stage.q);
        sk_panel_scores<D>(dp, block.v, stage.d_o);
        sk_wgmma_wait<1>();
        sk_wgmma_settle(p);
        if (now < key + SK_TILE_WARP_ROWS - 1 || now + ROWS > all_until)
            weigh_keys<true>(p, softmax.lse, key + g, now, hi, scale_log2);
        else
            weigh_keys<false>(p, softmax.lse, key + g, now, hi, scale_log2);
        sk_panel_round(p_half, p);
        sk_wgmma_begin();
        sk_panel_accumulate<D>(dv, p_half, stage.d_o);
        sk_wgmma_wait<1>();
        sk_wgmma_settle(dp);
        slope_keys(dp, p, softmax.delta);
        sk_panel_round(ds_half, dp);
        sk_wgmma_begin();
        sk_panel_accumulate<D>(dk, ds_half, stage.q);
        sk_wgmma_wait<0>();
        sk_wgmma_settle(dv);
        sk_wgmma_settle(dk);
        sk_wgmma_settle(p_half);
        sk_wgmma_settle(ds_half);
    }
    __syncthreads(); /* the keys' place is free for results */
    const float scales[2] = {t.scale, t.scale}, ones[2] = {1, 1};
    sk_tile_store<D>(t.dk + (int64_t)kv_head * t.head_size, k, key, block.k, row, dk, scales);
    sk_tile_store<D>(t.dv + (int64_t)kv_head * t.head_size, v, key, block.v, row, dv, ones);
#endif
}

/* ---- dq ---- */

template <int D> struct query_block {
    bf16 q[ROWS * D], d_o[ROWS * D];
    struct {
        bf16 k[ROWS * D], v[ROWS * D];
    } stage[STAGES];
};

/* grid: heads, tiles of queries, the last of which see most keys. */
template <int D>
static __global__ void __launch_bounds__(GROUP, 2) query_kernel(const sk_attention_tensors t)
{
#if SK_HOPPER_CODE
    extern __shared__ __align__(1024) unsigned char shared[];
    query_block<D> &block = *reinterpret_cast<query_block<D> *>(shared);
    int head = blockIdx.x, first = (gridDim.y - 1 - blockIdx.y) * ROWS, thread = threadIdx.x;
    int kv_head = head / (t.heads / t.kv_heads);
    sk_tile_source q = sk_tile_of(t.q, t.heads, head, t), d_o = sk_tile_of(t.d_o, t.heads, head, t);
    sk_tile_source k = sk_tile_of(t.k, t.kv_heads, kv_head, t);
    sk_tile_source v = sk_tile_of(t.v, t.kv_heads, kv_head, t);
    int row = thread / SK_WARP * SK_TILE_WARP_ROWS, query = first + row, g = thread % SK_WARP / 4;
    int lo[2];
    float lse_log2[2], delta[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int r = min(query + g + 8 * i, t.rows - 1);
        lo[i] = t.bounds.lo[r];
        lse_log2[i] = t.lse[(int64_t)r * t.heads + head] * log2_of_e;
        delta[i] = t.delta[(int64_t)r * t.heads + head];
    }
    int key = t.bounds.lo[first], end = min(first + ROWS, t.rows);
    int all_from = t.bounds.lo[min(query + SK_TILE_WARP_ROWS, t.rows) - 1];
    float scale_log2 = t.scale * log2_of_e, dq[D / 8][4], p[PARTS][4], dp[PARTS][4];
    uint32_t ds_half[PARTS / 2][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
        dq[n][0] = dq[n][1] = dq[n][2] = dq[n][3] = 0;
    sk_panel_load<D, GROUP>(block.q, q, first, thread);
    sk_panel_load<D, GROUP>(block.d_o, d_o, first, thread);
    sk_panel_load<D, GROUP>(block.stage[0].k, k, key, thread);
    sk_panel_load<D, GROUP>(block.stage[0].v, v, key, thread);
    sk_copy_commit();
    for (int step = 0; key < end; step++, key += SK_TILE_KEYS) {
        auto &stage = block.stage[step % STAGES], &next = block.stage[(step + 1) % STAGES];
        meet();
        if (key + SK_TILE_KEYS < end) {
            sk_panel_load<D, GROUP>(next.k, k, key + SK_TILE_KEYS, thread);
            sk_panel_load<D, GROUP>(next.v, v, key + SK_TILE_KEYS, thread);
        }
        sk_copy_commit();
        sk_wgmma_begin();
        sk_panel_scores<D>(p, block.q, stage.k);
        sk_panel_scores<D>(dp, block.d_o, stage.v);
        sk_wgmma_wait<1>();
        sk_wgmma_settle(p);
        if (key + SK_TILE_KEYS - 1 > query || key < all_from)
            weigh_queries<true>(p, lse_log2, query + g, key, lo, scale_log2);
        else
            weigh_queries<false>(p, lse_log2, query + g, key, lo, scale_log2);
        sk_wgmma_wait<0>();
        sk_wgmma_settle(dp);
        slope_queries(dp, p, delta);
        sk_panel_round(ds_half, dp);
        sk_wgmma_begin();
        sk_panel_accumulate<D>(dq, ds_half, stage.k);
        sk_wgmma_wait<0>();
        sk_wgmma_settle(dq);
        sk_wgmma_settle(ds_half);
    }
    __syncthreads(); /* the queries' place is free for results */
    const float scales[2] = {t.scale, t.scale};
    sk_tile_store<D>(t.dq + (int64_t)head * t.head_size, q, query, block.q, row, dq, scales);
#endif
}

/* ---- launches ---- */

template <int D>
static int forward_of(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    constexpr int bytes = sizeof(forward_block<D>), threads = FORWARD_GROUPS * GROUP;
    dim3 grid((unsigned)t->heads, (unsigned)sk_blocks(t->rows, FORWARD_GROUPS * ROWS));
    SK_TILE_SHARED(forward_kernel<D>, bytes, err);
    forward_kernel<D><<<grid, threads, bytes, stream>>>(*t);
    SK_LAUNCHED("attention_forward on Hopper", err);
    return SF_OK;
}

template <int D>
static int backward_of(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    constexpr int key_bytes = sizeof(key_block<D>), query_bytes = sizeof(query_block<D>);
    unsigned tiles = (unsigned)sk_blocks(t->rows, ROWS);
    SK_TILE_SHARED(key_kernel<D>, key_bytes, err);
    SK_TILE_SHARED(query_kernel<D>, query_bytes, err);
    key_kernel<D><<<dim3((unsigned)t->kv_heads, tiles), GROUP, key_bytes, stream>>>(*t);
    SK_LAUNCHED("attention_backward of keys on Hopper", err);
    query_kernel<D><<<dim3((unsigned)t->heads, tiles), GROUP, query_bytes, stream>>>(*t);
    SK_LAUNCHED("attention_backward of queries on Hopper", err);
    return SF_OK;
}

bool sk_attention_has_hopper(void)
{
#ifdef SCOUT_SM90A
    return true;
#else
    return false;
#endif
}

int sk_attention_forward_hopper(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    return t->head_size > 64 ? forward_of<128>(t, stream, err) : forward_of<64>(t, stream, err);
}

int sk_attention_backward_hopper(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    return t->head_size > 64 ? backward_of<128>(t, stream, err) : backward_of<64>(t, stream, err);
}
