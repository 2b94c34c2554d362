/* LoRA dropout: what is drawn, and that all who must draw the same do. */
#include "kernels/dropout.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/support.h"
#include "tests/train/tiny.h"

static struct tiny t;
static const int64_t two_documents[] = {14, 10};
static const struct sft_program programs[] = {{{24, 2, 14}, SFT_TRAIN}, {{24, 2, 14}, SFT_EVAL}};

static void setup(void)
{
    tiny_open(&t, 2);
}

static void teardown(void)
{
    tiny_close(&t);
}

static void set(double probability, uint64_t key)
{
    struct sf_err err = {0};
    assert_ok(sft_lora_drop(&t.lora, probability, key, &err), err);
}

static struct sft_step *open_step(struct sft_policy policy)
{
    struct sf_err err = {0};
    struct sft_step *step;
    struct sft_step_config config = {.spec = &t.spec,
                                     .lora = &t.lora,
                                     .ops = sk_ops_cpu(),
                                     .ctx = &t.ctx,
                                     .policy = policy,
                                     .program = programs,
                                     .programs = 2,
                                     .beta1 = 0.9,
                                     .beta2 = 0.999,
                                     .epsilon = 1e-8};
    assert_ok(sft_step_open(&step, &config, &err), err);
    assert_ok(sft_step_allocate(step, t.image, &err), err);
    return step;
}

static struct sft_step *open_plain(void)
{
    return open_step(sft_policy_of(SFT_RECOMPUTE_NONE, t.spec.layers));
}

/* Of micro-batch `number`; the mean loss. */
static double gradients(float *out, struct sft_step *step, const struct sft_batch *batch,
                        uint32_t number)
{
    struct sf_err err = {0};
    struct sft_loss loss;
    t.lora.draw.number = number;
    assert_ok(sft_step_zero_gradients(step, &err), err);
    assert_ok(sft_step_forward_backward(&loss, step, batch, 1, &err), err);
    ck_assert_uint_eq(t.lora.draw.number, number + 1);
    memcpy(out, sft_lora_state(&t.lora, SFT_LORA_GRADIENTS), (size_t)t.lora.count * sizeof *out);
    return loss.sum / (double)loss.targets;
}

static float *room(void)
{
    return sf_arena_array(&t.arena, (uint64_t)t.lora.count, sizeof(float));
}

static bool same(const float *a, const float *b)
{
    return memcmp(a, b, (size_t)t.lora.count * sizeof *a) == 0;
}

/* 600,000 draws of each: five standard deviations, and no tie between neighbours, sites, micro-batches. */
START_TEST(draws_are_even_and_apart)
{
    enum { QUADS = 150000 };
    const double p = 0.3, kept = 1 / (1 - p), n = 4.0 * QUADS;
    struct sk_dropout d = {.probability = (float)p, .key = 42, .number = 3}, next = d;
    double dropped = 0, pairs = 0, sites = 0, batches = 0;
    next.number++;
    for (uint64_t q = 0; q < QUADS; q++) {
        float a[4], b[4], c[4];
        sk_dropout_factors(a, d, 7, q);
        sk_dropout_factors(b, d, 8, q);
        sk_dropout_factors(c, next, 7, q);
        for (int i = 0; i < 4; i++) {
            ck_assert(a[i] == 0 || fabs((double)a[i] - kept) < 1e-6);
            dropped += a[i] == 0;
            pairs += a[i] == 0 && a[(i + 1) % 4] == 0;
            sites += a[i] == 0 && b[i] == 0;
            batches += a[i] == 0 && c[i] == 0;
        }
    }
    double bar = 5 * sqrt(n * p * (1 - p)), both = 5 * sqrt(n * p * p);
    ck_assert_double_eq_tol(dropped, n * p, bar);
    ck_assert_double_eq_tol(pairs, n * p * p, 2 * both);
    ck_assert_double_eq_tol(sites, n * p * p, both);
    ck_assert_double_eq_tol(batches, n * p * p, both);
}
END_TEST

START_TEST(what_is_made_again_and_other_threads_drop_the_same)
{
    struct sft_batch batch;
    float *want = room(), *got = room();
    set(0.4, 9);
    tiny_batch(&batch, &t, two_documents, 2, 1);
    for (int64_t s = 0; s < sft_policy_steps(t.spec.layers, true); s++) {
        t.ctx.threads = 1 + (int)(s % 3);
        struct sft_step *step = open_step(sft_policy_step(s, t.spec.layers, true));
        gradients(s ? got : want, step, &batch, 4);
        sft_step_close(step);
        ck_assert_msg(s == 0 || same(got, want), "policy %lld: other gradients", (long long)s);
    }
}
END_TEST

