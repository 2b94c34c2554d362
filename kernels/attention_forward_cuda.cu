#include "kernels/attention_cuda_softmax.cuh"

/* A block has 128 queries of one head, a warp 32 of them as two strips of 16: each fragment of keys
 * or values that is read from shared memory then serves two products, without which reading would
 * take longer than the products. */
enum { QUERIES = 128, STRIPS = 2, STAGES = 2, WARP_QUERIES = STRIPS * SK_TILE_WARP_ROWS };

template <int D>
static __device__ __forceinline__ void score_strips(float s[STRIPS][PARTS][4], bf16 *queries,
                                                    bf16 *keys)
{
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
#pragma unroll
        for (int n = 0; n < PARTS; n++)
            s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t a[STRIPS][4];
#pragma unroll
        for (int m = 0; m < STRIPS; m++)
            sk_tile_a<D>(a[m], queries, SK_TILE_WARP_ROWS * m, k);
#pragma unroll
        for (int n = 0; n < PARTS / 2; n++) {
            uint32_t b[4];
            sk_tile_b<D>(b, keys, 16 * n, k);
#pragma unroll
            for (int m = 0; m < STRIPS; m++) {
                sk_mma(s[m][2 * n], a[m], b);
                sk_mma(s[m][2 * n + 1], a[m], b + 2);
            }
        }
    }
}

template <int D>
static __device__ __forceinline__ void add_values(float o[STRIPS][D / 8][4],
                                                  const float p[STRIPS][PARTS][4], bf16 *values)
{
#pragma unroll
    for (int k = 0; k < PARTS / 2; k++) {
        uint32_t a[STRIPS][4];
#pragma unroll
        for (int m = 0; m < STRIPS; m++)
            sk_tile_round(a[m], p[m][2 * k], p[m][2 * k + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            sk_tile_b_plain<D>(b, values, 16 * k, n);
#pragma unroll
            for (int m = 0; m < STRIPS; m++) {
                sk_mma(o[m][2 * n], a[m], b);
                sk_mma(o[m][2 * n + 1], a[m], b + 2);
            }
        }
    }
}

/* What travels for a step. */
template <int D> struct key_stage {
    bf16 k[SK_TILE_KEYS * D], v[SK_TILE_KEYS * D];
};
template <int D> struct forward_block {
    bf16 q[QUERIES * D];
    key_stage<D> stage[STAGES];
};

template <int D>
static __device__ __forceinline__ void load_keys(key_stage<D> &to, const sk_attention_tensors &t,
                                                 int kv_head, int first)
{
    sk_tile_load<D, SK_TILE_KEYS>(to.k, sk_tile_of(t.k, t.kv_heads, kv_head, t), first);
    sk_tile_load<D, SK_TILE_KEYS>(to.v, sk_tile_of(t.v, t.kv_heads, kv_head, t), first);
}

/* grid: heads, tiles of queries, the last of which, that see most keys, start first. */
template <int D>
static __global__ void __launch_bounds__(SK_TILE_THREADS, 2)
    forward_kernel(const sk_attention_tensors t)
{
    extern __shared__ __align__(128) unsigned char shared[];
    forward_block<D> &block = *reinterpret_cast<forward_block<D> *>(shared);
    int head = blockIdx.x, first = (gridDim.y - 1 - blockIdx.y) * QUERIES;
    int kv_head = head / (t.heads / t.kv_heads), warp = threadIdx.x / SK_WARP;
    int row = first + warp * WARP_QUERIES, g = threadIdx.x % SK_WARP / 4;
    int end = min(first + QUERIES, t.rows), last = min(row + WARP_QUERIES, t.rows) - 1;
    /* of this warp's queries: from where keys are seen by any of them, and by all that are behind */
    int any_from = t.bounds.lo[min(row, t.rows - 1)], all_from = t.bounds.lo[last];
    float scale_log2 = t.scale * log2_of_e;
    float s[STRIPS][PARTS][4], o[STRIPS][D / 8][4];
    strip state[STRIPS];
#pragma unroll
    for (int m = 0; m < STRIPS; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int r = row + SK_TILE_WARP_ROWS * m + g + 8 * i;
            state[m].most[i] = -INFINITY;
            state[m].sum[i] = 0;
            state[m].lo[i] = r < t.rows ? t.bounds.lo[r] : 0;
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            o[m][n][0] = o[m][n][1] = o[m][n][2] = o[m][n][3] = 0;
    }
    int key = t.bounds.lo[first];
    bf16 *mine = block.q + warp * WARP_QUERIES * D;
    sk_tile_load<D, QUERIES>(block.q, sk_tile_of(t.q, t.heads, head, t), first);
    load_keys<D>(block.stage[0], t, kv_head, key);
    sk_copy_commit();
    for (int step = 0; key < end; step++, key += SK_TILE_KEYS) {
        key_stage<D> &stage = block.stage[step % STAGES];
        sk_copy_wait<0>();
        __syncthreads(); /* the stage is there, and nobody reads the other one any more */
        if (key + SK_TILE_KEYS < end)
            load_keys<D>(block.stage[(step + 1) % STAGES], t, kv_head, key + SK_TILE_KEYS);
        sk_copy_commit();
        if (key > last || key + SK_TILE_KEYS <= any_from)
            continue;
        score_strips<D>(s, mine, stage.k);
#pragma unroll
        for (int m = 0; m < STRIPS; m++) {
            if (key + SK_TILE_KEYS - 1 > row + SK_TILE_WARP_ROWS * m || key < all_from)
                mask_strip(s[m], state[m], row + SK_TILE_WARP_ROWS * m + g, key);
            soften_strip<D>(s[m], o[m], state[m], scale_log2);
        }
        add_values<D>(o, s, stage.v);
    }
#pragma unroll
    for (int m = 0; m < STRIPS; m++)
        finish_strip<D>(t, head, row + SK_TILE_WARP_ROWS * m, mine + SK_TILE_WARP_ROWS * m * D,
                        o[m], state[m]);
}

template <int D>
static int forward_of(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    constexpr int bytes = sizeof(forward_block<D>);
    dim3 grid((unsigned)t->heads, (unsigned)sk_blocks(t->rows, QUERIES));
    SK_TILE_SHARED(forward_kernel<D>, bytes, err);
    forward_kernel<D><<<grid, SK_TILE_THREADS, bytes, stream>>>(*t);
    SK_LAUNCHED("attention_forward", err);
    return SF_OK;
}

int sk_attention_forward_tiles(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err)
{
    return t->head_size > 64 ? forward_of<128>(t, stream, err) : forward_of<64>(t, stream, err);
}
