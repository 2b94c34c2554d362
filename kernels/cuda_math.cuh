/* cuda_math.cuh -- what the kernels of ours share: bfloat16 in and out, sums over a warp and a block,
 * launches that are checked, faults. Private to the CUDA fillings. */
#ifndef SCOUT_KERNELS_CUDA_MATH_CUH
#define SCOUT_KERNELS_CUDA_MATH_CUH

#include <cuda_bf16.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cuda_call.h"
#include "kernels/cuda_private.h"

typedef __nv_bfloat16 bf16;

enum { SK_WARP = 32, SK_VECTOR = 8 }; /* bf16 elements of 16 bytes */

/* 8 elements at once; p is on 16 bytes. */
static __device__ __forceinline__ void sk_load8(float out[SK_VECTOR], const bf16 *p)
{
    uint4 raw = *reinterpret_cast<const uint4 *>(p);
    const __nv_bfloat162 *pair = reinterpret_cast<const __nv_bfloat162 *>(&raw);
#pragma unroll
    for (int i = 0; i < SK_VECTOR / 2; i++) {
        float2 two = __bfloat1622float2(pair[i]);
        out[2 * i] = two.x;
        out[2 * i + 1] = two.y;
    }
}

static __device__ __forceinline__ void sk_store8(bf16 *p, const float in[SK_VECTOR])
{
    uint4 raw;
    __nv_bfloat162 *pair = reinterpret_cast<__nv_bfloat162 *>(&raw);
#pragma unroll
    for (int i = 0; i < SK_VECTOR / 2; i++)
        pair[i] = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
    *reinterpret_cast<uint4 *>(p) = raw;
}

/* Every lane gets the sum; the order is fixed. */
static __device__ __forceinline__ float sk_warp_sum(float x)
{
#pragma unroll
    for (int step = SK_WARP / 2; step; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

static __device__ __forceinline__ float sk_warp_max(float x)
{
#pragma unroll
    for (int step = SK_WARP / 2; step; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/* Every thread gets the sum over the block (full warps, at most 32). `scratch`: 33 floats of shared
 * memory; all threads call; it may be used again at once. */
static __device__ __forceinline__ float sk_block_sum(float x, float *scratch)
{
    int lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP, warps = blockDim.x / SK_WARP;
    x = sk_warp_sum(x);
    if (lane == 0)
        scratch[warp] = x;
    __syncthreads();
    if (warp == 0) {
        x = sk_warp_sum(lane < warps ? scratch[lane] : 0);
        if (lane == 0)
            scratch[SK_WARP] = x;
    }
    __syncthreads();
    x = scratch[SK_WARP];
    __syncthreads();
    return x;
}

static __device__ __forceinline__ float sk_block_max(float x, float *scratch)
{
    int lane = threadIdx.x % SK_WARP, warp = threadIdx.x / SK_WARP, warps = blockDim.x / SK_WARP;
    x = sk_warp_max(x);
    if (lane == 0)
        scratch[warp] = x;
    __syncthreads();
    if (warp == 0) {
        x = sk_warp_max(lane < warps ? scratch[lane] : -INFINITY);
        if (lane == 0)
            scratch[SK_WARP] = x;
    }
    __syncthreads();
    x = scratch[SK_WARP];
    __syncthreads();
    return x;
}

static __device__ __forceinline__ void sk_raise(struct sk_fault *fault, enum sk_fault_code code,
                                                int row, long long value)
{
    if (atomicCAS(&fault->code, SK_FAULT_NONE, (int)code) == SK_FAULT_NONE) {
        fault->row = row;
        fault->value = value;
    }
}

/* Behind a launch: a wrong configuration is told here, by the kernel's name. */
#define SK_LAUNCHED(name, err)                                                                     \
    do {                                                                                           \
        cudaError_t sk_cuda_result = cudaGetLastError();                                           \
        if (sk_cuda_result == cudaSuccess)                                                         \
            sk_cuda_result = sk_cuda_injected("launch");                                           \
        if (sk_cuda_result != cudaSuccess)                                                         \
            return sf_fail((err), SF_ECUDA, "launch of %s: %s", (name),                            \
                           cudaGetErrorString(sk_cuda_result));                                    \
    } while (0)

static inline int sk_blocks(int64_t items, int64_t per_block)
{
    return (int)((items + per_block - 1) / per_block);
}

#endif
