/* Scales by least squares: how much error they save, by a reading of the format in float64 that
 * shares nothing with the codec, and the same bytes from every instruction set. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4_search.h"

static const char *const paths[] = {"portable", "neon", "avx2", "avx512"};
enum { PATHS = sizeof paths / sizeof paths[0], GAUSSIANS = 1 << 21 };

static const float ALIKE[] = {1, 1, 1};

/* A quantized matrix, double quantization included. */
struct quantized {
    int64_t n, blocks;
    float *absmax, *scale, *restored, *nested, offset;
    uint8_t *codes, *q;
};

static struct quantized quantized_new(int64_t n)
{
    int64_t blocks = sf_nf4_blocks(n);
    size_t bytes = (size_t)blocks * sizeof(float);
    return (struct quantized){.n = n,
                              .blocks = blocks,
                              .absmax = malloc(bytes),
                              .scale = malloc(bytes),
                              .restored = malloc(bytes),
                              .nested = malloc(bytes),
                              .codes = malloc((size_t)(n + 1) / 2),
                              .q = malloc((size_t)blocks)};
}

static void quantized_free(struct quantized *z)
{
    free(z->absmax), free(z->scale), free(z->restored), free(z->nested), free(z->codes), free(z->q);
}

/* `how` NULL: the scales are the maxima, and the codes are against them, as bitsandbytes does it. */
static void quantize(struct quantized *z, const void *src, enum sf_dtype dtype,
                     const struct sf_nf4_search *how)
{
    sf_nf4_encode(z->codes, z->absmax, src, dtype, z->n, NULL);
    memcpy(z->scale, z->absmax, (size_t)z->blocks * sizeof(float));
    if (how)
        sf_nf4_search_scales(z->scale, z->absmax, src, dtype, 0, z->n, how);
    z->offset = sf_nf4_offset(z->scale, z->blocks);
    sf_nf4_nest(z->q, z->nested, z->scale, z->blocks, z->offset);
    sf_nf4_unnest(z->restored, z->q, z->nested, sf_nf4_scale_map, z->offset, 0, z->blocks);
    if (how)
        sf_nf4_search_codes(z->codes, src, dtype, z->restored, z->n);
}

/* The weight as spec/quantization.md, section 2, has it, before it is rounded to bf16. */
static double meaning(const struct quantized *z, int64_t i)
{
    double scale = (double)sf_nf4_scale_map[z->q[i / 64]] * z->nested[i / 16384] + z->offset;
    uint8_t pair = z->codes[i / 2];
    return scale * sf_nf4_code_value[i % 2 ? pair & 15 : pair >> 4];
}

/* Mean of w * (meaning - x)^2. */
static double mean_error(const struct quantized *z, const unsigned char *src, const float *w,
                         int64_t channels)
{
    double sum = 0;
    for (int64_t i = 0; i < z->n; i++) {
        double d = meaning(z, i) - sf_f32_from_bf16(sf_get_u16(src + 2 * i));
        sum += w[i % channels] * d * d;
    }
    return sum / (double)z->n;
}

static unsigned char *gaussians(int64_t n, uint64_t seed)
{
    unsigned char *src = malloc((size_t)n * 2);
    struct scout_random r = {.state = seed};
    for (int64_t i = 0; i < n; i++)
        sf_put_u16(src + 2 * i, sf_bf16_from_f32(scout_random_normal(&r) * 0.02f));
    return src;
}

START_TEST(less_error_on_gaussians)
{
    static const struct sf_nf4_search positive = {0}, either = {.negative = true};
    unsigned char *src = gaussians(GAUSSIANS, 20260401);
    struct quantized z = quantized_new(GAUSSIANS);
    quantize(&z, src, SF_BF16, NULL);
    double absmax = mean_error(&z, src, ALIKE, 1);
    quantize(&z, src, SF_BF16, &positive);
    double search = mean_error(&z, src, ALIKE, 1) / absmax;
    quantize(&z, src, SF_BF16, &either);
    double signs = mean_error(&z, src, ALIKE, 1) / absmax;
    printf("MSE of absmax %.4g; search %.2f %% less, with negative scales %.2f %%\n", absmax,
           100 * (1 - search), 100 * (1 - signs));
    ck_assert_msg(search <= 0.86, "search leaves %.4f of the error", search);
    ck_assert_msg(signs <= 0.82, "negative scales leave %.4f of the error", signs);
    quantized_free(&z);
    free(src);
}
END_TEST

