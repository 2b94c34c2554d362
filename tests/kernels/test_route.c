#include "tests/kernels/kit.h"

#include <math.h>
#include <string.h>

#include "kernels/route.h"

/* hidden beyond 1024 crosses the span in which the kernel expands router rows */
static const struct {
    int64_t rows, hidden, experts;
    enum sk_format format;
} cases[] = {{1, 64, 16, SK_FORMAT_BF16},
             {7, 33, 1, SK_FORMAT_F32},
             {130, 256, 5, SK_FORMAT_BF16},
             {40, 1100, 16, SK_FORMAT_NF4_NESTED}};
enum { CASES = sizeof cases / sizeof cases[0] };

static double sigmoid(double z)
{
    return 1 / (1 + exp(-z));
}

/* Slots are a permutation: expert by expert, in token order inside one. */
static void assert_sorted(const struct sk_route_forward *a)
{
    int32_t next = 0;
    for (int64_t e = 0; e < a->experts; e++) {
        ck_assert_int_eq(a->offsets[e], next);
        for (int64_t r = 0; r < a->rows; r++)
            if (a->expert[r] == e)
                ck_assert_int_eq(a->slot[r], next++);
    }
    ck_assert_int_eq(a->offsets[a->experts], next);
    ck_assert_int_eq(next, a->rows);
}

static struct sk_route_forward make_forward(struct kit *kit, int64_t rows, int64_t hidden,
                                            int64_t experts, enum sk_format format)
{
    return (struct sk_route_forward){.u = kit_out(kit, rows * hidden),
                                     .logits = kit_out(kit, rows * experts),
                                     .score = kit_out(kit, rows),
                                     .expert = kit_out_ints(kit, rows),
                                     .slot = kit_out_ints(kit, rows),
                                     .offsets = kit_out_ints(kit, experts + 1),
                                     .x = kit_in(kit, rows * hidden, 0.3f),
                                     .router = kit_matrices(kit, format, 1, experts, hidden),
                                     .rows = rows,
                                     .hidden = hidden,
                                     .experts = experts};
}

static void check_forward(int which, bool lora)
{
    int64_t rows = cases[which].rows, hidden = cases[which].hidden;
    int64_t experts = cases[which].experts;
    struct kit kit;
    kit_begin(&kit, 1000 + (uint64_t)which);
    struct sk_route_forward a = make_forward(&kit, rows, hidden, experts, cases[which].format);
    a.lora = lora ? kit_in(&kit, rows * experts, 1) : NULL;
    double *x = kit_wide(&kit, a.x, rows * hidden), *w = kit_dense(&kit, a.router);
    double *z = kit_zeros(&kit, rows * experts), *score = kit_zeros(&kit, rows);
    double *u = kit_zeros(&kit, rows * hidden);
    kit_run(&kit, SK_ROUTE_FORWARD, &a);
    assert_sorted(&a);
    for (int64_t r = 0; r < rows; r++) {
        int64_t best = 0;
        for (int64_t e = 0; e < experts; e++) {
            z[r * experts + e] = kit_dot(x + r * hidden, w + e * hidden, hidden);
            z[r * experts + e] += lora ? (double)a.lora[r * experts + e] : 0;
            best = z[r * experts + e] > z[r * experts + best] ? e : best;
        }
        ck_assert_int_eq(a.expert[r], best);
        score[r] = sigmoid(z[r * experts + best]);
        for (int64_t i = 0; i < hidden; i++)
            u[a.slot[r] * hidden + i] = score[r] * x[r * hidden + i];
    }
    kit_close("logits", a.logits, z, rows * experts, 1e-7);
    kit_close("score", a.score, score, rows, 3e-7);
    kit_close("u", a.u, u, rows * hidden, 3e-7);
    kit_end(&kit);
}

START_TEST(forward_meets_the_formula)
{
    check_forward(_i, false);
    check_forward(_i, true);
}
END_TEST

