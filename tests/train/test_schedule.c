/* Learning rates against those of a run with transformers, and against its formulas at the edges.
 */
#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "train/row_order.h"
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
    for (int i = SFT_SCHEDULE_LINEAR; i <= SFT_SCHEDULE_CONSTANT_WITH_WARMUP; i++) {
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
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