/* What the decoder that every reader has makes of it is what the formula says. */
START_TEST(decodes_like_any_other)
{
    enum { N = 64 * 300 + 17 };
    static const struct sf_nf4_search either = {.negative = true};
    static float out[N];
    unsigned char *src = gaussians(N, 3);
    struct quantized z = quantized_new(N);
    int64_t below = 0;
    quantize(&z, src, SF_BF16, &either);
    sf_nf4_decode(out, z.codes, z.restored, sf_nf4_code_value, 0, N);
    for (int64_t i = 0; i < N; i++)
        if (fabs(out[i] - meaning(&z, i)) > fabs(meaning(&z, i)) * 0x1.01p-8)
            ck_abort_msg("element %lld: %g, not %g", (long long)i, (double)out[i], meaning(&z, i));
    for (int64_t b = 0; b < z.blocks; b++)
        below += z.restored[b] < 0;
    ck_assert(below > z.blocks / 4 && below < z.blocks * 3 / 4);
    quantized_free(&z);
    free(src);
}
END_TEST

/* ---- one block, all scales: what search is held against ---- */

static double distance(double x, double scale)
{
    double best = INFINITY;
    for (int c = 0; c < 16; c++)
        best = fmin(best, fabs(x - scale * sf_nf4_code_value[c]));
    return best;
}

static double block_error(const unsigned char *src, double scale)
{
    double sum = 0;
    for (int i = 0; i < 64; i++) {
        double d = distance(sf_f32_from_bf16(sf_get_u16(src + 2 * i)), scale);
        sum += d * d;
    }
    return sum;
}

/* Not all scales can be tried in time; on average, what is missed is little. */
START_TEST(near_the_best_of_all_scales)
{
    enum { BLOCKS = 150, STEPS = 400 };
    unsigned char *src = gaussians(64 * BLOCKS, 8);
    float absmax[BLOCKS], scale[2][BLOCKS];
    double got[2] = {0}, best[2] = {0};
    sf_nf4_absmax(absmax, src, SF_BF16, 64 * BLOCKS, NULL);
    for (int k = 0; k < 2; k++)
        sf_nf4_search_scales(scale[k], absmax, src, SF_BF16, 0, 64 * BLOCKS,
                             &(struct sf_nf4_search){.negative = k});
    for (int b = 0; b < BLOCKS; b++) {
        double least[2] = {INFINITY, INFINITY};
        for (int s = 0; s < STEPS; s++) {
            double g = absmax[b] * (0.5 + 0.8 * s / STEPS);
            least[0] = fmin(least[0], block_error(src + 128 * b, g));
            least[1] = fmin(least[1], block_error(src + 128 * b, -g));
        }
        least[1] = fmin(least[0], least[1]);
        for (int k = 0; k < 2; k++) {
            double error = block_error(src + 128 * b, scale[k][b]);
            ck_assert_msg(error <= 1.25 * least[k], "block %d: %g, best %g", b, error, least[k]);
            got[k] += error;
            best[k] += least[k];
        }
    }
    for (int k = 0; k < 2; k++)
        ck_assert_msg(got[k] <= 1.012 * best[k], "%d: %.4f of the best", k, got[k] / best[k]);
    free(src);
}
END_TEST

