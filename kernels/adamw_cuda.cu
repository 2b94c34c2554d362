#include "kernels/adamw.h"

#include "kernels/cuda_math.cuh"
#include "kernels/cuda_table.h"

/* Sums go over fixed chunks in a fixed order: the number of multiprocessors does not show. */
enum { THREADS = 256, SUM_THREADS = 1024, CHUNK = SK_GRAD_NORM_CHUNK, WIDE = 4, BLOCKS_EACH = 8 };

/* ---- gradient norm ---- */

uint64_t sk_grad_norm_measure_cuda(const void *args, int threads)
{
    const sk_grad_norm *a = static_cast<const sk_grad_norm *>(args);
    (void)threads;
    return sk_grad_norm_room_bytes(a->count);
}

/* Thread 0 gets the sum over the block; `scratch`: a double a warp. */
static __device__ double block_sum(double x, double *scratch)
{
    int lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP, warps = blockDim.x / SK_WARP;
    for (int step = SK_WARP / 2; step; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    if (lane == 0)
        scratch[warp] = x;
    __syncthreads();
    x = lane < warps ? scratch[lane] : 0;
    for (int step = SK_WARP / 2; step; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

static __device__ __forceinline__ double square(float x)
{
    return (double)x * (double)x;
}

/* A thread block a chunk. Which thread takes which element does not depend on alignment. */
template <bool wide>
static __global__ void __launch_bounds__(THREADS)
    sum_squares(double *partial, const float *grad, int64_t count)
{
    __shared__ double scratch[SK_WARP];
    int64_t first = (int64_t)blockIdx.x * CHUNK;
    int n = (int)(count - first < CHUNK ? count - first : (int64_t)CHUNK);
    const float *g = grad + first;
    double sum = 0;
#pragma unroll 8
    for (int i = threadIdx.x * WIDE; i + WIDE <= n; i += THREADS * WIDE) {
        if (wide) {
            float4 four = *reinterpret_cast<const float4 *>(g + i);
            sum += square(four.x) + square(four.y) + square(four.z) + square(four.w);
        } else {
            sum += square(g[i]) + square(g[i + 1]) + square(g[i + 2]) + square(g[i + 3]);
        }
    }
    int rest = n / WIDE * WIDE + (int)threadIdx.x;
    if (rest < n)
        sum += square(g[rest]);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

/* One thread block. */
static __global__ void __launch_bounds__(SUM_THREADS)
    finish_norm(float *norm, float *clip, const double *partial, int chunks, float max_norm)
{
    __shared__ double scratch[SK_WARP];
    double sum = 0;
    for (int i = threadIdx.x; i < chunks; i += SUM_THREADS)
        sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x != 0)
        return;
    double root = sqrt(sum), c = (double)max_norm / (root + 1e-6);
    *norm = (float)root;
    *clip = max_norm <= 0 || c > 1 ? 1 : (float)c;
}

int sk_grad_norm_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_grad_norm *a = static_cast<const sk_grad_norm *>(args);
    double *partial = static_cast<double *>(a->workspace);
    cudaStream_t stream = ctx->cuda->stream;
    int chunks = sk_blocks(a->count, CHUNK);
    if (reinterpret_cast<uintptr_t>(a->grad) % 16 == 0)
        sum_squares<true><<<chunks, THREADS, 0, stream>>>(partial, a->grad, a->count);
    else
        sum_squares<false><<<chunks, THREADS, 0, stream>>>(partial, a->grad, a->count);
    SK_LAUNCHED("sum_squares", err);
    finish_norm<<<1, SUM_THREADS, 0, stream>>>(a->norm, a->clip, partial, chunks, a->max_norm);
    SK_LAUNCHED("finish_norm", err);
    return SF_OK;
}

/* ---- AdamW ---- */

struct update {
    float *parameter, *m, *v;
    const float *grad, *clip;
    const sk_adamw_hyper *hyper;
    int64_t count;
    double beta1, beta2, epsilon, weight_decay;
};

struct factors {
    float clip, decay, rest1, beta2, rest2, step_size, bias2_root, epsilon;
};

static __device__ factors make_factors(const update &u)
{
    double lr = u.hyper->learning_rate, t = (double)u.hyper->step;
    return {*u.clip,
            (float)(1 - lr * u.weight_decay),
            (float)(1 - u.beta1),
            (float)u.beta2,
            (float)(1 - u.beta2),
            (float)(lr / (1 - pow(u.beta1, t))),
            (float)sqrt(1 - pow(u.beta2, t)),
            (float)u.epsilon};
}

/* Each operation rounded by itself, in the CPU's order: the same bits as there. */
static __device__ __forceinline__ void step_one(float *parameter, float *m, float *v, float grad,
                                                const factors &f)
{
    float g = __fmul_rn(grad, f.clip), p = __fmul_rn(*parameter, f.decay);
    *m = __fadd_rn(*m, __fmul_rn(__fsub_rn(g, *m), f.rest1));
    *v = __fadd_rn(__fmul_rn(*v, f.beta2), __fmul_rn(__fmul_rn(f.rest2, g), g));
    float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(*v), f.bias2_root), f.epsilon);
    *parameter = __fsub_rn(p, __fmul_rn(f.step_size, __fdiv_rn(*m, root)));
}

