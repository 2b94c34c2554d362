#include "tests/kernels/cuda_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/route.h"

/* Logits are sums of float32 products, whatever their order. */
static const double float32_bar = 1e-5;

/* Across tiles of 128 rows, 32 tiles and 32 experts; hidden on 16 bytes and not. */
static const struct shape {
    int64_t rows, hidden, experts;
    enum sk_format format;
} shapes[] = {{1, 64, 16, SK_FORMAT_BF16},     {7, 33, 1, SK_FORMAT_F32},
              {130, 256, 5, SK_FORMAT_BF16},   {40, 1100, 16, SK_FORMAT_NF4_NESTED},
              {129, 72, 130, SK_FORMAT_NF4},   {500, 64, 4, SK_FORMAT_F16},
              {9000, 16, 256, SK_FORMAT_BF16}, {600, 5120, 16, SK_FORMAT_BF16},
              {70000, 8, 16, SK_FORMAT_BF16},  {128, 64, 33, SK_FORMAT_BF16}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static const struct cuda_op route_forward = {SK_ROUTE_FORWARD, "afffffhamaw", sk_route_forward_cuda,
                                             sk_route_forward_measure_cuda};
static const struct cuda_op route_backward = {SK_ROUTE_BACKWARD, "aaaafffm", sk_route_backward_cuda,
                                              NULL};
static const struct cuda_op combine_forward = {SK_COMBINE_FORWARD, "aaaf", sk_combine_forward_cuda,
                                               NULL};
static const struct cuda_op combine_backward = {SK_COMBINE_BACKWARD, "aaf",
                                                sk_combine_backward_cuda, NULL};
enum { U, LOGITS, SCORE, EXPERT, SLOT, OFFSETS };

static void name_case(char label[96], const char *what, const struct shape *s)
{
    snprintf(label, 96, "%s of %lld x %lld, %lld experts", what, (long long)s->rows,
             (long long)s->hidden, (long long)s->experts);
}

static struct sk_route_forward make_forward(struct kit *kit, const struct shape *s)
{
    return (struct sk_route_forward){.u = kit_out(kit, s->rows * s->hidden),
                                     .logits = kit_out(kit, s->rows * s->experts),
                                     .score = kit_out(kit, s->rows),
                                     .expert = kit_out_ints(kit, s->rows),
                                     .slot = kit_out_ints(kit, s->rows),
                                     .offsets = kit_out_ints(kit, s->experts + 1),
                                     .host_offsets = kit_out_ints(kit, s->experts + 1),
                                     .x = kit_in(kit, s->rows * s->hidden, 0.3f),
                                     .router =
                                         kit_matrices(kit, s->format, 1, s->experts, s->hidden),
                                     .rows = s->rows,
                                     .hidden = s->hidden,
                                     .experts = s->experts};
}

/* Each row's choice is the largest of its own logits, the lowest index on a tie. */
static void assert_choice(const struct sk_route_forward *a, const struct cuda_results *got)
{
    const float *logits = got->of[LOGITS], *score = got->of[SCORE];
    const int32_t *expert = got->of[EXPERT];
    for (int64_t r = 0; r < a->rows; r++) {
        const float *z = logits + r * a->experts;
        int best = 0;
        for (int e = 1; e < a->experts; e++)
            best = z[e] > z[best] ? e : best;
        ck_assert_msg(expert[r] == best, "row %lld went to %d, not %d", (long long)r, expert[r],
                      best);
        double want = 1 / (1 + exp(-(double)z[best]));
        ck_assert_msg(fabs((double)score[r] - want) <= 5e-7 * want, "score %lld is %.9g, not %.9g",
                      (long long)r, (double)score[r], want);
    }
}

/* Slots are a permutation: expert by expert, in token order inside one. */
static void assert_sorted(const struct sk_route_forward *a, const struct cuda_results *got)
{
    const int32_t *expert = got->of[EXPERT], *slot = got->of[SLOT], *offsets = got->of[OFFSETS];
    int32_t at = 0;
    for (int64_t e = 0; e < a->experts; e++) {
        ck_assert_msg(offsets[e] == at, "expert %lld starts at %d, not %d", (long long)e,
                      offsets[e], at);
        for (int64_t r = 0; r < a->rows; r++)
            if (expert[r] == e && slot[r] != at++)
                ck_abort_msg("row %lld is at %d, not %d", (long long)r, slot[r], at - 1);
    }
    ck_assert_int_eq(offsets[a->experts], (int)a->rows);
    ck_assert_int_eq(at, (int)a->rows);
}

/* u to the bit: the product of what the device says is the score, rounded once. */
static void assert_moved(const struct sk_route_forward *a, const struct cuda_results *got)
{
    const float *u = got->of[U], *score = got->of[SCORE];
    const int32_t *slot = got->of[SLOT];
    for (int64_t i = 0; i < a->rows * a->hidden; i++) {
        int64_t r = i / a->hidden;
        float want = score[r] * a->x[i];
        cuda_round(&want, 1);
        if (u[slot[r] * a->hidden + i % a->hidden] != want)
            ck_abort_msg("row %lld, column %lld", (long long)r, (long long)(i % a->hidden));
    }
}

/* Where the CPU's best is clear of all others, both choose it. */
static void assert_same_choice(const struct sk_route_forward *a, const struct cuda_results *got,
                               const struct cuda_results *truth)
{
    const float *logits = truth->of[LOGITS];
    const int32_t *mine = got->of[EXPERT], *theirs = truth->of[EXPERT];
    for (int64_t r = 0; r < a->rows; r++) {
        const float *z = logits + r * a->experts;
        if (mine[r] != theirs[r])
            ck_assert_msg(z[theirs[r]] - z[mine[r]] < 1e-4f, "row %lld: logit %g, not %g",
                          (long long)r, (double)z[mine[r]], (double)z[theirs[r]]);
    }
}

static void check_forward(int which, bool lora)
{
    const struct shape *s = &shapes[which];
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    char label[96];
    kit_begin(&kit, 7000 + (uint64_t)which);
    struct sk_route_forward a = make_forward(&kit, s), e;
    a.lora = lora ? kit_in(&kit, s->rows * s->experts, 0.5f) : NULL;
    cuda_round_activations(&kit, &route_forward, &a);
    e = a; /* products take bfloat16 alone */
    e.router = cuda_round_matrices(&kit, a.router, 1);
    cuda_run_cpu(&truth, &kit, &route_forward, &e);
    assert_ok(cuda_run_gpu(&got, &kit, &route_forward, &a, &err), err);
    name_case(label, "logits", s);
    cuda_compare(label, got.of[LOGITS], truth.of[LOGITS], NULL, a.rows * a.experts, float32_bar);
    assert_choice(&a, &got);
    assert_same_choice(&a, &got, &truth);
    assert_sorted(&a, &got);
    assert_moved(&a, &got);
    assert_ok(sk_cuda_wait_counts(&cuda_ctx, &err), err);
    ck_assert(
        memcmp(a.host_offsets, got.of[OFFSETS], (size_t)(a.experts + 1) * sizeof *a.offsets) == 0);
    kit_end(&kit);
}

START_TEST(forward_meets_the_cpu)
{
    check_forward(_i, false);
    check_forward(_i, true);
}
END_TEST

/* Router rows 1 and 3 are equal and win wherever their logit is positive; expert 2 gets nothing. */
START_TEST(ties_take_the_lowest)
{
    static const struct shape s = {300, 16, 4, SK_FORMAT_BF16};
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    kit_begin(&kit, 7100);
    struct sk_route_forward a = make_forward(&kit, &s);
    cuda_round_activations(&kit, &route_forward, &a);
    uint16_t *w = (uint16_t *)(uintptr_t)a.router->data;
    memset(w, 0, 16 * sizeof *w);
    memset(w + 2 * 16, 0, 16 * sizeof *w); /* ties with 0 at 0 */
    memcpy(w + 3 * 16, w + 16, 16 * sizeof *w);
    assert_ok(cuda_run_gpu(&got, &kit, &route_forward, &a, &err), err);
    assert_choice(&a, &got);
    assert_sorted(&a, &got);
    const int32_t *offsets = got.of[OFFSETS];
    ck_assert_int_gt(offsets[1], 0);
    ck_assert_int_gt(offsets[2], offsets[1]);
    ck_assert_int_eq(offsets[2], (int)a.rows);
    kit_end(&kit);
}
END_TEST

/* The fault is told once; the next run is clean. */
START_TEST(nan_is_named)
{
    static const struct shape s = {200, 24, 3, SK_FORMAT_F32};
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    kit_begin(&kit, 7200);
    struct sk_route_forward a = make_forward(&kit, &s);
    float *x = kit_in(&kit, s.rows * s.hidden, 1);
    x[166 * s.hidden + 5] = NAN;
    a.x = x;
    assert_fails(cuda_run_gpu(&got, &kit, &route_forward, &a, &err), SF_ENUMERIC, "row 166", err);
    x[166 * s.hidden + 5] = 0;
    assert_ok(cuda_run_gpu(&got, &kit, &route_forward, &a, &err), err);
    kit_end(&kit);
}
END_TEST

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

static void compare_rounded(const char *label, struct kit *kit, const float *got,
                            const float *truth, int64_t n)
{
    float *rounded = kit_in(kit, n, 0);
    memcpy(rounded, truth, (size_t)n * sizeof *rounded);
    cuda_round(rounded, n);
    cuda_compare(label, got, truth, rounded, n, 0);
}

static void check_backward(int which, int flags)
{
    const struct shape *s = &shapes[which];
    int64_t n = s->rows * s->hidden, nz = s->rows * s->experts;
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    char label[96];
    kit_begin(&kit, 7300 + (uint64_t)which);
    float *score = kit_in(&kit, s->rows, 0);
    int32_t *expert = kit_ints(&kit, s->rows), *slot = kit_ints(&kit, s->rows);
    make_choice(&kit, expert, slot, s->rows, s->experts);
    for (int64_t r = 0; r < s->rows; r++)
        score[r] = (float)scout_random_uniform(&kit.random);
    struct sk_route_backward a = {.dx = flags & WANT_DX ? kit_inout(&kit, n, 1) : NULL,
                                  .dz = flags & WANT_DZ ? kit_out(&kit, nz) : NULL,
                                  .du = kit_in(&kit, n, 1),
                                  .x = kit_in(&kit, n, 0.3f),
                                  .score = score,
                                  .expert = expert,
                                  .slot = slot,
                                  .router = kit_matrices(&kit, s->format, 1, s->experts, s->hidden),
                                  .rows = s->rows,
                                  .hidden = s->hidden,
                                  .experts = s->experts};
    cuda_round_activations(&kit, &route_backward, &a);
    cuda_run_cpu(&truth, &kit, &route_backward, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &route_backward, &a, &err), err);
    name_case(label, "dx", s);
    if (a.dx)
        compare_rounded(label, &kit, got.of[0], truth.of[0], n);
    name_case(label, "dz", s);
    if (a.dz)
        compare_rounded(label, &kit, got.of[1], truth.of[1], nz);
    kit_end(&kit);
}

