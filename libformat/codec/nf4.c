#include "libformat/codec/nf4.h"

#include <assert.h>
#include <float.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/nf4_inside.h"
#include "libformat/codec/nf4_kernels.h"

enum {
    BLOCK = SF_NF4_BLOCK,
    THRESHOLDS = 15,
    RUN = 32 /* blocks that a kernel is given at once */
};

/* Stands in for the GPU's rcp.approx.ftz: correctly rounded, while the GPU may be an ulp off. No
 * bf16 ratio comes near enough to a threshold to tell; f16 has one mantissa pair that can, f32
 * about two values in ten million (spec/quantization.md). */
static float reciprocal(float a)
{
    a = sf_nf4_flush(a);
    if (a == 0)
        return sf_f32_from_bits(0x7f800000u | (sf_bits_from_f32(a) & 0x80000000u));
    return sf_nf4_flush(1.0f / a);
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

static int64_t element_bytes(enum sf_dtype dtype)
{
    assert(dtype == SF_BF16 || dtype == SF_F16 || dtype == SF_F32);
    return dtype == SF_F32 ? 4 : 2;
}

/* x[count] as float32, and zeros up to a whole block. */
static void load_block(float x[BLOCK], const unsigned char *src, enum sf_dtype dtype, int count)
{
    for (int i = 0; i < count; i++)
        x[i] = dtype == SF_BF16  ? sf_f32_from_bf16(sf_get_u16(src + 2 * i))
               : dtype == SF_F16 ? sf_f32_from_f16(sf_get_u16(src + 2 * i))
                                 : sf_get_f32(src + 4 * i);
    for (int i = count; i < BLOCK; i++)
        x[i] = 0;
}

static int block_count(int64_t n, int64_t first)
{
    return n - first < BLOCK ? (int)(n - first) : BLOCK;
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

/* ---- the definition, for any block ---- */

static float absmax_by_rule(float x[BLOCK], int count, int64_t first,
                            struct sf_nf4_findings *findings)
{
    if (findings)
        count_findings(findings, x, count, first);
    for (int i = 0; i < BLOCK; i++)
        x[i] = sf_nf4_flush(x[i]);
    return largest(x, BLOCK);
}

/* Scale, then count the thresholds strictly below. A comparison with NaN is false, so NaN (also
 * 0 * Inf in a zero block) ends as code 0. */
static void codes_by_rule(uint8_t *codes, float x[BLOCK], float absmax, int count)
{
    float r = reciprocal(absmax);
    int32_t code[BLOCK] = {0};
    for (int i = 0; i < BLOCK; i++)
        x[i] = sf_nf4_flush(x[i]) * r;
    for (int t = 0; t < THRESHOLDS; t++)
        for (int i = 0; i < BLOCK; i++)
            code[i] += x[i] > sf_nf4_threshold[t];
    for (int i = 0; i < (count + 1) / 2; i++)
        codes[i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
}

/* ---- runs of blocks ---- */

/* The bf16 kernels know blocks whose largest magnitude is a normal number up to 2^126: no zeros
 * only, no NaN, no Inf, no reciprocal that is flushed. */
static bool is_plain(uint16_t top)
{
    return top >= 0x0080 && top <= 0x7e80;
}

/* absmax of `blocks` <= RUN whole bf16 blocks; returns whether all of them are plain. */
static bool run_absmax(float *absmax, uint16_t top[RUN], const unsigned char *src, int64_t blocks)
{
    bool plain = true;
    sf_nf4_kernels()->tops(top, src, blocks);
    for (int64_t b = 0; b < blocks; b++) {
        plain = plain && is_plain(top[b]);
        absmax[b] = sf_f32_from_bf16(top[b]);
    }
    return plain;
}

static int64_t run_blocks(int64_t n, int64_t first)
{
    int64_t whole = (n - first) / BLOCK;
    return whole < RUN ? whole : RUN;
}

/* One step over at most RUN blocks: codes (unless NULL) and absmax. Returns the elements done. */
static int64_t encode_run(uint8_t *codes, float *absmax, const unsigned char *src,
                          enum sf_dtype dtype, int64_t n, int64_t first,
                          struct sf_nf4_findings *findings)
{
    uint16_t top[RUN];
    int64_t size = element_bytes(dtype);
    int64_t blocks = dtype == SF_BF16 ? run_blocks(n, first) : 0;
    bool plain = blocks > 0 && run_absmax(absmax, top, src, blocks);
    if (blocks > 0 && codes)
        sf_nf4_kernels()->codes(codes, src, absmax, blocks);
    if (plain)
        return blocks * BLOCK;
    int64_t by_rule = blocks > 0 ? blocks : 1;
    for (int64_t b = 0; b < by_rule; b++, first += BLOCK) {
        float x[BLOCK];
        int count = block_count(n, first);
        if (blocks > 0 && is_plain(top[b]))
            continue;
        load_block(x, src + b * BLOCK * size, dtype, count);
        absmax[b] = absmax_by_rule(x, count, first, findings);
        if (codes)
            codes_by_rule(codes + b * (BLOCK / 2), x, absmax[b], count);
    }
    return by_rule * BLOCK;
}

static void encode(uint8_t *codes, float *absmax, const void *src, enum sf_dtype dtype, int64_t n,
                   struct sf_nf4_findings *findings)
{
    int64_t size = element_bytes(dtype);
    for (int64_t first = 0; first < n;)
        first += encode_run(codes ? codes + first / 2 : NULL, absmax + first / BLOCK,
                            (const unsigned char *)src + first * size, dtype, n, first, findings);
}

void sf_nf4_encode(uint8_t *codes, float *absmax, const void *src, enum sf_dtype dtype, int64_t n,
                   struct sf_nf4_findings *findings)
{
    encode(codes, absmax, src, dtype, n, findings);
}

void sf_nf4_absmax(float *absmax, const void *src, enum sf_dtype dtype, int64_t n,
                   struct sf_nf4_findings *findings)
{
    encode(NULL, absmax, src, dtype, n, findings);
}

void sf_nf4_codes(uint8_t *codes, const void *src, enum sf_dtype dtype, const float *absmax,
                  int64_t n)
{
    const unsigned char *from = src;
    int64_t size = element_bytes(dtype), blocks = dtype == SF_BF16 ? n / BLOCK : 0;
    sf_nf4_kernels()->codes(codes, from, absmax, blocks);
    for (int64_t b = 0; b < sf_nf4_blocks(n); b++) {
        float x[BLOCK];
        if (b < blocks && absmax[b] >= 0x1p-126f && absmax[b] <= 0x1p126f)
            continue;
        load_block(x, from + b * BLOCK * size, dtype, block_count(n, b * BLOCK));
        codes_by_rule(codes + b * (BLOCK / 2), x, absmax[b], block_count(n, b * BLOCK));
    }
}

/* A column of 64 as if it lay in a row. */
static float absmax_of_column(const unsigned char *src, int64_t stride,
                              struct sf_nf4_findings *findings)
{
    float x[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        x[i] = sf_f32_from_bf16(sf_get_u16(src + 2 * i * stride));
    return absmax_by_rule(x, BLOCK, 0, findings);
}

void sf_nf4_absmax_down(float *absmax, int64_t step, const void *src, int64_t stride,
                        int64_t columns, struct sf_nf4_findings *findings)
{
    enum { COLUMNS = 2048 };
    const unsigned char *from = src;
    uint16_t top[COLUMNS];
    for (int64_t first = 0; first < columns; first += COLUMNS) {
        int64_t count = columns - first < COLUMNS ? columns - first : COLUMNS;
        sf_nf4_kernels()->tops_down(top, from + 2 * first, stride, count);
        for (int64_t c = 0; c < count; c++)
            absmax[(first + c) * step] =
                is_plain(top[c]) ? sf_f32_from_bf16(top[c])
                                 : absmax_of_column(from + 2 * (first + c), stride, findings);
    }
}

static void turn_edge(unsigned char *dst, int64_t dst_stride, const unsigned char *src,
                      int64_t src_stride, int64_t rows, int64_t columns, size_t size)
{
    enum { EDGE = 32 };
    for (int64_t r0 = 0; r0 < rows; r0 += EDGE)
        for (int64_t c = 0; c < columns; c++)
            for (int64_t r = r0; r < rows && r < r0 + EDGE; r++)
                memcpy(dst + (uint64_t)(c * dst_stride + r) * size,
                       src + (uint64_t)(r * src_stride + c) * size, size);
}

void sf_nf4_turn(void *dst, int64_t dst_stride, const void *src, int64_t src_stride, int64_t rows,
                 int64_t columns, enum sf_dtype dtype)
{
    unsigned char *to = dst;
    const unsigned char *from = src;
    int64_t size = element_bytes(dtype), r = size == 2 ? rows / 16 * 16 : 0;
    int64_t c = r > 0 ? columns / 16 * 16 : 0;
    if (r > 0 && c > 0)
        sf_nf4_kernels()->turn(to, dst_stride, from, src_stride, r, c);
    else
        r = c = 0;
    if (c < columns)
        turn_edge(to + c * dst_stride * size, dst_stride, from + c * size, src_stride, rows,
                  columns - c, (size_t)size);
    if (r < rows && c > 0)
        turn_edge(to + r * size, dst_stride, from + r * src_stride * size, src_stride, rows - r, c,
                  (size_t)size);
}

/* ---- scales of scales ---- */

float sf_nf4_offset(const float *absmax, int64_t blocks)
{
    double sum = 0;
    for (int64_t i = 0; i < blocks; i++)
        sum += absmax[i];
    return blocks > 0 ? (float)(sum / (double)blocks) : 0;
}

void sf_nf4_nest(uint8_t *q, float *nested_absmax, const float *absmax, int64_t blocks,
                 float offset)
{
    float middle[255];
    for (int i = 0; i < 255; i++)
        middle[i] = (sf_nf4_scale_map[i] + sf_nf4_scale_map[i + 1]) * 0.5f;
    for (int64_t first = 0; first < blocks; first += SF_NF4_NEST) {
        int count = blocks - first < SF_NF4_NEST ? (int)(blocks - first) : SF_NF4_NEST;
        float d[SF_NF4_NEST] = {0};
        uint8_t nearest[SF_NF4_NEST];
        for (int i = 0; i < count; i++)
            d[i] = sf_nf4_flush(absmax[first + i] - offset);
        float m = largest(d, SF_NF4_NEST), r = reciprocal(m);
        nested_absmax[first / SF_NF4_NEST] = m;
        for (int i = 0; i < SF_NF4_NEST; i++)
            d[i] *= r;
        sf_nf4_kernels()->nearest(nearest, d, middle, SF_NF4_NEST);
        memcpy(q + first, nearest, (size_t)count);
    }
}

void sf_nf4_unnest(float *absmax, const uint8_t *q, const float *nested_absmax,
                   const float map[256], float offset, int64_t first_block, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t block = first_block + i;
        float product = sf_nf4_flush(map[q[block]] * nested_absmax[block / SF_NF4_NEST]);
        absmax[i] = product + offset;
    }
}

/* ---- back ---- */

void sf_nf4_decode(float *out, const uint8_t *codes, const float *absmax, const float codebook[16],
                   int64_t first, int64_t count)
{
    assert(first % BLOCK == 0);
    int64_t whole = count / BLOCK, left = count % BLOCK;
    codes += first / 2;
    sf_nf4_kernels()->decode(out, codes, absmax, codebook, whole);
    if (left == 0)
        return;
    float value[16];
    sf_nf4_values(value, codebook, absmax[whole]);
    for (int64_t i = 0; i < left; i++) {
        uint8_t pair = codes[whole * (BLOCK / 2) + i / 2];
        out[whole * BLOCK + i] = value[i % 2 ? pair & 15 : pair >> 4];
    }
}

void sf_nf4_errors(float *error, float *norm, const void *src, enum sf_dtype dtype,
                   const uint8_t *codes, const float *absmax, int64_t n)
{
    const unsigned char *from = src;
    int64_t size = element_bytes(dtype), b = dtype == SF_BF16 ? n / BLOCK : 0;
    sf_nf4_kernels()->errors(error, norm, from, codes, absmax, b);
    for (; b < sf_nf4_blocks(n); b++) {
        float x[BLOCK], difference[BLOCK] = {0};
        int count = block_count(n, b * BLOCK);
        load_block(x, from + b * BLOCK * size, dtype, count);
        sf_nf4_decode(difference, codes + b * (BLOCK / 2), absmax + b, sf_nf4_code_value, 0, count);
        for (int i = 0; i < count; i++)
            difference[i] -= x[i];
        error[b] = sf_nf4_sum_products(difference, difference);
        norm[b] = sf_nf4_sum_products(x, x);
    }
}

void sf_nf4_error_add(struct sf_nf4_error *sum, const float *error, const float *norm,
                      int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++) {
        sum->squared_error += error[b];
        sum->squared_norm += norm[b];
    }
}

void sf_nf4_measure(struct sf_nf4_error *out, const void *src, enum sf_dtype dtype,
                    const uint8_t *codes, const float *absmax, int64_t n)
{
    *out = (struct sf_nf4_error){0};
    for (int64_t first = 0; first < n; first += RUN * BLOCK) {
        float error[RUN], norm[RUN];
        int64_t count = n - first < RUN * BLOCK ? n - first : RUN * BLOCK;
        sf_nf4_errors(error, norm, (const unsigned char *)src + first * element_bytes(dtype), dtype,
                      codes + first / 2, absmax + first / BLOCK, count);
        sf_nf4_error_add(out, error, norm, sf_nf4_blocks(count));
    }
}