/* Router rows 1 and 3 are equal and win wherever their logit is positive; expert 2 gets nothing. */
START_TEST(ties_take_the_lowest)
{
    enum { ROWS = 50, HIDDEN = 16, EXPERTS = 4 };
    struct kit kit;
    kit_begin(&kit, 8);
    struct sk_route_forward a = make_forward(&kit, ROWS, HIDDEN, EXPERTS, SK_FORMAT_F32);
    float *w = kit_in(&kit, EXPERTS * HIDDEN, 1);
    memset(w, 0, HIDDEN * sizeof *w);
    memset(w + 2 * HIDDEN, 0, HIDDEN * sizeof *w); /* ties with 0 at 0 */
    memcpy(w + 3 * HIDDEN, w + HIDDEN, HIDDEN * sizeof *w);
    struct sk_matrix router = {.format = SK_FORMAT_F32, .rows = EXPERTS, .cols = HIDDEN, .data = w};
    a.router = &router;
    kit_run(&kit, SK_ROUTE_FORWARD, &a);
    assert_sorted(&a);
    for (int r = 0; r < ROWS; r++)
        ck_assert_int_eq(a.expert[r], a.logits[r * EXPERTS + 1] > 0 ? 1 : 0);
    ck_assert_int_gt(a.offsets[1], 0);
    ck_assert_int_gt(a.offsets[2], a.offsets[1]);
    ck_assert_int_eq(a.offsets[2], ROWS);
    kit_end(&kit);
}
END_TEST

START_TEST(nan_is_named)
{
    struct kit kit;
    kit_begin(&kit, 9);
    struct sk_route_forward a = make_forward(&kit, 9, 12, 3, SK_FORMAT_F32);
    float *x = kit_in(&kit, 9 * 12, 1);
    x[6 * 12 + 5] = NAN;
    a.x = x;
    kit_fails(&kit, SK_ROUTE_FORWARD, &a, SF_ENUMERIC, "token 6");
    kit_end(&kit);
}
END_TEST

struct wide {
    int64_t rows, hidden, experts;
    const int32_t *expert, *slot;
    double *x, *w, *du, *lora; /* lora: [rows, experts], what is added to the logits */
};

static double score_of(const struct wide *l, int64_t r)
{
    int32_t e = l->expert[r];
    return sigmoid(kit_dot(l->x + r * l->hidden, l->w + e * l->hidden, l->hidden) +
                   l->lora[r * l->experts + e]);
}

/* <du, u(x)> with the choice of experts held: it has no slope. */
static double slope_loss(void *ctx)
{
    struct wide *l = ctx;
    double loss = 0;
    for (int64_t r = 0; r < l->rows; r++) {
        const double *x = l->x + r * l->hidden;
        loss += score_of(l, r) * kit_dot(l->du + l->slot[r] * l->hidden, x, l->hidden);
    }
    return loss;
}

static void backward_formula(double *dx, double *dlogits, float *score, const struct wide *l)
{
    for (int64_t r = 0; r < l->rows; r++) {
        const double *x = l->x + r * l->hidden, *w = l->w + l->expert[r] * l->hidden;
        const double *du = l->du + l->slot[r] * l->hidden;
        double s = score_of(l, r);
        double dz = kit_dot(du, x, l->hidden) * s * (1 - s);
        score[r] = (float)s;
        dlogits[r * l->experts + l->expert[r]] = dz;
        for (int64_t i = 0; i < l->hidden; i++)
            dx[r * l->hidden + i] += s * du[i] + dz * w[i];
    }
}

/* Any experts and any permutation: the backward takes both as they come. */
static void make_choice(struct kit *kit, int32_t *expert, int32_t *slot, int64_t rows,
                        int64_t experts)
{
    for (int64_t r = 0; r < rows; r++) {
        int64_t other = (int64_t)(scout_random_u64(&kit->random) % (uint64_t)(r + 1));
        expert[r] = (int32_t)(scout_random_u64(&kit->random) % (uint64_t)experts);
        slot[r] = slot[other];
        slot[other] = (int32_t)r;
    }
}

enum { WANT_DX = 1, WANT_DZ = 2 };

