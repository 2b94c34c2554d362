#include "tests/kernels/kit.h"

#include "kernels/matrix_cpu.h"

static const enum sk_format formats[] = {SK_FORMAT_F32, SK_FORMAT_BF16, SK_FORMAT_F16,
                                         SK_FORMAT_NF4, SK_FORMAT_NF4_NESTED};

static void check_range(const struct sk_matrix *m, const double *dense, float *got, int64_t first,
                        int64_t count)
{
    scout_poison(got, count + 1);
    sk_matrix_read(got, m, first, count);
    for (int64_t i = 0; i < count; i++)
        if ((double)got[i] != dense[first + i])
            ck_abort_msg("format %d, element %lld of %lld from %lld: %.9g, want %.9g",
                         (int)m->format, (long long)i, (long long)count, (long long)first,
                         (double)got[i], dense[first + i]);
    ck_assert(got[count] != got[count]); /* still NaN: nothing behind the end */
}

/* Whole, and ranges that start and end inside blocks, across nested groups (256 blocks). */
START_TEST(ranges_are_exact)
{
    enum { ROWS = 37, COLS = 901 }; /* 33337 elements, 521 blocks, 3 nested groups */
    struct kit kit;
    kit_begin(&kit, 11 + (uint64_t)_i);
    struct sk_matrix *m = kit_matrices(&kit, formats[_i], 1, ROWS, COLS);
    const double *dense = kit_dense(&kit, m);
    float *got = kit_out(&kit, ROWS * COLS + 1);
    check_range(m, dense, got, 0, ROWS * COLS);
    check_range(m, dense, got, ROWS * COLS - 1, 1);
    for (int i = 0; i < 300; i++) {
        int64_t first = (int64_t)(scout_random_u64(&kit.random) % (ROWS * COLS));
        int64_t most = ROWS * COLS - first, limit = i % 3 == 0 ? 20000 : 150;
        int64_t count = (int64_t)(scout_random_u64(&kit.random) % (uint64_t)sk_min(most, limit));
        check_range(m, dense, got, i % 2 ? first : first / 64 * 64, count + 1);
    }
    kit_end(&kit);
}
END_TEST

static Suite *matrix_suite(void)
{
    Suite *suite = suite_create("matrix");
    TCase *tc = tcase_create("read");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, ranges_are_exact, 0, 5);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(matrix_suite)
