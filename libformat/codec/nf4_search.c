#include "libformat/codec/nf4_search.h"

#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/nf4_inside.h"
#include "libformat/codec/nf4_kernels.h"

enum { BLOCK = SF_NF4_BLOCK, RUN = 16 /* blocks that a kernel is given at once */ };

static const float LEAST = 0x1p-100f, MOST = 0x1p126f;

/* Fixed point: positions and limits in units of absmax / 2^14, factors and weights in 2^-12, so that
 * 64 products of two factors fit 31 bits (Cauchy-Schwarz). */
static const float POSITION = 16384, FACTOR = 4096;

/* Scales to try, in units of absmax. Large blocks of equal importance gain nothing below 0.6; where
 * one important element is small, the best scale may be, too. */
static const float usual[] = {0.64f, 0.70f, 0.75f, 0.80f, 0.85f, 0.89f,
                              0.93f, 0.97f, 1.0f,  1.04f, 1.09f, 1.15f};
static const float wide[] = {0.12f, 0.17f, 0.24f, 0.32f, 0.40f, 0.48f, 0.56f, 0.62f, 0.67f, 0.72f,
                             0.77f, 0.82f, 0.87f, 0.92f, 0.96f, 1.0f,  1.04f, 1.09f, 1.15f, 1.21f};
enum { USUAL = sizeof usual / sizeof usual[0], WIDE = sizeof wide / sizeof wide[0] };

static int32_t nearest_int(float x)
{
    return (int32_t)(x + 65536.5f) - 65536; /* half goes up; |x| is below 2^15 */
}

static void make_tables(struct sf_nf4_search_tables *out, bool weighted)
{
    const float *try = weighted ? wide : usual;
    out->tries = weighted ? WIDE : USUAL;
    for (int k = 0; k < out->tries; k++)
        for (int t = 0; t < 15; t++)
            out->limit[k][t] = (int16_t)nearest_int(sf_nf4_threshold[t] * try[k] * POSITION);
    for (int c = 0; c < 16; c++) {
        float value = sf_nf4_code_value[c];
        out->value[c] = (int16_t)nearest_int(value * FACTOR);
        out->square[c] = (int16_t)nearest_int(value * value * FACTOR);
    }
}

/* ---- what the kernels are given ---- */

/* The importance of a block's elements in fixed point; its largest is 1. */
static void weigh(int16_t weight[BLOCK], const struct sf_nf4_search *how, int64_t first, int count)
{
    float w[BLOCK] = {0}, most = 0;
    int64_t channel = first % how->channels;
    for (int i = 0; i < count; i++) {
        w[i] = how->importance[channel];
        most = w[i] > most ? w[i] : most;
        channel = channel + 1 == how->channels ? 0 : channel + 1;
    }
    for (int i = 0; i < BLOCK; i++)
        weight[i] = (int16_t)(most > 0 ? nearest_int(w[i] / most * FACTOR) : FACTOR);
}

static void load_run(float *x, const unsigned char *src, enum sf_dtype dtype, int64_t count)
{
    if (dtype == SF_BF16)
        for (int64_t i = 0; i < count; i++)
            x[i] = sf_f32_from_bf16(sf_get_u16(src + 2 * i));
    else if (dtype == SF_F16)
        for (int64_t i = 0; i < count; i++)
            x[i] = sf_f32_from_f16(sf_get_u16(src + 2 * i));
    else
        for (int64_t i = 0; i < count; i++)
            x[i] = sf_get_f32(src + 4 * i);
    for (int64_t i = count; i % BLOCK; i++)
        x[i] = 0;
}

/* Elements over absmax, in fixed point; `mirror` is 1 or -1. */
static void place(struct sf_nf4_search_block *b, const float *x, float absmax, float mirror)
{
    float r = mirror / absmax;
    for (int i = 0; i < BLOCK; i++) {
        float s = x[i] * r;
        b->position[i] = (int16_t)nearest_int(s * POSITION);
        b->product[i] = (int16_t)nearest_int(s * (float)b->weight[i]);
    }
}

static bool is_usable(float absmax)
{
    return absmax >= LEAST && absmax <= MOST;
}

/* <w x, c> / <w c, c> in units of absmax; `mirrored` may be NULL. */
static float fitted(const struct sf_nf4_search_fit *plain, const struct sf_nf4_search_fit *mirrored,
                    float absmax)
{
    struct sf_nf4_search_fit best = *plain;
    bool below = mirrored && sf_nf4_search_keep(&best, mirrored->products, mirrored->squares);
    if (best.products == 0)
        return absmax;
    float scale = absmax * ((float)best.products / (float)best.squares);
    return below ? -scale : scale;
}

