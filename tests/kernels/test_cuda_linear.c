#include "tests/kernels/cuda_support.h"

#include <stdio.h>
#include <string.h>

#include "kernels/gemm_cpu.h"
#include "kernels/linear.h"

/* Sums of float32 products, whatever their order: relative to the norm of all. */
static const double float32_bar = 1e-5;

static const struct shape {
    int64_t rows, in, out, rank, groups, pad; /* pad: elements between rows of y, matrices A, B */
    enum sk_format format;
} shapes[] = {{1, 64, 64, 4, 1, 0, SK_FORMAT_NF4_NESTED},
              {7, 33, 70, 3, 1, 5, SK_FORMAT_BF16},
              {130, 200, 304, 16, 1, 0, SK_FORMAT_NF4},
              {131, 104, 136, 8, 6, 8, SK_FORMAT_NF4_NESTED},
              {9, 40, 24, 1, 5, 0, SK_FORMAT_F16},
              {300, 72, 264, 5, 4, 3, SK_FORMAT_F32},
              {64, 5120, 1024, 64, 1, 3072, SK_FORMAT_NF4_NESTED},
              {200, 5120, 8192, 64, 1, 0, SK_FORMAT_NF4_NESTED},
              {100, 8192, 5120, 16, 3, 0, SK_FORMAT_NF4_NESTED}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static const struct cuda_op forward = {SK_LINEAR_FORWARD, "aaamfffhw", sk_linear_forward_cuda,
                                       sk_linear_forward_measure_cuda};
static const struct cuda_op backward = {SK_LINEAR_BACKWARD, "affaaamfffhw", sk_linear_backward_cuda,
                                        sk_linear_backward_measure_cuda};

/* An expert's matrix: one way through each op is enough. */
static bool is_large(int which)
{
    return shapes[which].in * shapes[which].out > 10000000;
}

struct made {
    const struct shape *s;
    int64_t y_stride, a_stride, b_stride;
    struct sk_matrix *w, *rounded_w;
    float *a, *b, *rounded_a, *rounded_b;
    int32_t *offsets;
    char name[64];
};

/* Group 1 has no rows, the last one has what is left. */
static int32_t *make_offsets(struct kit *kit, const struct shape *s)
{
    int32_t *offsets = kit_ints(kit, s->groups + 1);
    for (int64_t g = 1; g < s->groups; g++) {
        int64_t left = s->rows - offsets[g - 1];
        uint64_t take = scout_random_u64(&kit->random) % (uint64_t)(left / 2 + 1);
        offsets[g] = offsets[g - 1] + (g == 2 ? 0 : (int32_t)take);
    }
    offsets[s->groups] = (int32_t)s->rows;
    return offsets;
}

static float *rounded(struct kit *kit, const float *x, int64_t n)
{
    float *out = kit_in(kit, n, 0);
    memcpy(out, x, (size_t)n * sizeof *x);
    cuda_round(out, n);
    return out;
}

static void make_case(struct kit *kit, struct made *m, int which, bool lora)
{
    const struct shape *s = &shapes[which];
    *m = (struct made){.s = s,
                       .y_stride = s->out + s->pad,
                       .a_stride = s->rank * s->in + s->pad,
                       .b_stride = s->out * s->rank + s->pad};
    m->offsets = make_offsets(kit, s);
    m->w = kit_matrices(kit, s->format, s->groups, s->out, s->in);
    bool exact = s->format != SK_FORMAT_F32 && s->format != SK_FORMAT_F16;
    m->rounded_w = exact ? m->w : cuda_round_matrices(kit, m->w, s->groups);
    if (lora) {
        m->a = kit_in(kit, s->groups * m->a_stride, 0.2f);
        m->b = kit_in(kit, s->groups * m->b_stride, 0.2f);
        m->rounded_a = rounded(kit, m->a, s->groups * m->a_stride);
        m->rounded_b = rounded(kit, m->b, s->groups * m->b_stride);
    }
    snprintf(m->name, sizeof m->name, "%lld x %lld -> %lld, %lld groups%s", (long long)s->rows,
             (long long)s->in, (long long)s->out, (long long)s->groups, lora ? ", LoRA" : "");
}

static void compare(const char *what, const struct made *m, float *const of[3], int64_t n,
                    bool halves)
{
    char label[96];
    if (halves) /* what CUDA rounds at the end, the emulation rounds as well */
        cuda_round(of[2], n);
    snprintf(label, sizeof label, "%s of %s", what, m->name);
    cuda_compare(label, of[0], of[1], of[2], n, halves ? 0 : float32_bar);
}

/* ---- forward ---- */

/* Its factors, 0 and 2, lose nothing in bfloat16. */
static const struct sk_dropout dropout = {.probability = 0.5f, .key = 3, .number = 9};
enum { SITE = 2, FIRST_ROW = 3 };
enum { LORA = 1, WANT_DX = 2, ADD_DX = 4, GROUPED = 8, DROPS = 16, ALONE = 32 };

static void check_forward(int which, int flags)
{
    struct kit kit;
    struct made m;
    struct sf_err err = {0};
    struct cuda_results got, truth, emulated;
    bool lora = flags & LORA, grouped = flags & GROUPED;
    kit_begin(&kit, 4300 + (uint64_t)which);
    make_case(&kit, &m, which, lora);
    const struct shape *s = m.s;
    struct sk_linear_forward a = {.y = kit_out(&kit, s->rows * m.y_stride),
                                  .t = lora ? kit_out(&kit, s->rows * s->rank) : NULL,
                                  .x = kit_in(&kit, s->rows * s->in, 1),
                                  .w = flags & ALONE ? NULL : m.w,
                                  .a = m.a,
                                  .b = m.b,
                                  .offsets = grouped ? m.offsets : NULL,
                                  .host_offsets = grouped ? m.offsets : NULL,
                                  .rows = s->rows,
                                  .in = s->in,
                                  .out = s->out,
                                  .groups = s->groups,
                                  .rank = lora ? s->rank : 0,
                                  .y_stride = m.y_stride,
                                  .a_stride = m.a_stride,
                                  .b_stride = m.b_stride,
                                  .scale = 0.75f,
                                  .dropout = flags & DROPS ? &dropout : NULL,
                                  .site = SITE,
                                  .first_row = FIRST_ROW};
    cuda_round_activations(&kit, &forward, &a);
    cuda_run_cpu(&truth, &kit, &forward, &a);
    struct sk_linear_forward e = a;
    e.w = a.w ? m.rounded_w : NULL;
    e.a = m.rounded_a;
    e.b = m.rounded_b;
    cuda_run_cpu(&emulated, &kit, &forward, &e);
    assert_ok(cuda_run_gpu(&got, &kit, &forward, &a, &err), err);
    compare("y", &m, (float *[]){got.of[0], truth.of[0], emulated.of[0]}, s->rows * m.y_stride,
            true);
    if (lora)
        compare("t", &m, (float *[]){got.of[1], truth.of[1], emulated.of[1]}, s->rows * s->rank,
                true);
    kit_end(&kit);
}

START_TEST(forward_meets_the_cpu)
{
    check_forward(_i, LORA | GROUPED);
    if (shapes[_i].groups == 1)
        check_forward(_i, LORA | DROPS);
    if (is_large(_i))
        return;
    check_forward(_i, GROUPED);
    check_forward(_i, LORA | ALONE | GROUPED);
    if (shapes[_i].groups == 1) {
        check_forward(_i, LORA);
        check_forward(_i, LORA | ALONE | DROPS);
    }
}
END_TEST

/* ---- backward ---- */

/* da again, by way of u = scale * dy B rounded to bfloat16, which is what CUDA sums from. */
static void emulate_da(struct kit *kit, const struct made *m, const struct sk_linear_backward *a,
                       float *da)
{
    const struct shape *s = m->s;
    float *u = kit_in(kit, s->rows * s->rank, 0), *x = kit_in(kit, s->rows * s->in, 0), factor[4];
    for (int64_t i = 0; i < s->rows * s->in; i++) {
        int64_t counted = FIRST_ROW * s->in + i;
        sk_dropout_factors(factor, dropout, SITE, (uint64_t)counted / 4);
        x[i] = (a->dropout ? factor[counted % 4] : 1) * a->x[i];
    }
    memcpy(da, a->da, (size_t)(s->groups * m->a_stride) * sizeof *da);
    for (int64_t g = 0; g < s->groups; g++) {
        int64_t row = m->offsets[g], n = m->offsets[g + 1] - row;
        if (n == 0)
            continue;
        sk_gemm_nn(u, s->rank, a->dy + row * m->y_stride, m->y_stride,
                   m->rounded_b + g * m->b_stride, s->rank, n, s->rank, s->out, a->scale, 0);
        cuda_round(u, n * s->rank);
        sk_gemm_tn(da + g * m->a_stride, s->in, u, s->rank, x + row * s->in, s->in, s->rank, s->in,
                   n, 1, 1);
    }
}

/* Groups without rows: da and db keep their bits. */
static void check_empty_groups(const struct made *m, const struct sk_linear_backward *a,
                               const float *da, const float *db)
{
    for (int64_t g = 0; g < m->s->groups; g++) {
        if (m->offsets[g] != m->offsets[g + 1])
            continue;
        ck_assert_mem_eq(da + g * m->a_stride, a->da + g * m->a_stride,
                         (size_t)m->a_stride * sizeof *da);
        ck_assert_mem_eq(db + g * m->b_stride, a->db + g * m->b_stride,
                         (size_t)m->b_stride * sizeof *db);
    }
}

static struct sk_linear_backward make_backward(struct kit *kit, const struct made *m, int flags)
{
    const struct shape *s = m->s;
    bool lora = flags & LORA, grouped = flags & GROUPED;
    struct sk_linear_backward a = {.da = lora ? kit_inout(kit, s->groups * m->a_stride, 1) : NULL,
                                   .db = lora ? kit_inout(kit, s->groups * m->b_stride, 1) : NULL,
                                   .dy = kit_in(kit, s->rows * m->y_stride, 1),
                                   .x = lora ? kit_in(kit, s->rows * s->in, 1) : NULL,
                                   .t = lora ? kit_in(kit, s->rows * s->rank, 2) : NULL,
                                   .w = flags & ALONE ? NULL : m->w,
                                   .a = m->a,
                                   .b = m->b,
                                   .offsets = grouped ? m->offsets : NULL,
                                   .host_offsets = grouped ? m->offsets : NULL,
                                   .rows = s->rows,
                                   .in = s->in,
                                   .out = s->out,
                                   .groups = s->groups,
                                   .rank = lora ? s->rank : 0,
                                   .y_stride = m->y_stride,
                                   .a_stride = m->a_stride,
                                   .b_stride = m->b_stride,
                                   .scale = 0.75f,
                                   .accumulate_dx = flags & ADD_DX,
                                   .dropout = flags & DROPS ? &dropout : NULL,
                                   .site = SITE,
                                   .first_row = FIRST_ROW};
    if (flags & WANT_DX)
        a.dx = flags & ADD_DX ? kit_inout(kit, s->rows * s->in, 3) : kit_out(kit, s->rows * s->in);
    return a;
}

static void check_backward(int which, int flags)
{
    struct kit kit;
    struct made m;
    struct sf_err err = {0};
    struct cuda_results got, truth, emulated;
    kit_begin(&kit, 4400 + (uint64_t)which);
    make_case(&kit, &m, which, flags & LORA);
    const struct shape *s = m.s;
    struct sk_linear_backward a = make_backward(&kit, &m, flags);
    cuda_round_activations(&kit, &backward, &a);
    cuda_run_cpu(&truth, &kit, &backward, &a);
    struct sk_linear_backward e = a;
    e.w = a.w ? m.rounded_w : NULL;
    e.a = m.rounded_a;
    e.b = m.rounded_b;
    cuda_run_cpu(&emulated, &kit, &backward, &e);
    assert_ok(cuda_run_gpu(&got, &kit, &backward, &a, &err), err);
    if (a.dx)
        compare("dx", &m, (float *[]){got.of[0], truth.of[0], emulated.of[0]}, s->rows * s->in,
                true);
    if (flags & LORA) {
        emulate_da(&kit, &m, &a, emulated.of[1]);
        compare("da", &m, (float *[]){got.of[1], truth.of[1], emulated.of[1]},
                s->groups * m.a_stride, false);
        compare("db", &m, (float *[]){got.of[2], truth.of[2], emulated.of[2]},
                s->groups * m.b_stride, false);
        check_empty_groups(&m, &a, got.of[1], got.of[2]);
    }
    kit_end(&kit);
}

START_TEST(backward_meets_the_cpu)
{
    check_backward(_i, LORA | WANT_DX | ADD_DX | GROUPED);
    if (is_large(_i))
        return;
    check_backward(_i, LORA | WANT_DX | GROUPED);
    check_backward(_i, LORA | GROUPED);
    check_backward(_i, WANT_DX | GROUPED);
    check_backward(_i, WANT_DX | ADD_DX | GROUPED);
    check_backward(_i, LORA | ALONE | WANT_DX | ADD_DX | GROUPED);
    check_backward(_i, LORA | ALONE | WANT_DX | GROUPED);
    if (shapes[_i].groups > 1)
        return;
    check_backward(_i, LORA | WANT_DX);
    check_backward(_i, LORA | WANT_DX | DROPS);
    check_backward(_i, LORA | WANT_DX | ADD_DX | DROPS);
    check_backward(_i, LORA | DROPS);
    check_backward(_i, LORA | ALONE | WANT_DX | ADD_DX | DROPS);
}
END_TEST

/* ---- what is refused ---- */

START_TEST(offsets_that_do_not_divide_the_rows)
{
    struct kit kit;
    struct made m;
    struct sf_err err = {0};
    struct cuda_results got;
    kit_begin(&kit, 1);
    make_case(&kit, &m, 3, false);
    struct sk_linear_backward a = make_backward(&kit, &m, WANT_DX | GROUPED);
    int32_t *wrong = kit_ints(&kit, m.s->groups + 1);
    memcpy(wrong, m.offsets, (size_t)(m.s->groups + 1) * sizeof *wrong);
    a.host_offsets = wrong;
    wrong[3] = (int32_t)m.s->rows + 1;
    assert_fails(cuda_run_gpu(&got, &kit, &backward, &a, &err), SF_EINVAL,
                 "offsets of 6 groups do not divide 131 rows", err);
    a.host_offsets = NULL;
    assert_fails(cuda_run_gpu(&got, &kit, &backward, &a, &err), SF_EINVAL, "host memory", err);
    kit_end(&kit);
}
END_TEST

static Suite *linear_suite(void)
{
    Suite *suite = suite_create("cuda_linear");
    TCase *tc = tcase_create("cuda_linear");
    tcase_add_loop_test(tc, forward_meets_the_cpu, 0, SHAPES);
    tcase_add_loop_test(tc, backward_meets_the_cpu, 0, SHAPES);
    tcase_add_test(tc, offsets_that_do_not_divide_the_rows);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(linear_suite);
}
