/* Learning rates against those of a run with transformers, and against its formulas at the edges.
 */
#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "train/row_order.h"
#include "train/run_state.h"
#include "train/schedule.h"

START_TEST(cosine_as_recorded)
{
    struct sft_schedule s = {SFT_SCHEDULE_COSINE, 2e-3, 100, 10};
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct sf_json *root;
    char *text;
    uint64_t bytes;
    int64_t step = 0;
    assert_ok(sf_read_file(&text, &bytes, &arena,
                           scout_source_path("tests/golden/training/training.json"), 1 << 20, &err),
              err);
    assert_ok(sf_json_parse(&root, text, bytes, &err), err);
    const struct sf_json *lrs = sf_json_get(sf_json_get(root, "nf4"), "lrs");
    for (lrs = sf_json_first(lrs); lrs; lrs = sf_json_next(lrs), step++) {
        double want;
        assert_ok(sf_json_as_double(&want, lrs, "lr", &err), err);
        ck_assert_double_eq_tol(sft_schedule_rate(&s, step), want, 4e-16 * 2e-3);
    }
    ck_assert_int_eq(step, 100);
    sf_json_free(root);
    sf_arena_free(&arena);
}
END_TEST

/* ---- against transformers, by tests/golden/schedule ---- */

static struct sf_json *root;
static struct sf_arena arena;

static void open_golden(void)
{
    struct sf_err err = {0};
    char *text;
    uint64_t bytes;
    const char *path = scout_source_path("tests/golden/schedule/schedule.json");
    assert_ok(sf_read_file(&text, &bytes, &arena, path, 1 << 20, &err), err);
    assert_ok(sf_json_parse(&root, text, bytes, &err), err);
}

static void close_golden(void)
{
    sf_json_free(root);
    sf_arena_free(&arena);
}

static double number(const struct sf_json *object, const char *key)
{
    struct sf_err err = {0};
    double value;
    assert_ok(sf_json_as_double(&value, sf_json_get(object, key), key, &err), err);
    return value;
}

static struct sft_schedule schedule_of(const struct sf_json *c)
{
    struct sf_err err = {0};
    const char *kind;
    struct sft_schedule s = {.rate = number(c, "rate"),
                             .steps = (int64_t)number(c, "steps"),
                             .warmup = (int64_t)number(c, "warmup")};
    assert_ok(sf_json_as_string(&kind, sf_json_get(c, "kind"), "kind", &err), err);
    ck_assert(sft_schedule_from_name(&s.kind, kind));
    if (sf_json_get(c, "min_lr"))
        s.least = number(c, "min_lr") / s.rate;
    if (sf_json_get(c, "min_lr_rate"))
        s.least = number(c, "min_lr_rate");
    return s;
}

START_TEST(rates_as_transformers)
{
    int64_t kinds = 0, checked = 0;
    for (const struct sf_json *c = sf_json_first(sf_json_get(root, "rates")); c;
         c = sf_json_next(c)) {
        struct sft_schedule s = schedule_of(c);
        int64_t step = 0;
        kinds |= 1 << s.kind;
        for (const struct sf_json *r = sf_json_first(sf_json_get(c, "rates")); r;
             r = sf_json_next(r), step++, checked++) {
            struct sf_err err = {0};
            double want;
            assert_ok(sf_json_as_double(&want, r, "rate", &err), err);
            ck_assert_double_eq_tol(sft_schedule_rate(&s, step), want, 4e-16 * s.rate);
        }
        ck_assert_int_eq(step, s.steps + 2);
    }
    ck_assert_int_eq(kinds, (1 << (SFT_SCHEDULE_COSINE_WITH_MIN_LR + 1)) - 1);
    ck_assert_int_gt(checked, 150);
}
END_TEST

START_TEST(warmup_as_transformers)
{
    int64_t checked = 0;
    for (const struct sf_json *c = sf_json_first(sf_json_get(root, "warmup")); c;
         c = sf_json_next(c), checked++)
        ck_assert_int_eq(sft_schedule_warmup(number(c, "ratio"), (int64_t)number(c, "steps")),
                         (int64_t)number(c, "warmup"));
    ck_assert_int_eq(checked, 5);
}
END_TEST

START_TEST(stopping_as_transformers)
{
    int64_t stops = 0;
    for (const struct sf_json *c = sf_json_first(sf_json_get(root, "stopping")); c;
         c = sf_json_next(c)) {
        struct sft_run_state s = sft_run_state_new();
        bool stopped = false;
        for (const struct sf_json *e = sf_json_first(sf_json_get(c, "evaluations")); e;
             e = sf_json_next(e)) {
            struct sf_err err = {0};
            bool stop;
            s.step++;
            sft_run_state_evaluated(&s, number(e, "loss"), number(c, "threshold"));
            ck_assert_int_eq(s.worse, (int64_t)number(e, "worse"));
            ck_assert_int_eq(s.best_step, (int64_t)number(e, "best"));
            assert_ok(sf_json_as_bool(&stop, sf_json_get(e, "stop"), "stop", &err), err);
            stopped |= (double)s.worse >= number(c, "patience");
            ck_assert_int_eq(stopped, stop);
        }
        stops += stopped;
    }
    ck_assert_int_ge(stops, 2);
}
END_TEST

