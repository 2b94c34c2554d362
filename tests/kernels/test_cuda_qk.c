#include "tests/kernels/cuda_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/qk.h"

static const double float32_bar = 1e-6; /* rstd: a float32 sum over a head */

static const struct sk_qk_shape shapes[] = {
    {.rows = 1, .heads = 1, .kv_heads = 1, .head_size = 2, .rope = true},
    {.rows = 7, .heads = 10, .kv_heads = 2, .head_size = 6, .rope = true, .norm = true},
    {.rows = 130, .heads = 5, .kv_heads = 1, .head_size = 64, .rope = true, .norm = true},
    {.rows = 33, .heads = 4, .kv_heads = 2, .head_size = 16, .temperature = true},
    {.rows = 12, .heads = 2, .kv_heads = 2, .head_size = 8, .norm = true},
    {.rows = 5, .heads = 3, .kv_heads = 3, .head_size = 4},
    {.rows = 6, .heads = 2, .kv_heads = 1, .head_size = 270, .rope = true, .norm = true},
    {.rows = 3, .heads = 17, .kv_heads = 1, .head_size = 256, .rope = true, .norm = true},
    {.rows = 1, .heads = 40, .kv_heads = 8, .head_size = 128, .rope = true, .norm = true},
    {.rows = 300, .heads = 40, .kv_heads = 8, .head_size = 128, .rope = true, .norm = true},
    {.rows = 70, .heads = 40, .kv_heads = 8, .head_size = 128, .rope = true},
    {.rows = 70, .heads = 40, .kv_heads = 8, .head_size = 128, .temperature = true}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };
static const int32_t far_positions[] = {8190, 8191, 16383, 131071, 1048575};

static const struct cuda_op forward = {SK_QK_FORWARD, "aaffff", sk_qk_forward_cuda, NULL};
static const struct cuda_op backward = {SK_QK_BACKWARD, "aaaaffff", sk_qk_backward_cuda, NULL};

static struct sk_qk_shape shape_of(int which)
{
    struct sk_qk_shape s = shapes[which];
    s.epsilon = 1e-5f;
    s.temperature_floor = 8192;
    s.temperature_scale = 0.1f;
    return s;
}

static struct sk_qk_forward make_case(struct kit *kit, int which)
{
    struct sk_qk_shape s = shape_of(which);
    int64_t nq = s.rows * s.heads, nk = s.rows * s.kv_heads;
    int32_t *positions = kit_ints(kit, s.rows);
    float *inv_freq = kit_in(kit, s.head_size / 2, 0);
    for (int64_t r = 0; r < s.rows; r++)
        positions[r] = r % 7 < 5 && r > 0 ? far_positions[r % 5] + (int32_t)(r / 7) : (int32_t)r;
    for (int64_t j = 0; j < s.head_size / 2; j++)
        inv_freq[j] = powf(500000, -2 * (float)j / (float)s.head_size);
    return (struct sk_qk_forward){.q = kit_inout(kit, nq * s.head_size, 1),
                                  .k = kit_inout(kit, nk * s.head_size, 1),
                                  .q_rstd = s.norm ? kit_out(kit, nq) : NULL,
                                  .k_rstd = s.norm ? kit_out(kit, nk) : NULL,
                                  .positions = positions,
                                  .inv_freq = inv_freq,
                                  .shape = s};
}

static float *copy(struct kit *kit, const float *from, int64_t n)
{
    float *to = kit_in(kit, n, 0);
    memcpy(to, from, (size_t)n * sizeof *to);
    return to;
}

/* Vectors are rounded once, at the end: twice that is allowed. */
static void compare(struct kit *kit, const char *what, const struct sk_qk_shape *s, int64_t heads,
                    const float *got, const float *truth)
{
    char label[96];
    int64_t n = s->rows * heads * s->head_size;
    float *rounded = copy(kit, truth, n);
    cuda_round(rounded, n);
    snprintf(label, sizeof label, "%s %lld x %lld x %lld%s%s%s", what, (long long)s->rows,
             (long long)heads, (long long)s->head_size, s->rope ? " rope" : "",
             s->norm ? " norm" : "", s->temperature ? " temperature" : "");
    cuda_compare(label, got, truth, rounded, n, 0);
}

