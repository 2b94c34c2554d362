#include "tests/support/support.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"

/* CRC-32 (the one of zlib), by which known answers are written down. */
static uint32_t crc32_of(const void *data, size_t bytes)
{
    const unsigned char *p = data;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

static uint32_t crc32_of_bf16(const float *x, int64_t n)
{
    unsigned char *bytes = malloc((size_t)n * 2);
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = sf_bf16_from_f32(x[i]);
        if (sf_bits_from_f32(sf_f32_from_bf16(h)) != sf_bits_from_f32(x[i]))
            ck_abort_msg("decoded %a is no bf16 number", x[i]);
        sf_put_u16(bytes + 2 * i, h);
    }
    uint32_t crc = crc32_of(bytes, (size_t)n * 2);
    free(bytes);
    return crc;
}

/* The definition, element by element and in plain float32. */
static int count_thresholds(float s)
{
    int count = 0;
    for (int t = 0; t < 15; t++)
        count += sf_nf4_threshold[t] < s;
    return count;
}

static int code_at(const uint8_t *codes, int64_t i)
{
    return i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
}

START_TEST(tables_are_the_published_bits)
{
    ck_assert_uint_eq(crc32_of(sf_nf4_scale_map, sizeof sf_nf4_scale_map), 0x1b137aebu);
    for (int i = 0; i < 15; i++) {
        float middle = (sf_nf4_code_value[i] + sf_nf4_code_value[i + 1]) / 2;
        ck_assert_uint_eq(sf_bits_from_f32(middle), sf_bits_from_f32(sf_nf4_threshold[i]));
    }
    static const uint32_t values[16] = {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0,
                                        0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0x00000000,
                                        0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a,
                                        0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000};
    for (int i = 0; i < 16; i++)
        ck_assert_uint_eq(sf_bits_from_f32(sf_nf4_code_value[i]), values[i]);
}
END_TEST

/* spec/quantization.md, worked example. */
START_TEST(worked_example)
{
    static const uint8_t want[32] = {0x04, 0xC1, 0x6E, 0x29, 0xF3, 0xB0, 0x5D, 0x17,
                                     0xE2, 0x9F, 0x3C, 0x05, 0xD1, 0x8E, 0x2A, 0xF4,
                                     0xC1, 0x6E, 0x18, 0xE3, 0xB0, 0x5D, 0x17, 0xE2,
                                     0x9F, 0x3B, 0x05, 0xD1, 0x8E, 0x2A, 0xF4, 0xC1};
    static const uint16_t first16[16] = {0xBF48, 0xBE64, 0x3EB0, 0xBF0B, 0xBD92, 0x3F11,
                                         0xBED2, 0x3E01, 0x3F48, 0xBE9E, 0x3E87, 0xBF48,
                                         0xBE14, 0x3EE1, 0xBF0B, 0x0000};
    unsigned char source[128];
    for (int i = 0; i < 64; i++)
        sf_put_u16(source + 2 * i, sf_bf16_from_f32((float)(37 * i % 101 - 50) / 64));
    uint8_t codes[33];
    float absmax[2] = {0, -7}, out[65];
    codes[32] = 0xa5, out[64] = -7;
    sf_nf4_encode(codes, absmax, source, SF_BF16, 64, NULL);
    ck_assert_uint_eq(sf_bits_from_f32(absmax[0]), 0x3f480000u);
    ck_assert_mem_eq(codes, want, 32);
    sf_nf4_decode(out, codes, absmax, sf_nf4_code_value, 0, 64);
    for (int i = 0; i < 16; i++)
        ck_assert_uint_eq(sf_bf16_from_f32(out[i]), first16[i]);
    ck_assert_uint_eq(crc32_of_bf16(out, 64), 0xb23958a7u);
    ck_assert(codes[32] == 0xa5 && absmax[1] == -7 && out[64] == -7);
}
END_TEST

/* spec/quantization.md, worked example, nested scales. */
START_TEST(worked_example_of_nesting)
{
    static const float absmax[3] = {0.78125f, 1.5f, 1.0f};
    static const uint32_t want[3] = {0x3f48219a, 0x3fc00000, 0x3f7fb4cd};
    float nested[2] = {0, -7}, restored[3];
    uint8_t q[3];
    float offset = sf_nf4_offset(absmax, 3);
    ck_assert_uint_eq(sf_bits_from_f32(offset), 0x3f8c0000u);
    sf_nf4_nest(q, nested, absmax, 3, offset);
    ck_assert(q[0] == 16 && q[1] == 255 && q[2] == 54);
    ck_assert(nested[0] == 0.40625f && nested[1] == -7);
    sf_nf4_unnest(restored, q, nested, sf_nf4_scale_map, offset, 0, 3);
    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(sf_bits_from_f32(restored[i]), want[i]);
}
END_TEST