START_TEST(key_and_micro_batch_decide_alone)
{
    struct sft_batch batch;
    float *first = room(), *other = room();
    set(0.4, 9);
    tiny_batch(&batch, &t, two_documents, 2, 1);
    struct sft_step *step = open_plain();
    gradients(first, step, &batch, 4);
    gradients(other, step, &batch, 5);
    ck_assert(!same(first, other));
    gradients(other, step, &batch, 4);
    ck_assert(same(first, other));
    t.lora.draw.key = 10;
    gradients(other, step, &batch, 4);
    ck_assert(!same(first, other));
    sft_step_close(step);
}
END_TEST

/* Probability 0 is no dropout, bit for bit; and held-out losses never drop. */
START_TEST(without_a_probability_and_in_evaluation_nothing_is_dropped)
{
    struct sft_batch batch;
    struct sft_loss plain = {0}, dropped = {0};
    struct sf_err err = {0};
    float *none = room(), *zero = room();
    tiny_batch(&batch, &t, two_documents, 2, 1);
    struct sft_step *step = open_plain();
    gradients(none, step, &batch, 0);
    assert_ok(sft_step_eval(&plain, step, &batch, &err), err);
    uint64_t bytes = sft_step_bytes(step);
    sft_step_close(step);
    set(0, 9);
    step = open_plain();
    gradients(zero, step, &batch, 0);
    ck_assert(same(none, zero));
    ck_assert_uint_eq(sft_step_bytes(step), bytes);
    sft_step_close(step);
    set(0.5, 9);
    step = open_plain();
    assert_ok(sft_step_eval(&dropped, step, &batch, &err), err);
    sft_step_close(step);
    ck_assert(plain.sum == dropped.sum);
}
END_TEST

/* Along each module's gradient, the same numbers dropped throughout. */
START_TEST(gradients_are_the_slope_of_the_loss)
{
    struct sft_batch batch;
    float *gradient = room(), *scratch = room(), *start = room();
    set(0.3, 21);
    memcpy(start, t.lora.parameters, (size_t)t.lora.count * sizeof *start);
    tiny_batch(&batch, &t, two_documents, 2, 1);
    struct sft_step *step = open_plain();
    gradients(gradient, step, &batch, 6);
    double worst = 0;
    for (int64_t i = 0; i < t.lora.modules; i++) {
        const struct sft_lora_module *m = &t.lora.module[i];
        double norm = 0, value[2];
        for (int64_t j = m->a; j < m->b + sft_lora_b_count(m); j++)
            norm += (double)gradient[j] * (double)gradient[j];
        norm = sqrt(norm);
        for (int side = 0; side < 2; side++) {
            double reach = (side ? 1 : -1) * 2e-3 / norm;
            for (int64_t j = m->a; j < m->b + sft_lora_b_count(m); j++)
                t.lora.parameters[j] = (float)((double)start[j] + reach * (double)gradient[j]);
            value[side] = gradients(scratch, step, &batch, 6);
        }
        memcpy(t.lora.parameters, start, (size_t)t.lora.count * sizeof *start);
        double error = fabs((value[1] - value[0]) / 4e-3 / norm - 1);
        worst = error > worst ? error : worst;
        ck_assert_msg(error < 2e-2, "module %lld: slope off by %.3g", (long long)i, error);
    }
    printf("dropout: slopes of %lld modules, worst off by %.2g\n", (long long)t.lora.modules,
           worst);
    sft_step_close(step);
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
    struct sf_err err = {0};
    const double bad[] = {1, -0.1, 2, NAN};
    for (int i = 0; i < 4; i++)
        assert_fails(sft_lora_drop(&t.lora, bad[i], 1, &err), SF_EINVAL, "from 0 to below 1", err);
    assert_fails(sft_lora_drop(&t.lora, 0.99999999, 1, &err), SF_EINVAL, "would drop all", err);
    assert_ok(sft_lora_drop(&t.lora, 1 - 0x1p-24, 1, &err), err);
    tiny_close(&t);
    tiny_open_all(&t, 1);
    assert_ok(sft_lora_drop(&t.lora, 0, 1, &err), err);
    assert_fails(sft_lora_drop(&t.lora, 0.1, 1, &err), SF_EUNSUPPORTED, "router is adapted", err);
}
END_TEST

static Suite *dropout_suite(void)
{
    Suite *suite = suite_create("dropout");
    TCase *tc = tcase_create("dropout");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, draws_are_even_and_apart);
    tcase_add_test(tc, what_is_made_again_and_other_threads_drop_the_same);
    tcase_add_test(tc, key_and_micro_batch_decide_alone);
    tcase_add_test(tc, without_a_probability_and_in_evaluation_nothing_is_dropped);
    tcase_add_test(tc, gradients_are_the_slope_of_the_loss);
    tcase_add_test(tc, what_cannot_be_is_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(dropout_suite)
