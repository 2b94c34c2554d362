/* Every instruction set that this processor has gives the bits that plain C gives. The first case
 * names the ones that ran, so that a log shows what was tested. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"

static const char *const paths[] = {"portable", "neon", "avx2", "avx512"};
enum { PATHS = sizeof paths / sizeof paths[0], N = 64 * 1027 + 37, BLOCKS = 1028, GROUPS = 5 };

/* Everything the codec makes of one source. */
struct outcome {
    uint8_t codes[N / 2 + 1], again[N / 2 + 1], q[BLOCKS];
    float absmax[BLOCKS], restored[BLOCKS], nested[GROUPS], offset;
    float error[BLOCKS], norm[BLOCKS], decoded[N];
    struct sf_nf4_findings found;
    struct sf_nf4_error sum;
};

static void run(struct outcome *o, const void *src, enum sf_dtype dtype, bool clean)
{
    memset(o, 0, sizeof *o);
    o->found.first_bad = -1;
    sf_nf4_encode(o->codes, o->absmax, src, dtype, N, &o->found);
    if (clean)
        sf_nf4_codes(o->again, src, dtype, o->absmax, N);
    else
        memcpy(o->again, o->codes, sizeof o->again);
    o->offset = sf_nf4_offset(o->absmax, BLOCKS);
    sf_nf4_nest(o->q, o->nested, o->absmax, BLOCKS, o->offset);
    sf_nf4_unnest(o->restored, o->q, o->nested, sf_nf4_scale_map, o->offset, 0, BLOCKS);
    sf_nf4_errors(o->error, o->norm, src, dtype, o->codes, o->restored, N);
    sf_nf4_decode(o->decoded, o->codes, o->restored, sf_nf4_code_value, 0, N);
    sf_nf4_measure(&o->sum, src, dtype, o->codes, o->restored, N);
}

/* NaN has many patterns, and which one comes out of 0 * Inf is the processor's choice. */
static void assert_floats(const char *what, const char *path, const float *got, const float *want,
                          int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (sf_bits_from_f32(got[i]) != sf_bits_from_f32(want[i]) &&
            !(isnan(got[i]) && isnan(want[i])))
            ck_abort_msg("%s, %s[%lld]: %a, not %a", path, what, (long long)i, (double)got[i],
                         (double)want[i]);
}

static void assert_same(const char *path, const struct outcome *got, const struct outcome *want)
{
    ck_assert_msg(memcmp(got->codes, want->codes, sizeof got->codes) == 0, "%s: codes", path);
    ck_assert_msg(memcmp(got->again, want->codes, sizeof got->codes) == 0, "%s: codes by absmax",
                  path);
    ck_assert_msg(memcmp(got->q, want->q, sizeof got->q) == 0, "%s: absmax codes", path);
    assert_floats("absmax", path, got->absmax, want->absmax, BLOCKS);
    assert_floats("nested", path, got->nested, want->nested, GROUPS);
    assert_floats("restored", path, got->restored, want->restored, BLOCKS);
    assert_floats("error", path, got->error, want->error, BLOCKS);
    assert_floats("norm", path, got->norm, want->norm, BLOCKS);
    assert_floats("decoded", path, got->decoded, want->decoded, N);
    ck_assert(got->found.nan_count == want->found.nan_count);
    ck_assert(got->found.inf_count == want->found.inf_count);
    ck_assert(got->found.first_bad == want->found.first_bad);
    ck_assert(memcmp(&got->sum, &want->sum, sizeof got->sum) == 0 ||
              isnan(want->sum.squared_error));
}

/* At an odd address, in a block of its own, so that a sanitizer sees a read too far. */
static void compare_paths(const void *elements, enum sf_dtype dtype, bool clean)
{
    static struct outcome want, got;
    size_t bytes = (size_t)N * (dtype == SF_F32 ? 4 : 2);
    unsigned char *src = malloc(bytes + 1);
    memcpy(src + 1, elements, bytes);
    ck_assert(sf_nf4_use("portable"));
    run(&want, src + 1, dtype, clean);
    for (int p = 0; p < PATHS; p++) {
        if (!sf_nf4_use(paths[p]))
            continue;
        ck_assert_str_eq(sf_nf4_path(), paths[p]);
        run(&got, src + 1, dtype, clean);
        assert_same(paths[p], &got, &want);
    }
    free(src);
    sf_nf4_use(NULL);
}

