#include "tests/kernels/kit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/adamw_8bit.h"
#include "kernels/adamw_maps.h"
#include "libformat/hf/safetensors.h"

static const float m_map[256] = {SK_ADAMW_M_MAP}, v_map[256] = {SK_ADAMW_V_MAP};

struct made {
    struct sk_adamw_8bit a;
    float *grad, *clip;
    struct sk_adamw_hyper *hyper;
};

/* As a run starts: codes and scales of zeros. */
static struct made make_case(struct kit *kit, int64_t n)
{
    struct made c = {.grad = kit_in(kit, n, 1),
                     .clip = kit_in(kit, 1, 0),
                     .hyper = kit_bytes(kit, sizeof *c.hyper, false)};
    c.a = (struct sk_adamw_8bit){.parameter = kit_inout(kit, n, 0.5f),
                                 .m = kit_bytes(kit, (uint64_t)n, true),
                                 .v = kit_bytes(kit, (uint64_t)n, true),
                                 .m_scale = kit_inout(kit, sk_adamw_blocks(n), 0),
                                 .v_scale = kit_inout(kit, sk_adamw_blocks(n), 0),
                                 .grad = c.grad,
                                 .clip = c.clip,
                                 .hyper = c.hyper,
                                 .count = n,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .epsilon = 1e-8,
                                 .weight_decay = 0.01};
    memset(c.a.m, 0, (size_t)n);
    memset(c.a.v, 0, (size_t)n);
    *c.clip = 1;
    *c.hyper = (struct sk_adamw_hyper){.learning_rate = 0.01, .step = 1};
    return c;
}

/* ---- the formulas, in float64 ---- */

struct wide {
    double *p, *m, *v, *m_scale, *v_scale;
};

static struct wide widen(struct kit *kit, const struct sk_adamw_8bit *a)
{
    int64_t blocks = sk_adamw_blocks(a->count);
    struct wide w = {kit_wide(kit, a->parameter, a->count), kit_zeros(kit, a->count),
                     kit_zeros(kit, a->count), kit_zeros(kit, blocks), kit_zeros(kit, blocks)};
    for (int64_t i = 0; i < a->count; i++) {
        w.m[i] = (double)m_map[a->m[i]] * (double)a->m_scale[i / 256];
        w.v[i] = (double)v_map[a->v[i]] * (double)a->v_scale[i / 256];
    }
    return w;
}

static void step_formula(struct wide *w, const struct sk_adamw_8bit *a)
{
    double lr = a->hyper->learning_rate, t = (double)a->hyper->step;
    for (int64_t i = 0; i < a->count; i++) {
        double g = (double)*a->clip * (double)a->grad[i];
        w->m[i] = a->beta1 * w->m[i] + (1 - a->beta1) * g;
        w->v[i] = a->beta2 * w->v[i] + (1 - a->beta2) * g * g;
        double m = w->m[i] / (1 - pow(a->beta1, t)), v = w->v[i] / (1 - pow(a->beta2, t));
        w->p[i] = (w->p[i] - lr * m / (sqrt(v) + a->epsilon)) * (1 - lr * a->weight_decay);
        w->m_scale[i / 256] = fmax(w->m_scale[i / 256], fabs(w->m[i]));
        w->v_scale[i / 256] = fmax(w->v_scale[i / 256], w->v[i]);
    }
}

/* No entry of the map is nearer, but for what float32 loses of a number; signs are kept. */
static void assert_nearest(const char *what, const uint8_t *codes, const double *x,
                           const double *scale, const float map[256], int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double share = x[i] / scale[i / 256], got = fabs((double)map[codes[i]] - share);
        for (int e = 0; e < 256; e++) {
            bool same_side = x[i] == 0 || !signbit(map[e]) == !signbit(x[i]);
            if (same_side && fabs((double)map[e] - share) < got - 3e-7)
                ck_abort_msg("%s[%lld] is %.9g of its block's largest, stored as %.9g, not %.9g",
                             what, (long long)i, share, (double)map[codes[i]], (double)map[e]);
        }
        if (x[i] != 0 && !signbit(map[codes[i]]) != !signbit(x[i]))
            ck_abort_msg("%s[%lld] lost its sign", what, (long long)i);
    }
}

static const int64_t counts[] = {1, 255, 256, 1000, 20000};

