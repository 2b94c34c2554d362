#include "tests/kernels/cuda_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/adamw_8bit.h"

/* Sums of squares go by chunks of 32768; the update takes 4 numbers at a time, and no more blocks
 * than the device likes: the last count makes each go round. */
static const int64_t counts[] = {1, 3, 7, 4096, 32768, 32771, 10001, 5000000};
enum { COUNTS = sizeof counts / sizeof counts[0] };

static const struct cuda_op grad_norm = {SK_GRAD_NORM, "fffw", sk_grad_norm_cuda,
                                         sk_grad_norm_measure_cuda};
static const struct cuda_op adamw = {SK_ADAMW, "ffffff", sk_adamw_cuda, NULL};
static const struct cuda_op adamw_8bit = {SK_ADAMW_8BIT, "ffffffff", sk_adamw_8bit_cuda, NULL};
static const struct cuda_op fill_zero = {SK_FILL_ZERO, "f", sk_fill_zero_cuda, NULL};

/* float64 sums: one rounding to float32, wherever it falls. `shift`: elements off 16 bytes. */
static void check_norm(int which, float max_norm, float scale, int shift)
{
    int64_t n = counts[which];
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    char label[96];
    kit_begin(&kit, 8000 + (uint64_t)which);
    struct sk_grad_norm a = {.norm = kit_out(&kit, 1),
                             .clip = kit_out(&kit, 1),
                             .grad = kit_in(&kit, n + shift, scale) + shift,
                             .count = n,
                             .max_norm = max_norm};
    cuda_run_cpu(&truth, &kit, &grad_norm, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &grad_norm, &a, &err), err);
    snprintf(label, sizeof label, "norm of %lld", (long long)n);
    cuda_compare(label, got.of[0], truth.of[0], NULL, 1, 1.2e-7);
    snprintf(label, sizeof label, "clip to %g", (double)max_norm);
    cuda_compare(label, got.of[1], truth.of[1], NULL, 1, 1.2e-7);
    kit_end(&kit);
}

START_TEST(norm_and_clip)
{
    check_norm(_i, 1, 1, 0);
    check_norm(_i, 1, 1, 1);
    check_norm(_i, 1, 1e-4f, 0);
    check_norm(_i, 0, 1, 2);
    check_norm(_i, 0.5f, 1e15f, 0); /* squares are beyond float32 */
}
END_TEST

START_TEST(zero_gradients_do_not_divide_by_zero)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    kit_begin(&kit, 8100);
    struct sk_grad_norm a = {.norm = kit_out(&kit, 1),
                             .clip = kit_out(&kit, 1),
                             .grad = kit_in(&kit, 50, 0),
                             .count = 50,
                             .max_norm = 1};
    assert_ok(cuda_run_gpu(&got, &kit, &grad_norm, &a, &err), err);
    ck_assert(*(float *)got.of[0] == 0 && *(float *)got.of[1] == 1);
    kit_end(&kit);
}
END_TEST

/* One block of numbers, all four `shift` elements off 16 bytes. */
static struct sk_adamw make_adamw(struct kit *kit, int64_t n, int shift,
                                  struct sk_adamw_hyper **hyper, float **clip)
{
    *hyper = kit_bytes(kit, sizeof **hyper, false);
    *clip = kit_in(kit, 1, 0);
    struct sk_adamw a = {.parameter = kit_inout(kit, n + shift, 0.5f) + shift,
                         .m = kit_inout(kit, n + shift, 0.1f) + shift,
                         .v = kit_inout(kit, n + shift, 0.1f) + shift,
                         .grad = kit_in(kit, n + shift, 1) + shift,
                         .clip = *clip,
                         .hyper = *hyper,
                         .count = n,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .epsilon = 1e-8,
                         .weight_decay = 0.01};
    for (int64_t i = 0; i < n; i++)
        a.v[i] = fabsf(a.v[i]);
    return a;
}

/* The same bits as the CPU, but for the powers of beta: there, and so for all of a step, one unit in
 * the last place of float32 is allowed. m and v know no powers. */
static void check_step(int which, int step, int shift)
{
    static const char *const what[] = {"parameter", "m", "v"};
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    struct sk_adamw_hyper *hyper;
    float *clip;
    char label[96];
    kit_begin(&kit, 8200 + (uint64_t)(which * 100 + step));
    struct sk_adamw a = make_adamw(&kit, counts[which], shift, &hyper, &clip);
    *hyper = (struct sk_adamw_hyper){.learning_rate = 0.01 * step, .step = step};
    *clip = 1 / (float)step;
    cuda_run_cpu(&truth, &kit, &adamw, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &adamw, &a, &err), err);
    for (int i = 0; i < 3; i++) {
        snprintf(label, sizeof label, "%s of %lld, step %d", what[i], (long long)a.count, step);
        if (i == 0)
            cuda_compare(label, got.of[i], truth.of[i], NULL, a.count, 1.2e-7);
        else
            ck_assert_msg(memcmp(got.of[i], truth.of[i], (size_t)a.count * sizeof(float)) == 0,
                          "%s: not the CPU's bits", label);
    }
    kit_end(&kit);
}

