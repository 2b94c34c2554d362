#include "tests/kernels/cuda_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/embed.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"

static const struct cuda_op norm_forward = {SK_RMSNORM_FORWARD, "aafaam", sk_rmsnorm_forward_cuda,
                                            NULL};
static const struct cuda_op norm_backward = {SK_RMSNORM_BACKWARD, "aaafam",
                                             sk_rmsnorm_backward_cuda, NULL};
static const struct cuda_op gate_forward = {SK_SWIGLU_FORWARD, "aaa", sk_swiglu_forward_cuda, NULL};
static const struct cuda_op gate_backward = {SK_SWIGLU_BACKWARD, "aaaaa", sk_swiglu_backward_cuda,
                                             NULL};
static const struct cuda_op embed = {SK_EMBED_FORWARD, "ahhh", sk_embed_forward_cuda, NULL};

/* ---- RMSNorm ---- */

/* A float32 sum over a row, and what follows from it. */
static const double sum_bar = 1e-6;

/* Around a warp's and a thread block's width, with rows on 16 bytes and not. */
static const struct {
    int64_t rows, cols;
    enum sk_format format;
} norms[] = {
    {1, 64, SK_FORMAT_F32},     {7, 33, SK_FORMAT_BF16},        {130, 256, SK_FORMAT_BF16},
    {5, 2100, SK_FORMAT_F16},   {3, 2, SK_FORMAT_F32},          {2, 8, SK_FORMAT_F16},
    {9, 520, SK_FORMAT_NF4},    {4, 192, SK_FORMAT_NF4_NESTED}, {300, 5120, SK_FORMAT_BF16},
    {2, 16384, SK_FORMAT_BF16}, {3, 16383, SK_FORMAT_F32},      {1000, 40, SK_FORMAT_BF16}};
enum { NORMS = sizeof norms / sizeof norms[0] };
enum { Y, SUM, RSTD };

static void name_case(char label[96], const char *what, int64_t rows, int64_t cols)
{
    snprintf(label, 96, "%s of %lld x %lld", what, (long long)rows, (long long)cols);
}

/* The truth with s, and y, rounded to bfloat16: s is kept so, and the norm is that of what is kept. */
static void emulate_forward(struct cuda_results *out, struct kit *kit,
                            const struct sk_rmsnorm_forward *a, const float *s)
{
    int64_t n = a->rows * a->cols;
    struct sk_rmsnorm_forward e = *a;
    float *x = kit_in(kit, n, 0);
    memcpy(x, s, (size_t)n * sizeof *x);
    cuda_round(x, n);
    e.x = x;
    e.delta = NULL;
    cuda_run_cpu(out, kit, &norm_forward, &e);
    cuda_round(out->of[Y], n);
}

static void check_norm_forward(int which, bool with_delta, bool with_sum)
{
    int64_t rows = norms[which].rows, cols = norms[which].cols, n = rows * cols;
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth, emulated;
    char label[96];
    kit_begin(&kit, 6100 + (uint64_t)which);
    struct sk_rmsnorm_forward a = {.y = kit_out(&kit, n),
                                   .sum = with_sum ? kit_out(&kit, n) : NULL,
                                   .rstd = kit_out(&kit, rows),
                                   .x = kit_in(&kit, n, 1.5f),
                                   .delta = with_delta ? kit_in(&kit, n, 0.5f) : NULL,
                                   .weight = kit_matrices(&kit, norms[which].format, 1, 1, cols),
                                   .rows = rows,
                                   .cols = cols,
                                   .epsilon = 1e-5f};
    cuda_round_activations(&kit, &norm_forward, &a);
    cuda_run_cpu(&truth, &kit, &norm_forward, &a);
    const float *s = with_sum ? truth.of[SUM] : a.x;
    emulate_forward(&emulated, &kit, &a, s);
    assert_ok(cuda_run_gpu(&got, &kit, &norm_forward, &a, &err), err);
    name_case(label, with_delta ? "y, with delta," : "y", rows, cols);
    cuda_compare(label, got.of[Y], truth.of[Y], emulated.of[Y], n, 0);
    name_case(label, "rstd", rows, cols);
    cuda_compare(label, got.of[RSTD], truth.of[RSTD], emulated.of[RSTD], rows, sum_bar);
    for (int64_t i = 0; with_sum && i < n; i++) {
        float sum = s[i];
        cuda_round(&sum, 1);
        ck_assert_msg(((float *)got.of[SUM])[i] == sum, "sum[%lld]", (long long)i);
    }
    kit_end(&kit);
}

