#include "kernels/route.h"

#include "kernels/cuda_table.h"
#include "kernels/gemm_cuda.h"
#include "kernels/nf4_cuda.h"
#include "kernels/row_cuda.cuh"

/* Logits are one product. Then a stable counting sort without atomics: ranks inside tiles of rows,
 * sums over tiles and experts, and rows move to their places. */
enum {
    TILE = SK_ROUTE_TILE,
    TILE_WARPS = TILE / SK_WARP,
    SCAN_THREADS = 1024,
    MOST_EXPERTS = 1024
};

using room = sk_route_room;

uint64_t sk_route_forward_measure_cuda(const void *args, int threads)
{
    (void)threads;
    return sk_route_lay_out(static_cast<const sk_route_forward *>(args), nullptr).bytes;
}

/* ---- choice ---- */

struct choice {
    float *score;
    int32_t *expert, *rank, *count;
    float *logits;
    const bf16 *lora; /* or NULL */
    int rows, experts, tiles;
    sk_fault *fault;
};

/* The largest logit, the lowest index on a tie; -1 if one is NaN. */
static __device__ int best_expert(const float *logits, int experts)
{
    int best = 0;
    float most = logits[0];
    bool number = most == most;
    for (int e = 1; e < experts; e++) {
        float z = logits[e];
        number = number && z == z;
        if (z > most) {
            most = z;
            best = e;
        }
    }
    return number ? best : -1;
}

/* A thread a row. A row of NaN goes to expert 0, so that every place stays inside. */
static __global__ void __launch_bounds__(TILE) choose(const choice c)
{
    extern __shared__ int32_t warp_count[]; /* [TILE_WARPS, experts] */
    int row = blockIdx.x * TILE + threadIdx.x, expert = -1;
    int lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
    for (int i = threadIdx.x; i < TILE_WARPS * c.experts; i += TILE)
        warp_count[i] = 0;
    if (row < c.rows) {
        float *logits = c.logits + (int64_t)row * c.experts;
        for (int e = 0; c.lora && e < c.experts; e++)
            logits[e] += __bfloat162float(c.lora[(int64_t)row * c.experts + e]);
        expert = best_expert(logits, c.experts);
        if (expert < 0) {
            sk_raise(c.fault, SK_FAULT_ROUTER_NAN, row, 0);
            expert = 0;
        }
        c.expert[row] = expert;
        c.score[row] = 1 / (1 + expf(-logits[expert]));
    }
    unsigned same = __match_any_sync(0xffffffffu, expert);
    int rank = __popc(same & ((1u << lane) - 1));
    __syncthreads(); /* the counts are 0 */
    if (row < c.rows && rank == 0)
        warp_count[warp * c.experts + expert] = __popc(same);
    __syncthreads();
    if (row < c.rows) {
        for (int w = 0; w < warp; w++)
            rank += warp_count[w * c.experts + expert];
        c.rank[row] = rank;
    }
    for (int e = threadIdx.x; e < c.experts; e += TILE) {
        int all = 0;
        for (int w = 0; w < TILE_WARPS; w++)
            all += warp_count[w * c.experts + e];
        c.count[e * c.tiles + blockIdx.x] = all;
    }
}

/* ---- places ---- */

/* Every lane gets the sum up to itself. */
static __device__ __forceinline__ int warp_scan(int x, int lane)
{
#pragma unroll
    for (int step = 1; step < SK_WARP; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, x, step);
        x += lane >= step ? other : 0;
    }
    return x;
}

/* In place: x[i] becomes the sum of those before it. A warp; returns the sum of all. */
static __device__ int scan_list(int32_t *x, int n)
{
    int lane = threadIdx.x % SK_WARP, before = 0;
    for (int base = 0; base < n; base += SK_WARP) {
        int own = base + lane < n ? x[base + lane] : 0;
        int upto = warp_scan(own, lane);
        if (base + lane < n)
            x[base + lane] = before + upto - own;
        before += __shfl_sync(0xffffffffu, upto, SK_WARP - 1);
    }
    return before;
}

