#include "kernels/head_lora_cuda.h"

#include "kernels/cuda_math.cuh"
#include "kernels/dropout.h"
#include "kernels/gemm_cuda.h"
#include "kernels/nf4_cuda.h"

enum { THREADS = 256 };

static const uint16_t *halves(const sk_half *p)
{
    return reinterpret_cast<const uint16_t *>(p);
}

/* ---- dropout: counted where a row stands among all, whichever chunk it is in ---- */

struct drop {
    sk_dropout dropout;
    uint32_t site;
    const int32_t *index;
    int64_t first, hidden;
};

/* f(column, factor) for a row of the chunk; its threads share the quads that a draw decides. */
template <class F> static __device__ __forceinline__ void each_factor(const drop &d, F f)
{
    int64_t start = (d.index ? d.index[blockIdx.x] : d.first + blockIdx.x) * d.hidden;
    for (int64_t quad = start / 4 + threadIdx.x; 4 * quad < start + d.hidden; quad += THREADS) {
        float factor[4];
        sk_dropout_factors(factor, d.dropout, d.site, (uint64_t)quad);
        for (int i = 0; i < 4; i++) {
            int64_t column = 4 * quad + i - start;
            if (column >= 0 && column < d.hidden)
                f(column, factor[i]);
        }
    }
}

static __global__ void __launch_bounds__(THREADS) drop_x(bf16 *out, const bf16 *x, const drop d)
{
    int64_t at = blockIdx.x * d.hidden;
    each_factor(d, [=](int64_t column, float factor) {
        out[at + column] = __float2bfloat16_rn(factor * __bfloat162float(x[at + column]));
    });
}

static __global__ void __launch_bounds__(THREADS)
    add_dropped(float *dx, const float *from, const drop d)
{
    int64_t at = blockIdx.x * d.hidden;
    each_factor(
        d, [=](int64_t column, float factor) { dx[at + column] += factor * from[at + column]; });
}

static drop drop_of(const sk_head_chunk *c)
{
    return {*c->a->dropout, c->a->site, c->index, c->first, c->a->hidden};
}

/* What A gets. */
static const uint16_t *input_of(const sk_head_chunk *c)
{
    return halves(c->a->dropout ? c->r->dropped : c->x);
}

/* ---- forward ---- */

int sk_head_lora_begin(sk_ctx *ctx, const sk_head_loss *a, const sk_head_loss_room *r, sf_err *err)
{
    int code = sk_round_cuda(ctx, r->a, a->a, 1, a->rank * a->hidden, 0, err);
    return code ? code : sk_round_cuda(ctx, r->b, a->b, 1, a->vocabulary * a->rank, 0, err);
}

int sk_head_lora_logits(const sk_head_chunk *c, float *z, sf_err *err)
{
    const sk_head_loss *a = c->a;
    if (a->dropout) {
        drop_x<<<(unsigned)c->rows, THREADS, 0, c->ctx->cuda->stream>>>(c->r->dropped, c->x,
                                                                        drop_of(c));
        SK_LAUNCHED("drop_x", err);
    }
    sk_gemm down = {}, up = {};
    down.c = c->r->t;
    down.a = input_of(c);
    down.b = c->r->a;
    down.c_stride = down.n = a->rank;
    down.a_stride = down.b_stride = down.k = a->hidden;
    down.m = c->rows;
    down.alpha = 1;
    down.b_turned = true;
    up.c = z;
    up.a = halves(c->r->t);
    up.b = c->r->b;
    up.c_stride = up.n = a->vocabulary;
    up.a_stride = up.b_stride = up.k = a->rank;
    up.m = c->rows;
    up.alpha = a->scale;
    up.b_turned = up.c_float = true;
    int code = sk_gemm_cuda(c->ctx, &down, err);
    return code ? code : sk_gemm_cuda(c->ctx, &up, err);
}

/* ---- backward ---- */

