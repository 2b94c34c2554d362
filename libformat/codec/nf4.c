#include "libformat/codec/nf4.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/halves.h"

enum { BLOCK = SF_NF4_BLOCK, THRESHOLDS = 15 };

/* bitsandbytes is built with subnormals flushed to zero. Done on bits, so that neither the
 * compiler's nor the processor's floating-point mode can change the outcome. */
static float flush(float x)
{
    uint32_t bits = sf_bits_from_f32(x);
    return sf_f32_from_bits((bits & 0x7f800000u) ? bits : bits & 0x80000000u);
}

/* Stands in for the GPU's rcp.approx.ftz: correctly rounded, while the GPU may be an ulp off. No
 * bf16 ratio comes near enough to a threshold to tell; f16 has one mantissa pair that can, f32
 * about two values in ten million (spec/quantization.md). */
static float reciprocal(float a)
{
    a = flush(a);
    if (a == 0)
        return sf_f32_from_bits(0x7f800000u | (sf_bits_from_f32(a) & 0x80000000u));
    return flush(1.0f / a);
}

/* The largest magnitude, NaN left out; -FLT_MAX where there is nothing but NaN. On the bits, whose
 * order as integers is that of the magnitudes. */
static float largest(const float *x, int n)
{
    int32_t top = -1;
    for (int i = 0; i < n; i++) {
        int32_t bits = (int32_t)(sf_bits_from_f32(x[i]) & 0x7fffffffu);
        bits = bits > 0x7f800000 ? -1 : bits;
        top = bits > top ? bits : top;
    }
    return top < 0 ? -FLT_MAX : sf_f32_from_bits((uint32_t)top);
}

/* x[count] as float32 with subnormals flushed, and zeros up to a whole block. */
static void load_block(float x[BLOCK], const unsigned char *src, enum sf_dtype dtype, int count)
{
    for (int i = 0; i < count; i++)
        x[i] = dtype == SF_BF16  ? sf_f32_from_bf16(sf_get_u16(src + 2 * i))
               : dtype == SF_F16 ? sf_f32_from_f16(sf_get_u16(src + 2 * i))
                                 : sf_get_f32(src + 4 * i);
    for (int i = count; i < BLOCK; i++)
        x[i] = 0;
}