/* One thread block: a warp an expert over its tiles, then one warp over the experts. */
static __global__ void __launch_bounds__(SCAN_THREADS)
    sum_counts(int32_t *offsets, int32_t *count, int experts, int tiles)
{
    extern __shared__ int32_t total[]; /* [experts] */
    int lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
    for (int e = warp; e < experts; e += SCAN_THREADS / SK_WARP) {
        int all = scan_list(count + (int64_t)e * tiles, tiles);
        if (lane == 0)
            total[e] = all;
    }
    __syncthreads();
    if (warp == 0) {
        int all = scan_list(total, experts);
        if (lane == 0)
            offsets[experts] = all;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < experts; e += SCAN_THREADS)
        offsets[e] = total[e];
}

/* ---- rows to their places ---- */

struct move {
    bf16 *u;
    int32_t *slot;
    const bf16 *x;
    const float *score;
    const int32_t *expert, *rank, *count, *offsets;
    int64_t hidden;
    int tiles;
};

/* A thread block a row. */
template <int width> static __global__ void move_rows(const move m)
{
    int row = blockIdx.x, expert = m.expert[row];
    int slot = m.offsets[expert] + m.count[expert * m.tiles + row / TILE] + m.rank[row];
    float score = m.score[row];
    if (threadIdx.x == 0)
        m.slot[row] = slot;
    const bf16 *x = m.x + row * m.hidden;
    bf16 *u = m.u + slot * m.hidden;
    for (int64_t i = (int64_t)threadIdx.x * width; i < m.hidden; i += (int64_t)blockDim.x * width) {
        float value[width];
        sk_piece_load<width>(value, x + i);
#pragma unroll
        for (int j = 0; j < width; j++)
            value[j] *= score;
        sk_piece_store<width>(u + i, value);
    }
}

/* ---- forward ---- */

static int make_logits(struct sk_ctx *ctx, const sk_route_forward *a, const room *r, sf_err *err)
{
    sk_gemm g = {};
    int code =
        sk_matrix_halves_cuda(&g.b, ctx, r->router, a->router, 0, a->experts * a->hidden, err);
    if (code)
        return code;
    g.c = a->logits;
    g.a = reinterpret_cast<const uint16_t *>(a->x);
    g.m = a->rows;
    g.n = g.c_stride = a->experts;
    g.k = g.a_stride = g.b_stride = a->hidden;
    g.alpha = 1;
    g.b_turned = g.c_float = true;
    return sk_gemm_cuda(ctx, &g, err);
}

static int choose_experts(struct sk_ctx *ctx, const sk_route_forward *a, const room *r, int tiles,
                          sf_err *err)
{
    int experts = (int)a->experts;
    size_t shared = (size_t)experts * sizeof(int32_t);
    choice c = {a->score,        a->expert, r->rank,
                r->count,        a->logits, reinterpret_cast<const bf16 *>(a->lora),
                (int)a->rows,    experts,   tiles,
                ctx->cuda->fault};
    choose<<<tiles, TILE, TILE_WARPS * shared, ctx->cuda->stream>>>(c);
    SK_LAUNCHED("choose", err);
    sum_counts<<<1, SCAN_THREADS, shared, ctx->cuda->stream>>>(a->offsets, r->count, experts,
                                                               tiles);
    SK_LAUNCHED("sum_counts", err);
    return SF_OK;
}

/* Before the rows move: the host may plan meanwhile. */
static int send_offsets(struct sk_cuda *cuda, const sk_route_forward *a, sf_err *err)
{
    if (!a->host_offsets)
        return SF_OK;
    SK_CUDA(cudaMemcpyAsync(a->host_offsets, a->offsets, (size_t)(a->experts + 1) * sizeof(int32_t),
                            cudaMemcpyDeviceToHost, cuda->stream),
            err);
    SK_CUDA(cudaEventRecord(cuda->counts, cuda->stream), err);
    cuda->counts_pending = true;
    return SF_OK;
}

