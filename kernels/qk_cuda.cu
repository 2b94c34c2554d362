#include "kernels/qk.h"

#include "kernels/cuda_math.cuh"
#include "kernels/cuda_table.h"

/* A block has a row: its sines are made once and serve all heads, each of which has 16 lanes. */
enum { THREADS = 256, LANES = 16, GROUPS = THREADS / LANES };

/* One side (queries or keys) of a forward or a backward. */
struct side {
    bf16 *v;       /* in place: the vectors, or their gradients */
    const bf16 *n; /* backward with norm: the forward's outputs */
    float *rstd;   /* written by the forward, read by the backward */
    int heads;
};
struct care {
    side q, k;
    const int32_t *positions;
    const float *inv_freq;
    int head_size;
    bool rope, norm, temperature;
    float epsilon, temperature_floor, temperature_scale;
};

/* The angle is a float32 product, as in transformers: late positions feel its rounding. */
static __device__ void fill_turn(float2 *turn, const care &c, int position, float direction)
{
    for (int j = threadIdx.x; j < c.head_size / 2; j += THREADS) {
        float sine, cosine;
        sincosf(__fmul_rn((float)position, c.inv_freq[j]), &sine, &cosine);
        turn[j] = make_float2(cosine, direction * sine);
    }
    __syncthreads();
}

static __device__ float temperature_of(const care &c, int position)
{
    if (!c.temperature)
        return 1;
    float steps = floorf(((float)position + 1) / c.temperature_floor);
    return 1 + c.temperature_scale * log1pf(steps);
}

/* W elements: 8 where heads are whole vectors of 16 bytes, else a pair. */
template <int W> static __device__ __forceinline__ void load(float x[W], const bf16 *p)
{
    if constexpr (W == SK_VECTOR) {
        sk_load8(x, p);
    } else {
        float2 two = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(p));
        x[0] = two.x;
        x[1] = two.y;
    }
}

template <int W> static __device__ __forceinline__ void store(bf16 *p, const float x[W])
{
    if constexpr (W == SK_VECTOR)
        sk_store8(p, x);
    else
        *reinterpret_cast<__nv_bfloat162 *>(p) = __floats2bfloat162_rn(x[0], x[1]);
}

template <int W> static __device__ __forceinline__ void rotate(float x[W], const float2 *turn)
{
#pragma unroll
    for (int i = 0; i < W / 2; i++) {
        float a = x[2 * i], b = x[2 * i + 1], c = turn[i].x, s = turn[i].y;
        x[2 * i] = a * c - b * s;
        x[2 * i + 1] = a * s + b * c;
    }
}