START_TEST(importance_counts)
{
    enum { CHANNELS = 3 * 64 + 24, ROWS = 500, N = CHANNELS * ROWS }; /* blocks straddle rows */
    static float w[CHANNELS];
    struct scout_random r = {.state = 5};
    unsigned char *src = gaussians(N, 6);
    struct quantized z = quantized_new(N);
    for (int i = 0; i < CHANNELS; i++)
        w[i] = expf(2 * scout_random_normal(&r));
    quantize(&z, src, SF_BF16, &(struct sf_nf4_search){0});
    double without = mean_error(&z, src, w, CHANNELS);
    quantize(&z, src, SF_BF16, &(struct sf_nf4_search){.importance = w, .channels = CHANNELS});
    double with = mean_error(&z, src, w, CHANNELS);
    printf("weighted MSE: %.1f %% less than without the weights\n", 100 * (1 - with / without));
    ck_assert_msg(with < 0.75 * without, "%g, not below %g", with, without);
    quantized_free(&z);
    free(src);
}
END_TEST

/* Cut anywhere between blocks, and in what units the importance is, does not matter. */
START_TEST(pieces_and_units_do_not_show)
{
    enum { CHANNELS = 100, BLOCKS = 75, N = 64 * BLOCKS - 5, CUT = 64 * 19 };
    static float w[CHANNELS], twice[CHANNELS], absmax[BLOCKS], whole[BLOCKS], parts[BLOCKS];
    struct scout_random r = {.state = 9};
    unsigned char *src = gaussians(N, 10);
    for (int i = 0; i < CHANNELS; i++) {
        w[i] = i % 7 ? scout_random_normal(&r) * scout_random_normal(&r) : 0;
        w[i] = fabsf(w[i]);
        twice[i] = 1024 * w[i];
    }
    sf_nf4_absmax(absmax, src, SF_BF16, N, NULL);
    struct sf_nf4_search how = {.negative = true, .importance = w, .channels = CHANNELS};
    sf_nf4_search_scales(whole, absmax, src, SF_BF16, 0, N, &how);
    how.importance = twice;
    sf_nf4_search_scales(parts, absmax, src, SF_BF16, 0, CUT, &how);
    sf_nf4_search_scales(parts + CUT / 64, absmax + CUT / 64, src + 2 * CUT, SF_BF16, CUT, N - CUT,
                         &how);
    ck_assert_mem_eq(whole, parts, sizeof whole);
    free(src);
}
END_TEST

START_TEST(odd_blocks)
{
    enum { BLOCKS = 6, N = 64 * BLOCKS };
    static const float top[BLOCKS] = {0, 0x1p-120f, 1, 0x1.8p127f, 0x1p-99f, 0x1p125f};
    static unsigned char src[2 * N];
    float absmax[BLOCKS], scale[BLOCKS], zeros[64] = {0};
    uint8_t codes[N / 2];
    struct scout_random r = {.state = 2};
    for (int i = 0; i < N; i++)
        sf_put_u16(src + 2 * i,
                   sf_bf16_from_f32(i % 64 ? top[i / 64] * 0.5f * (float)scout_random_uniform(&r)
                                           : top[i / 64]));
    struct sf_nf4_search how = {.negative = true, .importance = zeros, .channels = 64};
    sf_nf4_absmax(absmax, src, SF_BF16, N, NULL);
    sf_nf4_search_scales(scale, absmax, src, SF_BF16, 0, N, &how);
    for (int b = 0; b < BLOCKS; b++)
        if (b == 0 || b == 1 || b == 3)
            ck_assert_msg(scale[b] == absmax[b], "block %d", b);
        else
            ck_assert_msg(scale[b] != absmax[b] && fabsf(scale[b]) > 0.4f * absmax[b] &&
                              fabsf(scale[b]) < 1.3f * absmax[b],
                          "block %d: %a of %a", b, (double)scale[b], (double)absmax[b]);
    sf_nf4_search_codes(codes, src, SF_BF16, scale, N);
    for (int i = 0; i < 64; i++) /* zeros stay zeros, and so does what is too small */
        ck_assert_int_eq(codes[i], 0x77);
    scale[2] = NAN, scale[4] = -INFINITY;
    sf_nf4_search_codes(codes, src, SF_BF16, scale, N);
    for (int i = 0; i < 32; i++)
        ck_assert(codes[64 + i] == 0x77 && codes[128 + i] == 0x77);
}
END_TEST

/* ---- instruction sets ---- */

