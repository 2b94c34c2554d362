#include "kernels/cuda_ctx.h"
#include "kernels/cuda_table.h"

static uint64_t no_workspace(const void *args, int threads)
{
    (void)args, (void)threads;
    return 0;
}

static const struct sk_ops table = {
    .name = "cuda",
    .activation = SK_FORMAT_BF16,
    .device = true,
    .memory = &sk_memory_cuda,
    .stopwatch = &sk_stopwatch_cuda,
    .run =
        {
            [SK_EMBED_FORWARD] = sk_embed_forward_cuda,
            [SK_RMSNORM_FORWARD] = sk_rmsnorm_forward_cuda,
            [SK_RMSNORM_BACKWARD] = sk_rmsnorm_backward_cuda,
            [SK_LINEAR_FORWARD] = sk_linear_forward_cuda,
            [SK_LINEAR_BACKWARD] = sk_linear_backward_cuda,
            [SK_QK_FORWARD] = sk_qk_forward_cuda,
            [SK_QK_BACKWARD] = sk_qk_backward_cuda,
            [SK_ATTENTION_FORWARD] = sk_attention_forward_cuda,
            [SK_ATTENTION_BACKWARD] = sk_attention_backward_cuda,
            [SK_ATTENTION_CACHED] = sk_attention_cached_cuda,
            [SK_ROUTE_FORWARD] = sk_route_forward_cuda,
            [SK_ROUTE_BACKWARD] = sk_route_backward_cuda,
            [SK_SWIGLU_FORWARD] = sk_swiglu_forward_cuda,
            [SK_SWIGLU_BACKWARD] = sk_swiglu_backward_cuda,
            [SK_COMBINE_FORWARD] = sk_combine_forward_cuda,
            [SK_COMBINE_BACKWARD] = sk_combine_backward_cuda,
            [SK_HEAD_LOSS] = sk_head_loss_cuda,
            [SK_GRAD_NORM] = sk_grad_norm_cuda,
            [SK_ADAMW] = sk_adamw_cuda,
            [SK_ADAMW_8BIT] = sk_adamw_8bit_cuda,
            [SK_FILL_ZERO] = sk_fill_zero_cuda,
            [SK_TRANSFER_BEGIN] = sk_transfer_begin_cuda,
            [SK_TRANSFER_END] = sk_transfer_end_cuda,
        },
    .measure =
        {
            [SK_EMBED_FORWARD] = no_workspace,
            [SK_RMSNORM_FORWARD] = no_workspace,
            [SK_RMSNORM_BACKWARD] = no_workspace,
            [SK_LINEAR_FORWARD] = sk_linear_forward_measure_cuda,
            [SK_LINEAR_BACKWARD] = sk_linear_backward_measure_cuda,
            [SK_QK_FORWARD] = no_workspace,
            [SK_QK_BACKWARD] = no_workspace,
            [SK_ATTENTION_FORWARD] = sk_attention_forward_measure_cuda,
            [SK_ATTENTION_BACKWARD] = sk_attention_backward_measure_cuda,
            [SK_ATTENTION_CACHED] = no_workspace,
            [SK_ROUTE_FORWARD] = sk_route_forward_measure_cuda,
            [SK_ROUTE_BACKWARD] = no_workspace,
            [SK_SWIGLU_FORWARD] = no_workspace,
            [SK_SWIGLU_BACKWARD] = no_workspace,
            [SK_COMBINE_FORWARD] = no_workspace,
            [SK_COMBINE_BACKWARD] = no_workspace,
            [SK_HEAD_LOSS] = sk_head_loss_measure_cuda,
            [SK_GRAD_NORM] = sk_grad_norm_measure_cuda,
            [SK_ADAMW] = no_workspace,
            [SK_ADAMW_8BIT] = no_workspace,
            [SK_FILL_ZERO] = no_workspace,
            [SK_TRANSFER_BEGIN] = no_workspace,
            [SK_TRANSFER_END] = no_workspace,
        },
};

const struct sk_ops *sk_ops_cuda(void)
{
    return &table;
}