template <bool wide>
static __global__ void __launch_bounds__(THREADS) step_all(const __grid_constant__ update u)
{
    __shared__ factors shared;
    if (threadIdx.x == 0)
        shared = make_factors(u);
    __syncthreads();
    const factors f = shared;
    int64_t stride = (int64_t)gridDim.x * THREADS, at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t fours = wide ? u.count / WIDE : 0;
    for (int64_t i = at; i < fours; i += stride) {
        float4 p = reinterpret_cast<float4 *>(u.parameter)[i],
               m = reinterpret_cast<float4 *>(u.m)[i];
        float4 v = reinterpret_cast<float4 *>(u.v)[i];
        float4 g = reinterpret_cast<const float4 *>(u.grad)[i];
        step_one(&p.x, &m.x, &v.x, g.x, f);
        step_one(&p.y, &m.y, &v.y, g.y, f);
        step_one(&p.z, &m.z, &v.z, g.z, f);
        step_one(&p.w, &m.w, &v.w, g.w, f);
        reinterpret_cast<float4 *>(u.parameter)[i] = p;
        reinterpret_cast<float4 *>(u.m)[i] = m;
        reinterpret_cast<float4 *>(u.v)[i] = v;
    }
    for (int64_t i = fours * WIDE + at; i < u.count; i += stride)
        step_one(u.parameter + i, u.m + i, u.v + i, u.grad[i], f);
}

int sk_adamw_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_adamw *a = static_cast<const sk_adamw *>(args);
    update u = {a->parameter, a->m,     a->v,     a->grad,    a->clip,        a->hyper,
                a->count,     a->beta1, a->beta2, a->epsilon, a->weight_decay};
    uintptr_t all = reinterpret_cast<uintptr_t>(a->parameter) | reinterpret_cast<uintptr_t>(a->m) |
                    reinterpret_cast<uintptr_t>(a->v) | reinterpret_cast<uintptr_t>(a->grad);
    int blocks = sk_blocks(a->count, THREADS * WIDE),
        most = ctx->cuda->multiprocessors * BLOCKS_EACH;
    blocks = blocks < most ? blocks : most;
    if (all % 16 == 0)
        step_all<true><<<blocks, THREADS, 0, ctx->cuda->stream>>>(u);
    else
        step_all<false><<<blocks, THREADS, 0, ctx->cuda->stream>>>(u);
    SK_LAUNCHED("step_all", err);
    return SF_OK;
}

int sk_fill_zero_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const sk_fill_zero *a = static_cast<const sk_fill_zero *>(args);
    SK_CUDA(cudaMemsetAsync(a->data, 0, (size_t)a->bytes, ctx->cuda->stream), err);
    return SF_OK;
}