static void put(unsigned char *src, enum sf_dtype dtype, int64_t i, float x)
{
    if (dtype == SF_F32)
        sf_put_f32(src + 4 * i, x);
    else
        sf_put_u16(src + 2 * i, dtype == SF_BF16 ? sf_bf16_from_f32(x)
                                                 : (uint16_t)(sf_bf16_from_f32(x) & 0xbbff));
}

START_TEST(all_paths_give_the_same)
{
    enum { CHANNELS = 96, BLOCKS = 401, N = 64 * BLOCKS - 21 };
    static const enum sf_dtype dtypes[] = {SF_BF16, SF_F16, SF_F32};
    static float w[CHANNELS];
    static unsigned char src[4 * N];
    struct scout_random r = {.state = 77};
    struct quantized want = quantized_new(N), got = quantized_new(N);
    for (int i = 0; i < CHANNELS; i++)
        w[i] = expf(scout_random_normal(&r));
    for (int k = 0; k < 12; k++) {
        enum sf_dtype dtype = dtypes[k % 3];
        struct sf_nf4_search how = {
            .negative = k / 3 % 2, .importance = k / 6 ? w : NULL, .channels = CHANNELS};
        for (int64_t i = 0; i < N; i++)
            put(src, dtype, i, ldexpf(scout_random_normal(&r), (int)(i / 64 % 60) - 40));
        ck_assert(sf_nf4_use("portable"));
        quantize(&want, src, dtype, &how);
        for (int p = 0; p < PATHS; p++) {
            if (!sf_nf4_use(paths[p]))
                continue;
            quantize(&got, src, dtype, &how);
            ck_assert_msg(memcmp(got.scale, want.scale, BLOCKS * 4) == 0, "%s: scales", paths[p]);
            ck_assert_msg(memcmp(got.codes, want.codes, (N + 1) / 2) == 0, "%s: codes", paths[p]);
        }
    }
    sf_nf4_use(NULL);
    quantized_free(&want);
    quantized_free(&got);
}
END_TEST

/* Codes by their definition, for whole and short blocks and every kind of source. */
START_TEST(codes_by_their_definition)
{
    enum { BLOCKS = 40, N = 64 * BLOCKS - 9 };
    static const enum sf_dtype dtypes[] = {SF_BF16, SF_F16, SF_F32};
    static unsigned char src[4 * N];
    struct scout_random r = {.state = 78};
    float scale[BLOCKS];
    uint8_t codes[(N + 1) / 2];
    for (int k = 0; k < 3; k++) {
        for (int64_t i = 0; i < N; i++)
            put(src, dtypes[k], i, scout_random_normal(&r));
        for (int b = 0; b < BLOCKS; b++)
            scale[b] = scout_random_normal(&r) * 3;
        sf_nf4_search_codes(codes, src, dtypes[k], scale, N);
        for (int i = 0; i < N; i++) {
            float x = dtypes[k] == SF_F32    ? sf_get_f32(src + 4 * i)
                      : dtypes[k] == SF_BF16 ? sf_f32_from_bf16(sf_get_u16(src + 2 * i))
                                             : sf_f32_from_f16(sf_get_u16(src + 2 * i));
            float s = scale[i / 64];
            int want = 0, code = i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
            for (int t = 0; t < 15; t++) {
                float limit = sf_nf4_threshold[t] * fabsf(s);
                want += (s < 0 ? -x : x) > limit;
            }
            ck_assert_msg(code == want, "element %d: %d, not %d", i, code, want);
        }
    }
}
END_TEST

static Suite *nf4_search_suite(void)
{
    Suite *suite = suite_create("nf4_search");
    TCase *tc = tcase_create("nf4_search");
    tcase_add_test(tc, less_error_on_gaussians);
    tcase_add_test(tc, decodes_like_any_other);
    tcase_add_test(tc, near_the_best_of_all_scales);
    tcase_add_test(tc, importance_counts);
    tcase_add_test(tc, pieces_and_units_do_not_show);
    tcase_add_test(tc, odd_blocks);
    tcase_add_test(tc, all_paths_give_the_same);
    tcase_add_test(tc, codes_by_their_definition);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(nf4_search_suite)