static int move_all(struct sk_ctx *ctx, const sk_route_forward *a, const room *r, int tiles,
                    sf_err *err)
{
    move m = {reinterpret_cast<bf16 *>(a->u),
              a->slot,
              reinterpret_cast<const bf16 *>(a->x),
              a->score,
              a->expert,
              r->rank,
              r->count,
              a->offsets,
              a->hidden,
              tiles};
    int threads = sk_row_threads(a->hidden);
    if (a->hidden % SK_VECTOR == 0 && sk_on16(a->u) && sk_on16(a->x))
        move_rows<SK_VECTOR><<<(unsigned)a->rows, threads, 0, ctx->cuda->stream>>>(m);
    else
        move_rows<1><<<(unsigned)a->rows, threads, 0, ctx->cuda->stream>>>(m);
    SK_LAUNCHED("move_rows", err);
    return SF_OK;
}

int sk_route_forward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_route_forward *a = static_cast<const sk_route_forward *>(args);
    if (a->experts > MOST_EXPERTS)
        return sf_fail(err, SF_EUNSUPPORTED, "a router under CUDA has at most %d experts, not %lld",
                       (int)MOST_EXPERTS, (long long)a->experts);
    room r = sk_route_lay_out(a, a->workspace);
    int tiles = sk_blocks(a->rows, TILE);
    int code = make_logits(ctx, a, &r, err);
    if (!code)
        code = choose_experts(ctx, a, &r, tiles, err);
    if (!code)
        code = send_offsets(ctx->cuda, a, err);
    return code ? code : move_all(ctx, a, &r, tiles, err);
}

/* ---- backward ---- */

struct backward {
    bf16 *dx, *dz; /* either may be NULL */
    const bf16 *du, *x;
    const float *score;
    const int32_t *expert, *slot;
    sk_weights router;
    int hidden, experts;
};

/* A thread block a row; du stays in registers between the sum over the row and its use. */
template <int width>
static __global__ void __launch_bounds__(SK_ROW_THREADS) route_backward(const backward b)
{
    enum { pieces = sk_row<width>::pieces };
    __shared__ float scratch[SK_WARP + 1];
    int64_t at = (int64_t)blockIdx.x * b.hidden, from = (int64_t)b.slot[blockIdx.x] * b.hidden;
    int64_t row_of_w = (int64_t)b.expert[blockIdx.x] * b.hidden;
    float du[pieces][width], score = b.score[blockIdx.x], sum = 0;
#pragma unroll
    for (int k = 0; k < pieces; k++) {
        int i = (k * (int)blockDim.x + (int)threadIdx.x) * width;
        if (i >= b.hidden)
            break;
        float x[width];
        sk_piece_load<width>(du[k], b.du + from + i);
        sk_piece_load<width>(x, b.x + at + i);
#pragma unroll
        for (int j = 0; j < width; j++)
            sum += du[k][j] * x[j];
    }
    float dz = sk_block_sum(sum, scratch) * score * (1 - score);
    for (int e = threadIdx.x; b.dz && e < b.experts; e += blockDim.x)
        b.dz[(int64_t)blockIdx.x * b.experts + e] =
            __float2bfloat16_rn(e == b.expert[blockIdx.x] ? dz : 0);
    if (!b.dx)
        return;
#pragma unroll
    for (int k = 0; k < pieces; k++) {
        int i = (k * (int)blockDim.x + (int)threadIdx.x) * width;
        if (i >= b.hidden)
            break;
        float w[width], dx[width];
        sk_weights_load<width>(w, b.router, row_of_w + i);
        sk_piece_load<width>(dx, b.dx + at + i);
#pragma unroll
        for (int j = 0; j < width; j++)
            dx[j] += score * du[k][j] + dz * w[j];
        sk_piece_store<width>(b.dx + at + i, dx);
    }
}