static __device__ __forceinline__ float group_sum(float x)
{
#pragma unroll
    for (int step = LANES / 2; step; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

/* sum of v * n over a head; without n: of v^2 (turning changes no square). All lanes call. */
template <int W>
static __device__ float head_sum(const bf16 *v, const bf16 *n, int head_size, bool active)
{
    float sum = 0;
    for (int i = threadIdx.x % LANES * W; active && i < head_size; i += LANES * W) {
        float x[W], y[W];
        load<W>(x, v + i);
        load<W>(y, n ? n + i : v + i);
#pragma unroll
        for (int e = 0; e < W; e++)
            sum += x[e] * y[e];
    }
    return group_sum(sum);
}

/* v = turned factor (v - mean n) */
template <int W>
static __device__ void write_head(bf16 *v, const bf16 *n, float mean, float factor,
                                  const float2 *turn, const care &c)
{
    for (int i = threadIdx.x % LANES * W; i < c.head_size; i += LANES * W) {
        float x[W], y[W];
        load<W>(x, v + i);
        if (n) {
            load<W>(y, n + i);
#pragma unroll
            for (int e = 0; e < W; e++)
                x[e] -= mean * y[e];
        }
#pragma unroll
        for (int e = 0; e < W; e++)
            x[e] *= factor;
        if (c.rope)
            rotate<W>(x, turn + i / 2);
        store<W>(v + i, x);
    }
}

template <int W>
static __device__ __forceinline__ void care_for_head(side s, int64_t head, bool active,
                                                     bool backward, float factor,
                                                     const float2 *turn, const care &c)
{
    bf16 *v = s.v + head * c.head_size;
    const bf16 *n = backward && c.norm ? s.n + head * c.head_size : nullptr;
    float mean = 0;
    if (c.norm) {
        mean = head_sum<W>(v, n, c.head_size, active) / (float)c.head_size;
        if (active && !backward) {
            float rstd = 1 / sqrtf(mean + c.epsilon);
            factor *= rstd;
            if (threadIdx.x % LANES == 0)
                s.rstd[head] = rstd;
        } else if (active) {
            factor *= s.rstd[head];
        }
    }
    if (active)
        write_head<W>(v, n, mean, factor, turn, c);
}

/* Both directions. Norm and turning commute; the backward turns back. */
template <int W>
static __global__ void __launch_bounds__(THREADS) care_kernel(const care c, bool backward)
{
    extern __shared__ float2 turn[]; /* [head_size / 2] */
    int64_t row = blockIdx.x;
    int position = c.rope || c.temperature ? c.positions[row] : 0;
    float temperature = temperature_of(c, position);
    bool keys = c.rope || c.norm;
    if (!keys && temperature == 1)
        return;
    if (c.rope)
        fill_turn(turn, c, position, backward ? -1 : 1);
    int heads = c.q.heads + (keys ? c.k.heads : 0);
    for (int first = 0; first < heads; first += GROUPS) {
        int head = first + threadIdx.x / LANES;
        bool is_q = head < c.q.heads, active = head < heads;
        side s = c.q;
        if (!is_q)
            s = c.k;
        int64_t at = row * s.heads + (is_q ? head : active ? head - c.q.heads : 0);
        care_for_head<W>(s, at, active, backward, is_q ? temperature : 1, turn, c);
    }
}

static care describe(const sk_qk_shape *s, const int32_t *positions, const float *inv_freq)
{
    care c = {};
    c.q.heads = (int)s->heads;
    c.k.heads = (int)s->kv_heads;
    c.positions = positions;
    c.inv_freq = inv_freq;
    c.head_size = (int)s->head_size;
    c.rope = s->rope;
    c.norm = s->norm;
    c.temperature = s->temperature;
    c.epsilon = s->epsilon;
    c.temperature_floor = s->temperature_floor;
    c.temperature_scale = s->temperature_scale;
    return c;
}

static int launch(const care *c, const sk_qk_shape *s, bool backward, sk_ctx *ctx, sf_err *err)
{
    if (!s->rope && !s->norm && !s->temperature)
        return SF_OK;
    if (s->head_size % 2)
        return sf_fail(err, SF_EUNSUPPORTED, "heads of %lld elements: CUDA takes pairs",
                       (long long)s->head_size);
    size_t shared = (size_t)s->head_size / 2 * sizeof(float2);
    if (s->head_size % SK_VECTOR == 0)
        care_kernel<SK_VECTOR>
            <<<(unsigned)s->rows, THREADS, shared, ctx->cuda->stream>>>(*c, backward);
    else
        care_kernel<2><<<(unsigned)s->rows, THREADS, shared, ctx->cuda->stream>>>(*c, backward);
    SK_LAUNCHED(backward ? "qk_backward" : "qk_forward", err);
    return SF_OK;
}

extern "C" int sk_qk_forward_cuda(sk_ctx *ctx, const void *args, sf_err *err)
{
    const sk_qk_forward *a = static_cast<const sk_qk_forward *>(args);
    care c = describe(&a->shape, a->positions, a->inv_freq);
    c.q.v = reinterpret_cast<bf16 *>(a->q);
    c.k.v = reinterpret_cast<bf16 *>(a->k);
    c.q.rstd = a->q_rstd;
    c.k.rstd = a->k_rstd;
    return launch(&c, &a->shape, false, ctx, err);
}

extern "C" int sk_qk_backward_cuda(sk_ctx *ctx, const void *args, sf_err *err)
{
    const sk_qk_backward *a = static_cast<const sk_qk_backward *>(args);
    if (a->shape.norm && a->shape.temperature) /* as on the CPU: q is kept scaled, not normalized */
        return sf_fail(err, SF_EUNSUPPORTED,
                       "query norm and temperature on one layer: Llama 4 has one or the other");
    care c = describe(&a->shape, a->positions, a->inv_freq);
    c.q.v = reinterpret_cast<bf16 *>(a->dq);
    c.k.v = reinterpret_cast<bf16 *>(a->dk);
    c.q.n = reinterpret_cast<const bf16 *>(a->q);
    c.k.n = reinterpret_cast<const bf16 *>(a->k);
    c.q.rstd = const_cast<float *>(a->q_rstd); /* the backward reads them */
    c.k.rstd = const_cast<float *>(a->k_rstd);
    return launch(&c, &a->shape, true, ctx, err);
}