enum { LONG_N = 64 * 600 + 11, LONG_BLOCKS = 601 };

static void fill_long(unsigned char *source)
{
    for (uint64_t i = 0; i < LONG_N; i++) {
        double u = (double)((uint32_t)(i * 2654435761u) >> 16);
        double x = (u - 32768) / 32768 * (1 + (double)(i / 64 * 29 % 97) / 128);
        sf_put_u16(source + 2 * i, sf_bf16_from_f32((float)x));
    }
}

START_TEST(long_example_with_nesting)
{
    static unsigned char source[2 * LONG_N];
    static uint8_t codes[(LONG_N + 1) / 2], q[LONG_BLOCKS];
    static float absmax[LONG_BLOCKS], restored[LONG_BLOCKS], out[LONG_N];
    static const uint8_t first_q[8] = {3, 42, 199, 241, 27, 166, 222, 14};
    float nested[3];
    fill_long(source);
    ck_assert_uint_eq(crc32_of(source, sizeof source), 0x43440105u);
    sf_nf4_encode(codes, absmax, source, SF_BF16, LONG_N, NULL);
    ck_assert_uint_eq(crc32_of(codes, sizeof codes), 0xa27d4da1u);
    ck_assert_uint_eq(codes[sizeof codes - 1], 0xc7);
    ck_assert_uint_eq(crc32_of(absmax, sizeof absmax), 0x8c3319cbu);
    sf_nf4_decode(out, codes, absmax, sf_nf4_code_value, 0, LONG_N);
    ck_assert_uint_eq(crc32_of_bf16(out, LONG_N), 0x8371e1feu);

    float offset = sf_nf4_offset(absmax, LONG_BLOCKS);
    ck_assert_uint_eq(sf_bits_from_f32(offset), 0x3fae7339u);
    sf_nf4_nest(q, nested, absmax, LONG_BLOCKS, offset);
    ck_assert_mem_eq(q, first_q, 8);
    ck_assert_uint_eq(crc32_of(q, sizeof q), 0xec438dfau);
    ck_assert_uint_eq(sf_bits_from_f32(nested[0]), 0x3ec2331cu);
    ck_assert_uint_eq(sf_bits_from_f32(nested[1]), 0x3ec6331cu);
    ck_assert_uint_eq(sf_bits_from_f32(nested[2]), 0x3ebe331cu);
    sf_nf4_unnest(restored, q, nested, sf_nf4_scale_map, offset, 0, LONG_BLOCKS);
    ck_assert_uint_eq(crc32_of(restored, sizeof restored), 0xaaca0885u);
    sf_nf4_decode(out, codes, restored, sf_nf4_code_value, 0, LONG_N);
    ck_assert_uint_eq(crc32_of_bf16(out, LONG_N), 0xf8c29016u);
}
END_TEST

/* Any whole-block slice gives what the whole gives, from any address. */
START_TEST(slices_equal_the_whole)
{
    static unsigned char source[2 * LONG_N], shifted[2 * LONG_N + 1];
    static uint8_t codes[(LONG_N + 1) / 2], part[(LONG_N + 1) / 2], q[LONG_BLOCKS];
    static float absmax[LONG_BLOCKS], part_absmax[LONG_BLOCKS], out[LONG_N], part_out[LONG_N];
    float nested[3], some[100];
    fill_long(source);
    memcpy(shifted + 1, source, sizeof source);
    sf_nf4_encode(codes, absmax, source, SF_BF16, LONG_N, NULL);
    for (int64_t first = 0; first < LONG_N; first += 64 * 7) {
        int64_t n = LONG_N - first < 64 * 7 ? LONG_N - first : 64 * 7;
        sf_nf4_encode(part + first / 2, part_absmax + first / 64, shifted + 1 + 2 * first, SF_BF16,
                      n, NULL);
    }
    ck_assert_mem_eq(part, codes, sizeof codes);
    ck_assert_mem_eq(part_absmax, absmax, sizeof absmax);

    sf_nf4_decode(out, codes, absmax, sf_nf4_code_value, 0, LONG_N);
    scout_poison(part_out, LONG_N);
    for (int64_t first = 0; first < LONG_N; first += 192) {
        int64_t n = LONG_N - first < 192 ? LONG_N - first : 192;
        sf_nf4_decode(part_out + first, codes, absmax + first / 64, sf_nf4_code_value, first, n);
    }
    ck_assert_mem_eq(part_out, out, sizeof out);

    float offset = sf_nf4_offset(absmax, LONG_BLOCKS);
    sf_nf4_nest(q, nested, absmax, LONG_BLOCKS, offset);
    sf_nf4_unnest(part_absmax, q, nested, sf_nf4_scale_map, offset, 0, LONG_BLOCKS);
    sf_nf4_unnest(some, q, nested, sf_nf4_scale_map, offset, 200, 100);
    ck_assert_mem_eq(some, part_absmax + 200, sizeof some);
}
END_TEST

