/* cuda_private.h -- the inside of struct sk_cuda, for the CUDA fillings alone. */
#ifndef SCOUT_KERNELS_CUDA_PRIVATE_H
#define SCOUT_KERNELS_CUDA_PRIVATE_H

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda_ctx.h"
#include "kernels/rooms_cuda.h"
#include "kernels/transfer.h"

/* What a kernel found wrong; the first one stays until it has been told. */
enum sk_fault_code { SK_FAULT_NONE, SK_FAULT_ROUTER_NAN, SK_FAULT_TARGET, SK_FAULT_DOCUMENTS };
struct sk_fault {
    int code; /* enum sk_fault_code */
    int row;
    long long value; /* the target, or where the document ends */
};

struct sk_cuda {
    cudaStream_t stream;
    cublasHandle_t blas; /* on the stream, with our workspace */
    void *blas_workspace;
    struct sk_fault *fault; /* device memory */
    cudaEvent_t counts;     /* recorded behind the copy of a router's offsets */
    bool counts_pending;    /* nobody has waited for it yet */
    cudaStream_t copies;    /* of transfers, beside the ops */
    cudaEvent_t transfer_from, transfer_done[SK_TRANSFER_SLOTS];
    cudaEvent_t staged;       /* recorded behind the copy of embedding rows */
    struct sk_branch *branch; /* branches_cuda.h */
    cudaEvent_t forked;
    int multiprocessors, major, minor;
    bool wgmma; /* attention uses Hopper's own products; tests try both ways */
};

#endif
