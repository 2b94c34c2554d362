#include "tests/kernels/kit.h"

#include <math.h>

#include "kernels/adamw.h"

static const int64_t counts[] = {1, 7, 4096, 10001}; /* sums go by chunks of 4096 */
enum { COUNTS = sizeof counts / sizeof counts[0] };

static void check_norm(int which, float max_norm, float scale)
{
    int64_t n = counts[which];
    struct kit kit;
    kit_begin(&kit, 1400 + (uint64_t)which);
    struct sk_grad_norm a = {.norm = kit_out(&kit, 1),
                             .clip = kit_out(&kit, 1),
                             .grad = kit_in(&kit, n, scale),
                             .count = n,
                             .max_norm = max_norm};
    const double *g = kit_wide(&kit, a.grad, n);
    double norm = sqrt(kit_dot(g, g, n));
    double clip = max_norm > 0 ? fmin(1, (double)max_norm / (norm + 1e-6)) : 1;
    kit_run(&kit, SK_GRAD_NORM, &a);
    kit_close("norm", a.norm, &norm, 1, 6e-8);
    kit_close("clip", a.clip, &clip, 1, 6e-8);
    kit_end(&kit);
}

START_TEST(norm_and_clip)
{
    check_norm(_i, 1, 1);
    check_norm(_i, 1, 1e-4f);
    check_norm(_i, 0, 1);
    check_norm(_i, 0.5f, 1e15f); /* squares are beyond float32 */
}
END_TEST

START_TEST(zero_gradients_do_not_divide_by_zero)
{
    struct kit kit;
    kit_begin(&kit, 3);
    struct sk_grad_norm a = {.norm = kit_out(&kit, 1),
                             .clip = kit_out(&kit, 1),
                             .grad = kit_in(&kit, 50, 0),
                             .count = 50,
                             .max_norm = 1};
    kit_run(&kit, SK_GRAD_NORM, &a);
    ck_assert(*a.norm == 0 && *a.clip == 1);
    kit_end(&kit);
}
END_TEST

struct wide {
    double *p, *m, *v, *g;
    int64_t n;
};

static void step_formula(struct wide *l, const struct sk_adamw *a, double clip)
{
    double lr = a->hyper->learning_rate, t = (double)a->hyper->step;
    for (int64_t i = 0; i < l->n; i++) {
        double g = clip * l->g[i];
        l->p[i] *= 1 - lr * a->weight_decay;
        l->m[i] = a->beta1 * l->m[i] + (1 - a->beta1) * g;
        l->v[i] = a->beta2 * l->v[i] + (1 - a->beta2) * g * g;
        double m = l->m[i] / (1 - pow(a->beta1, t)), v = l->v[i] / (1 - pow(a->beta2, t));
        l->p[i] -= lr * m / (sqrt(v) + a->epsilon);
    }
}

/* Steps 1 .. 6 with changing rate and gradients, moments carried on in float32 and in float64. */
START_TEST(steps_follow_the_formula)
{
    int64_t n = counts[_i];
    struct kit kit;
    kit_begin(&kit, 1500 + (uint64_t)_i);
    float *clip = kit_in(&kit, 1, 0), *grad = kit_in(&kit, n, 1);
    struct sk_adamw_hyper *hyper = kit_bytes(&kit, sizeof *hyper, false);
    struct sk_adamw a = {.parameter = kit_inout(&kit, n, 0.5f),
                         .m = kit_inout(&kit, n, 0),
                         .v = kit_inout(&kit, n, 0),
                         .grad = grad,
                         .clip = clip,
                         .hyper = hyper,
                         .count = n,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .epsilon = 1e-8,
                         .weight_decay = 0.01};
    struct wide l = {kit_wide(&kit, a.parameter, n), kit_zeros(&kit, n), kit_zeros(&kit, n), NULL,
                     n};
    for (int step = 1; step <= 6; step++) {
        *hyper = (struct sk_adamw_hyper){.learning_rate = 0.01 * step, .step = step};
        *clip = 1 / (float)step;
        scout_random_fill(grad, n, 1, &kit.random);
        l.g = kit_wide(&kit, grad, n);
        step_formula(&l, &a, (double)*clip);
        kit_run(&kit, SK_ADAMW, &a);
        kit_close("parameter", a.parameter, l.p, n, 3e-7);
        kit_close("m", a.m, l.m, n, 3e-7);
        kit_close("v", a.v, l.v, n, 3e-7);
    }
    kit_end(&kit);
}
END_TEST

START_TEST(zero_fills_what_it_is_told)
{
    struct kit kit;
    kit_begin(&kit, 4);
    unsigned char *data = kit_bytes(&kit, 1001, true);
    for (int i = 0; i < 1001; i++)
        data[i] = 0xee;
    struct sk_fill_zero a = {.data = data, .bytes = 997};
    kit_run(&kit, SK_FILL_ZERO, &a);
    for (int i = 0; i < 1001; i++)
        if (data[i] != (i < 997 ? 0 : 0xee))
            ck_abort_msg("byte %d is %d", i, data[i]);
    kit_end(&kit);
}
END_TEST

static Suite *adamw_suite(void)
{
    Suite *suite = suite_create("adamw");
    TCase *tc = tcase_create("adamw");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, norm_and_clip, 0, COUNTS);
    tcase_add_test(tc, zero_gradients_do_not_divide_by_zero);
    tcase_add_loop_test(tc, steps_follow_the_formula, 0, COUNTS);
    tcase_add_test(tc, zero_fills_what_it_is_told);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(adamw_suite)
