#include "kernels/head_loss.h"

#include <assert.h>

#include "kernels/cuda_math.cuh"
#include "kernels/cuda_table.h"
#include "kernels/gemm_cuda.h"
#include "kernels/head_lora_cuda.h"
#include "kernels/nf4_cuda.h"

enum { LIST_THREADS = 1024, COPY_THREADS = 256, SOFTMAX_THREADS = 1024, SUM_TILE = 1024 };

using room = sk_head_loss_room;

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

uint64_t sk_head_loss_measure_cuda(const void *args, int threads)
{
    (void)threads;
    return sk_head_loss_lay_out(static_cast<const sk_head_loss *>(args), nullptr).bytes;
}

/* ---- rows with a target ---- */

/* index = the rows whose target is not SK_IGNORE_INDEX, in order. One thread block. */
static __global__ void list_rows(int32_t *index, const int32_t *targets, int64_t rows)
{
    __shared__ int warp_count[LIST_THREADS / SK_WARP];
    int lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP;
    int64_t listed = 0;
    for (int64_t base = 0; base < rows; base += LIST_THREADS) {
        int64_t row = base + threadIdx.x;
        bool wanted = row < rows && targets[row] != SK_IGNORE_INDEX;
        unsigned votes = __ballot_sync(0xffffffffu, wanted);
        if (lane == 0)
            warp_count[warp] = __popc(votes);
        __syncthreads();
        int before = 0, all = 0;
        for (int i = 0; i < LIST_THREADS / SK_WARP; i++) {
            before += i < warp ? warp_count[i] : 0;
            all += warp_count[i];
        }
        if (wanted)
            index[listed + before + __popc(votes & ((1u << lane) - 1))] = (int32_t)row;
        listed += all;
        __syncthreads(); /* the counts are read before they are written again */
    }
}

/* to[i] = from[index[i]]; a thread block a row. */
template <int width>
static __global__ void gather_rows(bf16 *to, const bf16 *from, const int32_t *index, int64_t hidden)
{
    const bf16 *source = from + index[blockIdx.x] * hidden;
    bf16 *row = to + blockIdx.x * hidden;
    for (int64_t i = (int64_t)threadIdx.x * width; i < hidden; i += COPY_THREADS * width) {
        if constexpr (width == SK_VECTOR)
            *reinterpret_cast<uint4 *>(row + i) = *reinterpret_cast<const uint4 *>(source + i);
        else
            row[i] = source[i];
    }
}

/* to[index[i]] = scale * from[i], rounded; without an index rows stay in order. */
static __global__ void scatter_rows(bf16 *to, const float *from, const int32_t *index,
                                    const float *scale, int64_t hidden)
{
    int64_t place = index ? index[blockIdx.x] : blockIdx.x;
    const float *source = from + blockIdx.x * hidden;
    for (int64_t i = threadIdx.x; i < hidden; i += COPY_THREADS)
        to[place * hidden + i] = __float2bfloat16_rn(*scale * source[i]);
}

/* ---- softmax, loss and gradient of a row ---- */

struct softmax {
    const float *z; /* [rows, vocabulary] */
    bf16 *dz;       /* rows 2 * vocabulary apart: may be z itself; NULL: not wanted */
    int64_t vocabulary, first;
    const int32_t *index, *targets;
    float *token_loss;
    double *loss;
    sk_fault *fault;
};

template <int width> static __device__ __forceinline__ void load(float out[], const float *p)
{
    if constexpr (width == 1) {
        out[0] = *p;
    } else {
#pragma unroll
        for (int i = 0; i < width; i += 4) {
            float4 four = *reinterpret_cast<const float4 *>(p + i);
            out[i] = four.x, out[i + 1] = four.y, out[i + 2] = four.z, out[i + 3] = four.w;
        }
    }
}

template <int width> static __device__ __forceinline__ void store(bf16 *p, const float in[])
{
    if constexpr (width == 1)
        *p = __float2bfloat16_rn(in[0]);
    else
        sk_store8(p, in);
}

