/* The CUDA table of plans against the one that runs: the same workspaces, element and ops. Runs no
 * kernel, so it needs no GPU. */
#include "tests/support/support.h"

#include <string.h>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/cuda_ctx.h"
#include "kernels/head_loss.h"
#include "kernels/linear.h"
#include "kernels/rooms_cuda.h"
#include "kernels/route.h"

static void compare(enum sk_op op, const void *args)
{
    uint64_t plan = sk_ops_cuda_plan()->measure[op](args, 3),
             real = sk_ops_cuda()->measure[op](args, 3);
    ck_assert_msg(plan == real, "%s: the plan says %llu bytes, the op %llu", sk_op_info(op)->name,
                  (unsigned long long)plan, (unsigned long long)real);
}

static void compare_shape(int64_t rows, int64_t hidden, int64_t width, int64_t experts)
{
    for (int64_t groups = 1; groups <= experts; groups += experts) {
        struct sk_linear_forward forward = {
            .rows = rows, .in = hidden, .out = width, .groups = groups, .rank = 16};
        struct sk_linear_backward backward = {
            .rows = rows, .in = hidden, .out = width, .groups = groups, .rank = 7};
        compare(SK_LINEAR_FORWARD, &forward);
        compare(SK_LINEAR_BACKWARD, &backward);
        forward.groups = backward.groups = experts;
        compare(SK_LINEAR_FORWARD, &forward);
        compare(SK_LINEAR_BACKWARD, &backward);
    }
    struct sk_attention_forward see = {.shape = {.rows = rows, .heads = hidden / 64}};
    struct sk_attention_backward back = {.shape = {.rows = rows, .heads = hidden / 64}};
    struct sk_route_forward route = {.rows = rows, .hidden = hidden, .experts = experts};
    struct sk_head_loss loss = {.rows = rows, .hidden = hidden, .vocabulary = 25 * width};
    struct sk_grad_norm norm = {.count = rows * width};
    compare(SK_ATTENTION_FORWARD, &see);
    compare(SK_ATTENTION_BACKWARD, &back);
    compare(SK_ROUTE_FORWARD, &route);
    compare(SK_HEAD_LOSS, &loss);
    loss.rank = 9;
    compare(SK_HEAD_LOSS, &loss);
    struct sk_dropout dropout = {.probability = 0.5f};
    loss.dropout = &dropout;
    compare(SK_HEAD_LOSS, &loss);
    compare(SK_GRAD_NORM, &norm);
}

START_TEST(plans_measure_as_the_ops_do)
{
    compare_shape(1, 64, 96, 4);
    compare_shape(129, 256, 256, 4);
    compare_shape(2048, 5120, 8192, 16);
    compare_shape(16384, 5120, 8192, 16);
    ck_assert_uint_eq(sk_cuda_bytes(), sk_cuda_held_bytes());
}
END_TEST

START_TEST(plans_know_every_op)
{
    const struct sk_ops *plan = sk_ops_cuda_plan(), *real = sk_ops_cuda();
    ck_assert_int_eq(plan->activation, real->activation);
    ck_assert(plan->device == real->device);
    ck_assert_str_eq(plan->name, real->name);
    for (int op = 0; op < SK_OP_COUNT; op++)
        ck_assert_msg(plan->measure[op] && real->measure[op], "%s: no measure",
                      sk_op_info((enum sk_op)op)->name);
}
END_TEST

static Suite *cuda_plan_suite(void)
{
    Suite *suite = suite_create("cuda_plan");
    TCase *tc = tcase_create("cuda_plan");
    tcase_add_test(tc, plans_measure_as_the_ops_do);
    tcase_add_test(tc, plans_know_every_op);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(cuda_plan_suite)