START_TEST(norm_forward_meets_the_cpu)
{
    check_norm_forward(_i, true, true);
    check_norm_forward(_i, false, true);
    check_norm_forward(_i, false, false);
}
END_TEST

enum residual { NONE, APART, IN_PLACE };

static void check_norm_backward(int which, enum residual residual)
{
    int64_t rows = norms[which].rows, cols = norms[which].cols, n = rows * cols;
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    char label[96];
    kit_begin(&kit, 6200 + (uint64_t)which);
    float *rstd = kit_in(&kit, rows, 0);
    for (int64_t r = 0; r < rows; r++)
        rstd[r] = 0.3f + (float)scout_random_uniform(&kit.random);
    struct sk_rmsnorm_backward a = {.dy = kit_in(&kit, n, 1),
                                    .sum = kit_in(&kit, n, 1.5f),
                                    .rstd = rstd,
                                    .weight = kit_matrices(&kit, norms[which].format, 1, 1, cols),
                                    .rows = rows,
                                    .cols = cols};
    a.ds = residual == IN_PLACE ? kit_inout(&kit, n, 0.5f) : kit_out(&kit, n);
    a.residual = residual == NONE ? NULL : residual == APART ? kit_in(&kit, n, 0.5f) : a.ds;
    cuda_round_activations(&kit, &norm_backward, &a);
    cuda_run_cpu(&truth, &kit, &norm_backward, &a);
    float *rounded = kit_in(&kit, n, 0);
    memcpy(rounded, truth.of[0], (size_t)n * sizeof *rounded);
    cuda_round(rounded, n);
    assert_ok(cuda_run_gpu(&got, &kit, &norm_backward, &a, &err), err);
    name_case(label,
              residual == NONE    ? "ds"
              : residual == APART ? "ds + residual"
                                  : "ds in place",
              rows, cols);
    cuda_compare(label, got.of[0], truth.of[0], rounded, n, 0);
    kit_end(&kit);
}

START_TEST(norm_backward_meets_the_cpu)
{
    check_norm_backward(_i, NONE);
    check_norm_backward(_i, APART);
    check_norm_backward(_i, IN_PLACE);
}
END_TEST

START_TEST(rows_too_long_are_refused)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    kit_begin(&kit, 6300);
    struct sk_rmsnorm_forward a = {.y = kit_out(&kit, 16392),
                                   .rstd = kit_out(&kit, 1),
                                   .x = kit_in(&kit, 16392, 1),
                                   .weight = kit_matrices(&kit, SK_FORMAT_BF16, 1, 1, 16392),
                                   .rows = 1,
                                   .cols = 16392};
    assert_fails(cuda_run_gpu(&got, &kit, &norm_forward, &a, &err), SF_EUNSUPPORTED,
                 "at most 16384, not 16392", err);
    kit_end(&kit);
}
END_TEST

/* ---- SwiGLU ---- */

static const struct {
    int64_t rows, width, stride;
} gates[] = {{1, 1, 1},  {7, 33, 40},        {130, 256, 512}, {3, 100, 200}, {5, 2056, 4112},
             {1, 8, 16}, {200, 8192, 16384}, {70000, 16, 32}, {9, 24, 60}};
enum { GATES = sizeof gates / sizeof gates[0] };

struct given {
    float *gate, *up;
};