struct small { /* [rows, rank] each */
    bf16 *u_half, *u_scaled, *t_scaled;
    const float *u;
    const bf16 *t;
    const float *scale;
    int64_t count;
};

static __global__ void __launch_bounds__(THREADS) round_small(const small s)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= s.count)
        return;
    s.u_half[i] = __float2bfloat16_rn(s.u[i]);
    s.u_scaled[i] = __float2bfloat16_rn(*s.scale * s.u[i]);
    s.t_scaled[i] = __float2bfloat16_rn(*s.scale * __bfloat162float(s.t[i]));
}

/* u = scale * dz B, and what gradient_scale goes into. */
static int make_small(const sk_head_chunk *c, const sk_half *dz, sf_err *err)
{
    const sk_head_loss *a = c->a;
    const sk_head_loss_room *r = c->r;
    sk_gemm g = {};
    g.c = r->u;
    g.a = halves(dz);
    g.b = r->b;
    g.a_stride = 2 * a->vocabulary;
    g.c_stride = g.b_stride = g.n = a->rank;
    g.m = c->rows;
    g.k = a->vocabulary;
    g.alpha = a->scale;
    g.c_float = true;
    int code = sk_gemm_cuda(c->ctx, &g, err);
    if (code)
        return code;
    small s = {r->u_half, r->u_scaled,       r->t_scaled,      r->u,
               r->t,      a->gradient_scale, c->rows * a->rank};
    round_small<<<(unsigned)sk_blocks(s.count, THREADS), THREADS, 0, c->ctx->cuda->stream>>>(s);
    SK_LAUNCHED("round_small", err);
    return SF_OK;
}

/* da += (gradient_scale u)^T x, db += scale * dz^T (gradient_scale t): sums over the chunk's rows. */
static int make_gradients(const sk_head_chunk *c, const sk_half *dz, sf_err *err)
{
    const sk_head_loss *a = c->a;
    sk_gemm da = {}, db = {};
    da.c = a->da;
    da.a = halves(c->r->u_scaled);
    da.b = input_of(c);
    da.c_stride = da.b_stride = da.n = a->hidden;
    da.a_stride = da.m = a->rank;
    da.k = c->rows;
    da.alpha = da.beta = 1;
    da.a_turned = da.c_float = true;
    db.c = a->db;
    db.a = halves(dz);
    db.b = halves(c->r->t_scaled);
    db.a_stride = 2 * a->vocabulary;
    db.c_stride = db.b_stride = db.n = a->rank;
    db.m = a->vocabulary;
    db.k = c->rows;
    db.alpha = a->scale;
    db.beta = 1;
    db.a_turned = db.c_float = true;
    int code = sk_gemm_cuda(c->ctx, &da, err);
    return code ? code : sk_gemm_cuda(c->ctx, &db, err);
}

/* dx += u A, through the factors of a dropout. */
static int add_dx(const sk_head_chunk *c, sf_err *err)
{
    const sk_head_loss *a = c->a;
    sk_gemm g = {};
    g.c = a->dropout ? c->r->lora_dx : c->r->dx;
    g.a = halves(c->r->u_half);
    g.b = c->r->a;
    g.c_stride = g.b_stride = g.n = a->hidden;
    g.a_stride = g.k = a->rank;
    g.m = c->rows;
    g.alpha = 1;
    g.beta = a->dropout ? 0 : 1;
    g.c_float = true;
    int code = sk_gemm_cuda(c->ctx, &g, err);
    if (code || !a->dropout)
        return code;
    add_dropped<<<(unsigned)c->rows, THREADS, 0, c->ctx->cuda->stream>>>(c->r->dx, c->r->lora_dx,
                                                                         drop_of(c));
    SK_LAUNCHED("add_dropped", err);
    return SF_OK;
}

int sk_head_lora_gradients(const sk_head_chunk *c, const sk_half *dz, sf_err *err)
{
    int code = make_small(c, dz, err);
    if (!code)
        code = make_gradients(c, dz, err);
    return code || !c->a->dx ? code : add_dx(c, err);
}
