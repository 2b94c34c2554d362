#include "kernels/attention_cuda.h"

#include "kernels/cuda_table.h"

enum { THREADS = 256, DOT_LANES = 16 };

/* ---- who sees whom ---- */

/* Whatever the documents say, lo[row] <= row and row < hi[row] <= rows: nothing is read outside. */
static __device__ void find_bounds(int32_t *lo, int32_t *hi, const int32_t *documents,
                                   int document_count, int chunk, int rows, int row)
{
    int below = 0,
        above = document_count; /* the document begins at or before row, in [below, above) */
    while (above - below > 1) {
        int middle = below + (above - below) / 2;
        if (documents[middle] <= row)
            below = middle;
        else
            above = middle;
    }
    int64_t start = documents[below], end = documents[below + 1];
    if (chunk > 0) {
        start += ((int64_t)row - start) / chunk * chunk;
        end = min(end, start + chunk);
    }
    lo[row] = (int32_t)max((int64_t)0, min(start, (int64_t)row));
    hi[row] = (int32_t)max((int64_t)row + 1, min(end, (int64_t)rows));
}

/* A thread a row, and a thread a document: they have to cover 0 .. rows in order. */
static __global__ void bounds_kernel(int32_t *lo, int32_t *hi, const int32_t *documents,
                                     int document_count, int chunk, int rows, int64_t longest,
                                     sk_fault *fault)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < rows)
        find_bounds(lo, hi, documents, document_count, chunk, rows, i);
    if (i >= document_count)
        return;
    int64_t length = (int64_t)documents[i + 1] - documents[i];
    bool outside = (i == 0 && documents[0] != 0) ||
                   (i == document_count - 1 && documents[document_count] != rows);
    if (length < 0 || length > longest || outside)
        sk_raise(fault, SK_FAULT_DOCUMENTS, i, documents[i + 1]);
}

/* ---- <do, o> ---- */