/* x / absmax for every pair of bf16 mantissas, both signs, down to 2^-19 of absmax: the integer
 * path gives the code of the float32 quotient, at ordinary scale and at both ends of the range. */
START_TEST(every_bf16_ratio)
{
    static const int exponents[] = {1, 2, 21, 127, 252};
    int exponent = exponents[_i];
    for (uint32_t a = 128; a < 256; a++) {
        uint16_t absmax_bits = (uint16_t)(exponent << 7 | (a & 127));
        float absmax = sf_f32_from_bf16(absmax_bits), stored;
        for (int down = 0; down < 20 && down < exponent; down++) {
            unsigned char block[128] = {0};
            uint8_t codes[32];
            for (uint32_t x = 128; x < 256; x += 31) {
                uint16_t bits[63];
                for (uint32_t i = 0; i < 62; i++) {
                    uint32_t mantissa = x + i / 2 < 256 ? x + i / 2 : 255;
                    bits[i] = (uint16_t)((i & 1) << 15 | (uint32_t)(exponent - down) << 7 |
                                         (mantissa & 127));
                    if ((bits[i] & 0x7fff) > absmax_bits)
                        bits[i] = absmax_bits;
                    sf_put_u16(block + 2 * i, bits[i]);
                }
                sf_put_u16(block + 126, absmax_bits);
                sf_nf4_encode(codes, &stored, block, SF_BF16, 64, NULL);
                if (stored != absmax)
                    ck_abort_msg("absmax %a, not %a", stored, absmax);
                for (int i = 0; i < 62; i++) {
                    float ratio = sf_f32_from_bf16(bits[i]) / absmax;
                    if (code_at(codes, i) != count_thresholds(ratio))
                        ck_abort_msg("%04x / %04x: code %d, not %d", bits[i], absmax_bits,
                                     code_at(codes, i), count_thresholds(ratio));
                }
            }
        }
    }
}
END_TEST

static void encode_floats(uint8_t *codes, float *absmax, const float *x, int64_t n,
                          struct sf_nf4_findings *findings)
{
    sf_nf4_encode(codes, absmax, x, SF_F32, n, findings);
}

static void fill(float x[64], float value)
{
    for (int i = 0; i < 64; i++)
        x[i] = value;
}

START_TEST(zero_block)
{
    static const unsigned char zeros[128] = {0};
    uint8_t codes[32];
    float absmax = -1, out[64];
    memset(codes, 0xff, sizeof codes);
    sf_nf4_encode(codes, &absmax, zeros, SF_BF16, 64, NULL);
    for (int i = 0; i < 32; i++)
        ck_assert_uint_eq(codes[i], 0);
    ck_assert_uint_eq(sf_bits_from_f32(absmax), 0);
    sf_nf4_decode(out, codes, &absmax, sf_nf4_code_value, 0, 64);
    ck_assert_uint_eq(sf_bits_from_f32(out[0]), 0x80000000u); /* -1 * 0 */
}
END_TEST

START_TEST(odd_tails)
{
    static const float x[5] = {1, -1, .5f, 0, .25f};
    uint8_t codes[4] = {9, 9, 9, 9};
    float absmax, out[6] = {0, 0, 0, 0, 0, -7};
    encode_floats(codes, &absmax, x, 5, NULL);
    ck_assert_uint_eq(codes[0], 0xf0);
    ck_assert_uint_eq(codes[1], 0xc7);
    ck_assert_uint_eq(codes[2], 0xa7); /* the missing sixth element is 0: code 7 */
    ck_assert_uint_eq(codes[3], 9);
    ck_assert(absmax == 1);
    sf_nf4_decode(out, codes, &absmax, sf_nf4_code_value, 0, 5);
    ck_assert(out[0] == 1 && out[1] == -1 && out[3] == 0 && out[5] == -7);
}
END_TEST

