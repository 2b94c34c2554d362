#include "kernels/adamw_8bit.h"

#include "kernels/adamw_maps.h"
#include "kernels/cuda_math.cuh"
#include "kernels/cuda_table.h"

/* A warp a block of 256, 8 numbers a lane: the largest of a block needs no more than shuffles. */
enum { THREADS = 256, WARPS = THREADS / SK_WARP, EACH = SK_ADAMW_BLOCK / SK_WARP, BLOCKS_EACH = 6 };

static __device__ const float m_map[256] = {SK_ADAMW_M_MAP}, v_map[256] = {SK_ADAMW_V_MAP};

struct update {
    float *parameter;
    uint8_t *m, *v;
    float *m_scale, *v_scale;
    const float *grad, *clip;
    const sk_adamw_hyper *hyper;
    int64_t count;
    double beta1, beta2, epsilon, weight_decay;
};

struct factors {
    float clip, beta1, rest1, beta2, rest2, step_size, epsilon, decay;
};

/* In shared memory: searches of a warp's lanes go different ways. */
struct tables {
    factors f;
    float m_map[256], v_map[256], m_middle[256], v_middle[256];
};

static __device__ void make_tables(tables *t, const update &u)
{
    int i = threadIdx.x;
    t->m_map[i] = m_map[i];
    t->v_map[i] = v_map[i];
    t->m_middle[i] = i < 255 ? __fmul_rn(__fadd_rn(m_map[i], m_map[i + 1]), 0.5f) : INFINITY;
    t->v_middle[i] = i < 255 ? __fmul_rn(__fadd_rn(v_map[i], v_map[i + 1]), 0.5f) : INFINITY;
    if (i == 0) {
        double lr = u.hyper->learning_rate, step = (double)u.hyper->step;
        double root = sqrt(1 - pow(u.beta2, step));
        t->f = {*u.clip,
                (float)u.beta1,
                (float)(1 - u.beta1),
                (float)u.beta2,
                (float)(1 - u.beta2),
                (float)(lr * root / (1 - pow(u.beta1, step))),
                (float)(root * u.epsilon),
                (float)(1 - lr * u.weight_decay)};
    }
    __syncthreads();
}
static_assert(THREADS == 256, "a thread an entry of the maps");

/* As the CPU's, to the bit, here and below. */
static __device__ __forceinline__ int nearest(float x, const float *middle)
{
    int code = 0;
#pragma unroll
    for (int step = 128; step; step /= 2)
        if (middle[code + step - 1] < x)
            code += step;
    return code + ((code & 1) && middle[code] == x); /* the last middle is no number's */
}

static __device__ __forceinline__ uint8_t store_m(float m, float scale, const tables &t)
{
    int code = nearest(__fdiv_rn(m, scale), t.m_middle);
    if (!signbit(t.m_map[code]) != !signbit(m))
        code += m > 0 ? 1 : -1;
    return (uint8_t)code;
}

static __device__ __forceinline__ void step_one(float *p, float *m, float *v, float grad,
                                                const factors &f)
{
    float g = __fmul_rn(grad, f.clip);
    if (!isfinite(g)) {
        *m = *v = 0;
        return;
    }
    *m = __fadd_rn(__fmul_rn(*m, f.beta1), __fmul_rn(f.rest1, g));
    *v = __fadd_rn(__fmul_rn(*v, f.beta2), __fmul_rn(__fmul_rn(f.rest2, g), g));
    float share = __fdiv_rn(*m, __fadd_rn(__fsqrt_rn(*v), f.epsilon));
    *p = __fmul_rn(__fsub_rn(*p, __fmul_rn(f.step_size, share)), f.decay);
}

/* ---- 8 numbers of a lane ---- */

template <bool whole>
static __device__ __forceinline__ void load_floats(float out[EACH], const float *p, int left)
{
    if constexpr (whole) {
        float4 a = reinterpret_cast<const float4 *>(p)[0];
        float4 b = reinterpret_cast<const float4 *>(p)[1];
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
        out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            out[i] = i < left ? p[i] : 0;
    }
}

template <bool whole>
static __device__ __forceinline__ void store_floats(float *p, const float in[EACH], int left)
{
    if constexpr (whole) {
        reinterpret_cast<float4 *>(p)[0] = make_float4(in[0], in[1], in[2], in[3]);
        reinterpret_cast<float4 *>(p)[1] = make_float4(in[4], in[5], in[6], in[7]);
    } else {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (i < left)
                p[i] = in[i];
    }
}