int sk_route_backward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_route_backward *a = static_cast<const sk_route_backward *>(args);
    backward b = {reinterpret_cast<bf16 *>(a->dx),
                  reinterpret_cast<bf16 *>(a->dz),
                  reinterpret_cast<const bf16 *>(a->du),
                  reinterpret_cast<const bf16 *>(a->x),
                  a->score,
                  a->expert,
                  a->slot,
                  sk_weights_of(a->router),
                  (int)a->hidden,
                  (int)a->experts};
    int code = sk_row_fits(a->hidden, "route_backward", err);
    if (code || a->rows < 1)
        return code;
    bool vectors = a->hidden % SK_VECTOR == 0 && sk_on16(a->dx) && sk_on16(a->du) &&
                   sk_on16(a->x) && sk_on16(a->router->data);
    unsigned rows = (unsigned)a->rows;
    int threads = sk_row_threads(a->hidden);
    if (vectors)
        route_backward<SK_VECTOR><<<rows, threads, 0, ctx->cuda->stream>>>(b);
    else
        route_backward<1><<<rows, threads, 0, ctx->cuda->stream>>>(b);
    SK_LAUNCHED("route_backward", err);
    return SF_OK;
}

/* ---- combine ---- */

/* A thread block a row. */
template <int width>
static __global__ void add_rows(bf16 *y, const bf16 *shared, const bf16 *routed,
                                const int32_t *slot, int64_t hidden)
{
    int64_t at = blockIdx.x * hidden, from = slot[blockIdx.x] * hidden;
    for (int64_t i = (int64_t)threadIdx.x * width; i < hidden; i += (int64_t)blockDim.x * width) {
        float a[width], b[width];
        sk_piece_load<width>(a, shared + at + i);
        sk_piece_load<width>(b, routed + from + i);
#pragma unroll
        for (int j = 0; j < width; j++)
            a[j] += b[j];
        sk_piece_store<width>(y + at + i, a);
    }
}

template <int width>
static __global__ void sort_rows(bf16 *to, const bf16 *from, const int32_t *slot, int64_t hidden)
{
    int64_t at = blockIdx.x * hidden, place = slot[blockIdx.x] * hidden;
    for (int64_t i = (int64_t)threadIdx.x * width; i < hidden; i += (int64_t)blockDim.x * width)
        sk_piece_copy<width>(to + place + i, from + at + i);
}

int sk_combine_forward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_combine_forward *a = static_cast<const sk_combine_forward *>(args);
    bf16 *y = reinterpret_cast<bf16 *>(a->y);
    const bf16 *shared = reinterpret_cast<const bf16 *>(a->shared);
    const bf16 *routed = reinterpret_cast<const bf16 *>(a->routed);
    if (a->rows < 1)
        return SF_OK;
    bool vectors = a->hidden % SK_VECTOR == 0 && sk_on16(y) && sk_on16(shared) && sk_on16(routed);
    unsigned rows = (unsigned)a->rows;
    int threads = sk_row_threads(a->hidden);
    cudaStream_t stream = ctx->cuda->stream;
    if (vectors)
        add_rows<SK_VECTOR><<<rows, threads, 0, stream>>>(y, shared, routed, a->slot, a->hidden);
    else
        add_rows<1><<<rows, threads, 0, stream>>>(y, shared, routed, a->slot, a->hidden);
    SK_LAUNCHED("add_rows", err);
    return SF_OK;
}

int sk_combine_backward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_combine_backward *a = static_cast<const sk_combine_backward *>(args);
    bf16 *to = reinterpret_cast<bf16 *>(a->d_routed);
    const bf16 *from = reinterpret_cast<const bf16 *>(a->dy);
    if (a->rows < 1)
        return SF_OK;
    bool vectors = a->hidden % SK_VECTOR == 0 && sk_on16(to) && sk_on16(from);
    unsigned rows = (unsigned)a->rows;
    int threads = sk_row_threads(a->hidden);
    if (vectors)
        sort_rows<SK_VECTOR><<<rows, threads, 0, ctx->cuda->stream>>>(to, from, a->slot, a->hidden);
    else
        sort_rows<1><<<rows, threads, 0, ctx->cuda->stream>>>(to, from, a->slot, a->hidden);
    SK_LAUNCHED("sort_rows", err);
    return SF_OK;
}