START_TEST(forward_meets_the_cpu)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    kit_begin(&kit, 8300 + (uint64_t)_i);
    struct sk_qk_forward a = make_case(&kit, _i);
    const struct sk_qk_shape *s = &a.shape;
    cuda_round_activations(&kit, &forward, &a);
    cuda_run_cpu(&truth, &kit, &forward, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &forward, &a, &err), err);
    compare(&kit, "q", s, s->heads, got.of[0], truth.of[0]);
    compare(&kit, "k", s, s->kv_heads, got.of[1], truth.of[1]);
    if (s->norm) {
        cuda_compare("q_rstd", got.of[2], truth.of[2], NULL, s->rows * s->heads, float32_bar);
        cuda_compare("k_rstd", got.of[3], truth.of[3], NULL, s->rows * s->kv_heads, float32_bar);
    }
    kit_end(&kit);
}
END_TEST

START_TEST(backward_meets_the_cpu)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results kept, got, truth;
    kit_begin(&kit, 8400 + (uint64_t)_i);
    struct sk_qk_forward f = make_case(&kit, _i);
    const struct sk_qk_shape *s = &f.shape;
    int64_t nq = s->rows * s->heads, nk = s->rows * s->kv_heads, d = s->head_size;
    cuda_run_cpu(&kept, &kit, &forward, &f);
    struct sk_qk_backward a = {.dq = kit_inout(&kit, nq * d, 1),
                               .dk = kit_inout(&kit, nk * d, 1),
                               .q = s->norm ? copy(&kit, kept.of[0], nq * d) : NULL,
                               .k = s->norm ? copy(&kit, kept.of[1], nk * d) : NULL,
                               .q_rstd = s->norm ? copy(&kit, kept.of[2], nq) : NULL,
                               .k_rstd = s->norm ? copy(&kit, kept.of[3], nk) : NULL,
                               .positions = f.positions,
                               .inv_freq = f.inv_freq,
                               .shape = *s};
    cuda_round_activations(&kit, &backward, &a);
    cuda_run_cpu(&truth, &kit, &backward, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &backward, &a, &err), err);
    compare(&kit, "dq", s, s->heads, got.of[0], truth.of[0]);
    compare(&kit, "dk", s, s->kv_heads, got.of[1], truth.of[1]);
    kit_end(&kit);
}
END_TEST

START_TEST(norm_with_temperature)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    kit_begin(&kit, 9);
    struct sk_qk_forward a = make_case(&kit, 2);
    a.shape.temperature = true;
    cuda_round_activations(&kit, &forward, &a);
    cuda_run_cpu(&truth, &kit, &forward, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &forward, &a, &err), err);
    compare(&kit, "q", &a.shape, a.shape.heads, got.of[0], truth.of[0]);
    cuda_compare("q_rstd", got.of[2], truth.of[2], NULL, a.shape.rows * a.shape.heads, float32_bar);
    struct sk_qk_backward b = {.shape = a.shape};
    assert_fails(sk_qk_backward_cuda(&cuda_ctx, &b, &err), SF_EUNSUPPORTED,
                 "query norm and temperature", err);
    kit_end(&kit);
}
END_TEST

static Suite *qk_suite(void)
{
    Suite *suite = suite_create("cuda_qk");
    TCase *tc = tcase_create("cuda_qk");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, forward_meets_the_cpu, 0, SHAPES);
    tcase_add_loop_test(tc, backward_meets_the_cpu, 0, SHAPES);
    tcase_add_test(tc, norm_with_temperature);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(qk_suite);
}