static void pack_codes(uint8_t *codes, const int16_t code[BLOCK], int bytes)
{
    for (int i = 0; i < bytes; i++)
        codes[i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
}

/* The definition, for any input: scale, then count the thresholds strictly below. A comparison with
 * NaN is false, so NaN (also 0 * Inf in a zero block) ends as code 0. */
static float encode_floats(int16_t code[BLOCK], float x[BLOCK])
{
    for (int i = 0; i < BLOCK; i++)
        x[i] = flush(x[i]);
    float absmax = largest(x, BLOCK), r = reciprocal(absmax);
    int32_t count[BLOCK] = {0};
    for (int i = 0; i < BLOCK; i++)
        x[i] *= r;
    for (int t = 0; t < THRESHOLDS; t++)
        for (int i = 0; i < BLOCK; i++)
            count[i] += x[i] > sf_nf4_threshold[t];
    for (int i = 0; i < BLOCK; i++)
        code[i] = (int16_t)count[i];
    return absmax;
}

/* A bf16 pattern as an integer that sorts as the number does. */
static int16_t sort_key(uint16_t bits)
{
    int16_t key = (int16_t)bits;
    return (int16_t)(key ^ ((key >> 15) & 0x7fff));
}

/* The key of the largest bf16 number that is not above threshold * absmax: x is above the threshold
 * just when its key is above this one. The product is exact in float64. */
static int16_t threshold_key(float threshold, float absmax)
{
    double product = (double)threshold * absmax;
    if (product > -0x1p-126 && product < 0x1p-126)
        return product < 0 ? -1 : 0; /* between the flushed zero, key 0, and its neighbours */
    float nearest = (float)product;
    uint32_t bits = sf_bits_from_f32(nearest);
    if (product < 0 && (bits & 0xffffu))
        bits += 0x10000u; /* away from zero is down; the low bits are cut off below */
    return sort_key((uint16_t)(bits >> 16));
}

/* bf16 without touching a float: absmax and codes from 16-bit integer comparisons. Returns false
 * for what needs the definition itself: NaN, Inf, a zero block, absmax above 2^126 (its reciprocal
 * is flushed). Equal to the definition everywhere else: no quotient of two bf16 numbers comes
 * closer to a threshold than 19 * 2^-24 relative (tests/format/test_nf4.c tries all mantissa
 * pairs). */
static bool encode_bf16(int16_t code[BLOCK], float *absmax, const unsigned char *src)
{
    uint16_t x[BLOCK];
    int16_t key[BLOCK], top = 0;
    for (int i = 0; i < BLOCK; i++)
        x[i] = sf_get_u16(src + 2 * i);
    for (int i = 0; i < BLOCK; i++) {
        int16_t magnitude = (int16_t)(x[i] & 0x7fff);
        key[i] = magnitude < 0x80 ? 0 : sort_key(x[i]);
        top = magnitude > top ? magnitude : top;
    }
    if (top < 0x0080 || top > 0x7e80)
        return false;
    *absmax = sf_f32_from_bf16((uint16_t)top);
    memset(code, 0, BLOCK * sizeof *code);
    int16_t
        limits[THRESHOLDS]; /* apart from the loop below, which compilers then turn into vectors */
    for (int t = 0; t < THRESHOLDS; t++)
        limits[t] = threshold_key(sf_nf4_threshold[t], *absmax);
    for (int t = 0; t < THRESHOLDS; t++) {
        int16_t limit = limits[t];
        for (int i = 0; i < BLOCK; i++)
            code[i] = (int16_t)(code[i] + (key[i] > limit));
    }
    return true;
}

static void count_findings(struct sf_nf4_findings *findings, const float *x, int count,
                           int64_t first)
{
    for (int i = 0; i < count; i++) {
        uint32_t magnitude = sf_bits_from_f32(x[i]) & 0x7fffffffu;
        if (magnitude < 0x7f800000u)
            continue;
        if (magnitude > 0x7f800000u)
            findings->nan_count++;
        else
            findings->inf_count++;
        if (findings->first_bad < 0)
            findings->first_bad = first + i;
    }
}

void sf_nf4_encode(uint8_t *codes, float *absmax, const void *src, enum sf_dtype dtype, int64_t n,
                   struct sf_nf4_findings *findings)
{
    assert(dtype == SF_BF16 || dtype == SF_F16 || dtype == SF_F32);
    const unsigned char *from = src;
    int64_t size = dtype == SF_F32 ? 4 : 2;
    for (int64_t first = 0; first < n; first += BLOCK) {
        int count = n - first < BLOCK ? (int)(n - first) : BLOCK;
        int16_t code[BLOCK];
        if (dtype != SF_BF16 || count < BLOCK ||
            !encode_bf16(code, absmax + first / BLOCK, from + first * size)) {
            float x[BLOCK];
            load_block(x, from + first * size, dtype, count);
            if (findings)
                count_findings(findings, x, count, first);
            absmax[first / BLOCK] = encode_floats(code, x);
        }
        pack_codes(codes + first / 2, code, (count + 1) / 2);
    }
}

float sf_nf4_offset(const float *absmax, int64_t blocks)
{
    double sum = 0;
    for (int64_t i = 0; i < blocks; i++)
        sum += absmax[i];
    return blocks > 0 ? (float)(sum / (double)blocks) : 0;
}

/* The index of the nearest map entry: the number of midpoints strictly below s, where an exact
 * midpoint goes to its even neighbour and NaN to 0. */
static uint8_t nearest_scale(float s)
{
    if (isnan(s))
        return 0;
    const float *map = sf_nf4_scale_map;
    int below = 0;
    for (int step = 128; step > 0; step /= 2) {
        int at = below + step - 1; /* at most 254: midpoint `at` lies between entries at, at + 1 */
        if ((map[at] + map[at + 1]) * 0.5f < s)
            below += step;
    }
    if (below % 2 == 1 && below < 255 && (map[below] + map[below + 1]) * 0.5f == s)
        below++;
    return (uint8_t)below;
}

void sf_nf4_nest(uint8_t *q, float *nested_absmax, const float *absmax, int64_t blocks,
                 float offset)
{
    for (int64_t first = 0; first < blocks; first += SF_NF4_NEST) {
        int count = blocks - first < SF_NF4_NEST ? (int)(blocks - first) : SF_NF4_NEST;
        float d[SF_NF4_NEST] = {0};
        for (int i = 0; i < count; i++)
            d[i] = flush(absmax[first + i] - offset);
        float m = largest(d, SF_NF4_NEST), r = reciprocal(m);
        nested_absmax[first / SF_NF4_NEST] = m;
        for (int i = 0; i < count; i++)
            q[first + i] = nearest_scale(d[i] * r);
    }
}

void sf_nf4_unnest(float *absmax, const uint8_t *q, const float *nested_absmax,
                   const float map[256], float offset, int64_t first_block, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t block = first_block + i;
        float product = flush(map[q[block]] * nested_absmax[block / SF_NF4_NEST]);
        absmax[i] = product + offset;
    }
}

void sf_nf4_decode(float *out, const uint8_t *codes, const float *absmax, const float codebook[16],
                   int64_t first, int64_t count)
{
    assert(first % BLOCK == 0);
    for (int64_t at = 0; at < count; at += BLOCK) {
        float value[16]; /* what the 16 codes mean in this block */
        for (int c = 0; c < 16; c++)
            value[c] = sf_round_bf16(flush(codebook[c] * absmax[at / BLOCK]));
        const uint8_t *from = codes + (first + at) / 2;
        float *to = out + at;
        int n = count - at < BLOCK ? (int)(count - at) : BLOCK;
        for (int i = 0; i < n / 2; i++) {
            to[2 * i] = value[from[i] >> 4];
            to[2 * i + 1] = value[from[i] & 15];
        }
        if (n % 2)
            to[n - 1] = value[from[n / 2] >> 4];
    }
}

/* Eight running sums added in pairs: a fixed order that still fits vector registers. */
static float sum_squares(const float x[BLOCK])
{
    float lane[8] = {0};
    for (int i = 0; i < BLOCK; i += 8)
        for (int j = 0; j < 8; j++)
            lane[j] += x[i + j] * x[i + j];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

void sf_nf4_measure(struct sf_nf4_error *out, const void *src, enum sf_dtype dtype,
                    const uint8_t *codes, const float *absmax, int64_t n)
{
    assert(dtype == SF_BF16 || dtype == SF_F16 || dtype == SF_F32);
    const unsigned char *from = src;
    int64_t size = dtype == SF_F32 ? 4 : 2;
    *out = (struct sf_nf4_error){0};
    for (int64_t first = 0; first < n; first += BLOCK) {
        int count = n - first < BLOCK ? (int)(n - first) : BLOCK;
        float x[BLOCK], difference[BLOCK] = {0};
        load_block(x, from + first * size, dtype, count);
        sf_nf4_decode(difference, codes, absmax + first / BLOCK, sf_nf4_code_value, first, count);
        for (int i = 0; i < count; i++)
            difference[i] -= x[i];
        out->squared_error += sum_squares(difference);
        out->squared_norm += sum_squares(x);
    }
}
