#include "tests/kernels/kit.h"

#include <math.h>

#include "kernels/rmsnorm.h"

static const double epsilon = 1e-5;
/* cols beyond 1024 cross the span in which the kernel expands weights */
static const struct {
    int64_t rows, cols;
    enum sk_format format;
} cases[] = {{1, 64, SK_FORMAT_F32},
             {7, 33, SK_FORMAT_BF16},
             {130, 256, SK_FORMAT_BF16},
             {5, 2100, SK_FORMAT_F16},
             {3, 2, SK_FORMAT_F32}};
enum { CASES = sizeof cases / sizeof cases[0] };

static void forward_formula(double *y, double *rstd, const double *s, const double *w, int64_t rows,
                            int64_t cols)
{
    for (int64_t r = 0; r < rows; r++) {
        rstd[r] = 1 / sqrt(kit_dot(s + r * cols, s + r * cols, cols) / (double)cols + epsilon);
        for (int64_t i = 0; i < cols; i++)
            y[r * cols + i] = s[r * cols + i] * rstd[r] * w[i];
    }
}

static void check_forward(int which, bool with_delta, bool with_sum)
{
    int64_t rows = cases[which].rows, cols = cases[which].cols, n = rows * cols;
    struct kit kit;
    kit_begin(&kit, 100 + (uint64_t)which);
    struct sk_rmsnorm_forward a = {.y = kit_out(&kit, n),
                                   .sum = with_sum ? kit_out(&kit, n) : NULL,
                                   .rstd = kit_out(&kit, rows),
                                   .x = kit_in(&kit, n, 1.5f),
                                   .delta = with_delta ? kit_in(&kit, n, 0.5f) : NULL,
                                   .weight = kit_matrices(&kit, cases[which].format, 1, 1, cols),
                                   .rows = rows,
                                   .cols = cols,
                                   .epsilon = (float)epsilon};
    double *s = kit_wide(&kit, a.x, n), *y = kit_zeros(&kit, n), *rstd = kit_zeros(&kit, rows);
    for (int64_t i = 0; with_delta && i < n; i++)
        s[i] += (double)a.delta[i];
    forward_formula(y, rstd, s, kit_dense(&kit, a.weight), rows, cols);
    kit_run(&kit, SK_RMSNORM_FORWARD, &a);
    if (with_sum)
        kit_close("sum", a.sum, s, n, 6e-8);
    kit_close("rstd", a.rstd, rstd, rows, 1.5e-7);
    kit_close("y", a.y, y, n, 1.5e-7);
    kit_end(&kit);
}

START_TEST(forward_meets_the_formula)
{
    check_forward(_i, true, true);
    check_forward(_i, false, true);
    check_forward(_i, false, false);
}
END_TEST

struct slope {
    double *y, *rstd, *s, *w, *dy, *residual;
    int64_t rows, cols;
};

/* <dy, y(s)> + <residual, s>: its slope is ds. */
static double slope_loss(void *ctx)
{
    struct slope *l = ctx;
    forward_formula(l->y, l->rstd, l->s, l->w, l->rows, l->cols);
    double loss = kit_dot(l->dy, l->y, l->rows * l->cols);
    return l->residual ? loss + kit_dot(l->residual, l->s, l->rows * l->cols) : loss;
}

static void backward_formula(double *ds, const struct slope *l)
{
    for (int64_t r = 0; r < l->rows; r++) {
        const double *s = l->s + r * l->cols, *dy = l->dy + r * l->cols;
        double mean = 0, rstd = 1 / sqrt(kit_dot(s, s, l->cols) / (double)l->cols + epsilon);
        for (int64_t i = 0; i < l->cols; i++)
            mean += dy[i] * l->w[i] * s[i] * rstd / (double)l->cols;
        for (int64_t i = 0; i < l->cols; i++)
            ds[r * l->cols + i] = rstd * (dy[i] * l->w[i] - s[i] * rstd * mean) +
                                  (l->residual ? l->residual[r * l->cols + i] : 0);
    }
}

enum residual { NONE, APART, IN_PLACE };

static void check_backward(int which, enum residual residual)
{
    int64_t rows = cases[which].rows, cols = cases[which].cols, n = rows * cols;
    struct kit kit;
    kit_begin(&kit, 200 + (uint64_t)which);
    struct sk_rmsnorm_backward a = {.dy = kit_in(&kit, n, 1),
                                    .sum = kit_in(&kit, n, 1.5f),
                                    .weight = kit_matrices(&kit, cases[which].format, 1, 1, cols),
                                    .rows = rows,
                                    .cols = cols};
    a.ds = residual == IN_PLACE ? kit_inout(&kit, n, 0.5f) : kit_out(&kit, n);
    a.residual = residual == NONE ? NULL : residual == APART ? kit_in(&kit, n, 0.5f) : a.ds;
    float *rstd = kit_in(&kit, rows, 0);
    a.rstd = rstd;
    struct slope l = {.y = kit_zeros(&kit, n),
                      .rstd = kit_zeros(&kit, rows),
                      .s = kit_wide(&kit, a.sum, n),
                      .w = kit_dense(&kit, a.weight),
                      .dy = kit_wide(&kit, a.dy, n),
                      .residual = a.residual ? kit_wide(&kit, a.residual, n) : NULL,
                      .rows = rows,
                      .cols = cols};
    double *ds = kit_zeros(&kit, n);
    slope_loss(&l);
    for (int64_t r = 0; r < rows; r++)
        rstd[r] = (float)l.rstd[r];
    backward_formula(ds, &l);
    kit_slope(&kit, "ds", slope_loss, &l, l.s, ds, n, 40);
    kit_run(&kit, SK_RMSNORM_BACKWARD, &a);
    kit_close("ds", a.ds, ds, n, 3e-7);
    kit_end(&kit);
}

START_TEST(backward_meets_the_formula)
{
    check_backward(_i, NONE);
    check_backward(_i, APART);
    check_backward(_i, IN_PLACE);
}
END_TEST

static Suite *rmsnorm_suite(void)
{
    Suite *suite = suite_create("rmsnorm");
    TCase *tc = tcase_create("rmsnorm");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, forward_meets_the_formula, 0, CASES);
    tcase_add_loop_test(tc, backward_meets_the_formula, 0, CASES);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(rmsnorm_suite)
