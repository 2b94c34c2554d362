#include "train/plan/pack.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/support.h"

static void random_intervals(struct sft_interval *v, int32_t count, int32_t nodes, uint64_t seed)
{
    struct scout_random r = {seed};
    for (int32_t i = 0; i < count; i++) {
        int32_t a = (int32_t)(scout_random_u64(&r) % (uint64_t)nodes);
        int32_t length = (int32_t)(scout_random_u64(&r) % 12);
        v[i] = (struct sft_interval){1 + scout_random_u64(&r) % 100000, a,
                                     a + length < nodes ? a + length : nodes - 1, 0};
    }
}

static void check_packing(const struct sft_interval *v, int32_t count, uint64_t block)
{
    for (int32_t i = 0; i < count; i++) {
        ck_assert_uint_eq(v[i].offset % SFT_BLOCK_ALIGN, 0);
        ck_assert_uint_le(v[i].offset + v[i].bytes, block);
        for (int32_t j = 0; j < i; j++) {
            bool together = v[i].birth <= v[j].death && v[j].birth <= v[i].death;
            bool overlap =
                v[i].offset < v[j].offset + v[j].bytes && v[j].offset < v[i].offset + v[i].bytes;
            ck_assert_msg(!(together && overlap), "intervals %d and %d share bytes and time", i, j);
        }
    }
}

/* The bound by its definition: the fullest node is some buffer's birth. */
static uint64_t fullest(const struct sft_interval *v, int32_t count)
{
    uint64_t most = 0;
    for (int32_t i = 0; i < count; i++) {
        uint64_t live = 0;
        for (int32_t j = 0; j < count; j++)
            if (v[j].birth <= v[i].birth && v[i].birth <= v[j].death)
                live += v[j].bytes;
        most = most < live ? live : most;
    }
    return most;
}

START_TEST(random_intervals_never_overlap)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    enum { COUNT = 300, NODES = 200 };
    static struct sft_interval v[COUNT], again[COUNT];
    double worst = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        uint64_t block, block_again, bound;
        int32_t peak;
        random_intervals(v, COUNT, NODES, seed);
        memcpy(again, v, sizeof v);
        assert_ok(sft_pack(&block, v, COUNT, 0, &arena, &err), err);
        check_packing(v, COUNT, block);
        assert_ok(sft_pack(&block_again, again, COUNT, 0, &arena, &err), err);
        ck_assert_mem_eq(v, again, sizeof v);
        assert_ok(sft_pack_bound(&bound, &peak, v, COUNT, &arena, &err), err);
        ck_assert_uint_eq(bound, fullest(v, COUNT));
        ck_assert_uint_ge(block, bound);
        if ((double)block / (double)bound > worst)
            worst = (double)block / (double)bound;
    }
    printf("pack: random intervals, at worst %.3f of the bound\n", worst);
    ck_assert_double_le(worst, 1.15);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(a_stack_packs_without_loss)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct sft_interval v[] = {{1000, 0, 9, 0}, {2000, 1, 8, 0}, {3000, 2, 7, 0},
                               {5, 3, 3, 0},    {5, 5, 5, 0},    {4000, 4, 4, 0}};
    uint64_t block, bound;
    int32_t peak;
    assert_ok(sft_pack(&block, v, 6, 0, &arena, &err), err);
    check_packing(v, 6, block);
    assert_ok(sft_pack_bound(&bound, &peak, v, 6, &arena, &err), err);
    ck_assert_uint_eq(block, bound);
    ck_assert_int_eq(peak, 4);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(what_is_enough_is_taken_and_what_cannot_be_is_told)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    enum { COUNT = 300, NODES = 200 };
    static struct sft_interval v[COUNT], first[COUNT];
    uint64_t block, bound;
    int32_t peak;
    random_intervals(v, COUNT, NODES, 3);
    memcpy(first, v, sizeof v);
    assert_ok(sft_pack(&block, v, COUNT, UINT64_C(1) << 60, &arena, &err), err);
    check_packing(v, COUNT, block);
    memcpy(v, first, sizeof v);
    assert_ok(sft_pack(&block, v, COUNT, 256, &arena, &err), err);
    assert_ok(sft_pack_bound(&bound, &peak, v, COUNT, &arena, &err), err);
    ck_assert_uint_eq(block, bound);
    for (int i = 0; i < COUNT; i++)
        ck_assert_uint_eq(v[i].offset, first[i].offset);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(sizes_that_wrap_are_refused)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct sft_interval v[] = {{UINT64_MAX / 2, 0, 1, 0}, {UINT64_MAX / 2 + 300, 0, 1, 0}};
    uint64_t block;
    assert_fails(sft_pack(&block, v, 2, 0, &arena, &err), SF_EINVAL, "2 buffers", err);
    assert_ok(sft_pack(&block, v, 0, 0, &arena, &err), err);
    ck_assert_uint_eq(block, 0);
    sf_arena_free(&arena);
}
END_TEST

static Suite *pack_suite(void)
{
    Suite *suite = suite_create("pack");
    TCase *tc = tcase_create("pack");
    tcase_add_test(tc, random_intervals_never_overlap);
    tcase_add_test(tc, a_stack_packs_without_loss);
    tcase_add_test(tc, what_is_enough_is_taken_and_what_cannot_be_is_told);
    tcase_add_test(tc, sizes_that_wrap_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(pack_suite)
