/* cuda_call.h -- how .cu files turn a CUDA error into an sf_err. Private to kernels. */
#ifndef SCOUT_KERNELS_CUDA_CALL_H
#define SCOUT_KERNELS_CUDA_CALL_H

#include <cuda_runtime.h>
#include <string.h>

#include "libformat/base/err.h"

static inline int sk_cuda_code(cudaError_t result)
{
    return result == cudaErrorMemoryAllocation ? SF_ENOMEM : SF_ECUDA;
}

/* Runs the call; on failure fills err ("cudaMemcpy: <sentence>") and returns its code. */
#define SK_CUDA(call, err)                                                                         \
    do {                                                                                           \
        cudaError_t sk_cuda_result = (call);                                                       \
        if (sk_cuda_result != cudaSuccess)                                                         \
            return sf_fail((err), sk_cuda_code(sk_cuda_result), "%.*s: %s",                        \
                           (int)strcspn(#call, "("), #call, cudaGetErrorString(sk_cuda_result));   \
    } while (0)

#endif
