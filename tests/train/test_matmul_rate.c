#include "train/matmul_rate.h"

#include "tests/support/support.h"
#include "train/backend.h"

/* Time is not judged here; that there is a figure is. */
START_TEST(a_product_has_a_rate)
{
    struct sft_backend *backend;
    struct sf_err err = {0};
    double flops = 0;
    assert_ok(sft_backend_open(&backend, SFT_DEVICE_CPU, 1, false, NULL, &err), err);
    assert_ok(sft_matmul_rate(&flops, sft_backend_ops(backend), sft_backend_ctx(backend), &err),
              err);
    ck_assert_double_gt(flops, 1e6);
    ck_assert_double_lt(flops, 1e15);
    sft_backend_close(backend);
}
END_TEST

static Suite *matmul_rate_suite(void)
{
    Suite *suite = suite_create("matmul_rate");
    TCase *tc = tcase_create("rate");
    tcase_add_test(tc, a_product_has_a_rate);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(matmul_rate_suite)