/* Codes as a word; those that are not there: 0. */
template <bool whole>
static __device__ __forceinline__ uint64_t load_codes(const uint8_t *p, int left)
{
    uint64_t word = 0;
    if constexpr (whole) {
        word = *reinterpret_cast<const uint64_t *>(p);
    } else {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            word |= i < left ? (uint64_t)p[i] << (8 * i) : 0;
    }
    return word;
}

template <bool whole>
static __device__ __forceinline__ void store_codes(uint8_t *p, uint64_t word, int left)
{
    if constexpr (whole) {
        *reinterpret_cast<uint64_t *>(p) = word;
    } else {
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (i < left)
                p[i] = (uint8_t)(word >> (8 * i));
    }
}

/* `left`: of the lane's 8, those that are there; the others count as zeros, which no largest sees. */
template <bool whole>
static __device__ __forceinline__ void step_block(const update &u, const tables &t, int64_t block,
                                                  int64_t at, int left)
{
    float p[EACH], g[EACH], m[EACH], v[EACH], m_most = 0, v_most = 0;
    load_floats<whole>(p, u.parameter + at, left);
    load_floats<whole>(g, u.grad + at, left);
    uint64_t m_codes = load_codes<whole>(u.m + at, left),
             v_codes = load_codes<whole>(u.v + at, left);
    float m_scale = u.m_scale[block], v_scale = u.v_scale[block];
    __syncwarp(); /* all lanes have the scales before one writes them */
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        m[i] = __fmul_rn(t.m_map[(m_codes >> (8 * i)) & 255], m_scale);
        v[i] = __fmul_rn(t.v_map[(v_codes >> (8 * i)) & 255], v_scale);
        step_one(&p[i], &m[i], &v[i], g[i], t.f);
        if (whole || i < left) {
            m_most = fmaxf(m_most, fabsf(m[i]));
            v_most = fmaxf(v_most, fabsf(v[i]));
        }
    }
    m_most = sk_warp_max(m_most);
    v_most = sk_warp_max(v_most);
    m_codes = v_codes = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        m_codes |= (uint64_t)store_m(m[i], m_most, t) << (8 * i);
        v_codes |= (uint64_t)nearest(__fdiv_rn(v[i], v_most), t.v_middle) << (8 * i);
    }
    store_floats<whole>(u.parameter + at, p, left);
    store_codes<whole>(u.m + at, m_codes, left);
    store_codes<whole>(u.v + at, v_codes, left);
    if (threadIdx.x % SK_WARP == 0) {
        u.m_scale[block] = m_most;
        u.v_scale[block] = v_most;
    }
}

template <bool wide>
static __global__ void __launch_bounds__(THREADS)
    step_all(const __grid_constant__ update u, int64_t blocks)
{
    __shared__ tables t;
    make_tables(&t, u);
    int64_t warp = threadIdx.x / SK_WARP;
    for (int64_t b = (int64_t)blockIdx.x * WARPS + warp; b < blocks;
         b += (int64_t)gridDim.x * WARPS) {
        int64_t at = b * SK_ADAMW_BLOCK + threadIdx.x % SK_WARP * EACH;
        if (wide && (b + 1) * SK_ADAMW_BLOCK <= u.count)
            step_block<true>(u, t, b, at, EACH);
        else
            step_block<false>(u, t, b, at, u.count - at < EACH ? (int)(u.count - at) : (int)EACH);
    }
}

int sk_adamw_8bit_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_adamw_8bit *a = static_cast<const sk_adamw_8bit *>(args);
    update u = {a->parameter, a->m,     a->v,     a->m_scale, a->v_scale, a->grad,        a->clip,
                a->hyper,     a->count, a->beta1, a->beta2,   a->epsilon, a->weight_decay};
    uintptr_t floats =
        reinterpret_cast<uintptr_t>(a->parameter) | reinterpret_cast<uintptr_t>(a->grad);
    uintptr_t codes = reinterpret_cast<uintptr_t>(a->m) | reinterpret_cast<uintptr_t>(a->v);
    int64_t blocks = sk_adamw_blocks(a->count);
    int grid = sk_blocks(blocks, WARPS), most = ctx->cuda->multiprocessors * BLOCKS_EACH;
    grid = grid < most ? grid : most;
    if (floats % 16 == 0 && codes % 8 == 0)
        step_all<true><<<grid, THREADS, 0, ctx->cuda->stream>>>(u, blocks);
    else
        step_all<false><<<grid, THREADS, 0, ctx->cuda->stream>>>(u, blocks);
    SK_LAUNCHED("step_all", err);
    return SF_OK;
}
