#include "tests/kernels/cuda_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/head_loss.h"

/* float32 sums over hidden, then over the vocabulary. */
static const double float32_bar = 1e-5;

/* The op takes 128 to 2048 rows at once, as the vocabulary allows, and 32 MiB of a head that it has
 * to expand: some cases cross these. */
static const struct shape {
    int64_t rows, hidden, vocabulary;
    enum sk_format format;
    int ignored; /* of 8 rows; 8: all of the first 520 */
    float spread;
} shapes[] = {
    {1, 64, 3, SK_FORMAT_F32, 0, 1},          {7, 40, 300, SK_FORMAT_BF16, 3, 1},
    {130, 36, 257, SK_FORMAT_BF16, 0, 1},     {600, 16, 70, SK_FORMAT_F16, 5, 1},
    {600, 16, 72, SK_FORMAT_NF4, 8, 1},       {16, 64, 90, SK_FORMAT_NF4_NESTED, 2, 6},
    {2500, 64, 2064, SK_FORMAT_BF16, 2, 1},   {64, 5120, 1032, SK_FORMAT_BF16, 1, 0.1f},
    {300, 128, 202048, SK_FORMAT_BF16, 1, 1}, {140, 256, 70008, SK_FORMAT_NF4_NESTED, 2, 1}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static const struct cuda_op head_loss = {SK_HEAD_LOSS, "afffamfhfw", sk_head_loss_cuda,
                                         sk_head_loss_measure_cuda};
enum { DX, LOGITS, TOKEN_LOSS, LOSS };
enum { WANT_DX = 1, WANT_LOGITS = 2, HOST_TARGETS = 4 };

static struct sk_head_loss make_case(struct kit *kit, int which, int flags)
{
    const struct shape *s = &shapes[which];
    int32_t *targets = kit_ints(kit, s->rows);
    float *scale = kit_in(kit, 1, 0);
    *scale = 0.037f;
    for (int64_t r = 0; r < s->rows; r++) {
        bool ignored = s->ignored == 8 ? r < 520 : r % 8 < s->ignored;
        targets[r] = ignored ? SK_IGNORE_INDEX
                             : (int32_t)(scout_random_u64(&kit->random) % (uint64_t)s->vocabulary);
    }
    struct sk_head_loss a = {.dx = flags & WANT_DX ? kit_out(kit, s->rows * s->hidden) : NULL,
                             .logits =
                                 flags & WANT_LOGITS ? kit_out(kit, s->rows * s->vocabulary) : NULL,
                             .token_loss = kit_out(kit, s->rows),
                             .loss = kit_bytes(kit, sizeof(double), true),
                             .x = kit_in(kit, s->rows * s->hidden, s->spread),
                             .head = kit_matrices(kit, s->format, 1, s->vocabulary, s->hidden),
                             .targets = targets,
                             .host_targets = flags & HOST_TARGETS ? targets : NULL,
                             .gradient_scale = scale,
                             .rows = s->rows,
                             .hidden = s->hidden,
                             .vocabulary = s->vocabulary};
    *a.loss = NAN;
    return a;
}

static void compare(const char *what, const struct shape *s, float *got, float *truth,
                    float *emulated, int64_t n, bool halves)
{
    char label[96];
    if (halves)
        cuda_round(emulated, n);
    snprintf(label, sizeof label, "%s of %lld x %lld -> %lld", what, (long long)s->rows,
             (long long)s->hidden, (long long)s->vocabulary);
    cuda_compare(label, got, truth, emulated, n, halves ? 0 : float32_bar);
}

/* The sum in row order, and zeros where a row has no target. */
static void check_sums(const struct sk_head_loss *a, const struct cuda_results *got, double truth)
{
    const float *token_loss = got->of[TOKEN_LOSS], *dx = got->of[DX];
    double loss = *(double *)got->of[LOSS], sum = 0;
    for (int64_t r = 0; r < a->rows; r++) {
        sum += (double)token_loss[r];
        if (a->targets[r] >= 0)
            continue;
        ck_assert_msg(token_loss[r] == 0, "row %lld has a loss and no target", (long long)r);
        for (int64_t i = 0; dx && i < a->hidden; i++)
            if (dx[r * a->hidden + i] != 0)
                ck_abort_msg("row %lld has a gradient and no target", (long long)r);
    }
    ck_assert_msg(fabs(loss - sum) <= 1e-7 * sum, "loss %.12g, its rows %.12g", loss, sum);
    ck_assert_msg(fabs(loss - truth) <= float32_bar * truth, "loss %.12g, want %.12g", loss, truth);
}

static void check(int which, int flags)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth, emulated;
    const struct shape *s = &shapes[which];
    kit_begin(&kit, 5300 + (uint64_t)which);
    struct sk_head_loss a = make_case(&kit, which, flags);
    cuda_round_activations(&kit, &head_loss, &a);
    cuda_run_cpu(&truth, &kit, &head_loss, &a);
    struct sk_head_loss e = a;
    if (s->format == SK_FORMAT_F32 || s->format == SK_FORMAT_F16)
        e.head = cuda_round_matrices(&kit, a.head, 1);
    cuda_run_cpu(&emulated, &kit, &head_loss, &e);
    assert_ok(cuda_run_gpu(&got, &kit, &head_loss, &a, &err), err);
    if (a.dx)
        compare("dx", s, got.of[DX], truth.of[DX], emulated.of[DX], a.rows * a.hidden, true);
    if (a.logits)
        compare("logits", s, got.of[LOGITS], truth.of[LOGITS], emulated.of[LOGITS],
                a.rows * a.vocabulary, false);
    compare("token_loss", s, got.of[TOKEN_LOSS], truth.of[TOKEN_LOSS], emulated.of[TOKEN_LOSS],
            a.rows, false);
    bool exact = e.head == a.head;
    check_sums(&a, &got, exact ? *(double *)truth.of[LOSS] : *(double *)emulated.of[LOSS]);
    kit_end(&kit);
}

