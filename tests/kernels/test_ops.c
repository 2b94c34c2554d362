#include "tests/kernels/kit.h"

#include <string.h>

#include "kernels/linear.h"

START_TEST(table_is_complete)
{
    const struct sk_ops *ops = sk_ops_cpu();
    ck_assert_str_eq(ops->name, "cpu");
    for (int op = 0; op < SK_OP_COUNT; op++) {
        const struct sk_op_info *info = sk_op_info((enum sk_op)op);
        ck_assert_ptr_nonnull(info->name);
        ck_assert_msg(ops->run[op] && ops->measure[op], "%s has no filling", info->name);
        ck_assert_msg(info->outputs >= 1 && info->outputs <= info->operands,
                      "%s: %d outputs of %d operands", info->name, info->outputs, info->operands);
        ck_assert_msg((uint64_t)info->operands * sizeof(void *) < info->args_bytes,
                      "%s: %d operands in %u bytes", info->name, info->operands, info->args_bytes);
        for (int other = 0; other < op; other++)
            ck_assert_str_ne(info->name, sk_op_info((enum sk_op)other)->name);
    }
}
END_TEST

START_TEST(positions_are_those_of_the_struct)
{
    int marks[12];
    struct sk_linear_backward a = {0};
    const struct sk_op_info *info = sk_op_info(SK_LINEAR_BACKWARD);
    ck_assert_int_eq(info->operands, 12);
    ck_assert_int_eq(info->outputs, 3);
    ck_assert(info->has_workspace);
    for (int i = 0; i < 12; i++) {
        void *p = &marks[i];
        memcpy((char *)&a + (size_t)i * sizeof(void *), &p, sizeof p);
    }
    ck_assert_ptr_eq(a.dx, &marks[0]);
    ck_assert_ptr_eq(a.db, &marks[2]);
    ck_assert_ptr_eq(a.dy, &marks[3]);
    ck_assert_ptr_eq(a.offsets, &marks[9]);
    ck_assert_ptr_eq(a.host_offsets, &marks[10]);
    ck_assert_ptr_eq(a.workspace, &marks[11]);
}
END_TEST

START_TEST(start_accepts_this_machine)
{
    struct sk_ctx ctx = {0};
    struct sf_err err = {0};
    assert_ok(sk_cpu_start(&ctx, 3, &err), err);
    ck_assert_int_eq(ctx.threads, 3);
    assert_ok(sk_cpu_start(&ctx, 0, &err), err);
    ck_assert_int_eq(ctx.threads, 1);
}
END_TEST

static Suite *ops_suite(void)
{
    Suite *suite = suite_create("ops");
    TCase *tc = tcase_create("ops");
    tcase_add_test(tc, table_is_complete);
    tcase_add_test(tc, positions_are_those_of_the_struct);
    tcase_add_test(tc, start_accepts_this_machine);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(ops_suite)
