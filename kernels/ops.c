#include "kernels/ops.h"

#include <stddef.h>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/head_loss.h"
#include "kernels/linear.h"
#include "kernels/qk.h"
#include "kernels/rmsnorm.h"
#include "kernels/route.h"
#include "kernels/swiglu.h"

/* The operands of a struct are all that stands before its first member that is no pointer. */
#define ROW(text, type, outs, first_size, workspace)                                               \
    {                                                                                              \
        .name = (text), .args_bytes = sizeof(struct type), .outputs = (outs),                      \
        .operands = (int)(offsetof(struct type, first_size) / sizeof(void *)),                     \
        .has_workspace = (workspace)                                                               \
    }

static const struct sk_op_info info_table[SK_OP_COUNT] = {
    [SK_EMBED_FORWARD] = ROW("embed_forward", sk_embed_forward, 1, rows, false),
    [SK_RMSNORM_FORWARD] = ROW("rmsnorm_forward", sk_rmsnorm_forward, 3, rows, false),
    [SK_RMSNORM_BACKWARD] = ROW("rmsnorm_backward", sk_rmsnorm_backward, 1, rows, false),
    [SK_LINEAR_FORWARD] = ROW("linear_forward", sk_linear_forward, 2, rows, true),
    [SK_LINEAR_BACKWARD] = ROW("linear_backward", sk_linear_backward, 3, rows, true),
    [SK_QK_FORWARD] = ROW("qk_forward", sk_qk_forward, 4, shape, false),
    [SK_QK_BACKWARD] = ROW("qk_backward", sk_qk_backward, 2, shape, false),
    [SK_ATTENTION_FORWARD] = ROW("attention_forward", sk_attention_forward, 2, shape, true),
    [SK_ATTENTION_BACKWARD] = ROW("attention_backward", sk_attention_backward, 3, shape, true),
    [SK_ROUTE_FORWARD] = ROW("route_forward", sk_route_forward, 6, rows, false),
    [SK_ROUTE_BACKWARD] = ROW("route_backward", sk_route_backward, 1, rows, false),
    [SK_SWIGLU_FORWARD] = ROW("swiglu_forward", sk_swiglu_forward, 1, rows, false),
    [SK_SWIGLU_BACKWARD] = ROW("swiglu_backward", sk_swiglu_backward, 2, rows, false),
    [SK_COMBINE_FORWARD] = ROW("combine_forward", sk_combine_forward, 1, rows, false),
    [SK_COMBINE_BACKWARD] = ROW("combine_backward", sk_combine_backward, 1, rows, false),
    [SK_HEAD_LOSS] = ROW("head_loss", sk_head_loss, 4, rows, true),
    [SK_GRAD_NORM] = ROW("grad_norm", sk_grad_norm, 2, count, true),
    [SK_ADAMW] = ROW("adamw", sk_adamw, 3, count, false),
    [SK_FILL_ZERO] = ROW("fill_zero", sk_fill_zero, 1, bytes, false),
};

const struct sk_op_info *sk_op_info(enum sk_op op)
{
    return &info_table[op];
}