static const struct {
    struct sft_schedule s;
    int64_t step;
    double want;
} cases[] = {
    {{SFT_SCHEDULE_LINEAR, 1, 10, 4}, 0, 0},
    {{SFT_SCHEDULE_LINEAR, 1, 10, 4}, 1, 0.25},
    {{SFT_SCHEDULE_LINEAR, 1, 10, 4}, 4, 1},
    {{SFT_SCHEDULE_LINEAR, 1, 10, 4}, 7, 0.5},
    {{SFT_SCHEDULE_LINEAR, 1, 10, 4}, 10, 0},
    {{SFT_SCHEDULE_LINEAR, 1, 10, 4}, 12, 0},
    {{SFT_SCHEDULE_LINEAR, 3, 10, 0}, 0, 3},
    {{SFT_SCHEDULE_COSINE, 1, 10, 0}, 5, 0.5},
    {{SFT_SCHEDULE_COSINE, 1, 10, 0}, 10, 0},
    {{SFT_SCHEDULE_CONSTANT, 2, 10, 4}, 0, 2},
    {{SFT_SCHEDULE_CONSTANT, 2, 10, 4}, 99, 2},
    {{SFT_SCHEDULE_CONSTANT_WITH_WARMUP, 2, 10, 4}, 1, 0.5},
    {{SFT_SCHEDULE_CONSTANT_WITH_WARMUP, 2, 10, 4}, 9, 2},
    {{SFT_SCHEDULE_LINEAR, 1, 4, 4}, 4, 0},
};

START_TEST(edges)
{
    ck_assert_double_eq_tol(sft_schedule_rate(&cases[_i].s, cases[_i].step), cases[_i].want, 1e-15);
}
END_TEST

START_TEST(names_and_warmup)
{
    enum sft_schedule_kind kind;
    for (int i = SFT_SCHEDULE_LINEAR; i <= SFT_SCHEDULE_COSINE_WITH_MIN_LR; i++) {
        ck_assert(sft_schedule_from_name(&kind, sft_schedule_name((enum sft_schedule_kind)i)));
        ck_assert_int_eq(kind, i);
    }
    ck_assert(!sft_schedule_from_name(&kind, "polynomial"));
    ck_assert_int_eq(sft_schedule_warmup(0.03, 100), 3);
    ck_assert_int_eq(sft_schedule_warmup(0.031, 100), 4);
    ck_assert_int_eq(sft_schedule_warmup(0, 100), 0);
}
END_TEST

START_TEST(an_order_has_every_row_once)
{
    int64_t order[1000], again[1000], other[1000];
    bool seen[1000] = {false};
    int64_t moved = 0, differs = 0;
    sft_row_order_shuffle(order, 1000, 42, 3);
    sft_row_order_shuffle(again, 1000, 42, 3);
    sft_row_order_shuffle(other, 1000, 42, 4);
    ck_assert(memcmp(order, again, sizeof order) == 0);
    for (int i = 0; i < 1000; i++) {
        ck_assert(order[i] >= 0 && order[i] < 1000 && !seen[order[i]]);
        seen[order[i]] = true;
        moved += order[i] != i;
        differs += order[i] != other[i];
    }
    ck_assert_int_gt(moved, 980);
    ck_assert_int_gt(differs, 980);
    sft_row_order_shuffle(order, 1, 42, 0);
    ck_assert_int_eq(order[0], 0);
    sft_row_order_plain(order, 3);
    ck_assert(order[0] == 0 && order[1] == 1 && order[2] == 2);
}
END_TEST

/* All 6 orders of 3 rows come up, each about equally often: chi-squared of 5 degrees. */
START_TEST(orders_are_equally_likely)
{
    int64_t count[27] = {0}, order[3];
    double chi = 0;
    for (uint64_t epoch = 0; epoch < 6000; epoch++) {
        sft_row_order_shuffle(order, 3, 1, epoch);
        count[order[0] * 9 + order[1] * 3 + order[2]]++;
    }
    for (int i = 0; i < 27; i++)
        chi += count[i] ? pow((double)count[i] - 1000, 2) / 1000 : 0;
    ck_assert_msg(chi < 20.5, "chi-squared %g", chi); /* 1 in 1000 */
    ck_assert_int_gt(count[0 * 9 + 1 * 3 + 2], 0);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("schedule");
    TCase *tc = tcase_create("schedule");
    tcase_add_test(tc, cosine_as_recorded);
    tcase_add_loop_test(tc, edges, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tc, names_and_warmup);
    tcase_add_test(tc, an_order_has_every_row_once);
    tcase_add_test(tc, orders_are_equally_likely);
    suite_add_tcase(suite, tc);
    tc = tcase_create("transformers");
    tcase_add_checked_fixture(tc, open_golden, close_golden);
    tcase_add_test(tc, rates_as_transformers);
    tcase_add_test(tc, warmup_as_transformers);
    tcase_add_test(tc, stopping_as_transformers);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