START_TEST(nan_and_inf)
{
    float x[64], absmax;
    uint8_t codes[32];
    struct sf_nf4_findings found = {.first_bad = -1};
    fill(x, 0.5f);
    x[3] = NAN;
    encode_floats(codes, &absmax, x, 64, &found);
    ck_assert(absmax == 0.5f);
    ck_assert_uint_eq(codes[0], 0xff);
    ck_assert_uint_eq(codes[1], 0xf0);
    x[5] = -INFINITY;
    encode_floats(codes, &absmax, x, 64, &found);
    ck_assert(absmax == INFINITY);
    ck_assert_uint_eq(codes[0], 0x77); /* finite beside Inf: 0 */
    ck_assert_uint_eq(codes[1], 0x70);
    ck_assert_uint_eq(codes[2], 0x70);
    ck_assert_int_eq(found.nan_count, 2);
    ck_assert_int_eq(found.inf_count, 1);
    ck_assert_int_eq(found.first_bad, 3);
    fill(x, NAN);
    encode_floats(codes, &absmax, x, 64, NULL);
    ck_assert(absmax == -FLT_MAX);
    ck_assert_uint_eq(codes[31], 0);
    encode_floats(codes, &absmax, x, 63, NULL); /* the padding is a zero, larger than -FLT_MAX */
    ck_assert_uint_eq(sf_bits_from_f32(absmax), 0);
}
END_TEST

START_TEST(findings_add_up)
{
    unsigned char source[400] = {0};
    uint8_t codes[100];
    float absmax[4];
    struct sf_nf4_findings found = {.first_bad = -1};
    sf_nf4_encode(codes, absmax, source, SF_BF16, 200, &found);
    ck_assert(found.nan_count == 0 && found.inf_count == 0 && found.first_bad == -1);
    sf_put_u16(source + 2 * 130, 0xff80);
    sf_put_u16(source + 2 * 131, 0x7f81);
    sf_put_u16(source + 2 * 199, 0x7f80);
    sf_nf4_encode(codes, absmax, source, SF_BF16, 200, &found);
    sf_nf4_encode(codes, absmax, source, SF_F16, 200, &found); /* there all are NaN */
    ck_assert_int_eq(found.inf_count, 2);
    ck_assert_int_eq(found.nan_count, 1 + 3);
    ck_assert_int_eq(found.first_bad, 130);
}
END_TEST

START_TEST(ends_of_the_range)
{
    float x[64], absmax;
    uint8_t codes[32];
    fill(x, 0x1p-127f); /* subnormal: flushed, like zeros */
    encode_floats(codes, &absmax, x, 64, NULL);
    ck_assert_uint_eq(sf_bits_from_f32(absmax), 0);
    ck_assert_uint_eq(codes[0], 0);
    fill(x, 0x1p126f);
    encode_floats(codes, &absmax, x, 64, NULL);
    ck_assert(absmax == 0x1p126f);
    ck_assert_uint_eq(codes[0], 0xff);
    fill(x, 0x1.02p126f); /* 1 / absmax is subnormal and flushed: everything is 0 */
    encode_floats(codes, &absmax, x, 64, NULL);
    ck_assert(absmax == 0x1.02p126f);
    ck_assert_uint_eq(codes[0], 0x77);
}
END_TEST

/* Where division, reciprocal and approximate reciprocal part ways. */
START_TEST(half_and_single_take_the_rounded_reciprocal)
{
    unsigned char half[4];
    uint8_t codes[32];
    float x[2] = {0x1.32ab36p-1f, 0x1.068be8p+1f}, absmax;
    sf_put_u16(half, 0xe4b6);     /* -1206 */
    sf_put_u16(half + 2, 0x67b7); /* 1975 */
    sf_nf4_encode(codes, &absmax, half, SF_F16, 2, NULL);
    ck_assert(absmax == 1975);
    ck_assert_uint_eq(codes[0], 0x1f);
    encode_floats(codes, &absmax, x, 2, NULL);
    ck_assert_uint_eq(codes[0], 0xbf); /* division would give 10 */
}
END_TEST

/* Worst bf16 ratio: 204 / 524 is 19 * 2^-24 above threshold 11. */
START_TEST(closest_bf16_ratio)
{
    unsigned char source[4];
    uint8_t codes[1];
    float absmax;
    sf_put_u16(source, sf_bf16_from_f32(524));
    sf_put_u16(source + 2, sf_bf16_from_f32(204));
    sf_nf4_encode(codes, &absmax, source, SF_BF16, 2, NULL);
    ck_assert(absmax == 524);
    ck_assert_uint_eq(codes[0], 0xfc);
}
END_TEST