START_TEST(paths_of_this_processor)
{
    sf_nf4_use(NULL);
    printf("best: %s; also:", sf_nf4_path());
    for (int p = 0; p < PATHS; p++)
        printf(" %s %s;", paths[p], sf_nf4_use(paths[p]) ? "tested" : "not on this processor");
    printf("\n");
    ck_assert(sf_nf4_use("portable") && strcmp(sf_nf4_path(), "portable") == 0);
    ck_assert(!sf_nf4_use("abacus") && strcmp(sf_nf4_path(), "portable") == 0);
    sf_nf4_use(NULL);
}
END_TEST

static unsigned char bytes_of[N * 4];

static void put(enum sf_dtype dtype, int64_t i, float x)
{
    if (dtype == SF_F32)
        sf_put_f32(bytes_of + 4 * i, x);
    else
        sf_put_u16(bytes_of + 2 * i, dtype == SF_BF16 ? sf_bf16_from_f32(x)
                                                      : (uint16_t)(sf_bf16_from_f32(x) & 0xbfff));
}

/* Weights of every size that bf16 knows, from block to block. */
START_TEST(random_weights)
{
    static const enum sf_dtype dtypes[] = {SF_BF16, SF_F16, SF_F32};
    struct scout_random r = {.state = 20260401};
    for (int k = 0; k < 3; k++) {
        for (int64_t i = 0; i < N; i++) {
            float x = scout_random_normal(&r) * 0.02f;
            put(dtypes[k], i, i / 64 % 3 == 2 ? ldexpf(x, (int)(i / 64 % 200) - 110) : x);
        }
        compare_paths(bytes_of, dtypes[k], dtypes[k] != SF_F16);
    }
}
END_TEST

/* All 65,536 patterns, in random company: NaN, Inf and subnormals in most blocks. */
START_TEST(every_pattern)
{
    struct scout_random r = {.state = 7};
    for (int64_t i = 0; i < N; i++)
        sf_put_u16(bytes_of + 2 * i,
                   (uint16_t)(i < 65536 ? (uint64_t)i * 25173 : scout_random_u64(&r)));
    compare_paths(bytes_of, SF_BF16, false);
}
END_TEST

/* One odd block at a time among ordinary ones, at every place of a run. */
START_TEST(degenerate_blocks)
{
    static const uint16_t odd[][2] = {{0, 0},           {0x8000, 0x8000}, {0x0001, 0x807f},
                                      {0x0080, 0x8080}, {0x7e80, 0xfe80}, {0x7e81, 0x0100},
                                      {0x7f7f, 0xff7f}, {0x7f80, 0x3f80}, {0xff80, 0x0000},
                                      {0x7fc0, 0x3f80}, {0xff81, 0x7fff}, {0x0081, 0x007f}};
    struct scout_random r = {.state = 99};
    for (int64_t b = 0; b < BLOCKS; b++)
        for (int64_t i = b * 64; i < b * 64 + 64 && i < N; i++) {
            const uint16_t *pair = odd[b / 7 % (int64_t)(sizeof odd / sizeof odd[0])];
            uint16_t usual = sf_bf16_from_f32(scout_random_normal(&r));
            bool all = b / 7 % 2 == 0, here = all || i % 64 == b % 64;
            sf_put_u16(bytes_of + 2 * i, b % 7 == 3 && here ? pair[i % 2] : usual);
        }
    compare_paths(bytes_of, SF_BF16, false);
}
END_TEST

