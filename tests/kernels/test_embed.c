#include "tests/kernels/kit.h"

#include "kernels/embed.h"

enum { VOCABULARY = 53 };
static const struct {
    int64_t rows, hidden;
    enum sk_format format;
} cases[] = {{1, 64, SK_FORMAT_BF16},
             {7, 33, SK_FORMAT_F32},
             {130, 256, SK_FORMAT_F16},
             {130, 100, SK_FORMAT_NF4},
             {29, 192, SK_FORMAT_NF4_NESTED}};

START_TEST(rows_are_copied)
{
    int64_t rows = cases[_i].rows, hidden = cases[_i].hidden;
    struct kit kit;
    kit_begin(&kit, 1 + (uint64_t)_i);
    struct sk_embed_forward a = {.y = kit_out(&kit, rows * hidden), .rows = rows, .hidden = hidden};
    int32_t *ids = kit_ints(&kit, rows);
    for (int64_t r = 0; r < rows; r++)
        ids[r] = (int32_t)(scout_random_u64(&kit.random) % VOCABULARY);
    ids[0] = VOCABULARY - 1;
    a.ids = ids;
    a.table = kit_matrices(&kit, cases[_i].format, 1, VOCABULARY, hidden);
    const double *dense = kit_dense(&kit, a.table);
    kit_run(&kit, SK_EMBED_FORWARD, &a);
    for (int64_t i = 0; i < rows * hidden; i++)
        if ((double)a.y[i] != dense[ids[i / hidden] * hidden + i % hidden])
            ck_abort_msg("row %lld", (long long)(i / hidden));
    kit_end(&kit);
}
END_TEST

START_TEST(ids_outside_are_refused)
{
    struct kit kit;
    kit_begin(&kit, 9);
    int32_t *ids = kit_ints(&kit, 5);
    struct sk_embed_forward a = {.y = kit_out(&kit, 5 * 8),
                                 .ids = ids,
                                 .table = kit_matrices(&kit, SK_FORMAT_F32, 1, VOCABULARY, 8),
                                 .rows = 5,
                                 .hidden = 8};
    ids[3] = VOCABULARY;
    kit_fails(&kit, SK_EMBED_FORWARD, &a, SF_EINVAL, "token 53 at position 3");
    ids[3] = -1;
    kit_fails(&kit, SK_EMBED_FORWARD, &a, SF_EINVAL, "token -1 at position 3");
    kit_end(&kit);
}
END_TEST

static Suite *embed_suite(void)
{
    Suite *suite = suite_create("embed");
    TCase *tc = tcase_create("embed");
    tcase_add_loop_test(tc, rows_are_copied, 0, sizeof cases / sizeof cases[0]);
    tcase_add_test(tc, ids_outside_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(embed_suite)
