/* The CUDA table without CUDA: what a plan needs to know of it. Nothing in it runs. */
#include "kernels/ops.h"
#include "kernels/rooms_cuda.h"

static uint64_t none(const void *args, int threads)
{
    (void)args, (void)threads;
    return 0;
}

static uint64_t linear_forward(const void *args, int threads)
{
    const struct sk_linear_forward *a = args;
    (void)threads;
    return sk_linear_room_bytes(a->groups, a->out, a->in, a->rank, 0, a->dropout ? a->rows : 0);
}

static uint64_t linear_backward(const void *args, int threads)
{
    const struct sk_linear_backward *a = args;
    (void)threads;
    return sk_linear_room_bytes(a->groups, a->out, a->in, a->rank, a->rows,
                                a->dropout ? a->rows : 0);
}

static uint64_t attention_forward(const void *args, int threads)
{
    const struct sk_attention_forward *a = args;
    (void)threads;
    return sk_attention_lay_out(&a->shape, NULL, 0).bytes;
}

static uint64_t attention_backward(const void *args, int threads)
{
    const struct sk_attention_backward *a = args;
    (void)threads;
    return sk_attention_lay_out(&a->shape, NULL, 1).bytes;
}

static uint64_t route_forward(const void *args, int threads)
{
    (void)threads;
    return sk_route_lay_out(args, NULL).bytes;
}

static uint64_t head_loss(const void *args, int threads)
{
    (void)threads;
    return sk_head_loss_lay_out(args, NULL).bytes;
}

static uint64_t grad_norm(const void *args, int threads)
{
    const struct sk_grad_norm *a = args;
    (void)threads;
    return sk_grad_norm_room_bytes(a->count);
}

/* ---- memory: there is none ---- */

static int allocate(void **out, struct sk_ctx *ctx, enum sk_place place, uint64_t bytes,
                    const char *what, struct sf_err *err)
{
    (void)ctx, (void)place;
    *out = NULL;
    return sf_fail(err, SF_EUNSUPPORTED, "%s: a plan has no device for %llu bytes", what,
                   (unsigned long long)bytes);
}

static void release(struct sk_ctx *ctx, enum sk_place place, void *block)
{
    (void)ctx, (void)place, (void)block; /* NULL, always */
}

static const struct sk_memory memory = {.allocate = allocate, .release = release};

static const struct sk_ops table = {
    .name = "cuda",
    .activation = SK_FORMAT_BF16,
    .device = true,
    .memory = &memory,
    .measure =
        {
            [SK_EMBED_FORWARD] = none,
            [SK_RMSNORM_FORWARD] = none,
            [SK_RMSNORM_BACKWARD] = none,
            [SK_LINEAR_FORWARD] = linear_forward,
            [SK_LINEAR_BACKWARD] = linear_backward,
            [SK_QK_FORWARD] = none,
            [SK_QK_BACKWARD] = none,
            [SK_ATTENTION_FORWARD] = attention_forward,
            [SK_ATTENTION_BACKWARD] = attention_backward,
            [SK_ATTENTION_CACHED] = none,
            [SK_ROUTE_FORWARD] = route_forward,
            [SK_ROUTE_BACKWARD] = none,
            [SK_SWIGLU_FORWARD] = none,
            [SK_SWIGLU_BACKWARD] = none,
            [SK_COMBINE_FORWARD] = none,
            [SK_COMBINE_BACKWARD] = none,
            [SK_HEAD_LOSS] = head_loss,
            [SK_GRAD_NORM] = grad_norm,
            [SK_ADAMW] = none,
            [SK_ADAMW_8BIT] = none,
            [SK_FILL_ZERO] = none,
            [SK_TRANSFER_BEGIN] = none,
            [SK_TRANSFER_END] = none,
        },
};

const struct sk_ops *sk_ops_cuda_plan(void)
{
    return &table;
}