/* Every exact quotient of bf16 mantissas, as test_nf4.c, on every path. */
START_TEST(every_ratio)
{
    unsigned char block[128];
    for (int p = 0; p < PATHS; p++) {
        if (!sf_nf4_use(paths[p]))
            continue;
        for (uint32_t top = 128; top < 256; top++)
            for (uint32_t x = 0; x < 20 * 128; x += 31) {
                uint8_t codes[32];
                float absmax;
                for (uint32_t i = 0; i < 62; i++) {
                    uint32_t step = x + i / 2 < 20 * 128 ? x + i / 2 : 20 * 128 - 1;
                    uint32_t bits = (100u << 7 | (top & 127)) - step;
                    sf_put_u16(block + 2 * i, (uint16_t)(bits | (i & 1) << 15));
                }
                sf_put_u16(block + 124, 0);
                sf_put_u16(block + 126, (uint16_t)(100u << 7 | (top & 127)));
                sf_nf4_encode(codes, &absmax, block, SF_BF16, 64, NULL);
                for (int i = 0; i < 64; i++) {
                    float s = sf_f32_from_bf16(sf_get_u16(block + 2 * i)) / absmax;
                    int want = 0, code = i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
                    for (int t = 0; t < 15; t++)
                        want += sf_nf4_threshold[t] < s;
                    if (code != want)
                        ck_abort_msg("%s: %a: code %d, not %d", paths[p], (double)s, code, want);
                }
            }
    }
    sf_nf4_use(NULL);
}
END_TEST

/* Scales at, beside and between the middles of the map, where the nearest entry changes. */
START_TEST(nesting_at_every_middle)
{
    static float absmax[3 * 256 + 2], nested[4], want_nested[4];
    static uint8_t q[3 * 256 + 2], want[3 * 256 + 2];
    for (int i = 0; i < 255; i++) {
        float middle = (sf_nf4_scale_map[i] + sf_nf4_scale_map[i + 1]) * 0.5f;
        absmax[3 * i] = nextafterf(middle, -2);
        absmax[3 * i + 1] = middle;
        absmax[3 * i + 2] = nextafterf(middle, 2);
    }
    for (int i = 255; i < 768; i += 256) /* 1 in every group: its nested absmax is 1 */
        absmax[i] = 1;
    absmax[0] = absmax[768] = 1, absmax[769] = NAN;
    for (int p = 0; p < PATHS; p++) {
        if (!sf_nf4_use(paths[p]))
            continue;
        sf_nf4_nest(q, nested, absmax, 770, 0);
        if (p == 0)
            memcpy(want, q, sizeof q), memcpy(want_nested, nested, sizeof nested);
        ck_assert_msg(memcmp(q, want, sizeof q) == 0, "%s", paths[p]);
        assert_floats("nested", paths[p], nested, want_nested, 4);
        for (int i = 1; i < 255; i++) /* below, on, above: on goes to the even one */
            if (i != 85 && i != 170)
                ck_assert_msg(q[3 * i + 1] == i + i % 2 || 3 * i + 1 == 511, "%s: middle %d: %d",
                              paths[p], i, q[3 * i + 1]);
    }
    sf_nf4_use(NULL);
}
END_TEST

START_TEST(absmax_down_is_absmax_of_the_turned)
{
    enum { STRIDE = 2200, COLUMNS = 2100 }; /* more than one piece, and an odd tail */
    static unsigned char source[2 * 64 * STRIDE + 1], turned[2 * 64 * COLUMNS];
    static float want[COLUMNS], got[3 * COLUMNS];
    struct scout_random r = {.state = 4};
    for (int i = 0; i < 64 * STRIDE; i++)
        sf_put_u16(source + 1 + 2 * i, sf_bf16_from_f32(scout_random_normal(&r)));
    sf_put_u16(source + 1 + 2 * (5 * STRIDE + 77), 0x7fc1);
    sf_put_u16(source + 1 + 2 * (6 * STRIDE + 2099), 0xff80);
    for (int i = 0; i < 64; i++)
        sf_put_u16(source + 1 + 2 * (i * STRIDE + 300), 0x8003);
    for (int p = 0; p < PATHS; p++) {
        if (!sf_nf4_use(paths[p]))
            continue;
        struct sf_nf4_findings a = {.first_bad = -1}, b = {.first_bad = -1};
        for (int c = 0; c < COLUMNS; c++)
            for (int i = 0; i < 64; i++)
                memcpy(turned + 2 * (64 * c + i), source + 1 + 2 * (i * STRIDE + c), 2);
        sf_nf4_absmax(want, turned, SF_BF16, 64 * COLUMNS, &a);
        scout_poison(got, 3 * COLUMNS);
        sf_nf4_absmax_down(got, 3, source + 1, STRIDE, COLUMNS, &b);
        for (int c = 0; c < COLUMNS; c++)
            assert_floats("absmax", paths[p], &got[3 * c], &want[c], 1);
        ck_assert(isnan(got[1]) && isnan(got[2]));
        ck_assert(a.nan_count == 1 && b.nan_count == 1 && a.inf_count == 1 && b.inf_count == 1);
    }
    sf_nf4_use(NULL);
}
END_TEST