static void search_run(float *scale, const float *absmax, const float *x, int64_t first,
                       int64_t count, const struct sf_nf4_search *how,
                       const struct sf_nf4_search_tables *tables)
{
    struct sf_nf4_search_block block[2 * RUN];
    struct sf_nf4_search_fit fit[2 * RUN];
    int64_t blocks = sf_nf4_blocks(count), sides = how->negative ? 2 : 1, used = 0;
    for (int64_t b = 0; b < blocks; b++) {
        if (!is_usable(absmax[b]))
            continue;
        int64_t left = count - b * BLOCK;
        for (int64_t s = 0; s < sides; s++) {
            struct sf_nf4_search_block *at = &block[used++];
            if (s > 0)
                memcpy(at->weight, at[-1].weight, sizeof at->weight);
            else if (how->importance)
                weigh(at->weight, how, first + b * BLOCK, left < BLOCK ? (int)left : BLOCK);
            else
                for (int i = 0; i < BLOCK; i++)
                    at->weight[i] = (int16_t)FACTOR;
            place(at, x + b * BLOCK, absmax[b], s > 0 ? -1.0f : 1.0f);
        }
    }
    sf_nf4_kernels()->search(fit, block, tables, used);
    used = 0;
    for (int64_t b = 0; b < blocks; b++) {
        scale[b] = absmax[b];
        if (!is_usable(absmax[b]))
            continue;
        scale[b] = fitted(&fit[used], sides > 1 ? &fit[used + 1] : NULL, absmax[b]);
        used += sides;
    }
}

void sf_nf4_search_scales(float *scale, const float *absmax, const void *src, enum sf_dtype dtype,
                          int64_t first, int64_t n, const struct sf_nf4_search *how)
{
    struct sf_nf4_search_tables tables;
    int64_t size = (int64_t)sf_dtype_bytes(dtype);
    make_tables(&tables, how->importance != NULL);
    for (int64_t at = 0; at < n; at += RUN * BLOCK) {
        float x[RUN * BLOCK];
        int64_t count = n - at < RUN * BLOCK ? n - at : RUN * BLOCK;
        load_run(x, (const unsigned char *)src + at * size, dtype, count);
        search_run(scale + at / BLOCK, absmax + at / BLOCK, x, first + at, count, how, &tables);
    }
}

/* ---- codes ---- */

/* Any source and any scale; short blocks. */
static void codes_of_block(uint8_t *codes, const unsigned char *src, enum sf_dtype dtype,
                           float scale, int count)
{
    float x[BLOCK], mirror = scale < 0 ? -1.0f : 1.0f, magnitude = scale * mirror;
    int code[BLOCK] = {0};
    load_run(x, src, dtype, count);
    for (int i = 0; i < BLOCK; i++) {
        code[i] = is_usable(magnitude) ? 0 : 7;
        for (int t = 0; t < 15 && is_usable(magnitude); t++)
            code[i] += sf_nf4_flush(x[i]) * mirror > sf_nf4_threshold[t] * magnitude;
    }
    for (int i = 0; i < (count + 1) / 2; i++)
        codes[i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
}

/* Whole bf16 blocks; those of negative scale are mirrored first. */
static void codes_of_run(uint8_t *codes, const unsigned char *src, const float *scale,
                         int64_t blocks)
{
    unsigned char mirrored[RUN * 2 * BLOCK];
    float magnitude[RUN];
    memcpy(mirrored, src, (size_t)(blocks * 2 * BLOCK));
    for (int64_t b = 0; b < blocks; b++) {
        magnitude[b] = scale[b] < 0 ? -scale[b] : scale[b];
        for (int i = 1; scale[b] < 0 && i < 2 * BLOCK; i += 2)
            mirrored[b * 2 * BLOCK + i] ^= 0x80;
    }
    sf_nf4_kernels()->codes(codes, mirrored, magnitude, blocks);
    for (int64_t b = 0; b < blocks; b++)
        if (!is_usable(magnitude[b]))
            codes_of_block(codes + b * (BLOCK / 2), src + b * 2 * BLOCK, SF_BF16, scale[b], BLOCK);
}

void sf_nf4_search_codes(uint8_t *codes, const void *src, enum sf_dtype dtype, const float *scale,
                         int64_t n)
{
    const unsigned char *from = src;
    int64_t size = (int64_t)sf_dtype_bytes(dtype), whole = dtype == SF_BF16 ? n / BLOCK : 0;
    for (int64_t b = 0; b < whole; b += RUN)
        codes_of_run(codes + b * (BLOCK / 2), from + b * 2 * BLOCK, scale + b,
                     whole - b < RUN ? whole - b : RUN);
    for (int64_t b = whole; b < sf_nf4_blocks(n); b++) {
        int64_t left = n - b * BLOCK;
        codes_of_block(codes + b * (BLOCK / 2), from + b * BLOCK * size, dtype, scale[b],
                       left < BLOCK ? (int)left : BLOCK);
    }
}