/* Each step from what the op stored itself. */
START_TEST(steps_follow_the_formula)
{
    int64_t n = counts[_i];
    for (int step = 1; step <= 4; step++) {
        static uint8_t m[20000], v[20000];
        static float m_scale[79], v_scale[79];
        struct kit kit;
        kit_begin(&kit, 1600 + (uint64_t)(10 * _i + step));
        struct made c = make_case(&kit, n);
        *c.hyper = (struct sk_adamw_hyper){.learning_rate = 0.01 * step, .step = step};
        *c.clip = 1 / (float)step;
        for (int64_t i = 0; i < n; i++) /* blocks of unlike sizes */
            c.grad[i] *= ldexpf(1, (int)(i / 256 % 7) - (int)(i % 5));
        if (step > 1) {
            memcpy(c.a.m, m, (size_t)n);
            memcpy(c.a.v, v, (size_t)n);
            memcpy(c.a.m_scale, m_scale, (size_t)sk_adamw_blocks(n) * sizeof *m_scale);
            memcpy(c.a.v_scale, v_scale, (size_t)sk_adamw_blocks(n) * sizeof *v_scale);
        }
        struct wide w = widen(&kit, &c.a);
        step_formula(&w, &c.a);
        kit_run(&kit, SK_ADAMW_8BIT, &c.a);
        kit_close("parameter", c.a.parameter, w.p, n, 3e-7);
        kit_close("m_scale", c.a.m_scale, w.m_scale, sk_adamw_blocks(n), 3e-7);
        kit_close("v_scale", c.a.v_scale, w.v_scale, sk_adamw_blocks(n), 3e-7);
        assert_nearest("m", c.a.m, w.m, w.m_scale, m_map, n);
        assert_nearest("v", c.a.v, w.v, w.v_scale, v_map, n);
        memcpy(m, c.a.m, (size_t)n);
        memcpy(v, c.a.v, (size_t)n);
        memcpy(m_scale, c.a.m_scale, (size_t)sk_adamw_blocks(n) * sizeof *m_scale);
        memcpy(v_scale, c.a.v_scale, (size_t)sk_adamw_blocks(n) * sizeof *v_scale);
        kit_end(&kit);
    }
}
END_TEST

/* ---- where numbers are rounded to ---- */

/* One step from nothing with beta 0: m is the gradient, v its square; the first sets the scale. */
static void assert_stored(const float *grad, const uint8_t *want, int64_t n)
{
    struct kit kit;
    kit_begin(&kit, 1);
    struct made c = make_case(&kit, n);
    c.a.beta1 = c.a.beta2 = 0;
    memcpy(c.grad, grad, (size_t)n * sizeof *grad);
    kit_run(&kit, SK_ADAMW_8BIT, &c.a);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(c.a.m[i] == want[i], "%a is stored as %d, not %d", (double)grad[i], c.a.m[i],
                      want[i]);
    kit_end(&kit);
}

/* Middles go to the even entry; what is too small for its sign's first entry keeps the sign. */
START_TEST(middles_and_signs)
{
    float middle_odd = (m_map[201] + m_map[202]) * 0.5f,
          middle_even = (m_map[200] + m_map[201]) * 0.5f;
    const float grad[] = {1,          -1,          0.5f * m_map[128],          -1e-9f,     1e-9f,
                          middle_odd, middle_even, nextafterf(middle_even, 1), -m_map[140]};
    /* the middle below entry 128 is even's, 127 is odd: 0.5 * map[128] goes to 128 */
    const uint8_t want[] = {255, 0, 128, 126, 127, 202, 200, 201, 114};
    assert_stored(grad, want, sizeof grad / sizeof *grad);
}
END_TEST

START_TEST(zero_blocks_stay_zero)
{
    struct kit kit;
    kit_begin(&kit, 2);
    struct made c = make_case(&kit, 600);
    for (int i = 0; i < 600; i++)
        c.grad[i] = i == 300 ? 1.0f : 0;
    float *before = kit_in(&kit, 600, 0);
    memcpy(before, c.a.parameter, 600 * sizeof *before);
    c.a.weight_decay = 0;
    kit_run(&kit, SK_ADAMW_8BIT, &c.a);
    ck_assert(c.a.m_scale[0] == 0 && c.a.v_scale[2] == 0 && c.a.m_scale[1] > 0);
    for (int i = 0; i < 600; i++)
        ck_assert_msg((c.a.parameter[i] == before[i]) == (i != 300), "parameter %d", i);
    kit_end(&kit);
}
END_TEST

/* They leave their parameter alone and are forgotten. */
START_TEST(gradients_that_are_no_numbers)
{
    struct kit kit;
    kit_begin(&kit, 3);
    struct made c = make_case(&kit, 300);
    c.grad[7] = NAN;
    c.grad[280] = INFINITY;
    float seven = c.a.parameter[7], other = c.a.parameter[280];
    kit_run(&kit, SK_ADAMW_8BIT, &c.a);
    ck_assert(c.a.parameter[7] == seven && c.a.parameter[280] == other);
    ck_assert(m_map[c.a.m[7]] == 0 && v_map[c.a.v[280]] == 0);
    ck_assert(isfinite(c.a.m_scale[0]) && isfinite(c.a.v_scale[1]));
    kit_end(&kit);
}
END_TEST