static void turn_once(const char *path, enum sf_dtype dtype, int64_t rows, int64_t columns)
{
    static unsigned char src[4 * 80 * 90 + 1], dst[4 * 80 * 90 + 1];
    int64_t size = dtype == SF_F32 ? 4 : 2, src_stride = columns + 3, dst_stride = rows + 5;
    struct scout_random r = {.state = 1};
    for (size_t i = 0; i < sizeof src; i++)
        src[i] = (unsigned char)scout_random_u64(&r);
    memset(dst, 0xa5, sizeof dst);
    sf_nf4_turn(dst + 1, dst_stride, src + 1, src_stride, rows, columns, dtype);
    for (int64_t c = 0; c < columns; c++)
        for (int64_t i = 0; i < dst_stride * size; i++) {
            int64_t row = i / size;
            unsigned char want =
                row < rows ? src[1 + (row * src_stride + c) * size + i % size] : 0xa5;
            if (dst[1 + c * dst_stride * size + i] != want)
                ck_abort_msg("%s: %lld x %lld: row %lld of column %lld", path, (long long)rows,
                             (long long)columns, (long long)row, (long long)c);
        }
}

START_TEST(turn)
{
    static const int64_t sizes[] = {0, 1, 7, 15, 16, 17, 32, 48, 63, 64};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    for (int p = 0; p < PATHS; p++) {
        if (!sf_nf4_use(paths[p]))
            continue;
        for (int i = 0; i < SIZES; i++)
            for (int j = 0; j < SIZES; j++) {
                turn_once(paths[p], SF_BF16, sizes[i], sizes[j]);
                turn_once(paths[p], SF_F32, sizes[i], sizes[j]);
            }
    }
    sf_nf4_use(NULL);
}
END_TEST

/* The sum's order, from its description in nf4.h. */
START_TEST(sums_in_the_order_of_the_header)
{
    struct scout_random r = {.state = 11};
    unsigned char src[128];
    uint8_t codes[32];
    float absmax, decoded[64], lane[16] = {0}, error, norm;
    for (int i = 0; i < 64; i++)
        sf_put_u16(src + 2 * i, sf_bf16_from_f32(scout_random_normal(&r)));
    sf_nf4_encode(codes, &absmax, src, SF_BF16, 64, NULL);
    sf_nf4_decode(decoded, codes, &absmax, sf_nf4_code_value, 0, 64);
    for (int i = 0; i < 64; i++) {
        float d = decoded[i] - sf_f32_from_bf16(sf_get_u16(src + 2 * i)), square = d * d;
        lane[i % 16] = lane[i % 16] + square;
    }
    for (int half = 8; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lane[j] = lane[j] + lane[j + half];
    for (int p = 0; p < PATHS; p++)
        if (sf_nf4_use(paths[p])) {
            sf_nf4_errors(&error, &norm, src, SF_BF16, codes, &absmax, 64);
            ck_assert_msg(error == lane[0], "%s: %a, not %a", paths[p], (double)error,
                          (double)lane[0]);
        }
    sf_nf4_use(NULL);
}
END_TEST

static Suite *nf4_simd_suite(void)
{
    Suite *suite = suite_create("nf4_simd");
    TCase *tc = tcase_create("nf4_simd");
    tcase_add_test(tc, paths_of_this_processor);
    tcase_add_test(tc, random_weights);
    tcase_add_test(tc, every_pattern);
    tcase_add_test(tc, degenerate_blocks);
    tcase_add_test(tc, every_ratio);
    tcase_add_test(tc, nesting_at_every_middle);
    tcase_add_test(tc, absmax_down_is_absmax_of_the_turned);
    tcase_add_test(tc, turn);
    tcase_add_test(tc, sums_in_the_order_of_the_header);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(nf4_simd_suite)
