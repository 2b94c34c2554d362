#include "tests/support/support.h"

#include <stdint.h>
#include <string.h>

#include "libformat/base/mem.h"

static bool all_zero(const unsigned char *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

START_TEST(memory_is_zeroed_and_aligned)
{
    static const uint64_t sizes[] = {0, 1, 63, 64, 65, 4096, 100000};
    for (size_t round = 0; round < 2; round++) { /* the second round sees used memory */
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            unsigned char *p = sf_alloc(sizes[i]);
            ck_assert_ptr_nonnull(p);
            ck_assert_uint_eq((uintptr_t)p % SF_ALLOC_ALIGN, 0);
            ck_assert(all_zero(p, sizes[i]));
            memset(p, 0xab, sizes[i]);
            sf_free(p);
        }
    }
    sf_free(NULL);
}
END_TEST

START_TEST(absurd_sizes_give_null)
{
    struct sf_err err = {0};
    void *p;
    ck_assert_ptr_null(sf_alloc(UINT64_MAX));
    ck_assert_ptr_null(sf_alloc(UINT64_MAX - 63));
    assert_fails(sf_alloc_for(&p, UINT64_MAX / 2 + 64, "the index", &err), SF_ENOMEM,
                 "cannot allocate 9223372036854775871 bytes for the index", err);
    ck_assert_ptr_null(p);
}
END_TEST

START_TEST(the_nth_allocation_fails_once)
{
    for (int n = 1; n < 5; n++) {
        sf_alloc_fail_after(n);
        for (int i = 1; i < 8; i++) {
            void *p = sf_alloc(1);
            ck_assert_msg((p == NULL) == (i == n), "n %d, i %d", n, i);
            sf_free(p);
        }
    }
    sf_alloc_fail_after(1);
    sf_alloc_fail_after(0);
    void *p = sf_alloc(1);
    ck_assert_ptr_nonnull(p);
    sf_free(p);
}
END_TEST

START_TEST(products_and_sums_do_not_wrap)
{
    uint64_t r = 5;
    ck_assert(sf_mul(&r, UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1) &&
              r == UINT64_MAX - UINT32_MAX);
    r = 5;
    ck_assert(!sf_mul(&r, UINT64_C(1) << 32, UINT64_C(1) << 32) && r == 5);
    ck_assert(sf_mul(&r, 0, UINT64_MAX) && r == 0);
    ck_assert(sf_add(&r, UINT64_MAX - 1, 1) && r == UINT64_MAX);
    r = 5;
    ck_assert(!sf_add(&r, UINT64_MAX, 1) && r == 5);
}
END_TEST

START_TEST(align_up)
{
    uint64_t r = 5;
    ck_assert(sf_align_up(&r, 0, 64) && r == 0);
    ck_assert(sf_align_up(&r, 1, 64) && r == 64);
    ck_assert(sf_align_up(&r, 64, 64) && r == 64);
    ck_assert(sf_align_up(&r, UINT64_MAX - 63, 64) && r == UINT64_MAX - 63);
    r = 5;
    ck_assert(!sf_align_up(&r, UINT64_MAX - 62, 64) && r == 5);
    ck_assert(sf_align_up(&r, 77, 1) && r == 77);
}
END_TEST

START_TEST(a_list_grows_and_keeps_what_it_holds)
{
    struct sf_err err = {0};
    void *list = NULL;
    int64_t capacity = 0, moves = 0;
    for (int64_t n = 0; n < 10000; n++) {
        int64_t before = capacity;
        assert_ok(sf_grow(&list, &capacity, n, n + 1, sizeof(int64_t), "a test", &err), err);
        ck_assert_int_gt(capacity, n);
        moves += capacity != before;
        ((int64_t *)list)[n] = n;
    }
    ck_assert_int_le(moves, 9); /* doubled: 64, 128 ... 16384 */
    for (int64_t n = 0; n < 10000; n++)
        ck_assert_int_eq(((int64_t *)list)[n], n);
    void *same = list;
    sf_alloc_fail_after(1);
    ck_assert_int_eq(sf_grow(&list, &capacity, 10000, 1 << 20, 8, "a test", &err), SF_ENOMEM);
    sf_alloc_fail_after(0);
    assert_fails(sf_grow(&list, &capacity, 10000, INT64_MAX, 8, "a test", &err), SF_ENOMEM,
                 "9223372036854775807 entries are too many for a test", err);
    ck_assert_ptr_eq(list, same);
    ck_assert_int_eq(((int64_t *)list)[9999], 9999);
    sf_free(list);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("mem");
    TCase *t = tcase_create("mem");
    tcase_add_test(t, memory_is_zeroed_and_aligned);
    tcase_add_test(t, absurd_sizes_give_null);
    tcase_add_test(t, the_nth_allocation_fails_once);
    tcase_add_test(t, products_and_sums_do_not_wrap);
    tcase_add_test(t, align_up);
    tcase_add_test(t, a_list_grows_and_keeps_what_it_holds);
    suite_add_tcase(s, t);
    return s;
}
SCOUT_TEST_MAIN(suite)