/* 16 lanes a head of a row. */
static __global__ void delta_kernel(float *delta, const bf16 *d_o, const bf16 *o, int64_t heads,
                                    int head_size)
{
    int64_t item = (int64_t)blockIdx.x * (THREADS / DOT_LANES) + threadIdx.x / DOT_LANES;
    int lane = threadIdx.x % DOT_LANES;
    float sum = 0;
    if (item < heads) {
        const bf16 *a = d_o + item * head_size, *b = o + item * head_size;
        if (head_size % SK_VECTOR == 0) {
            for (int i = lane * SK_VECTOR; i < head_size; i += DOT_LANES * SK_VECTOR) {
                float x[SK_VECTOR], y[SK_VECTOR];
                sk_load8(x, a + i);
                sk_load8(y, b + i);
#pragma unroll
                for (int e = 0; e < SK_VECTOR; e++)
                    sum += x[e] * y[e];
            }
        } else {
            for (int i = lane; i < head_size; i += DOT_LANES)
                sum += __bfloat162float(a[i]) * __bfloat162float(b[i]);
        }
    }
#pragma unroll
    for (int step = DOT_LANES / 2; step; step /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (item < heads && lane == 0)
        delta[item] = sum;
}

/* ---- ops ---- */

typedef int run_fn(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err);

static int check_shape(const sk_attention_shape *s, sf_err *err)
{
    if (s->head_size > SK_ATTENTION_LONGEST_HEAD)
        return sf_fail(err, SF_EUNSUPPORTED, "heads of %lld elements: CUDA takes %d at most",
                       (long long)s->head_size, SK_ATTENTION_LONGEST_HEAD);
    return SF_OK;
}

static int run_best(const sk_attention_tensors *t, const sk_cuda *cuda, run_fn *hopper,
                    run_fn *tiles, run_fn *plain, sf_err *err)
{
    if (t->head_size % SK_VECTOR || t->head_size > 128)
        return plain(t, cuda->stream, err);
    bool wgmma = cuda->wgmma && cuda->major == 9 && sk_attention_has_hopper();
    return (wgmma ? hopper : tiles)(t, cuda->stream, err);
}

using room = sk_attention_room;

static int run_bounds(const room *r, sk_ctx *ctx, const sk_attention_shape *s,
                      const int32_t *documents, sf_err *err)
{
    int64_t chunk = s->chunk < s->rows ? s->chunk : 0; /* a longer one never ends */
    int blocks = sk_blocks(s->rows > s->documents ? s->rows : s->documents, THREADS);
    bounds_kernel<<<blocks, THREADS, 0, ctx->cuda->stream>>>(
        r->lo, r->hi, documents, (int)s->documents, (int)chunk, (int)s->rows, s->longest,
        ctx->cuda->fault);
    SK_LAUNCHED("attention bounds", err);
    return SF_OK;
}

static sk_attention_tensors describe(const sk_attention_shape *s, const room *r)
{
    sk_attention_tensors t = {};
    t.delta = r->delta;
    t.bounds = {r->lo, r->hi};
    t.rows = (int)s->rows;
    t.heads = (int)s->heads;
    t.kv_heads = (int)s->kv_heads;
    t.head_size = (int)s->head_size;
    t.scale = s->scale;
    return t;
}

static const bf16 *in(const sk_act *p)
{
    return reinterpret_cast<const bf16 *>(p);
}

static bf16 *out(sk_act *p)
{
    return reinterpret_cast<bf16 *>(p);
}

extern "C" uint64_t sk_attention_forward_measure_cuda(const void *args, int threads)
{
    (void)threads;
    return sk_attention_lay_out(&static_cast<const sk_attention_forward *>(args)->shape, nullptr,
                                false)
        .bytes;
}

extern "C" int sk_attention_forward_cuda(sk_ctx *ctx, const void *args, sf_err *err)
{
    const sk_attention_forward *a = static_cast<const sk_attention_forward *>(args);
    const sk_attention_shape *s = &a->shape;
    room r = sk_attention_lay_out(s, a->workspace, false);
    int code = check_shape(s, err);
    if (!code)
        code = run_bounds(&r, ctx, s, a->documents, err);
    if (code)
        return code;
    sk_attention_tensors t = describe(s, &r);
    t.q = in(a->q);
    t.k = in(a->k);
    t.v = in(a->v);
    t.o = out(a->o);
    t.lse = a->lse;
    return run_best(&t, ctx->cuda, sk_attention_forward_hopper, sk_attention_forward_tiles,
                    sk_attention_forward_plain, err);
}

extern "C" uint64_t sk_attention_backward_measure_cuda(const void *args, int threads)
{
    (void)threads;
    return sk_attention_lay_out(&static_cast<const sk_attention_backward *>(args)->shape, nullptr,
                                true)
        .bytes;
}

extern "C" int sk_attention_backward_cuda(sk_ctx *ctx, const void *args, sf_err *err)
{
    const sk_attention_backward *a = static_cast<const sk_attention_backward *>(args);
    const sk_attention_shape *s = &a->shape;
    room r = sk_attention_lay_out(s, a->workspace, true);
    int code = check_shape(s, err);
    if (!code)
        code = run_bounds(&r, ctx, s, a->documents, err);
    if (code)
        return code;
    int64_t heads = s->rows * s->heads;
    delta_kernel<<<sk_blocks(heads, THREADS / DOT_LANES), THREADS, 0, ctx->cuda->stream>>>(
        r.delta, in(a->d_o), in(a->o), heads, (int)s->head_size);
    SK_LAUNCHED("attention delta", err);
    sk_attention_tensors t = describe(s, &r);
    t.q = in(a->q);
    t.k = in(a->k);
    t.v = in(a->v);
    t.d_o = in(a->d_o);
    t.lse = const_cast<float *>(a->lse); /* read only here */
    t.dq = out(a->dq);
    t.dk = out(a->dk);
    t.dv = out(a->dv);
    return run_best(&t, ctx->cuda, sk_attention_backward_hopper, sk_attention_backward_tiles,
                    sk_attention_backward_plain, err);
}
