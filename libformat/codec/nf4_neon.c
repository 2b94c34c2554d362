/* NF4's loops for NEON (AArch64). Meaning: nf4_kernels.h and nf4_portable.c. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "libformat/codec/nf4.h"
#include "libformat/codec/nf4_kernels.h"

enum { BLOCK = SF_NF4_BLOCK };

static uint16x8_t load8(const void *p)
{
    return vreinterpretq_u16_u8(vld1q_u8(p));
}

static int16x8_t magnitudes(uint16x8_t x)
{
    return vreinterpretq_s16_u16(vandq_u16(x, vdupq_n_u16(0x7fff)));
}

void sf_nf4_tops_neon(uint16_t *top, const unsigned char *src, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK) {
        int16x8_t most = vdupq_n_s16(0);
        for (int v = 0; v < 8; v++)
            most = vmaxq_s16(most, magnitudes(load8(src + 16 * v)));
        top[b] = (uint16_t)vmaxvq_s16(most);
    }
}

void sf_nf4_tops_down_neon(uint16_t *top, const unsigned char *src, int64_t stride, int64_t columns)
{
    int64_t c = 0;
    for (int r = 0; r < BLOCK; r++) {
        const unsigned char *row = src + 2 * r * stride;
        for (c = 0; c + 8 <= columns; c += 8) {
            int16x8_t before = r ? vreinterpretq_s16_u16(vld1q_u16(top + c)) : vdupq_n_s16(0);
            int16x8_t most = vmaxq_s16(before, magnitudes(load8(row + 2 * c)));
            vst1q_u16(top + c, vreinterpretq_u16_s16(most));
        }
    }
    if (c < columns)
        sf_nf4_tops_down_portable(top + c, src + 2 * c, stride, columns - c);
}

/* Four limits; see threshold_key in nf4_portable.c. */
static int16x4_t limits_above(const float *threshold, float absmax)
{
    uint32x4_t bits = vreinterpretq_u32_f32(vmulq_n_f32(vld1q_f32(threshold), absmax));
    return vreinterpret_s16_u16(vshrn_n_u32(bits, 16));
}

static int16x4_t limits_below(const float *threshold, float absmax)
{
    uint32x4_t bits = vreinterpretq_u32_f32(vmulq_n_f32(vld1q_f32(threshold), absmax));
    bits = vaddq_u32(vandq_u32(bits, vdupq_n_u32(0x7fffffffu)), vdupq_n_u32(0xffff));
    return vreinterpret_s16_u16(vmvn_u16(vshrn_n_u32(bits, 16)));
}

static void limits_of(int16_t limit[16], float absmax)
{
    vst1_s16(limit, limits_below(sf_nf4_threshold, absmax));
    vst1_s16(limit + 3, limits_below(sf_nf4_threshold + 3, absmax));
    vst1_s16(limit + 7, limits_above(sf_nf4_threshold + 7, absmax));
    vst1_s16(limit + 11, limits_above(sf_nf4_threshold + 11, absmax));
}

/* Integers that sort as the numbers do; subnormals are zeros. */
static int16x8_t sort_keys(uint16x8_t x)
{
    int16x8_t s = vreinterpretq_s16_u16(x);
    int16x8_t flips = vandq_s16(vshrq_n_s16(s, 15), vdupq_n_s16(0x7fff));
    uint16x8_t normal = vcgtq_s16(magnitudes(x), vdupq_n_s16(0x7f));
    return vandq_s16(veorq_s16(s, flips), vreinterpretq_s16_u16(normal));
}