static void check_backward(int which, int flags)
{
    int64_t rows = cases[which].rows, hidden = cases[which].hidden, n = rows * hidden;
    int64_t experts = cases[which].experts;
    struct kit kit;
    kit_begin(&kit, 1100 + (uint64_t)which);
    float *score = kit_in(&kit, rows, 0);
    int32_t *expert = kit_ints(&kit, rows), *slot = kit_ints(&kit, rows);
    make_choice(&kit, expert, slot, rows, experts);
    struct sk_route_backward a = {.dx = flags & WANT_DX ? kit_inout(&kit, n, 1) : NULL,
                                  .dz = flags & WANT_DZ ? kit_out(&kit, rows * experts) : NULL,
                                  .du = kit_in(&kit, n, 1),
                                  .x = kit_in(&kit, n, 0.3f),
                                  .score = score,
                                  .expert = expert,
                                  .slot = slot,
                                  .router =
                                      kit_matrices(&kit, cases[which].format, 1, experts, hidden),
                                  .rows = rows,
                                  .hidden = hidden,
                                  .experts = experts};
    struct wide l = {rows,
                     hidden,
                     experts,
                     expert,
                     slot,
                     kit_wide(&kit, a.x, n),
                     kit_dense(&kit, a.router),
                     kit_wide(&kit, a.du, n),
                     kit_wide(&kit, kit_in(&kit, rows * experts, 1), rows * experts)};
    double *dx = kit_zeros(&kit, n), *dz = kit_zeros(&kit, rows * experts);
    backward_formula(dx, dz, score, &l);
    kit_slope(&kit, "dx", slope_loss, &l, l.x, dx, n, 40);
    kit_slope(&kit, "dz", slope_loss, &l, l.lora, dz, rows * experts, 40);
    for (int64_t i = 0; a.dx && i < n; i++)
        dx[i] += (double)a.dx[i];
    kit_run(&kit, SK_ROUTE_BACKWARD, &a);
    if (a.dx)
        kit_close("dx", a.dx, dx, n, 1e-6);
    if (a.dz)
        kit_close("dz", a.dz, dz, rows * experts, 1e-6);
    kit_end(&kit);
}

START_TEST(backward_meets_the_formula)
{
    check_backward(_i, WANT_DX);
    check_backward(_i, WANT_DX | WANT_DZ);
    check_backward(_i, WANT_DZ);
}
END_TEST

START_TEST(combine_there_and_back)
{
    int64_t rows = cases[_i].rows, hidden = cases[_i].hidden, n = rows * hidden;
    struct kit kit;
    kit_begin(&kit, 1200 + (uint64_t)_i);
    int32_t *expert = kit_ints(&kit, rows), *slot = kit_ints(&kit, rows);
    make_choice(&kit, expert, slot, rows, 1);
    struct sk_combine_forward f = {.y = kit_out(&kit, n),
                                   .shared = kit_in(&kit, n, 1),
                                   .routed = kit_in(&kit, n, 1),
                                   .slot = slot,
                                   .rows = rows,
                                   .hidden = hidden};
    struct sk_combine_backward b = {.d_routed = kit_out(&kit, n),
                                    .dy = kit_in(&kit, n, 1),
                                    .slot = slot,
                                    .rows = rows,
                                    .hidden = hidden};
    kit_run(&kit, SK_COMBINE_FORWARD, &f);
    kit_run(&kit, SK_COMBINE_BACKWARD, &b);
    for (int64_t i = 0; i < n; i++) {
        int64_t sorted = slot[i / hidden] * hidden + i % hidden;
        if (f.y[i] != f.shared[i] + f.routed[sorted] || b.d_routed[sorted] != b.dy[i])
            ck_abort_msg("element %lld", (long long)i);
    }
    kit_end(&kit);
}
END_TEST

static Suite *route_suite(void)
{
    Suite *suite = suite_create("route");
    TCase *tc = tcase_create("route");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, forward_meets_the_formula, 0, CASES);
    tcase_add_test(tc, ties_take_the_lowest);
    tcase_add_test(tc, nan_is_named);
    tcase_add_loop_test(tc, backward_meets_the_formula, 0, CASES);
    tcase_add_loop_test(tc, combine_there_and_back, 0, CASES);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(route_suite)
