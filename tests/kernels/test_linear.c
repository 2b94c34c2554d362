#include "tests/kernels/kit.h"

#include <string.h>

#include "kernels/linear.h"

enum { MOST_GROUPS = 6 };
static const struct shape {
    int64_t rows, in, out, rank, groups, pad; /* pad: elements between rows of y, matrices A, B */
    enum sk_format format;
} shapes[] = {
    {1, 64, 64, 4, 1, 0, SK_FORMAT_NF4_NESTED}, {7, 33, 70, 3, 1, 5, SK_FORMAT_BF16},
    {130, 200, 300, 16, 1, 0, SK_FORMAT_NF4},   {131, 100, 129, 8, 6, 3, SK_FORMAT_NF4_NESTED},
    {9, 40, 24, 1, 5, 0, SK_FORMAT_F16},        {300, 65, 257, 5, 4, 1, SK_FORMAT_F32}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* Everything in float64; A and B lie as the op has them, strides included. */
struct wide {
    struct shape s;
    const int32_t *offsets;
    int64_t y_stride, a_stride, b_stride;
    double scale;
    double *w[MOST_GROUPS];
    double *x, *a, *b, *t, *y, *dy; /* y and dy: rows of y_stride */
    double *factor;                 /* [rows, in] of a dropout; else ones */
};

static double dot_dropped(const double *x, const double *factor, const double *a, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += factor[i] * x[i] * a[i];
    return sum;
}

static void forward_formula(struct wide *l)
{
    const struct shape *s = &l->s;
    for (int64_t g = 0; g < s->groups; g++) {
        for (int64_t r = l->offsets[g]; r < l->offsets[g + 1]; r++) {
            const double *x = l->x + r * s->in;
            double *t = l->t + r * s->rank, *y = l->y + r * l->y_stride;
            for (int64_t k = 0; l->a && k < s->rank; k++)
                t[k] = dot_dropped(x, l->factor + r * s->in, l->a + g * l->a_stride + k * s->in,
                                   s->in);
            for (int64_t o = 0; o < s->out; o++) {
                y[o] = kit_dot(x, l->w[g] + o * s->in, s->in);
                if (l->a)
                    y[o] += l->scale * kit_dot(t, l->b + g * l->b_stride + o * s->rank, s->rank);
            }
        }
    }
}

static double slope_loss(void *ctx)
{
    struct wide *l = ctx;
    double loss = 0;
    forward_formula(l);
    for (int64_t r = 0; r < l->s.rows; r++)
        loss += kit_dot(l->dy + r * l->y_stride, l->y + r * l->y_stride, l->s.out);
    return loss;
}

/* Adds to dx, da, db, one row at a time. */
static void backward_row(const struct wide *l, int64_t g, int64_t r, double *dx, double *da,
                         double *db)
{
    const struct shape *s = &l->s;
    const double *dy = l->dy + r * l->y_stride, *x = l->x + r * s->in;
    for (int64_t o = 0; o < s->out; o++)
        for (int64_t i = 0; i < s->in; i++)
            dx[r * s->in + i] += dy[o] * l->w[g][o * s->in + i];
    for (int64_t k = 0; l->a && k < s->rank; k++) {
        double u = 0;
        for (int64_t o = 0; o < s->out; o++) {
            u += l->scale * dy[o] * l->b[g * l->b_stride + o * s->rank + k];
            db[g * l->b_stride + o * s->rank + k] += l->scale * dy[o] * l->t[r * s->rank + k];
        }
        for (int64_t i = 0; i < s->in; i++) {
            double f = l->factor[r * s->in + i];
            dx[r * s->in + i] += f * u * l->a[g * l->a_stride + k * s->in + i];
            da[g * l->a_stride + k * s->in + i] += f * u * x[i];
        }
    }
}

static void backward_formula(const struct wide *l, double *dx, double *da, double *db)
{
    for (int64_t g = 0; g < l->s.groups; g++)
        for (int64_t r = l->offsets[g]; r < l->offsets[g + 1]; r++)
            backward_row(l, g, r, dx, da, db);
}

/* Group 1 has no rows, the last one has what is left. */
static const int32_t *make_offsets(struct kit *kit, const struct shape *s)
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

struct given {
    const struct sk_matrix *w;
    const float *x, *a, *b, *dy;
};

static void make_case(struct kit *kit, struct wide *l, struct given *v, int which, bool lora)
{
    const struct shape *s = &shapes[which];
    *l = (struct wide){.s = *s,
                       .offsets = make_offsets(kit, s),
                       .y_stride = s->out + s->pad,
                       .a_stride = s->rank * s->in + s->pad,
                       .b_stride = s->out * s->rank + s->pad,
                       .scale = 0.75};
    v->x = kit_in(kit, s->rows * s->in, 1);
    v->dy = kit_in(kit, s->rows * l->y_stride, 1);
    v->a = lora ? kit_in(kit, s->groups * l->a_stride, 0.2f) : NULL;
    v->b = lora ? kit_in(kit, s->groups * l->b_stride, 0.2f) : NULL;
    v->w = kit_matrices(kit, s->format, s->groups, s->out, s->in);
    for (int64_t g = 0; g < s->groups; g++)
        l->w[g] = kit_dense(kit, &v->w[g]);
    l->x = kit_wide(kit, v->x, s->rows * s->in);
    l->dy = kit_wide(kit, v->dy, s->rows * l->y_stride);
    l->a = lora ? kit_wide(kit, v->a, s->groups * l->a_stride) : NULL;
    l->b = lora ? kit_wide(kit, v->b, s->groups * l->b_stride) : NULL;
    l->t = kit_zeros(kit, s->rows * s->rank);
    l->y = kit_zeros(kit, s->rows * l->y_stride);
    l->factor = kit_zeros(kit, s->rows * s->in);
    for (int64_t i = 0; i < s->rows * s->in; i++)
        l->factor[i] = 1;
}

/* What every draw decides, written out. */
static const struct sk_dropout dropout = {.probability = 0.3f, .key = 77, .number = 5};
enum { SITE = 11, FIRST_ROW = 5 };

static void fill_factors(struct wide *l)
{
    float factor[4];
    for (int64_t i = 0; i < l->s.rows * l->s.in; i++) {
        int64_t counted = FIRST_ROW * l->s.in + i;
        sk_dropout_factors(factor, dropout, SITE, (uint64_t)counted / 4);
        l->factor[i] = (double)factor[counted % 4];
    }
}

static void assert_gaps_untouched(float *y, const struct wide *l)
{
    for (int64_t r = 0; r < l->s.rows; r++) {
        for (int64_t o = l->s.out; o < l->y_stride; o++) {
            float *gap = &y[r * l->y_stride + o];
            if (*gap == *gap)
                ck_abort_msg("y[%lld][%lld] lies between rows", (long long)r, (long long)o);
            *gap = 0;
        }
    }
}

enum { LORA = 1, WANT_DX = 2, ADD_DX = 4, OFFSETS = 8, DROPS = 16, ALONE = 32 };

/* Without W: as with one of zeros. */
static const struct sk_matrix *take_weights(struct wide *l, const struct given *v, int flags)
{
    for (int64_t g = 0; flags & ALONE && g < l->s.groups; g++)
        memset(l->w[g], 0, (size_t)(l->s.out * l->s.in) * sizeof *l->w[g]);
    return flags & ALONE ? NULL : v->w;
}

static void check_forward(int which, int flags)
{
    struct kit kit;
    struct wide l;
    struct given v;
    bool lora = flags & LORA;
    kit_begin(&kit, 300 + (uint64_t)which);
    make_case(&kit, &l, &v, which, lora);
    const struct shape *s = &l.s;
    struct sk_linear_forward a = {.y = kit_out(&kit, s->rows * l.y_stride),
                                  .t = lora ? kit_out(&kit, s->rows * s->rank) : NULL,
                                  .x = v.x,
                                  .w = take_weights(&l, &v, flags),
                                  .a = v.a,
                                  .b = v.b,
                                  .offsets = flags & OFFSETS ? l.offsets : NULL,
                                  .rows = s->rows,
                                  .in = s->in,
                                  .out = s->out,
                                  .groups = s->groups,
                                  .rank = lora ? s->rank : 0,
                                  .y_stride = l.y_stride,
                                  .a_stride = l.a_stride,
                                  .b_stride = l.b_stride,
                                  .scale = (float)l.scale,
                                  .dropout = flags & DROPS ? &dropout : NULL,
                                  .site = SITE,
                                  .first_row = FIRST_ROW};
    if (flags & DROPS)
        fill_factors(&l);
    forward_formula(&l);
    kit_run(&kit, SK_LINEAR_FORWARD, &a);
    assert_gaps_untouched(a.y, &l);
    kit_close("y", a.y, l.y, s->rows * l.y_stride, 5e-7);
    if (lora)
        kit_close("t", a.t, l.t, s->rows * s->rank, 5e-7);
    kit_end(&kit);
}

START_TEST(forward_meets_the_formula)
{
    check_forward(_i, LORA | OFFSETS);
    check_forward(_i, OFFSETS);
    check_forward(_i, LORA | ALONE | OFFSETS);
    if (shapes[_i].groups > 1)
        return;
    check_forward(_i, LORA);
    check_forward(_i, LORA | DROPS);
    check_forward(_i, LORA | ALONE | DROPS);
}
END_TEST

static void check_backward(int which, int flags)
{
    struct kit kit;
    struct wide l;
    struct given v;
    bool lora = flags & LORA;
    kit_begin(&kit, 400 + (uint64_t)which);
    make_case(&kit, &l, &v, which, lora);
    const struct shape *s = &l.s;
    int64_t nx = s->rows * s->in, na = s->groups * l.a_stride, nb = s->groups * l.b_stride;
    double *gx = kit_zeros(&kit, nx), *ga = kit_zeros(&kit, na), *gb = kit_zeros(&kit, nb);
    const struct sk_matrix *w = take_weights(&l, &v, flags);
    if (flags & DROPS)
        fill_factors(&l);
    slope_loss(&l); /* fills t */
    float *t = lora ? kit_in(&kit, s->rows * s->rank, 0) : NULL;
    for (int64_t i = 0; lora && i < s->rows * s->rank; i++)
        t[i] = (float)l.t[i];
    backward_formula(&l, gx, ga, gb);
    if (s->rows * s->in * s->out < 100000) {
        kit_slope(&kit, "dx", slope_loss, &l, l.x, gx, nx, 20);
        if (lora) {
            kit_slope(&kit, "da", slope_loss, &l, l.a, ga, na, 20);
            kit_slope(&kit, "db", slope_loss, &l, l.b, gb, nb, 20);
        }
    }
    struct sk_linear_backward a = {.da = lora ? kit_inout(&kit, na, 1) : NULL,
                                   .db = lora ? kit_inout(&kit, nb, 1) : NULL,
                                   .dy = v.dy,
                                   .x = v.x,
                                   .t = t,
                                   .w = w,
                                   .a = v.a,
                                   .b = v.b,
                                   .offsets = flags & OFFSETS ? l.offsets : NULL,
                                   .rows = s->rows,
                                   .in = s->in,
                                   .out = s->out,
                                   .groups = s->groups,
                                   .rank = lora ? s->rank : 0,
                                   .y_stride = l.y_stride,
                                   .a_stride = l.a_stride,
                                   .b_stride = l.b_stride,
                                   .scale = (float)l.scale,
                                   .accumulate_dx = flags & ADD_DX,
                                   .dropout = flags & DROPS ? &dropout : NULL,
                                   .site = SITE,
                                   .first_row = FIRST_ROW};
    if (flags & WANT_DX)
        a.dx = flags & ADD_DX ? kit_inout(&kit, nx, 3) : kit_out(&kit, nx);
    for (int64_t i = 0; flags & ADD_DX && i < nx; i++)
        gx[i] += (double)a.dx[i];
    for (int64_t i = 0; lora && i < na; i++)
        ga[i] += (double)a.da[i];
    for (int64_t i = 0; lora && i < nb; i++)
        gb[i] += (double)a.db[i];
    kit_run(&kit, SK_LINEAR_BACKWARD, &a);
    if (a.dx)
        kit_close("dx", a.dx, gx, nx, 1e-6);
    if (lora) {
        kit_close("da", a.da, ga, na, 1e-6);
        kit_close("db", a.db, gb, nb, 1e-6);
    }
    kit_end(&kit);
}

START_TEST(backward_meets_the_formula)
{
    check_backward(_i, LORA | WANT_DX | OFFSETS);
    check_backward(_i, LORA | WANT_DX | ADD_DX | OFFSETS);
    check_backward(_i, LORA | OFFSETS);
    check_backward(_i, WANT_DX | OFFSETS);
    check_backward(_i, LORA | ALONE | WANT_DX | ADD_DX | OFFSETS);
    if (shapes[_i].groups > 1)
        return;
    check_backward(_i, LORA | WANT_DX);
    check_backward(_i, LORA | WANT_DX | DROPS);
    check_backward(_i, LORA | WANT_DX | ADD_DX | DROPS);
    check_backward(_i, LORA | DROPS);
    check_backward(_i, LORA | ALONE | WANT_DX);
    check_backward(_i, LORA | ALONE | WANT_DX | DROPS);
    check_backward(_i, LORA | ALONE | WANT_DX | ADD_DX | DROPS);
}
END_TEST

/* A group without rows: its gradients keep their bits, also -0 and what da and db started with. */
START_TEST(empty_groups_keep_their_gradients)
{
    struct kit kit;
    struct wide l;
    struct given v;
    kit_begin(&kit, 5);
    make_case(&kit, &l, &v, 3, true);
    ck_assert_int_eq(l.offsets[1], l.offsets[2]);
    const struct shape *s = &l.s;
    float *t = kit_in(&kit, s->rows * s->rank, 1);
    struct sk_linear_backward a = {.da = kit_out(&kit, s->groups * l.a_stride),
                                   .db = kit_out(&kit, s->groups * l.b_stride),
                                   .dy = v.dy,
                                   .x = v.x,
                                   .t = t,
                                   .w = v.w,
                                   .a = v.a,
                                   .b = v.b,
                                   .offsets = l.offsets,
                                   .rows = s->rows,
                                   .in = s->in,
                                   .out = s->out,
                                   .groups = s->groups,
                                   .rank = s->rank,
                                   .y_stride = l.y_stride,
                                   .a_stride = l.a_stride,
                                   .b_stride = l.b_stride,
                                   .scale = 1};
    float *marks = kit_in(&kit, s->rank * s->in, 1);
    memcpy(a.da + l.a_stride, marks, (size_t)(s->rank * s->in) * sizeof *marks);
    kit_run(&kit, SK_LINEAR_BACKWARD, &a);
    ck_assert_mem_eq(a.da + l.a_stride, marks, (size_t)(s->rank * s->in) * sizeof *marks);
    kit_end(&kit);
}
END_TEST

static Suite *linear_suite(void)
{
    Suite *suite = suite_create("linear");
    TCase *tc = tcase_create("linear");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, forward_meets_the_formula, 0, SHAPES);
    tcase_add_loop_test(tc, backward_meets_the_formula, 0, SHAPES);
    tcase_add_test(tc, empty_groups_keep_their_gradients);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(linear_suite)
