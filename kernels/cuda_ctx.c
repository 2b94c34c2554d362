#include "kernels/cuda_ctx.h"

#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <string.h>

#include "kernels/branches_cuda.h"
#include "kernels/cuda_call.h"
#include "kernels/cuda_private.h"
#include "kernels/cuda_table.h"
#include "kernels/gemm_cuda.h"
#include "libformat/base/mem.h"

/* ---- life ---- */

static int start(struct sk_cuda *cuda, const struct sk_device *device, struct sf_err *err)
{
    struct sk_device_info info;
    void *fault;
    int code = sk_device_info(&info, device, err);
    if (code)
        return code;
    cuda->multiprocessors = info.multiprocessors;
    cuda->major = info.major;
    cuda->minor = info.minor;
    cuda->wgmma = cuda->major == 9; /* 1.2 times as fast forward, 1.7 backward, at 4096 tokens */
    SK_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), err);
    SK_CUDA(cudaEventCreateWithFlags(&cuda->counts, cudaEventDisableTiming), err);
    SK_CUDA(cudaStreamCreateWithFlags(&cuda->copies, cudaStreamNonBlocking), err);
    SK_CUDA(cudaEventCreateWithFlags(&cuda->transfer_from, cudaEventDisableTiming), err);
    for (int i = 0; i < SK_TRANSFER_SLOTS; i++)
        SK_CUDA(cudaEventCreateWithFlags(&cuda->transfer_done[i], cudaEventDisableTiming), err);
    SK_CUDA(cudaEventCreateWithFlags(&cuda->staged, cudaEventDisableTiming), err);
    code = sk_device_alloc(&fault, SK_CUDA_SMALL_BYTES, "faults", err);
    if (code)
        return code;
    cuda->fault = fault;
    SK_CUDA(cudaMemset(cuda->fault, 0, SK_CUDA_SMALL_BYTES), err);
    code = sk_blas_start(cuda, err);
    return code ? code : sk_branches_start(cuda, err);
}

int sk_cuda_start(struct sk_ctx *ctx, const struct sk_device *device, int threads,
                  struct sf_err *err)
{
    void *memory;
    *ctx = (struct sk_ctx){.threads = threads < 1 ? 1 : threads};
    int code = sf_alloc_for(&memory, sizeof(struct sk_cuda), "a CUDA context", err);
    if (!code) {
        ctx->cuda = memory;
        code = start(ctx->cuda, device, err);
    }
    if (code)
        sk_cuda_stop(ctx);
    return code;
}

void sk_cuda_library(char text[SK_LIBRARY_TEXT], const struct sk_ctx *ctx)
{
    int runtime = 0, blas = 0;
    cudaRuntimeGetVersion(&runtime);
    cublasGetVersion(ctx->cuda->blas, &blas);
    snprintf(text, SK_LIBRARY_TEXT, "CUDA %d.%d, cuBLAS %d", runtime / 1000, runtime % 1000 / 10,
             blas);
}

void sk_cuda_stop(struct sk_ctx *ctx)
{
    struct sk_cuda *cuda = ctx->cuda;
    if (!cuda)
        return;
    if (cuda->copies)
        cudaStreamSynchronize(cuda->copies);
    if (cuda->stream)
        cudaStreamSynchronize(cuda->stream);
    sk_branches_stop(cuda);
    sk_blas_stop(cuda);
    sk_device_free(cuda->fault);
    if (cuda->counts)
        cudaEventDestroy(cuda->counts);
    for (int i = 0; i < SK_TRANSFER_SLOTS; i++)
        if (cuda->transfer_done[i])
            cudaEventDestroy(cuda->transfer_done[i]);
    if (cuda->transfer_from)
        cudaEventDestroy(cuda->transfer_from);
    if (cuda->copies)
        cudaStreamDestroy(cuda->copies);
    if (cuda->staged)
        cudaEventDestroy(cuda->staged);
    if (cuda->stream)
        cudaStreamDestroy(cuda->stream);
    sf_free(cuda);
    ctx->cuda = NULL;
}

uint64_t sk_cuda_bytes(void)
{
    return sk_cuda_held_bytes();
}

int sk_cuda_wait_counts(struct sk_ctx *ctx, struct sf_err *err)
{
    struct sk_cuda *cuda = ctx->cuda;
    if (!cuda->counts_pending)
        return SF_OK;
    cuda->counts_pending = false;
    SK_CUDA(cudaEventSynchronize(cuda->counts), err);
    return SF_OK;
}

/* ---- memory ---- */

static int allocate(void **out, struct sk_ctx *ctx, enum sk_place place, uint64_t bytes,
                    const char *what, struct sf_err *err)
{
    (void)ctx;
    if (place == SK_PLACE_OPS)
        return sk_device_alloc(out, bytes, what, err);
    cudaError_t result;
    SK_CUDA_TRY(result, cudaMallocHost(out, bytes ? bytes : 1));
    if (result == cudaSuccess)
        return SF_OK;
    cudaGetLastError();
    return sf_fail(err, sk_cuda_code(result), "cannot pin %llu bytes of host memory for %s: %s",
                   (unsigned long long)bytes, what, cudaGetErrorString(result));
}

