#include "tests/support/support.h"

#include <stdint.h>
#include <string.h>

#include "libformat/base/arena.h"
#include "libformat/base/mem.h"

static bool all_are(const unsigned char *p, uint64_t n, int value)
{
    for (uint64_t i = 0; i < n; i++)
        if (p[i] != value)
            return false;
    return true;
}

/* Fills each block with its own number; a block that overlaps another one shows afterwards. */
START_TEST(blocks_are_zeroed_aligned_and_apart)
{
    struct sf_arena arena = {0};
    struct scout_random r = {1};
    enum { N = 2000 };
    static unsigned char *block[N];
    static uint64_t bytes[N];
    for (int i = 0; i < N; i++) {
        bytes[i] = i % 100 == 0 ? 40000 : scout_random_u64(&r) % 300;
        block[i] = sf_arena_alloc(&arena, bytes[i]);
        ck_assert_ptr_nonnull(block[i]);
        ck_assert_uint_eq((uintptr_t)block[i] % 16, 0);
        ck_assert(all_are(block[i], bytes[i], 0));
        memset(block[i], i % 251 + 1, bytes[i]);
    }
    for (int i = 0; i < N; i++)
        ck_assert(all_are(block[i], bytes[i], i % 251 + 1));
    sf_arena_free(&arena);
    ck_assert_ptr_null(arena.chunks);
    ck_assert_uint_eq(arena.used_bytes, 0);
}
END_TEST

START_TEST(reset_gives_zeroed_memory_again)
{
    struct sf_arena arena = {0};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 50; i++) {
            unsigned char *p = sf_arena_alloc(&arena, 5000);
            ck_assert(all_are(p, 5000, 0));
            memset(p, 0xff, 5000);
        }
        ck_assert_uint_ge(arena.used_bytes, 50 * 5000);
        sf_arena_reset(&arena);
        ck_assert_uint_eq(arena.used_bytes, 0);
        ck_assert_ptr_nonnull(arena.chunks);
    }
    sf_arena_free(&arena);
    sf_arena_reset(&arena);
    ck_assert_ptr_null(arena.chunks);
}
END_TEST

START_TEST(after_reset_the_kept_chunk_is_enough)
{
    struct sf_arena arena = {0};
    ck_assert_ptr_nonnull(sf_arena_alloc(&arena, 1 << 20));
    ck_assert_ptr_nonnull(sf_arena_alloc(&arena, 100));
    sf_arena_reset(&arena);
    sf_alloc_fail_after(1);
    void *p = sf_arena_alloc(&arena, 1 << 20);
    sf_alloc_fail_after(0);
    ck_assert_ptr_nonnull(p);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(no_memory_gives_null_and_keeps_the_rest)
{
    struct sf_arena arena = {0};
    char *text = sf_arena_strdup(&arena, "kept");
    ck_assert_ptr_null(sf_arena_alloc(&arena, UINT64_MAX));
    ck_assert_ptr_null(sf_arena_alloc(&arena, UINT64_MAX - 100));
    ck_assert_ptr_null(sf_arena_array(&arena, UINT64_C(1) << 33, UINT64_C(1) << 33));
    ck_assert_ptr_null(sf_arena_strndup(&arena, "x", UINT64_MAX));
    sf_alloc_fail_after(1);
    ck_assert_ptr_null(sf_arena_alloc(&arena, 1 << 20));
    ck_assert_str_eq(text, "kept");
    ck_assert_ptr_nonnull(sf_arena_alloc(&arena, 1 << 20));
    sf_arena_free(&arena);
}
END_TEST

START_TEST(strings)
{
    struct sf_arena arena = {0};
    ck_assert_str_eq(sf_arena_strndup(&arena, "abcdef", 3), "abc");
    ck_assert_str_eq(sf_arena_strndup(&arena, "abcdef", 0), "");
    ck_assert_str_eq(sf_arena_strdup(&arena, ""), "");
    ck_assert_str_eq(sf_arena_printf(&arena, "%s-%05d", "x", 42), "x-00042");
    char *wide = sf_arena_printf(&arena, "%100000d", 1);
    ck_assert_uint_eq(strlen(wide), 100000);
    sf_arena_free(&arena);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("arena");
    TCase *t = tcase_create("arena");
    tcase_add_test(t, blocks_are_zeroed_aligned_and_apart);
    tcase_add_test(t, reset_gives_zeroed_memory_again);
    tcase_add_test(t, after_reset_the_kept_chunk_is_enough);
    tcase_add_test(t, no_memory_gives_null_and_keeps_the_rest);
    tcase_add_test(t, strings);
    suite_add_tcase(s, t);
    return s;
}
SCOUT_TEST_MAIN(suite)
