#include "kernels/ops.h"

#include <stddef.h>

#include "kernels/adamw.h"
#include "kernels/adamw_8bit.h"
#include "kernels/attention.h"
#include "kernels/attention_cached.h"
#include "kernels/embed.h"
#include "kernels/head_loss.h"
#include "kernels/linear.h"
#include "kernels/qk.h"
#include "kernels/rmsnorm.h"
#include "kernels/route.h"
#include "kernels/swiglu.h"
#include "kernels/transfer.h"

/* X(OP, stem, first input, last operand, first member that is no pointer, last is the workspace) */
#define FOR_EACH_OP(X)                                                                             \
    X(EMBED_FORWARD, embed_forward, ids, table, rows, false)                                       \
    X(RMSNORM_FORWARD, rmsnorm_forward, x, weight, rows, false)                                    \
    X(RMSNORM_BACKWARD, rmsnorm_backward, dy, weight, rows, false)                                 \
    X(LINEAR_FORWARD, linear_forward, x, workspace, rows, true)                                    \
    X(LINEAR_BACKWARD, linear_backward, dy, workspace, rows, true)                                 \
    X(QK_FORWARD, qk_forward, positions, inv_freq, shape, false)                                   \
    X(QK_BACKWARD, qk_backward, q, inv_freq, shape, false)                                         \
    X(ATTENTION_FORWARD, attention_forward, q, workspace, shape, true)                             \
    X(ATTENTION_BACKWARD, attention_backward, d_o, workspace, shape, true)                         \
    X(ATTENTION_CACHED, attention_cached, q, positions, rows, false)                               \
    X(ROUTE_FORWARD, route_forward, x, workspace, rows, true)                                      \
    X(ROUTE_BACKWARD, route_backward, du, router, rows, false)                                     \
    X(SWIGLU_FORWARD, swiglu_forward, gate, up, rows, false)                                       \
    X(SWIGLU_BACKWARD, swiglu_backward, dh, up, rows, false)                                       \
    X(COMBINE_FORWARD, combine_forward, shared, slot, rows, false)                                 \
    X(COMBINE_BACKWARD, combine_backward, dy, slot, rows, false)                                   \
    X(HEAD_LOSS, head_loss, x, workspace, rows, true)                                              \
    X(GRAD_NORM, grad_norm, grad, workspace, count, true)                                          \
    X(ADAMW, adamw, grad, hyper, count, false)                                                     \
    X(ADAMW_8BIT, adamw_8bit, grad, hyper, count, false)                                           \
    X(FILL_ZERO, fill_zero, bytes, data, bytes, false)                                             \
    X(TRANSFER_BEGIN, transfer_begin, from, from, bytes, false)                                    \
    X(TRANSFER_END, transfer_end, from, from, bytes, false)

/* Tapes fill operands in by position: nothing but pointers may stand before the first size, and the
 * workspace, if there is one, is the last of them. */
#define CHECK(OP, stem, input, last, size, workspace)                                              \
    _Static_assert(offsetof(struct sk_##stem, last) + sizeof(void *) ==                            \
                       offsetof(struct sk_##stem, size),                                           \
                   #stem ": " #last " is not the last operand");                                   \
    _Static_assert(sizeof(((struct sk_##stem *)0)->last) == sizeof(void *),                        \
                   #stem ": " #last " is no pointer");                                             \
    _Static_assert(offsetof(struct sk_##stem, input) % sizeof(void *) == 0,                        \
                   #stem ": something else than pointers stands before " #input);
FOR_EACH_OP(CHECK)

#define ROW(OP, stem, input, last, first_size, workspace)                                          \
    [SK_##OP] = {.name = #stem,                                                                    \
                 .args_bytes = sizeof(struct sk_##stem),                                           \
                 .outputs = (int)(offsetof(struct sk_##stem, input) / sizeof(void *)),             \
                 .operands = (int)(offsetof(struct sk_##stem, first_size) / sizeof(void *)),       \
                 .has_workspace = workspace},

static const struct sk_op_info info_table[SK_OP_COUNT] = {FOR_EACH_OP(ROW)};

const struct sk_op_info *sk_op_info(enum sk_op op)
{
    return &info_table[op];
}
