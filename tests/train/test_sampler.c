#include "train/sampler.h"

#include <math.h>
#include <string.h>

#include "tests/support/support.h"

enum { TOKENS = 6, DRAWS = 10000 };
static const float logits[TOKENS] = {1, 3, -2, 3, 0.5f, 2};

/* Shares of what is drawn; `kept` says by the formula what can be. */
static const struct {
    struct sft_sampling sampling;
    bool kept[TOKENS];
} cases[] = {
    {{.temperature = 1, .top_p = 1, .seed = 1}, {1, 1, 1, 1, 1, 1}},
    {{.temperature = 0.5, .top_p = 1, .seed = 2}, {1, 1, 1, 1, 1, 1}},
    {{.temperature = 1, .top_p = 1, .top_k = 3, .seed = 3}, {0, 1, 0, 1, 0, 1}},
    {{.temperature = 1, .top_p = 1, .top_k = 1, .seed = 4}, {0, 1, 0, 0, 0, 0}},
    /* shares: 0.383 0.383 0.141 0.052 0.031 0.003 */
    {{.temperature = 1, .top_p = 0.1, .seed = 5}, {0, 1, 0, 0, 0, 0}},
    {{.temperature = 1, .top_p = 0.5, .seed = 6}, {0, 1, 0, 1, 0, 0}},
    {{.temperature = 1, .top_p = 0.8, .seed = 7}, {0, 1, 0, 1, 0, 1}},
    {{.temperature = 1, .top_p = 0.95, .seed = 8}, {1, 1, 0, 1, 0, 1}},
    /* top-p counts shares of what top-k has left: 0.422 0.422 0.155 */
    {{.temperature = 1, .top_p = 0.83, .top_k = 3, .seed = 9}, {0, 1, 0, 1, 0, 0}},
    {{.temperature = 2, .top_p = 0.8, .seed = 10}, {1, 1, 0, 1, 0, 1}},
};

START_TEST(draws_have_the_shares_of_the_formula)
{
    struct sft_sampler *sampler;
    struct sf_err err = {0};
    struct sft_sampling s = cases[_i].sampling;
    double want[TOKENS], sum = 0;
    int count[TOKENS] = {0};
    for (int i = 0; i < TOKENS; i++)
        sum += want[i] = cases[_i].kept[i] ? exp((double)logits[i] / s.temperature) : 0;
    assert_ok(sft_sampler_open(&sampler, s, TOKENS, &err), err);
    for (int64_t n = 0; n < DRAWS; n++) {
        int32_t id;
        assert_ok(sft_sampler_choose(&id, sampler, logits, n, &err), err);
        ck_assert(id >= 0 && id < TOKENS);
        count[id]++;
    }
    for (int i = 0; i < TOKENS; i++) {
        double p = want[i] / sum, spread = sqrt(p * (1 - p) / DRAWS);
        ck_assert_msg(fabs((double)count[i] / DRAWS - p) <= 4 * spread,
                      "token %d: %d of %d, not %.4f", i, count[i], DRAWS, p);
    }
    sft_sampler_close(sampler);
}
END_TEST

START_TEST(the_same_seed_draws_the_same)
{
    struct sft_sampler *a, *b, *c;
    struct sf_err err = {0};
    struct sft_sampling s = {.temperature = 1, .top_p = 1, .seed = 77}, other = s;
    int differ = 0;
    other.seed = 78;
    assert_ok(sft_sampler_open(&a, s, TOKENS, &err), err);
    assert_ok(sft_sampler_open(&b, s, TOKENS, &err), err);
    assert_ok(sft_sampler_open(&c, other, TOKENS, &err), err);
    for (int64_t n = 0; n < 200; n++) {
        int32_t x, y, z;
        assert_ok(sft_sampler_choose(&x, a, logits, n, &err), err);
        assert_ok(sft_sampler_choose(&z, c, logits, n, &err), err);
        assert_ok(sft_sampler_choose(&y, b, logits, n, &err), err);
        ck_assert_int_eq(x, y);
        differ += x != z;
    }
    ck_assert_int_gt(differ, 50);
    sft_sampler_close(a);
    sft_sampler_close(b);
    sft_sampler_close(c);
}
END_TEST

START_TEST(cold_is_the_most_likely)
{
    struct sft_sampler *sampler;
    struct sf_err err = {0};
    float bad[TOKENS];
    int32_t id;
    assert_ok(sft_sampler_open(&sampler, (struct sft_sampling){.top_p = 0.5}, TOKENS, &err), err);
    assert_ok(sft_sampler_choose(&id, sampler, logits, 0, &err), err);
    ck_assert_int_eq(id, 1); /* of two that are equal the first */
    memcpy(bad, logits, sizeof bad);
    bad[4] = NAN;
    assert_fails(sft_sampler_choose(&id, sampler, bad, 0, &err), SF_ENUMERIC,
                 "the logit of token 4 is no number", err);
    for (int i = 0; i < TOKENS; i++)
        bad[i] = -INFINITY;
    assert_fails(sft_sampler_choose(&id, sampler, bad, 0, &err), SF_ENUMERIC, "-inf", err);
    sft_sampler_close(sampler);
}
END_TEST

START_TEST(senseless_figures_are_refused)
{
    static const struct {
        struct sft_sampling sampling;
        const char *message;
    } bad[] = {
        {{.temperature = -1, .top_p = 1}, "a temperature of -1"},
        {{.temperature = NAN, .top_p = 1}, "a temperature of"},
        {{.temperature = 1, .top_p = 0}, "a top-p of 0"},
        {{.temperature = 1, .top_p = 1.5}, "a top-p of 1.5"},
        {{.temperature = 1, .top_p = 1, .top_k = -2}, "a top-k of -2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct sft_sampler *sampler;
        struct sf_err err = {0};
        assert_fails(sft_sampler_open(&sampler, bad[i].sampling, TOKENS, &err), SF_EINVAL,
                     bad[i].message, err);
        ck_assert_ptr_null(sampler);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("sampler");
    TCase *c = tcase_create("choice");
    tcase_add_loop_test(c, draws_have_the_shares_of_the_formula, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(c, the_same_seed_draws_the_same);
    tcase_add_test(c, cold_is_the_most_likely);
    tcase_add_test(c, senseless_figures_are_refused);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
