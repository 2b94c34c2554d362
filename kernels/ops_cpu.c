#include <string.h>

#include "kernels/cpu_table.h"
#include "kernels/gemm_cpu.h"
#include "libformat/base/clock.h"
#include "libformat/base/mem.h"

static uint64_t no_workspace(const void *args, int threads)
{
    (void)args, (void)threads;
    return 0;
}

/* ---- memory: the heap, whatever the place ---- */

enum { ALIGN = 256 };

/* The heap's own address stands in front of the aligned block. */
static int allocate(void **out, struct sk_ctx *ctx, enum sk_place place, uint64_t bytes,
                    const char *what, struct sf_err *err)
{
    void *memory;
    (void)ctx, (void)place;
    *out = NULL;
    if (bytes > UINT64_MAX - 2 * ALIGN)
        return sf_fail(err, SF_ENOMEM, "no memory for %s", what);
    int code = sf_alloc_for(&memory, bytes + 2 * ALIGN, what, err);
    if (code)
        return code;
    unsigned char *block = (unsigned char *)memory + sizeof memory;
    block += ALIGN - (uintptr_t)block % ALIGN;
    memcpy(block - sizeof memory, &memory, sizeof memory);
    *out = block;
    return SF_OK;
}

static void release(struct sk_ctx *ctx, enum sk_place place, void *block)
{
    void *memory;
    (void)ctx, (void)place;
    if (!block)
        return;
    memcpy(&memory, (unsigned char *)block - sizeof memory, sizeof memory);
    sf_free(memory);
}

static int copy(struct sk_ctx *ctx, void *to, const void *from, uint64_t bytes, struct sf_err *err)
{
    (void)ctx, (void)err;
    memcpy(to, from, bytes);
    return SF_OK;
}

static const struct sk_memory memory = {
    .allocate = allocate, .release = release, .write = copy, .read = copy};

/* ---- time ---- */

struct sk_watch {
    double *moment; /* behind this struct */
};

static int watch_open(struct sk_watch **out, struct sk_ctx *ctx, int64_t marks, struct sf_err *err)
{
    void *block;
    (void)ctx;
    *out = NULL;
    int code =
        sf_alloc_for(&block, sizeof **out + (uint64_t)marks * sizeof(double), "a stopwatch", err);
    if (code)
        return code;
    *out = block;
    (*out)->moment = (double *)(*out + 1);
    return SF_OK;
}

static void watch_close(struct sk_watch *watch)
{
    sf_free(watch);
}

static int watch_mark(struct sk_watch *watch, int64_t index, const char *next, struct sf_err *err)
{
    (void)next, (void)err;
    watch->moment[index] = sf_clock_seconds();
    return SF_OK;
}

static int watch_read(double *seconds, struct sk_watch *watch, int64_t marks, struct sf_err *err)
{
    const double *moment = watch->moment;
    (void)err;
    for (int64_t i = 0; i + 1 < marks; i++)
        seconds[i] = moment[i + 1] - moment[i];
    return SF_OK;
}

static const struct sk_stopwatch stopwatch = {
    .open = watch_open, .close = watch_close, .mark = watch_mark, .read = watch_read};

static const struct sk_ops table = {
    .name = "cpu",
    .activation = SK_FORMAT_F32,
    .memory = &memory,
    .stopwatch = &stopwatch,
    .run =
        {
            [SK_EMBED_FORWARD] = sk_embed_forward_cpu,
            [SK_RMSNORM_FORWARD] = sk_rmsnorm_forward_cpu,
            [SK_RMSNORM_BACKWARD] = sk_rmsnorm_backward_cpu,
            [SK_LINEAR_FORWARD] = sk_linear_forward_cpu,
            [SK_LINEAR_BACKWARD] = sk_linear_backward_cpu,
            [SK_QK_FORWARD] = sk_qk_forward_cpu,
            [SK_QK_BACKWARD] = sk_qk_backward_cpu,
            [SK_ATTENTION_FORWARD] = sk_attention_forward_cpu,
            [SK_ATTENTION_BACKWARD] = sk_attention_backward_cpu,
            [SK_ATTENTION_CACHED] = sk_attention_cached_cpu,
            [SK_ROUTE_FORWARD] = sk_route_forward_cpu,
            [SK_ROUTE_BACKWARD] = sk_route_backward_cpu,
            [SK_SWIGLU_FORWARD] = sk_swiglu_forward_cpu,
            [SK_SWIGLU_BACKWARD] = sk_swiglu_backward_cpu,
            [SK_COMBINE_FORWARD] = sk_combine_forward_cpu,
            [SK_COMBINE_BACKWARD] = sk_combine_backward_cpu,
            [SK_HEAD_LOSS] = sk_head_loss_cpu,
            [SK_GRAD_NORM] = sk_grad_norm_cpu,
            [SK_ADAMW] = sk_adamw_cpu,
            [SK_ADAMW_8BIT] = sk_adamw_8bit_cpu,
            [SK_FILL_ZERO] = sk_fill_zero_cpu,
            [SK_TRANSFER_BEGIN] = sk_transfer_begin_cpu,
            [SK_TRANSFER_END] = sk_transfer_end_cpu,
        },
    .measure =
        {
            [SK_EMBED_FORWARD] = no_workspace,
            [SK_RMSNORM_FORWARD] = no_workspace,
            [SK_RMSNORM_BACKWARD] = no_workspace,
            [SK_LINEAR_FORWARD] = sk_linear_forward_measure_cpu,
            [SK_LINEAR_BACKWARD] = sk_linear_backward_measure_cpu,
            [SK_QK_FORWARD] = no_workspace,
            [SK_QK_BACKWARD] = no_workspace,
            [SK_ATTENTION_FORWARD] = sk_attention_forward_measure_cpu,
            [SK_ATTENTION_BACKWARD] = sk_attention_backward_measure_cpu,
            [SK_ATTENTION_CACHED] = no_workspace,
            [SK_ROUTE_FORWARD] = no_workspace,
            [SK_ROUTE_BACKWARD] = no_workspace,
            [SK_SWIGLU_FORWARD] = no_workspace,
            [SK_SWIGLU_BACKWARD] = no_workspace,
            [SK_COMBINE_FORWARD] = no_workspace,
            [SK_COMBINE_BACKWARD] = no_workspace,
            [SK_HEAD_LOSS] = sk_head_loss_measure_cpu,
            [SK_GRAD_NORM] = sk_grad_norm_measure_cpu,
            [SK_ADAMW] = no_workspace,
            [SK_ADAMW_8BIT] = no_workspace,
            [SK_FILL_ZERO] = no_workspace,
            [SK_TRANSFER_BEGIN] = no_workspace,
            [SK_TRANSFER_END] = no_workspace,
        },
};

const struct sk_ops *sk_ops_cpu(void)
{
    return &table;
}

int sk_cpu_start(struct sk_ctx *ctx, int threads, struct sf_err *err)
{
    *ctx = (struct sk_ctx){.threads = threads < 1 ? 1 : threads};
    return sk_gemm_start(err);
}
