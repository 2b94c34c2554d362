/* cuda_fault.h -- fails a CUDA call of ours on request, so that tests see what follows. Private to
 * kernels, reached through cuda_call.h.
 *
 * SCOUT_CUDA_FAULT=KIND:N fails the N-th call of KIND, counted from 1 over all threads:
 *   alloc  device memory and pinned memory     copy   copies and fills
 *   launch kernels and cuBLAS products         make   streams, events, cuBLAS handles
 *   wait   waiting for a stream or an event    other  what is left (records, properties)
 *   any    all of these                        lost   all of these, and every one behind it
 * SCOUT_CUDA_FAULT_REPORT=FILE: at exit one line "KIND CALLS" for each kind and for any, and "hit 0|1".
 *
 * It is always compiled in, so that what is tested is what is shipped; while neither variable is set
 * a call costs one branch that is never taken. Frees and destroys are not counted: their results
 * are not looked at. */
#ifndef SCOUT_KERNELS_CUDA_FAULT_H
#define SCOUT_KERNELS_CUDA_FAULT_H

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

extern int sk_cuda_faults; /* whether calls are counted; set before the first thread starts */

/* Reads the environment, the first time. sk_device_open calls it. */
void sk_cuda_faults_start(void);

/* Counts the call, of which the name decides the kind; other than cudaSuccess: it is to fail so. */
cudaError_t sk_cuda_count(const char *call);

#ifdef __cplusplus
}
#endif

static inline cudaError_t sk_cuda_injected(const char *call)
{
    return __builtin_expect(sk_cuda_faults, 0) ? sk_cuda_count(call) : cudaSuccess;
}

#endif