/* The largest of a row and the sum of exp(z - largest): every thread gets both. */
template <int width>
static __device__ __forceinline__ void row_sum(float *largest, float *sum, const float *z,
                                               int64_t vocabulary, float *scratch)
{
    float most = -INFINITY, s = 0;
    for (int64_t i = (int64_t)threadIdx.x * width; i < vocabulary; i += SOFTMAX_THREADS * width) {
        float value[width], top = most;
        load<width>(value, z + i);
        for (int j = 0; j < width; j++)
            top = fmaxf(top, value[j]);
        if (top > most) {
            s *= expf(most - top);
            most = top;
        }
        for (int j = 0; j < width; j++)
            s += expf(value[j] - most);
    }
    *largest = sk_block_max(most, scratch);
    /* A thread that saw nothing has s = 0; one that saw NaN alone must pass it on. */
    *sum = sk_block_sum(most == -INFINITY ? s : s * expf(most - *largest), scratch);
}

/* d logits = over * exp(z - largest), but `hit` at the target: without gradient_scale, so that the
 * -1 of a target that was not foreseen is exact in bfloat16. It may lie on the logits: step k reads
 * floats [k n, (k + 1) n) and writes over [k n / 2, (k + 1) n / 2), which steps up to k have read;
 * hence the barrier between the two. over = 0: zeros, whatever z is. */
template <int width>
static __device__ __forceinline__ void row_gradient(bf16 *dz, const float *z, int64_t vocabulary,
                                                    float largest, float over, int64_t target,
                                                    float hit)
{
    const int64_t n = SOFTMAX_THREADS * width;
    for (int64_t base = 0; base < vocabulary; base += n) {
        int64_t i = base + (int64_t)threadIdx.x * width;
        float value[width];
        if (i < vocabulary) {
            load<width>(value, z + i);
            for (int j = 0; j < width; j++) {
                float p = over == 0 ? 0 : expf(value[j] - largest) * over;
                value[j] = i + j == target ? hit : p;
            }
        }
        __syncthreads();
        if (i < vocabulary)
            store<width>(dz + i, value);
    }
}

/* A thread block a row. */
template <int width>
static __global__ void __launch_bounds__(SOFTMAX_THREADS) softmax_rows(const softmax s)
{
    __shared__ float scratch[SK_WARP + 1];
    int64_t row = s.index ? s.index[s.first + blockIdx.x] : s.first + blockIdx.x;
    int64_t target = s.targets[row];
    const float *z = s.z + blockIdx.x * s.vocabulary;
    bf16 *dz = s.dz ? s.dz + 2 * (blockIdx.x * s.vocabulary) : nullptr;
    bool outside = target != SK_IGNORE_INDEX && (target < 0 || target >= s.vocabulary);
    if (outside && threadIdx.x == 0)
        sk_raise(s.fault, SK_FAULT_TARGET, (int)row, target);
    if (outside || target == SK_IGNORE_INDEX) {
        if (threadIdx.x == 0) {
            s.token_loss[row] = 0;
            s.loss[row] = 0;
        }
        if (dz)
            row_gradient<width>(dz, z, s.vocabulary, 0, 0, -1, 0);
        return;
    }
    float wanted = z[target], largest, sum; /* all threads: read before anything is written */
    row_sum<width>(&largest, &sum, z, s.vocabulary, scratch);
    if (threadIdx.x == 0) {
        double loss = log((double)sum) + (double)largest - (double)wanted;
        s.loss[row] = loss;
        s.token_loss[row] = (float)loss;
    }
    if (!dz)
        return;
    float hit = (expf(wanted - largest) - sum) / sum; /* p - 1, without losing what is left of it */
    row_gradient<width>(dz, z, s.vocabulary, largest, 1 / sum, target, hit);
}

