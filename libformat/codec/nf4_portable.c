/* NF4's loops in plain C: the reading that the other sets are held against. Written so that
 * compilers turn the inner loops into whatever vectors the target has. */
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/nf4.h"
#include "libformat/codec/nf4_inside.h"
#include "libformat/codec/nf4_kernels.h"

enum { BLOCK = SF_NF4_BLOCK, THRESHOLDS = 15 };

static void load(uint16_t x[BLOCK], const unsigned char *src)
{
    for (int i = 0; i < BLOCK; i++)
        x[i] = sf_get_u16(src + 2 * i);
}

void sf_nf4_tops_portable(uint16_t *top, const unsigned char *src, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK) {
        uint16_t x[BLOCK];
        int16_t most = 0;
        load(x, src);
        for (int i = 0; i < BLOCK; i++) {
            int16_t magnitude = (int16_t)(x[i] & 0x7fff);
            most = magnitude > most ? magnitude : most;
        }
        top[b] = (uint16_t)most;
    }
}

void sf_nf4_tops_down_portable(uint16_t *top, const unsigned char *src, int64_t stride,
                               int64_t columns)
{
    memset(top, 0, (size_t)columns * sizeof *top);
    for (int r = 0; r < BLOCK; r++) {
        const unsigned char *row = src + 2 * r * stride;
        for (int64_t c = 0; c < columns; c++) {
            int16_t magnitude = (int16_t)(sf_get_u16(row + 2 * c) & 0x7fff);
            top[c] = (uint16_t)(magnitude > (int16_t)top[c] ? magnitude : (int16_t)top[c]);
        }
    }
}

/* A bf16 pattern as an integer that sorts as the number does; subnormals are zeros. */
static int16_t sort_key(uint16_t bits)
{
    int16_t key = (int16_t)bits, sorted = (int16_t)(key ^ ((key >> 15) & 0x7fff));
    return (bits & 0x7fff) < 0x80 ? 0 : sorted;
}

/* x is above threshold * absmax just when its key is above this one: the key of the largest bf16
 * number that is not above the product. The product is rounded to float32, which cannot show: no
 * quotient of two bf16 numbers comes closer to a threshold than 19 * 2^-24, relative. */
static int16_t threshold_key(float threshold, float absmax)
{
    uint32_t bits = sf_bits_from_f32(threshold * absmax);
    if (threshold > 0)
        return (int16_t)(bits >> 16);
    return (int16_t)(~(((bits & 0x7fffffffu) + 0xffffu) >> 16)); /* away from zero is down */
}

void sf_nf4_codes_portable(uint8_t *codes, const unsigned char *src, const float *absmax,
                           int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK, codes += BLOCK / 2) {
        uint16_t x[BLOCK];
        int16_t key[BLOCK], code[BLOCK] = {0}, limit[THRESHOLDS];
        load(x, src);
        for (int i = 0; i < BLOCK; i++)
            key[i] = sort_key(x[i]);
        for (int t = 0; t < THRESHOLDS; t++)
            limit[t] = threshold_key(sf_nf4_threshold[t], absmax[b]);
        for (int t = 0; t < THRESHOLDS; t++) {
            int16_t above = limit[t];
            for (int i = 0; i < BLOCK; i++)
                code[i] = (int16_t)(code[i] + (key[i] > above));
        }
        for (int i = 0; i < BLOCK / 2; i++)
            codes[i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
    }
}

void sf_nf4_decode_portable(float *out, const uint8_t *codes, const float *absmax,
                            const float codebook[16], int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, out += BLOCK, codes += BLOCK / 2) {
        float value[16]; /* what the 16 codes mean in this block */
        sf_nf4_values(value, codebook, absmax[b]);
        for (int i = 0; i < BLOCK / 2; i++) {
            out[2 * i] = value[codes[i] >> 4];
            out[2 * i + 1] = value[codes[i] & 15];
        }
    }
}

void sf_nf4_errors_portable(float *error, float *norm, const unsigned char *src,
                            const uint8_t *codes, const float *absmax, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK) {
        float x[BLOCK], difference[BLOCK];
        for (int i = 0; i < BLOCK; i++)
            x[i] = sf_f32_from_bf16(sf_get_u16(src + 2 * i));
        sf_nf4_decode_portable(difference, codes + b * (BLOCK / 2), absmax + b, sf_nf4_code_value,
                               1);
        for (int i = 0; i < BLOCK; i++)
            difference[i] -= x[i];
        error[b] = sf_nf4_sum_products(difference, difference);
        norm[b] = sf_nf4_sum_products(x, x);
    }
}

/* In squares that stay in cache on both sides. */
void sf_nf4_turn_portable(unsigned char *dst, int64_t dst_stride, const unsigned char *src,
                          int64_t src_stride, int64_t rows, int64_t columns)
{
    enum { EDGE = 16 };
    for (int64_t r0 = 0; r0 < rows; r0 += EDGE)
        for (int64_t c0 = 0; c0 < columns; c0 += EDGE) {
            uint16_t square[EDGE][EDGE];
            for (int r = 0; r < EDGE; r++)
                memcpy(square[r], src + 2 * ((r0 + r) * src_stride + c0), sizeof square[r]);
            for (int c = 0; c < EDGE; c++) {
                uint16_t line[EDGE];
                for (int r = 0; r < EDGE; r++)
                    line[r] = square[r][c];
                memcpy(dst + 2 * ((c0 + c) * dst_stride + r0), line, sizeof line);
            }
        }
}

void sf_nf4_nearest_portable(uint8_t *q, const float *s, const float middle[255], int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int below = 0;
        for (int step = 128; step > 0; step /= 2)
            below += middle[below + step - 1] < s[i] ? step : 0;
        /* an exact middle goes to its even neighbour */
        below += below % 2 == 1 && below < 255 && middle[below] == s[i];
        q[i] = (uint8_t)below;
    }
}

/* Codes are not needed, only what they stand for: a step up for every limit that is passed. */
static void try_limits(struct sf_nf4_search_fit *fit, const struct sf_nf4_search_block *b,
                       const struct sf_nf4_search_tables *tables, const int16_t limit[16])
{
    int16_t value[BLOCK], square[BLOCK];
    int32_t products = 0, squares = 0;
    for (int i = 0; i < BLOCK; i++) {
        value[i] = tables->value[0];
        square[i] = tables->square[0];
    }
    for (int t = 0; t < THRESHOLDS; t++) {
        int16_t above = limit[t], step = (int16_t)(tables->value[t + 1] - tables->value[t]);
        int16_t square_step = (int16_t)(tables->square[t + 1] - tables->square[t]);
        for (int i = 0; i < BLOCK; i++) {
            int16_t passed = (int16_t) - (b->position[i] > above);
            value[i] = (int16_t)(value[i] + (passed & step));
            square[i] = (int16_t)(square[i] + (passed & square_step));
        }
    }
    for (int i = 0; i < BLOCK; i++) {
        products += b->product[i] * value[i];
        squares += b->weight[i] * square[i];
    }
    sf_nf4_search_keep(fit, products, squares);
}

void sf_nf4_search_portable(struct sf_nf4_search_fit *fit, const struct sf_nf4_search_block *block,
                            const struct sf_nf4_search_tables *tables, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++) {
        fit[b] = (struct sf_nf4_search_fit){0, 0};
        for (int k = 0; k < tables->tries; k++)
            try_limits(&fit[b], &block[b], tables, tables->limit[k]);
    }
}