START_TEST(steps_meet_the_cpu)
{
    check_step(_i, 1, 0);
    check_step(_i, 7, 0);
    check_step(_i, 1000, 0);
    check_step(_i, 3, 1);
}
END_TEST

/* Any codes, one scale of zero, a gradient that is no number. */
static struct sk_adamw_8bit make_adamw_8bit(struct kit *kit, int64_t n, int shift,
                                            struct sk_adamw_hyper **hyper, float **clip)
{
    int64_t blocks = sk_adamw_blocks(n);
    *hyper = kit_bytes(kit, sizeof **hyper, false);
    *clip = kit_in(kit, 1, 0);
    float *grad = kit_in(kit, n + shift, 1) + shift;
    struct sk_adamw_8bit a = {.parameter = kit_inout(kit, n + shift, 0.5f) + shift,
                              .m = (uint8_t *)kit_bytes(kit, (uint64_t)(n + shift), true) + shift,
                              .v = (uint8_t *)kit_bytes(kit, (uint64_t)(n + shift), true) + shift,
                              .m_scale = kit_inout(kit, blocks, 0.1f),
                              .v_scale = kit_inout(kit, blocks, 0.1f),
                              .grad = grad,
                              .clip = *clip,
                              .hyper = *hyper,
                              .count = n,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .weight_decay = 0.01};
    for (int64_t i = 0; i < n; i++) {
        a.m[i] = (uint8_t)scout_random_u64(&kit->random);
        a.v[i] = (uint8_t)scout_random_u64(&kit->random);
        if (i / 256 == 2)
            grad[i] = 0;
    }
    for (int64_t b = 0; b < blocks; b++) {
        a.m_scale[b] = b == 2 ? 0 : fabsf(a.m_scale[b]);
        a.v_scale[b] = b == 2 ? 0 : fabsf(a.v_scale[b]);
    }
    if (n > 2000)
        grad[1999] = NAN;
    return a;
}

/* As above: all but the parameters to the bit. */
static void check_step_8bit(int which, int step, int shift)
{
    static const char *const what[] = {"parameter", "m", "v", "m_scale", "v_scale"};
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    struct sk_adamw_hyper *hyper;
    float *clip;
    char label[96];
    kit_begin(&kit, 8400 + (uint64_t)(which * 100 + step));
    struct sk_adamw_8bit a = make_adamw_8bit(&kit, counts[which], shift, &hyper, &clip);
    *hyper = (struct sk_adamw_hyper){.learning_rate = 0.01 * step, .step = step};
    *clip = 1 / (float)step;
    cuda_run_cpu(&truth, &kit, &adamw_8bit, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &adamw_8bit, &a, &err), err);
    snprintf(label, sizeof label, "8-bit: parameter of %lld, step %d", (long long)a.count, step);
    cuda_compare(label, got.of[0], truth.of[0], NULL, a.count, 1.2e-7);
    for (int i = 1; i < 5; i++) {
        size_t bytes = i < 3 ? (size_t)a.count : (size_t)sk_adamw_blocks(a.count) * sizeof(float);
        ck_assert_msg(memcmp(got.of[i], truth.of[i], bytes) == 0, "%s of %lld: not the CPU's bits",
                      what[i], (long long)a.count);
    }
    kit_end(&kit);
}

START_TEST(steps_of_8_bit_moments_meet_the_cpu)
{
    check_step_8bit(_i, 1, 0);
    check_step_8bit(_i, 7, 0);
    check_step_8bit(_i, 1000, 0);
    check_step_8bit(_i, 3, 1);
}
END_TEST

START_TEST(zero_fills_what_it_is_told)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    kit_begin(&kit, 8300);
    unsigned char *data = kit_bytes(&kit, 1001, true);
    memset(data, 0xee, 1001);
    struct sk_fill_zero a = {.data = data, .bytes = 997};
    assert_ok(cuda_run_gpu(&got, &kit, &fill_zero, &a, &err), err);
    for (int i = 0; i < 1001; i++)
        if (((unsigned char *)got.of[0])[i] != (i < 997 ? 0 : 0xee))
            ck_abort_msg("byte %d", i);
    kit_end(&kit);
}
END_TEST

static Suite *adamw_suite(void)
{
    Suite *suite = suite_create("cuda_adamw");
    TCase *tc = tcase_create("cuda_adamw");
    tcase_add_loop_test(tc, norm_and_clip, 0, COUNTS);
    tcase_add_test(tc, zero_gradients_do_not_divide_by_zero);
    tcase_add_loop_test(tc, steps_meet_the_cpu, 0, COUNTS);
    tcase_add_loop_test(tc, steps_of_8_bit_moments_meet_the_cpu, 0, COUNTS);
    tcase_add_test(tc, zero_fills_what_it_is_told);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(adamw_suite);
}
