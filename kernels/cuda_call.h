/* cuda_call.h -- the one door of our CUDA calls: how an error becomes an sf_err, and where a test
 * makes a call fail (cuda_fault.h). Private to kernels. */
#ifndef SCOUT_KERNELS_CUDA_CALL_H
#define SCOUT_KERNELS_CUDA_CALL_H

#include <cuda_runtime.h>
#include <string.h>

#include "kernels/cuda_fault.h"
#include "libformat/base/err.h"

static inline int sk_cuda_code(cudaError_t result)
{
    return result == cudaErrorMemoryAllocation ? SF_ENOMEM : SF_ECUDA;
}

/* Runs the call, for callers with a sentence of their own: `result` is its cudaError_t. */
#define SK_CUDA_TRY(result, call)                                                                  \
    do {                                                                                           \
        (result) = sk_cuda_injected(#call);                                                        \
        if ((result) == cudaSuccess)                                                               \
            (result) = (call);                                                                     \
    } while (0)

/* Runs the call; on failure fills err ("cudaMemcpy: <sentence>") and returns its code. */
#define SK_CUDA(call, err)                                                                         \
    do {                                                                                           \
        cudaError_t sk_cuda_result;                                                                \
        sk_cuda_result = sk_cuda_injected(#call);                                                  \
        if (sk_cuda_result == cudaSuccess)                                                         \
            sk_cuda_result = (call);                                                               \
        if (sk_cuda_result != cudaSuccess)                                                         \
            return sf_fail((err), sk_cuda_code(sk_cuda_result), "%.*s: %s",                        \
                           (int)strcspn(#call, "("), #call, cudaGetErrorString(sk_cuda_result));   \
    } while (0)

#endif