void sf_nf4_codes_neon(uint8_t *codes, const unsigned char *src, const float *absmax,
                       int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK, codes += BLOCK / 2) {
        int16_t limit[16];
        int16x8_t key[8];
        uint16x8_t count[8];
        limits_of(limit, absmax[b]);
        for (int v = 0; v < 8; v++) {
            key[v] = sort_keys(load8(src + 16 * v));
            count[v] = vdupq_n_u16(0);
        }
        for (int t = 0; t < 15; t++)
            for (int v = 0; v < 8; v++)
                count[v] = vsubq_u16(count[v], vcgtq_s16(key[v], vdupq_n_s16(limit[t])));
        for (int v = 0; v < 8; v += 2) {
            uint8x16_t all = vcombine_u8(vmovn_u16(count[v]), vmovn_u16(count[v + 1]));
            uint8x16_t even = vuzp1q_u8(all, all), odd = vuzp2q_u8(all, all);
            vst1_u8(codes + 4 * v, vget_low_u8(vorrq_u8(vshlq_n_u8(even, 4), odd)));
        }
    }
}

/* The portable loops are vectors on AArch64 as they stand: two registers of floats and no wider. */
void sf_nf4_errors_neon(float *error, float *norm, const unsigned char *src, const uint8_t *codes,
                        const float *absmax, int64_t blocks)
{
    sf_nf4_errors_portable(error, norm, src, codes, absmax, blocks);
}

void sf_nf4_decode_neon(float *out, const uint8_t *codes, const float *absmax,
                        const float codebook[16], int64_t blocks)
{
    sf_nf4_decode_portable(out, codes, absmax, codebook, blocks);
}

/* 8 x 8 elements; strides in bytes. */
static void turn_8x8(unsigned char *dst, int64_t dst_stride, const unsigned char *src,
                     int64_t src_stride)
{
    uint16x8_t a[8];
    uint32x4_t b[8];
    for (int r = 0; r < 8; r++)
        a[r] = load8(src + r * src_stride);
    for (int r = 0; r < 4; r++) {
        b[2 * r] = vreinterpretq_u32_u16(vtrn1q_u16(a[2 * r], a[2 * r + 1]));
        b[2 * r + 1] = vreinterpretq_u32_u16(vtrn2q_u16(a[2 * r], a[2 * r + 1]));
    }
    for (int odd = 0; odd < 2; odd++) {
        uint64x2_t low[2], high[2]; /* of rows 0-3 and of rows 4-7 */
        for (int h = 0; h < 2; h++) {
            low[h] = vreinterpretq_u64_u32(vtrn1q_u32(b[4 * h + odd], b[4 * h + 2 + odd]));
            high[h] = vreinterpretq_u64_u32(vtrn2q_u32(b[4 * h + odd], b[4 * h + 2 + odd]));
        }
        vst1q_u8(dst + odd * dst_stride, vreinterpretq_u8_u64(vtrn1q_u64(low[0], low[1])));
        vst1q_u8(dst + (2 + odd) * dst_stride, vreinterpretq_u8_u64(vtrn1q_u64(high[0], high[1])));
        vst1q_u8(dst + (4 + odd) * dst_stride, vreinterpretq_u8_u64(vtrn2q_u64(low[0], low[1])));
        vst1q_u8(dst + (6 + odd) * dst_stride, vreinterpretq_u8_u64(vtrn2q_u64(high[0], high[1])));
    }
}

void sf_nf4_turn_neon(unsigned char *dst, int64_t dst_stride, const unsigned char *src,
                      int64_t src_stride, int64_t rows, int64_t columns)
{
    for (int64_t r = 0; r < rows; r += 8)
        for (int64_t c = 0; c < columns; c += 8)
            turn_8x8(dst + 2 * (c * dst_stride + r), 2 * dst_stride, src + 2 * (r * src_stride + c),
                     2 * src_stride);
}

void sf_nf4_nearest_neon(uint8_t *q, const float *s, const float middle[255], int64_t count)
{
    sf_nf4_nearest_portable(q, s, middle, count);
}

void sf_nf4_search_neon(struct sf_nf4_search_fit *fit, const struct sf_nf4_search_block *block,
                        const struct sf_nf4_search_tables *tables, int64_t blocks)
{
    sf_nf4_search_portable(fit, block, tables, blocks);
}
#endif