static void release(struct sk_ctx *ctx, enum sk_place place, void *block)
{
    if (!block) /* perhaps of a plan, which starts no context */
        return;
    cudaStreamSynchronize(ctx->cuda->stream);
    if (place == SK_PLACE_OPS)
        sk_device_free(block);
    else
        cudaFreeHost(block);
}

/* From pageable memory the call returns when the bytes have been taken. */
static int write_bytes(struct sk_ctx *ctx, void *to, const void *host, uint64_t bytes,
                       struct sf_err *err)
{
    SK_CUDA(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, ctx->cuda->stream), err);
    return SF_OK;
}

static int tell_fault(const struct sk_fault *fault, struct sf_err *err)
{
    switch (fault->code) {
    case SK_FAULT_ROUTER_NAN:
        return sf_fail(err, SF_ENUMERIC, "row %d: the router's logits are not numbers", fault->row);
    case SK_FAULT_TARGET:
        return sf_fail(err, SF_EINVAL, "row %d: target %lld is outside the vocabulary", fault->row,
                       fault->value);
    case SK_FAULT_DOCUMENTS:
        return sf_fail(err, SF_EINVAL,
                       "document %d ends at row %lld: too long, or documents do not cover the rows",
                       fault->row, fault->value);
    default:
        return sf_fail(err, SF_ECUDA, "a kernel raised fault %d at row %d", fault->code,
                       fault->row);
    }
}

static int read_bytes(struct sk_ctx *ctx, void *host, const void *from, uint64_t bytes,
                      struct sf_err *err)
{
    struct sk_cuda *cuda = ctx->cuda;
    struct sk_fault fault;
    SK_CUDA(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, cuda->stream), err);
    SK_CUDA(
        cudaMemcpyAsync(&fault, cuda->fault, sizeof fault, cudaMemcpyDeviceToHost, cuda->stream),
        err);
    SK_CUDA(cudaStreamSynchronize(cuda->stream), err);
    if (fault.code == SK_FAULT_NONE)
        return SF_OK;
    SK_CUDA(cudaMemsetAsync(cuda->fault, 0, sizeof fault, cuda->stream), err);
    return tell_fault(&fault, err);
}

const struct sk_memory sk_memory_cuda = {
    .allocate = allocate, .release = release, .write = write_bytes, .read = read_bytes};

/* ---- time ---- */

struct sk_watch {
    cudaStream_t stream;
    cudaEvent_t *event; /* behind this struct */
    int64_t marks;
    bool in_range; /* of NVTX */
};

static void end_range(struct sk_watch *watch)
{
    if (watch->in_range)
        nvtxRangePop();
    watch->in_range = false;
}

static void watch_close(struct sk_watch *watch)
{
    if (watch)
        end_range(watch);
    for (int64_t i = 0; watch && i < watch->marks; i++)
        if (watch->event[i])
            cudaEventDestroy(watch->event[i]);
    sf_free(watch);
}

static int make_events(struct sk_watch *watch, struct sf_err *err)
{
    for (int64_t i = 0; i < watch->marks; i++)
        SK_CUDA(cudaEventCreate(&watch->event[i]), err);
    return SF_OK;
}

static int watch_open(struct sk_watch **out, struct sk_ctx *ctx, int64_t marks, struct sf_err *err)
{
    void *block;
    *out = NULL;
    int code = sf_alloc_for(&block, sizeof **out + (uint64_t)marks * sizeof(cudaEvent_t),
                            "a stopwatch", err);
    if (code)
        return code;
    struct sk_watch *watch = block;
    watch->stream = ctx->cuda->stream;
    watch->event = (cudaEvent_t *)(watch + 1);
    watch->marks = marks;
    code = make_events(watch, err);
    if (code)
        watch_close(watch);
    else
        *out = watch;
    return code;
}

static int watch_mark(struct sk_watch *watch, int64_t index, const char *next, struct sf_err *err)
{
    end_range(watch);
    if (next) {
        nvtxRangePushA(next);
        watch->in_range = true;
    }
    SK_CUDA(cudaEventRecord(watch->event[index], watch->stream), err);
    return SF_OK;
}

static int watch_read(double *seconds, struct sk_watch *watch, int64_t marks, struct sf_err *err)
{
    if (marks > 0)
        SK_CUDA(cudaEventSynchronize(watch->event[marks - 1]), err);
    for (int64_t i = 0; i + 1 < marks; i++) {
        float milliseconds;
        SK_CUDA(cudaEventElapsedTime(&milliseconds, watch->event[i], watch->event[i + 1]), err);
        seconds[i] = (double)milliseconds / 1e3;
    }
    return SF_OK;
}

const struct sk_stopwatch sk_stopwatch_cuda = {
    .open = watch_open, .close = watch_close, .mark = watch_mark, .read = watch_read};
