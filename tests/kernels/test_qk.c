#include "tests/kernels/kit.h"

#include <assert.h>
#include <math.h>

#include "kernels/qk.h"

static const struct sk_qk_shape shapes[] = {
    {.rows = 1, .heads = 1, .kv_heads = 1, .head_size = 2, .rope = true},
    {.rows = 7, .heads = 10, .kv_heads = 2, .head_size = 6, .rope = true, .norm = true},
    {.rows = 130, .heads = 5, .kv_heads = 1, .head_size = 64, .rope = true, .norm = true},
    {.rows = 33, .heads = 4, .kv_heads = 2, .head_size = 16, .temperature = true},
    {.rows = 12, .heads = 2, .kv_heads = 2, .head_size = 8, .norm = true},
    {.rows = 5, .heads = 3, .kv_heads = 3, .head_size = 4},
    {.rows = 6, .heads = 2, .kv_heads = 1, .head_size = 270, .rope = true, .norm = true}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };
static const int32_t far_positions[] = {8190, 8191, 16383, 131071, 1048575};

static struct sk_qk_shape shape_of(int which)
{
    struct sk_qk_shape s = shapes[which];
    s.epsilon = 1e-5f;
    s.temperature_floor = 8192;
    s.temperature_scale = 0.1f;
    return s;
}

static double temperature_of(const struct sk_qk_shape *s, int32_t position)
{
    double steps = floor(((double)position + 1) / (double)s->temperature_floor);
    return s->temperature ? 1 + (double)s->temperature_scale * log(1 + steps) : 1;
}

/* One head: out = normalized, turned, scaled v; *rstd where there is a norm. */
static void head_formula(double *out, double *rstd, const double *v, int32_t position,
                         const float *inv_freq, const struct sk_qk_shape *s, bool is_q)
{
    double factor = is_q ? temperature_of(s, position) : 1;
    for (int64_t j = 0; j < s->head_size / 2; j++) {
        double angle = (double)((float)position * inv_freq[j]); /* the float32 product counts */
        double c = s->rope ? cos(angle) : 1, n = s->rope ? sin(angle) : 0;
        out[2 * j] = v[2 * j] * c - v[2 * j + 1] * n;
        out[2 * j + 1] = v[2 * j] * n + v[2 * j + 1] * c;
    }
    if (s->norm) {
        *rstd =
            1 / sqrt(kit_dot(out, out, s->head_size) / (double)s->head_size + (double)s->epsilon);
        factor *= *rstd;
    }
    for (int64_t i = 0; i < s->head_size; i++)
        out[i] *= factor;
}

struct wide {
    struct sk_qk_shape s;
    int64_t heads; /* of the operand at hand */
    bool is_q;
    const int32_t *positions;
    const float *inv_freq;
    double *v, *out, *rstd, *d;
};

static void forward_formula(struct wide *l)
{
    for (int64_t i = 0; i < l->s.rows * l->heads; i++)
        head_formula(l->out + i * l->s.head_size, &l->rstd[i], l->v + i * l->s.head_size,
                     l->positions[i / l->heads], l->inv_freq, &l->s, l->is_q);
}

static double slope_loss(void *ctx)
{
    struct wide *l = ctx;
    forward_formula(l);
    return kit_dot(l->d, l->out, l->s.rows * l->heads * l->s.head_size);
}

/* Turning and norm commute, so the gradient is: temperature, norm, turned back. */
static void backward_formula(double *dv, const struct wide *l)
{
    const struct sk_qk_shape *s = &l->s;
    assert(l->d);
    for (int64_t h = 0; h < s->rows * l->heads; h++) {
        int32_t position = l->positions[h / l->heads];
        double tau = l->is_q ? temperature_of(s, position) : 1, mean = 0;
        double *g = dv + h * s->head_size;
        const double *d = l->d + h * s->head_size, *n = l->out + h * s->head_size;
        for (int64_t i = 0; i < s->head_size; i++)
            mean += d[i] * n[i] / (double)s->head_size;
        for (int64_t i = 0; i < s->head_size; i++)
            g[i] = s->norm ? l->rstd[h] * (d[i] - n[i] * mean) : tau * d[i];
        for (int64_t j = 0; s->rope && j < s->head_size / 2; j++) {
            double angle = (double)((float)position * l->inv_freq[j]);
            double a = g[2 * j], b = g[2 * j + 1];
            g[2 * j] = a * cos(angle) + b * sin(angle);
            g[2 * j + 1] = b * cos(angle) - a * sin(angle);
        }
    }
}

static void make_positions(struct kit *kit, struct wide *l)
{
    int32_t *positions = kit_ints(kit, l->s.rows);
    float *inv_freq = kit_in(kit, l->s.head_size / 2, 0);
    for (int64_t r = 0; r < l->s.rows; r++)
        positions[r] = r % 7 < 5 && r > 0 ? far_positions[r % 5] + (int32_t)(r / 7) : (int32_t)r;
    for (int64_t j = 0; j < l->s.head_size / 2; j++)
        inv_freq[j] = powf(500000, -2 * (float)j / (float)l->s.head_size);
    l->positions = positions;
    l->inv_freq = inv_freq;
}