START_TEST(backward_meets_the_cpu)
{
    check_backward(_i, WANT_DX);
    check_backward(_i, WANT_DX | WANT_DZ);
    check_backward(_i, WANT_DZ);
}
END_TEST

/* To the bit. */
START_TEST(combine_there_and_back)
{
    const struct shape *s = &shapes[_i];
    int64_t n = s->rows * s->hidden;
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results there, back;
    kit_begin(&kit, 7400 + (uint64_t)_i);
    int32_t *expert = kit_ints(&kit, s->rows), *slot = kit_ints(&kit, s->rows);
    make_choice(&kit, expert, slot, s->rows, 1);
    struct sk_combine_forward f = {.y = kit_out(&kit, n),
                                   .shared = kit_in(&kit, n, 1),
                                   .routed = kit_in(&kit, n, 1),
                                   .slot = slot,
                                   .rows = s->rows,
                                   .hidden = s->hidden};
    struct sk_combine_backward b = {.d_routed = kit_out(&kit, n),
                                    .dy = kit_in(&kit, n, 1),
                                    .slot = slot,
                                    .rows = s->rows,
                                    .hidden = s->hidden};
    cuda_round_activations(&kit, &combine_forward, &f);
    cuda_round_activations(&kit, &combine_backward, &b);
    assert_ok(cuda_run_gpu(&there, &kit, &combine_forward, &f, &err), err);
    assert_ok(cuda_run_gpu(&back, &kit, &combine_backward, &b, &err), err);
    const float *y = there.of[0], *d_routed = back.of[0];
    for (int64_t i = 0; i < n; i++) {
        int64_t sorted = slot[i / s->hidden] * s->hidden + i % s->hidden;
        float want = f.shared[i] + f.routed[sorted];
        cuda_round(&want, 1);
        if (y[i] != want || d_routed[sorted] != b.dy[i])
            ck_abort_msg("element %lld", (long long)i);
    }
    kit_end(&kit);
}
END_TEST

START_TEST(too_many_experts_are_refused)
{
    static const struct shape s = {2, 8, 1025, SK_FORMAT_BF16};
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    kit_begin(&kit, 7500);
    struct sk_route_forward a = make_forward(&kit, &s);
    assert_fails(cuda_run_gpu(&got, &kit, &route_forward, &a, &err), SF_EUNSUPPORTED,
                 "at most 1024 experts, not 1025", err);
    kit_end(&kit);
}
END_TEST

static Suite *route_suite(void)
{
    Suite *suite = suite_create("cuda_route");
    TCase *tc = tcase_create("cuda_route");
    tcase_add_loop_test(tc, forward_meets_the_cpu, 0, SHAPES);
    tcase_add_test(tc, ties_take_the_lowest);
    tcase_add_test(tc, nan_is_named);
    tcase_add_loop_test(tc, backward_meets_the_cpu, 0, SHAPES);
    tcase_add_loop_test(tc, combine_there_and_back, 0, SHAPES);
    tcase_add_test(tc, too_many_experts_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(route_suite);
}