/* gate and up share one buffer where two widths fit in the stride, as the model has them. */
static struct given make_gates(struct kit *kit, int which, bool output)
{
    int64_t width = gates[which].width, stride = gates[which].stride;
    int64_t n = gates[which].rows * stride;
    struct given g;
    g.gate = output ? kit_inout(kit, n, 3) : kit_in(kit, n, 3);
    g.up =
        stride >= 2 * width ? g.gate + width : (output ? kit_inout(kit, n, 1) : kit_in(kit, n, 1));
    g.gate[0] = 100; /* where exp overflows float32 one way or the other */
    for (int64_t r = 1; r < gates[which].rows && r < 4; r++)
        g.gate[r * stride] = r == 1 ? -100.0f : r == 2 ? -88.5f : -87;
    return g;
}

static void pack(float *to, const float *from, int which)
{
    int64_t width = gates[which].width;
    for (int64_t r = 0; r < gates[which].rows; r++)
        memcpy(to + r * width, from + r * gates[which].stride, (size_t)width * sizeof *to);
}

static void compare_rounded(struct kit *kit, const char *what, int which, const float *got,
                            const float *truth)
{
    char label[96];
    int64_t n = gates[which].rows * gates[which].width;
    float *rounded = kit_in(kit, n, 0);
    memcpy(rounded, truth, (size_t)n * sizeof *rounded);
    cuda_round(rounded, n);
    name_case(label, what, gates[which].rows, gates[which].width);
    cuda_compare(label, got, truth, rounded, n, 0);
}

START_TEST(gate_forward_meets_the_cpu)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    kit_begin(&kit, 6400 + (uint64_t)_i);
    struct given g = make_gates(&kit, _i, false);
    struct sk_swiglu_forward a = {.h = kit_out(&kit, gates[_i].rows * gates[_i].width),
                                  .gate = g.gate,
                                  .up = g.up,
                                  .rows = gates[_i].rows,
                                  .width = gates[_i].width,
                                  .stride = gates[_i].stride};
    cuda_round_activations(&kit, &gate_forward, &a);
    cuda_run_cpu(&truth, &kit, &gate_forward, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &gate_forward, &a, &err), err);
    compare_rounded(&kit, "h", _i, got.of[0], truth.of[0]);
    kit_end(&kit);
}
END_TEST

/* What lies between rows, and beside the halves, is to stay as it is. */
static void assert_gaps(const float *got, const float *before, int which)
{
    int64_t width = gates[which].width, stride = gates[which].stride;
    int64_t used = stride >= 2 * width ? 2 * width : width;
    for (int64_t i = 0; i < gates[which].rows * stride; i++)
        if (i % stride >= used && memcmp(&got[i], &before[i], sizeof *got) != 0)
            ck_abort_msg("element %lld lies between rows", (long long)i);
}

static void check_gate_backward(int which, bool in_place)
{
    int64_t rows = gates[which].rows, width = gates[which].width, stride = gates[which].stride;
    int64_t n = rows * width;
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    kit_begin(&kit, 6500 + (uint64_t)which);
    struct given g = make_gates(&kit, which, in_place);
    struct sk_swiglu_backward a = {.dh = kit_in(&kit, n, 1),
                                   .gate = g.gate,
                                   .up = g.up,
                                   .rows = rows,
                                   .width = width,
                                   .stride = stride};
    a.d_gate = in_place ? g.gate : kit_inout(&kit, rows * stride, 1);
    a.d_up = in_place              ? g.up
             : stride >= 2 * width ? a.d_gate + width
                                   : kit_inout(&kit, rows * stride, 1);
    cuda_round_activations(&kit, &gate_backward, &a);
    cuda_run_cpu(&truth, &kit, &gate_backward, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &gate_backward, &a, &err), err);
    float *packed = kit_in(&kit, n, 0), *want = kit_in(&kit, n, 0);
    static const char *const what[] = {"d_gate", "d_up"};
    for (int i = 0; i < 2; i++) {
        pack(packed, got.of[i], which);
        pack(want, truth.of[i], which);
        compare_rounded(&kit, what[i], which, packed, want);
    }
    assert_gaps(got.of[0], a.d_gate, which);
    kit_end(&kit);
}