static void widen(struct kit *kit, struct wide *l, bool is_q, const float *v, const float *d)
{
    l->is_q = is_q;
    l->heads = is_q ? l->s.heads : l->s.kv_heads;
    int64_t heads = l->s.rows * l->heads, n = heads * l->s.head_size;
    l->v = kit_wide(kit, v, n);
    l->d = d ? kit_wide(kit, d, n) : NULL;
    l->out = kit_zeros(kit, n);
    l->rstd = kit_zeros(kit, heads);
    forward_formula(l);
}

START_TEST(forward_meets_the_formula)
{
    struct kit kit;
    kit_begin(&kit, 500 + (uint64_t)_i);
    struct wide q = {.s = shape_of(_i)}, k;
    const struct sk_qk_shape *s = &q.s;
    int64_t nq = s->rows * s->heads, nk = s->rows * s->kv_heads;
    make_positions(&kit, &q);
    struct sk_qk_forward a = {.q = kit_inout(&kit, nq * s->head_size, 1),
                              .k = kit_inout(&kit, nk * s->head_size, 1),
                              .q_rstd = s->norm ? kit_out(&kit, nq) : NULL,
                              .k_rstd = s->norm ? kit_out(&kit, nk) : NULL,
                              .positions = q.positions,
                              .inv_freq = q.inv_freq,
                              .shape = *s};
    k = q;
    widen(&kit, &q, true, a.q, NULL);
    widen(&kit, &k, false, a.k, NULL);
    kit_run(&kit, SK_QK_FORWARD, &a);
    kit_close("q", a.q, q.out, nq * s->head_size, 2e-7);
    kit_close("k", a.k, k.out, nk * s->head_size, 2e-7);
    if (s->norm) {
        kit_close("q_rstd", a.q_rstd, q.rstd, nq, 2e-7);
        kit_close("k_rstd", a.k_rstd, k.rstd, nk, 2e-7);
    }
    kit_end(&kit);
}
END_TEST

/* float32 copies of what the forward would have left. */
static const float *kept(struct kit *kit, const double *from, int64_t n)
{
    float *to = kit_in(kit, n, 0);
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)from[i];
    return to;
}

START_TEST(backward_meets_the_formula)
{
    struct kit kit;
    kit_begin(&kit, 600 + (uint64_t)_i);
    struct wide q = {.s = shape_of(_i)}, k;
    const struct sk_qk_shape *s = &q.s;
    int64_t nq = s->rows * s->heads, nk = s->rows * s->kv_heads, d = s->head_size;
    make_positions(&kit, &q);
    struct sk_qk_backward a = {.dq = kit_inout(&kit, nq * d, 1),
                               .dk = kit_inout(&kit, nk * d, 1),
                               .positions = q.positions,
                               .inv_freq = q.inv_freq,
                               .shape = *s};
    k = q;
    widen(&kit, &q, true, kit_in(&kit, nq * d, 1), a.dq);
    widen(&kit, &k, false, kit_in(&kit, nk * d, 1), a.dk);
    double *gq = kit_zeros(&kit, nq * d), *gk = kit_zeros(&kit, nk * d);
    backward_formula(gq, &q);
    backward_formula(gk, &k);
    kit_slope(&kit, "dq", slope_loss, &q, q.v, gq, nq * d, 30);
    kit_slope(&kit, "dk", slope_loss, &k, k.v, gk, nk * d, 30);
    if (s->norm) {
        a.q = kept(&kit, q.out, nq * d);
        a.k = kept(&kit, k.out, nk * d);
        a.q_rstd = kept(&kit, q.rstd, nq);
        a.k_rstd = kept(&kit, k.rstd, nk);
    }
    kit_run(&kit, SK_QK_BACKWARD, &a);
    kit_close("dq", a.dq, gq, nq * d, 3e-7);
    kit_close("dk", a.dk, gk, nk * d, 3e-7);
    kit_end(&kit);
}
END_TEST

START_TEST(norm_with_temperature_has_no_backward)
{
    struct kit kit;
    kit_begin(&kit, 7);
    struct sk_qk_backward a = {.shape = shape_of(1)};
    a.shape.temperature = true;
    kit_fails(&kit, SK_QK_BACKWARD, &a, SF_EUNSUPPORTED, "query norm and temperature");
    kit_end(&kit);
}
END_TEST

static Suite *qk_suite(void)
{
    Suite *suite = suite_create("qk");
    TCase *tc = tcase_create("qk");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, forward_meets_the_formula, 0, SHAPES);
    tcase_add_loop_test(tc, backward_meets_the_formula, 0, SHAPES);
    tcase_add_test(tc, norm_with_temperature_has_no_backward);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(qk_suite)
