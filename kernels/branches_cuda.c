#include "kernels/branches_cuda.h"

#include "kernels/cuda_call.h"
#include "kernels/gemm_cuda.h"
#include "libformat/base/mem.h"

struct sk_branch {
    struct sk_ctx ctx;   /* points to `cuda` */
    struct sk_cuda cuda; /* the stream's, but for stream and cuBLAS */
    cudaEvent_t done;
};

static int start_branch(struct sk_branch *branch, const struct sk_cuda *cuda, struct sf_err *err)
{
    branch->cuda = *cuda;
    branch->cuda.branch = NULL;
    branch->cuda.stream = NULL;
    branch->cuda.blas = NULL;
    branch->cuda.blas_workspace = NULL;
    branch->ctx = (struct sk_ctx){.threads = 1, .cuda = &branch->cuda};
    SK_CUDA(cudaStreamCreateWithFlags(&branch->cuda.stream, cudaStreamNonBlocking), err);
    SK_CUDA(cudaEventCreateWithFlags(&branch->done, cudaEventDisableTiming), err);
    return sk_blas_start(&branch->cuda, err);
}

int sk_branches_start(struct sk_cuda *cuda, struct sf_err *err)
{
    void *memory;
    int code = sf_alloc_for(&memory, SK_BRANCHES * sizeof(struct sk_branch), "branches", err);
    if (code)
        return code;
    struct sk_branch *branch = memory;
    for (int i = 0; !code && i < SK_BRANCHES; i++)
        code = start_branch(&branch[i], cuda, err);
    cuda->branch = branch; /* stop ends what was started, whatever the code */
    if (!code)
        SK_CUDA(cudaEventCreateWithFlags(&cuda->forked, cudaEventDisableTiming), err);
    return code;
}

void sk_branches_stop(struct sk_cuda *cuda)
{
    for (int i = 0; cuda->branch && i < SK_BRANCHES; i++) {
        struct sk_branch *b = &cuda->branch[i];
        if (b->cuda.stream)
            cudaStreamSynchronize(b->cuda.stream);
        sk_blas_stop(&b->cuda);
        if (b->done)
            cudaEventDestroy(b->done);
        if (b->cuda.stream)
            cudaStreamDestroy(b->cuda.stream);
    }
    if (cuda->forked)
        cudaEventDestroy(cuda->forked);
    sf_free(cuda->branch);
    cuda->branch = NULL;
}

int sk_branches_fork(struct sk_ctx *ctx, struct sf_err *err)
{
    struct sk_cuda *cuda = ctx->cuda;
    SK_CUDA(cudaEventRecord(cuda->forked, cuda->stream), err);
    for (int i = 0; i < SK_BRANCHES; i++)
        SK_CUDA(cudaStreamWaitEvent(cuda->branch[i].cuda.stream, cuda->forked, 0), err);
    return SF_OK;
}

struct sk_ctx *sk_branch(struct sk_ctx *ctx, int n)
{
    return &ctx->cuda->branch[n].ctx;
}

int sk_branches_join(struct sk_ctx *ctx, struct sf_err *err)
{
    struct sk_cuda *cuda = ctx->cuda;
    for (int i = 0; i < SK_BRANCHES; i++) {
        SK_CUDA(cudaEventRecord(cuda->branch[i].done, cuda->branch[i].cuda.stream), err);
        SK_CUDA(cudaStreamWaitEvent(cuda->stream, cuda->branch[i].done, 0), err);
    }
    return SF_OK;
}