/* ---- bitsandbytes itself: tests/golden/adamw ---- */

enum { GOLDEN = 1000, GOLDEN_STEPS = 5 };

static const void *golden(const struct sf_safetensors *file, int step, const char *what)
{
    char name[32];
    snprintf(name, sizeof name, "%d.%s", step, what);
    const struct sf_tensor *t = sf_safetensors_find(file, name);
    ck_assert_msg(t != NULL, "no %s", name);
    return t->data;
}

static void open_golden(struct sf_safetensors **file)
{
    struct sf_err err = {0};
    assert_ok(sf_safetensors_open(
                  file, scout_source_path("tests/golden/adamw/adamw_8bit.safetensors"), &err),
              err);
}

START_TEST(maps_are_those_of_bitsandbytes)
{
    struct sf_safetensors *file;
    open_golden(&file);
    ck_assert(memcmp(sf_safetensors_find(file, "map.m")->data, m_map, sizeof m_map) == 0);
    ck_assert(memcmp(sf_safetensors_find(file, "map.v")->data, v_map, sizeof v_map) == 0);
    sf_safetensors_close(file);
}
END_TEST

/* It takes numbers by 65,536 bins over [-1, 1]: a code may be another than the nearest where that is
 * about as far away, as a bin goes. */
static void assert_codes(const char *what, const uint8_t *got, const uint8_t *want, const double *x,
                         const double *scale, const float map[256])
{
    const double bin = 2.0 / 65535;
    for (int i = 0; i < GOLDEN; i++) {
        double share = x[i] / scale[i / 256];
        double mine = fabs((double)map[got[i]] - share),
               theirs = fabs((double)map[want[i]] - share);
        ck_assert_msg(theirs - mine <= bin, "%s[%d] = %.9g is %d, bitsandbytes' %d", what, i, share,
                      got[i], want[i]);
    }
}

static void take_golden(struct sk_adamw_8bit *a, const struct sf_safetensors *file, int step)
{
    memcpy(a->parameter, golden(file, step, "p"), GOLDEN * sizeof(float));
    if (step == 0)
        return;
    memcpy(a->m, golden(file, step, "m"), GOLDEN);
    memcpy(a->v, golden(file, step, "v"), GOLDEN);
    memcpy(a->m_scale, golden(file, step, "m_scale"), 4 * sizeof(float));
    memcpy(a->v_scale, golden(file, step, "v_scale"), 4 * sizeof(float));
}

START_TEST(a_step_is_bitsandbytes_step)
{
    struct sf_safetensors *file;
    struct kit kit;
    int step = _i + 1;
    open_golden(&file);
    kit_begin(&kit, 4);
    struct made c = make_case(&kit, GOLDEN);
    c.a.weight_decay = 0;
    *c.hyper = (struct sk_adamw_hyper){.learning_rate = 0.01 * step, .step = step};
    take_golden(&c.a, file, step - 1);
    memcpy(c.grad, golden(file, step, "g"), GOLDEN * sizeof(float));
    struct wide w = widen(&kit, &c.a);
    step_formula(&w, &c.a);
    kit_run(&kit, SK_ADAMW_8BIT, &c.a);
    kit_close("p", c.a.parameter, kit_wide(&kit, golden(file, step, "p"), GOLDEN), GOLDEN, 3e-7);
    kit_close("m_scale", c.a.m_scale, kit_wide(&kit, golden(file, step, "m_scale"), 4), 4, 3e-7);
    kit_close("v_scale", c.a.v_scale, kit_wide(&kit, golden(file, step, "v_scale"), 4), 4, 3e-7);
    assert_codes("m", c.a.m, golden(file, step, "m"), w.m, w.m_scale, m_map);
    assert_codes("v", c.a.v, golden(file, step, "v"), w.v, w.v_scale, v_map);
    kit_end(&kit);
    sf_safetensors_close(file);
}
END_TEST

static Suite *adamw_8bit_suite(void)
{
    Suite *suite = suite_create("adamw_8bit");
    TCase *tc = tcase_create("adamw_8bit");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, steps_follow_the_formula, 0, sizeof counts / sizeof counts[0]);
    tcase_add_test(tc, middles_and_signs);
    tcase_add_test(tc, zero_blocks_stay_zero);
    tcase_add_test(tc, gradients_that_are_no_numbers);
    tcase_add_test(tc, maps_are_those_of_bitsandbytes);
    tcase_add_loop_test(tc, a_step_is_bitsandbytes_step, 0, GOLDEN_STEPS);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(adamw_8bit_suite)