START_TEST(loss_and_gradient_meet_the_cpu)
{
    check(_i, WANT_DX | HOST_TARGETS);
    check(_i, WANT_DX);
    check(_i, HOST_TARGETS);
    if (shapes[_i].rows * shapes[_i].vocabulary < 10000000) {
        check(_i, WANT_DX | WANT_LOGITS | HOST_TARGETS);
        check(_i, WANT_LOGITS);
    }
}
END_TEST

/* No row has a target: nothing but zeros. */
START_TEST(no_target_at_all)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    for (int host = 0; host < 2; host++) {
        kit_begin(&kit, 12);
        struct sk_head_loss a = make_case(&kit, 4, WANT_DX | (host ? HOST_TARGETS : 0));
        int32_t *targets = kit_ints(&kit, a.rows);
        for (int64_t r = 0; r < a.rows; r++)
            targets[r] = SK_IGNORE_INDEX;
        a.targets = targets;
        a.host_targets = host ? targets : NULL;
        assert_ok(cuda_run_gpu(&got, &kit, &head_loss, &a, &err), err);
        ck_assert(*(double *)got.of[LOSS] == 0);
        for (int64_t i = 0; i < a.rows * a.hidden; i++)
            if (((float *)got.of[DX])[i] != 0)
                ck_abort_msg("dx[%lld] is not 0", (long long)i);
        for (int64_t r = 0; r < a.rows; r++)
            ck_assert(((float *)got.of[TOKEN_LOSS])[r] == 0);
        kit_end(&kit);
    }
}
END_TEST

START_TEST(targets_outside_are_refused)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    for (int host = 0; host < 2; host++) {
        kit_begin(&kit, 13);
        struct sk_head_loss a = make_case(&kit, 1, WANT_DX);
        int32_t *targets = kit_ints(&kit, a.rows);
        memcpy(targets, a.targets, (size_t)a.rows * sizeof *targets);
        targets[4] = host ? 300 : -1;
        a.targets = targets;
        a.host_targets = host ? targets : NULL;
        assert_fails(cuda_run_gpu(&got, &kit, &head_loss, &a, &err), SF_EINVAL,
                     host ? "label 300 at position 4" : "row 4", err);
        kit_end(&kit);
    }
}
END_TEST

static Suite *head_loss_suite(void)
{
    Suite *suite = suite_create("cuda_head_loss");
    TCase *tc = tcase_create("cuda_head_loss");
    tcase_add_loop_test(tc, loss_and_gradient_meet_the_cpu, 0, SHAPES);
    tcase_add_test(tc, no_target_at_all);
    tcase_add_test(tc, targets_outside_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(head_loss_suite);
}