START_TEST(bf16_and_f32_paths_agree)
{
    struct scout_random random = {7};
    for (int round = 0; round < 2000; round++) {
        unsigned char source[128];
        float x[64], a, b;
        uint8_t codes[32], from_floats[32];
        int exponent = (int)(scout_random_u64(&random) % 256);
        for (int i = 0; i < 64; i++) { /* any pattern at all, spread over a few binades */
            uint64_t r = scout_random_u64(&random);
            int e = exponent - (int)(r >> 32) % 6;
            uint16_t bits = (uint16_t)((r & 0x807f) | (uint32_t)(e < 0 ? 0 : e) << 7);
            sf_put_u16(source + 2 * i, bits);
            x[i] = sf_f32_from_bf16(bits);
        }
        sf_nf4_encode(codes, &a, source, SF_BF16, 64, NULL);
        sf_nf4_encode(from_floats, &b, x, SF_F32, 64, NULL);
        ck_assert_uint_eq(sf_bits_from_f32(a), sf_bits_from_f32(b));
        ck_assert_mem_eq(codes, from_floats, 32);
    }
}
END_TEST

/* All map entries, all midpoints and their neighbours: nearest entry, midpoints to the even index.
 */
START_TEST(scale_codes_are_nearest)
{
    const float *map = sf_nf4_scale_map;
    for (int i = 0; i < 255; i++) {
        float middle = (map[i] + map[i + 1]) * 0.5f, nested;
        float absmax[6] = {1, map[i], middle, nextafterf(middle, 9), nextafterf(middle, -9), NAN};
        uint8_t q[6];
        sf_nf4_nest(q, &nested, absmax, 6, 0);
        ck_assert(nested == 1);
        ck_assert_uint_eq(q[0], 255);
        ck_assert_uint_eq(q[1], i);
        ck_assert_uint_eq(q[2], i % 2 ? i + 1 : i);
        ck_assert_uint_eq(q[3], i + 1);
        ck_assert_uint_eq(q[4], i);
        ck_assert_uint_eq(q[5], 0);
    }
    float same[3] = {2, 2, 2}, nested;
    uint8_t q[3];
    sf_nf4_nest(q, &nested, same, 3, 2);
    ck_assert(nested == 0 && q[0] == 0 && q[2] == 0);
    sf_nf4_unnest(same, q, &nested, map, 2, 0, 3);
    ck_assert(same[0] == 2);
}
END_TEST

START_TEST(measure_is_the_error)
{
    static unsigned char source[2 * LONG_N];
    static uint8_t codes[(LONG_N + 1) / 2];
    static float absmax[LONG_BLOCKS], out[LONG_N];
    double error = 0, norm = 0;
    fill_long(source);
    sf_nf4_encode(codes, absmax, source, SF_BF16, LONG_N, NULL);
    sf_nf4_decode(out, codes, absmax, sf_nf4_code_value, 0, LONG_N);
    for (int i = 0; i < LONG_N; i++) {
        double x = sf_f32_from_bf16(sf_get_u16(source + 2 * i));
        error += (out[i] - x) * (out[i] - x);
        norm += x * x;
    }
    struct sf_nf4_error got;
    sf_nf4_measure(&got, source, SF_BF16, codes, absmax, LONG_N);
    ck_assert_double_eq_tol(got.squared_error, error, 1e-6 * error);
    ck_assert_double_eq_tol(got.squared_norm, norm, 1e-6 * norm);
}
END_TEST

static Suite *nf4_suite(void)
{
    Suite *suite = suite_create("nf4");
    TCase *tc = tcase_create("nf4");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, tables_are_the_published_bits);
    tcase_add_test(tc, worked_example);
    tcase_add_test(tc, worked_example_of_nesting);
    tcase_add_test(tc, long_example_with_nesting);
    tcase_add_test(tc, slices_equal_the_whole);
    tcase_add_loop_test(tc, every_bf16_ratio, 0, 5);
    tcase_add_test(tc, closest_bf16_ratio);
    tcase_add_test(tc, zero_block);
    tcase_add_test(tc, odd_tails);
    tcase_add_test(tc, nan_and_inf);
    tcase_add_test(tc, findings_add_up);
    tcase_add_test(tc, ends_of_the_range);
    tcase_add_test(tc, half_and_single_take_the_rounded_reciprocal);
    tcase_add_test(tc, bf16_and_f32_paths_agree);
    tcase_add_test(tc, scale_codes_are_nearest);
    tcase_add_test(tc, measure_is_the_error);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(nf4_suite)
