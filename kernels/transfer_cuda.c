#include "kernels/transfer.h"

#include "kernels/cuda_call.h"
#include "kernels/cuda_private.h"
#include "kernels/cuda_table.h"

/* The copy stream waits for the ops so far, copies, and leaves its event in the slot. */
int sk_transfer_begin_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_transfer_begin *a = args;
    struct sk_cuda *cuda = ctx->cuda;
    SK_CUDA(cudaEventRecord(cuda->transfer_from, cuda->stream), err);
    SK_CUDA(cudaStreamWaitEvent(cuda->copies, cuda->transfer_from, 0), err);
    SK_CUDA(cudaMemcpyAsync(a->to, a->from, (size_t)a->bytes,
                            a->out ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice, cuda->copies),
            err);
    SK_CUDA(cudaEventRecord(cuda->transfer_done[a->slot], cuda->copies), err);
    return SF_OK;
}

int sk_transfer_end_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_transfer_end *a = args;
    SK_CUDA(cudaStreamWaitEvent(ctx->cuda->stream, ctx->cuda->transfer_done[a->slot], 0), err);
    return SF_OK;
}