/* float64, in row order, by one thread; the block brings the numbers near. */
static __global__ void sum_losses(double *loss, const double *row_loss, int64_t rows)
{
    __shared__ double tile[SUM_TILE];
    double sum = 0;
    for (int64_t base = 0; base < rows; base += SUM_TILE) {
        int64_t n = rows - base < SUM_TILE ? rows - base : (int64_t)SUM_TILE;
        if (threadIdx.x < n)
            tile[threadIdx.x] = row_loss[base + threadIdx.x];
        __syncthreads();
        for (int i = 0; threadIdx.x == 0 && i < n; i++)
            sum += tile[i];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        *loss = sum;
}

/* ---- a chunk ---- */

struct run {
    sk_ctx *ctx;
    const sk_head_loss *a;
    room r;
    const int32_t *index; /* rows with a target; NULL: all rows, in order */
    bool whole;           /* the head is one slice, at `head` */
    const uint16_t *head;
};

/* Rows first .. first + n of the head as bfloat16. */
static int take_slice(const uint16_t **out, const run *s, int64_t first, int64_t n, sf_err *err)
{
    if (s->whole) {
        *out = s->head;
        return SF_OK;
    }
    return sk_matrix_halves_cuda(out, s->ctx, s->r.head, s->a->head, first * s->a->hidden,
                                 n * s->a->hidden, err);
}

static int64_t slice_of(const run *s)
{
    return s->whole ? s->a->vocabulary : s->r.slice;
}

static int make_logits(const run *s, float *z, const bf16 *x, int64_t rows, sf_err *err)
{
    const sk_head_loss *a = s->a;
    int code = SF_OK;
    for (int64_t first = 0; !code && first < a->vocabulary; first += slice_of(s)) {
        sk_gemm g = {};
        g.n = least(slice_of(s), a->vocabulary - first);
        code = take_slice(&g.b, s, first, g.n, err);
        g.c = z + first;
        g.a = reinterpret_cast<const uint16_t *>(x);
        g.c_stride = a->vocabulary;
        g.a_stride = g.b_stride = g.k = a->hidden;
        g.m = rows;
        g.alpha = 1;
        g.beta = a->a ? 1 : 0; /* what LoRA makes is there */
        g.b_turned = g.c_float = true;
        code = code ? code : sk_gemm_cuda(s->ctx, &g, err);
    }
    return code;
}

/* dx of the chunk in float32, not scaled: there slices of the head add up, and LoRA. */
static int make_dx(const run *s, const bf16 *dz, int64_t rows, sf_err *err)
{
    const sk_head_loss *a = s->a;
    int code = SF_OK;
    for (int64_t first = 0; !code && first < a->vocabulary; first += slice_of(s)) {
        sk_gemm g = {};
        g.k = least(slice_of(s), a->vocabulary - first);
        code = take_slice(&g.b, s, first, g.k, err);
        g.c = s->r.dx;
        g.a = reinterpret_cast<const uint16_t *>(dz + first);
        g.a_stride = 2 * a->vocabulary;
        g.c_stride = g.b_stride = g.n = a->hidden;
        g.m = rows;
        g.alpha = 1;
        g.beta = first ? 1 : 0;
        g.c_float = true;
        code = code ? code : sk_gemm_cuda(s->ctx, &g, err);
    }
    return code;
}

/* The scale, which only the device knows, is applied before the one rounding. */
static int put_dx(const run *s, int64_t chunk, int64_t rows, sf_err *err)
{
    const sk_head_loss *a = s->a;
    bf16 *out = reinterpret_cast<bf16 *>(a->dx) + (s->index ? 0 : chunk * a->hidden);
    scatter_rows<<<(unsigned)rows, COPY_THREADS, 0, s->ctx->cuda->stream>>>(
        out, s->r.dx, s->index ? s->index + chunk : nullptr, a->gradient_scale, a->hidden);
    SK_LAUNCHED("scatter_rows", err);
    return SF_OK;
}

static int take_x(const bf16 **x, const run *s, int64_t chunk, int64_t rows, sf_err *err)
{
    const sk_head_loss *a = s->a;
    const bf16 *from = reinterpret_cast<const bf16 *>(a->x);
    *x = s->index ? s->r.x : from + chunk * a->hidden;
    if (!s->index)
        return SF_OK;
    cudaStream_t stream = s->ctx->cuda->stream;
    const int32_t *index = s->index + chunk;
    if (a->hidden % SK_VECTOR == 0)
        gather_rows<SK_VECTOR>
            <<<(unsigned)rows, COPY_THREADS, 0, stream>>>(s->r.x, from, index, a->hidden);
    else
        gather_rows<1><<<(unsigned)rows, COPY_THREADS, 0, stream>>>(s->r.x, from, index, a->hidden);
    SK_LAUNCHED("gather_rows", err);
    return SF_OK;
}

static int backward_chunk(const run *s, const sk_head_chunk *c, const bf16 *dz, sf_err *err)
{
    int code = s->a->dx ? make_dx(s, dz, c->rows, err) : SF_OK;
    if (!code && s->a->da)
        code = sk_head_lora_gradients(c, dz, err);
    return code || !s->a->dx ? code : put_dx(s, c->first, c->rows, err);
}

static int run_chunk(const run *s, int64_t chunk, int64_t rows, sf_err *err)
{
    const sk_head_loss *a = s->a;
    float *z = a->logits ? a->logits + chunk * a->vocabulary : s->r.logits;
    bf16 *dz = a->dx || a->da ? reinterpret_cast<bf16 *>(s->r.logits) : nullptr;
    softmax f = {z,
                 dz,
                 a->vocabulary,
                 chunk,
                 s->index,
                 a->targets,
                 a->token_loss,
                 s->r.loss,
                 s->ctx->cuda->fault};
    sk_head_chunk c = {s->ctx, a,   &s->r, nullptr, s->index ? s->index + chunk : nullptr,
                       chunk,  rows};
    int code = take_x(&c.x, s, chunk, rows, err);
    if (!code && a->a)
        code = sk_head_lora_logits(&c, z, err);
    if (!code)
        code = make_logits(s, z, c.x, rows, err);
    if (code)
        return code;
    cudaStream_t stream = s->ctx->cuda->stream;
    if (a->vocabulary % SK_VECTOR == 0)
        softmax_rows<SK_VECTOR><<<(unsigned)rows, SOFTMAX_THREADS, 0, stream>>>(f);
    else
        softmax_rows<1><<<(unsigned)rows, SOFTMAX_THREADS, 0, stream>>>(f);
    SK_LAUNCHED("softmax_rows", err);
    return dz ? backward_chunk(s, &c, dz, err) : SF_OK;
}

/* ---- all ---- */

/* Counts the rows with a target; the same sentence as the CPU's for one outside. */
static int count_targets(int64_t *out, const sk_head_loss *a, sf_err *err)
{
    *out = 0;
    for (int64_t r = 0; r < a->rows; r++) {
        int32_t target = a->host_targets[r];
        if (target == SK_IGNORE_INDEX)
            continue;
        if (target < 0 || target >= a->vocabulary)
            return sf_fail(err, SF_EINVAL,
                           "label %d at position %lld is outside the vocabulary of %lld", target,
                           (long long)r, (long long)a->vocabulary);
        (*out)++;
    }
    return SF_OK;
}

/* Only rows with a target will be worked on: the others' results are there already. */
static int prepare_listed(run *s, sf_err *err)
{
    const sk_head_loss *a = s->a;
    cudaStream_t stream = s->ctx->cuda->stream;
    s->index = s->r.index;
    SK_CUDA(cudaMemsetAsync(a->token_loss, 0, (size_t)a->rows * 4, stream), err);
    SK_CUDA(cudaMemsetAsync(s->r.loss, 0, (size_t)a->rows * 8, stream), err);
    if (a->dx)
        SK_CUDA(cudaMemsetAsync(a->dx, 0, (size_t)(a->rows * a->hidden) * 2, stream), err);
    list_rows<<<1, LIST_THREADS, 0, stream>>>(s->r.index, a->targets, a->rows);
    SK_LAUNCHED("list_rows", err);
    return SF_OK;
}

static int prepare_head(run *s, sf_err *err)
{
    const sk_head_loss *a = s->a;
    s->whole = a->head->format == SK_FORMAT_BF16 || s->r.slice == a->vocabulary;
    if (!s->whole)
        return SF_OK;
    return sk_matrix_halves_cuda(&s->head, s->ctx, s->r.head, a->head, 0, a->vocabulary * a->hidden,
                                 err);
}

int sk_head_loss_cuda(sk_ctx *ctx, const void *args, sf_err *err)
{
    const sk_head_loss *a = static_cast<const sk_head_loss *>(args);
    assert(!a->a || !a->dx || a->da); /* dx would lack LoRA's part */
    run s = {ctx, a, sk_head_loss_lay_out(a, a->workspace), nullptr, false, nullptr};
    int64_t rows = a->rows;
    int code = a->host_targets ? count_targets(&rows, a, err) : SF_OK;
    if (!code && a->logits)
        rows = a->rows;
    if (!code && rows < a->rows)
        code = prepare_listed(&s, err);
    if (!code && rows)
        code = prepare_head(&s, err);
    if (!code && rows && a->a)
        code = sk_head_lora_begin(ctx, a, &s.r, err);
    for (int64_t chunk = 0; !code && chunk < rows; chunk += s.r.rows)
        code = run_chunk(&s, chunk, least(s.r.rows, rows - chunk), err);
    if (code)
        return code;
    sum_losses<<<1, SUM_TILE, 0, ctx->cuda->stream>>>(a->loss, s.r.loss, a->rows);
    SK_LAUNCHED("sum_losses", err);
    return SF_OK;
}