START_TEST(gate_backward_meets_the_cpu)
{
    check_gate_backward(_i, false);
    check_gate_backward(_i, true);
}
END_TEST

/* ---- embedding ---- */

enum { VOCABULARY = 53 };
static const struct {
    int64_t rows, hidden;
    enum sk_format format;
} tables[] = {{1, 64, SK_FORMAT_BF16},         {7, 33, SK_FORMAT_F32},
              {130, 256, SK_FORMAT_F16},       {130, 100, SK_FORMAT_NF4},
              {29, 192, SK_FORMAT_NF4_NESTED}, {300, 5120, SK_FORMAT_BF16},
              {3, 1100, SK_FORMAT_F32}};

static struct sk_embed_forward make_embed(struct kit *kit, int which)
{
    int64_t rows = tables[which].rows, hidden = tables[which].hidden;
    int32_t *ids = kit_ints(kit, rows);
    for (int64_t r = 0; r < rows; r++)
        ids[r] = (int32_t)(scout_random_u64(&kit->random) % VOCABULARY);
    ids[0] = VOCABULARY - 1;
    return (struct sk_embed_forward){
        .y = kit_out(kit, rows * hidden),
        .staging = kit_bytes(kit, (uint64_t)(rows * hidden) * sizeof(uint16_t), true),
        .ids = ids,
        .table = kit_matrices(kit, tables[which].format, 1, VOCABULARY, hidden),
        .rows = rows,
        .hidden = hidden};
}

/* Exactly the table's numbers, rounded. */
START_TEST(embedding_rows_are_copied)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    kit_begin(&kit, 6600 + (uint64_t)_i);
    struct sk_embed_forward a = make_embed(&kit, _i);
    const double *dense = kit_dense(&kit, a.table);
    assert_ok(cuda_run_gpu(&got, &kit, &embed, &a, &err), err);
    const float *y = got.of[0];
    for (int64_t i = 0; i < a.rows * a.hidden; i++) {
        float want = (float)dense[a.ids[i / a.hidden] * a.hidden + i % a.hidden];
        cuda_round(&want, 1);
        if (y[i] != want)
            ck_abort_msg("element %lld is %.9g, want %.9g", (long long)i, (double)y[i],
                         (double)want);
    }
    kit_end(&kit);
}
END_TEST

START_TEST(ids_outside_are_refused)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    kit_begin(&kit, 6700);
    struct sk_embed_forward a = make_embed(&kit, 1);
    int32_t *ids = kit_ints(&kit, a.rows);
    a.ids = ids;
    ids[3] = VOCABULARY;
    assert_fails(cuda_run_gpu(&got, &kit, &embed, &a, &err), SF_EINVAL, "token 53 at position 3",
                 err);
    ids[3] = -1;
    assert_fails(cuda_run_gpu(&got, &kit, &embed, &a, &err), SF_EINVAL, "token -1 at position 3",
                 err);
    kit_end(&kit);
}
END_TEST

static Suite *rows_suite(void)
{
    Suite *suite = suite_create("cuda_rows");
    TCase *tc = tcase_create("cuda_rows");
    tcase_add_loop_test(tc, norm_forward_meets_the_cpu, 0, NORMS);
    tcase_add_loop_test(tc, norm_backward_meets_the_cpu, 0, NORMS);
    tcase_add_test(tc, rows_too_long_are_refused);
    tcase_add_loop_test(tc, gate_forward_meets_the_cpu, 0, GATES);
    tcase_add_loop_test(tc, gate_backward_meets_the_cpu, 0, GATES);
    tcase_add_loop_test(tc, embedding_rows_are_copied, 0, sizeof tables / sizeof tables[0]);
    tcase_add_test(tc, ids_outside_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(rows_suite);
}
