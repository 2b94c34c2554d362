/* nf4_x86.h -- 256-bit pieces that the AVX2 and the AVX-512 files share; for libformat/codec. Empty
 * without AVX2, so that any program may include any header. */
#ifndef SCOUT_LIBFORMAT_CODEC_NF4_X86_H
#define SCOUT_LIBFORMAT_CODEC_NF4_X86_H

#ifdef __AVX2__
#include <immintrin.h>

#include "libformat/codec/nf4.h"

static inline __m256i load16(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* bf16(flush(p)) of eight products, as float32; see sf_nf4_flush and sf_round_bf16. */
static inline __m256i round_values(__m256 p)
{
    const __m256i exponent = _mm256_set1_epi32(0x7f800000), high = _mm256_set1_epi32(-65536);
    __m256i bits = _mm256_castps_si256(p);
    __m256i tiny = _mm256_cmpeq_epi32(_mm256_and_si256(bits, exponent), _mm256_setzero_si256());
    bits = _mm256_andnot_si256(_mm256_srli_epi32(tiny, 1), bits); /* keeps the sign */
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(p, p, _CMP_UNORD_Q));
    return _mm256_and_si256(_mm256_blendv_epi8(up, quiet, nan), high);
}

/* (error, norm, ., .) from eight-lane sums: `even` holds lanes 0, 2, .. 14 and `odd` 1, 3, .. 15 of
 * the sixteen that nf4.h defines. */
static inline __m128 fold_pair(__m256 error_even, __m256 error_odd, __m256 norm_even,
                               __m256 norm_odd)
{
    __m128 ee = _mm_add_ps(_mm256_castps256_ps128(error_even),
                           _mm256_extractf128_ps(error_even, 1)); /* j + 8 */
    __m128 eo = _mm_add_ps(_mm256_castps256_ps128(error_odd), _mm256_extractf128_ps(error_odd, 1));
    __m128 ne = _mm_add_ps(_mm256_castps256_ps128(norm_even), _mm256_extractf128_ps(norm_even, 1));
    __m128 no = _mm_add_ps(_mm256_castps256_ps128(norm_odd), _mm256_extractf128_ps(norm_odd, 1));
    __m128 even = _mm_add_ps(_mm_movelh_ps(ee, ne), _mm_movehl_ps(ne, ee)); /* j + 4 */
    __m128 odd = _mm_add_ps(_mm_movelh_ps(eo, no), _mm_movehl_ps(no, eo));
    __m128 two = _mm_hadd_ps(even, odd);             /* j + 2: error, norm of even, then of odd */
    return _mm_add_ps(two, _mm_movehl_ps(two, two)); /* j + 1 */
}

static inline __m256i pair_rows(const unsigned char *p, int64_t eight_rows)
{
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p)),
        _mm_loadu_si128((const __m128i *)(const void *)(p + eight_rows)), 1);
}

/* 16 rows of 8 elements become 8 rows of 16; strides in bytes. */
static inline void turn_16x8(unsigned char *dst, int64_t dst_stride, const unsigned char *src,
                             int64_t src_stride)
{
    __m256i a[8], b[8];
    for (int r = 0; r < 8; r++)
        a[r] = pair_rows(src + r * src_stride, 8 * src_stride);
    for (int r = 0; r < 4; r++) {
        b[2 * r] = _mm256_unpacklo_epi16(a[2 * r], a[2 * r + 1]);
        b[2 * r + 1] = _mm256_unpackhi_epi16(a[2 * r], a[2 * r + 1]);
    }
    for (int r = 0; r < 2; r++) {
        a[4 * r] = _mm256_unpacklo_epi32(b[4 * r], b[4 * r + 2]);
        a[4 * r + 1] = _mm256_unpackhi_epi32(b[4 * r], b[4 * r + 2]);
        a[4 * r + 2] = _mm256_unpacklo_epi32(b[4 * r + 1], b[4 * r + 3]);
        a[4 * r + 3] = _mm256_unpackhi_epi32(b[4 * r + 1], b[4 * r + 3]);
    }
    for (int r = 0; r < 4; r++) {
        b[2 * r] = _mm256_unpacklo_epi64(a[r], a[4 + r]);
        b[2 * r + 1] = _mm256_unpackhi_epi64(a[r], a[4 + r]);
    }
    for (int c = 0; c < 8; c++)
        _mm256_storeu_si256((__m256i *)(void *)(dst + c * dst_stride), b[c]);
}

static inline void turn_all(unsigned char *dst, int64_t dst_stride, const unsigned char *src,
                            int64_t src_stride, int64_t rows, int64_t columns)
{
    for (int64_t r = 0; r < rows; r += 16)
        for (int64_t c = 0; c < columns; c += 8)
            turn_16x8(dst + 2 * (c * dst_stride + r), 2 * dst_stride,
                      src + 2 * (r * src_stride + c), 2 * src_stride);
}

static inline void nearest_all(uint8_t *q, const float *s, const float middle[255], int64_t count)
{
    for (int64_t i = 0; i < count; i += 8) {
        __m256 want = _mm256_loadu_ps(s + i);
        __m256i below = _mm256_setzero_si256();
        for (int step = 128; step > 0; step /= 2) {
            __m256 at = _mm256_i32gather_ps(middle + step - 1, below, 4);
            __m256i less = _mm256_castps_si256(_mm256_cmp_ps(at, want, _CMP_LT_OQ));
            below = _mm256_add_epi32(below, _mm256_and_si256(less, _mm256_set1_epi32(step)));
        }
        /* an exact middle goes to its even neighbour; 255 has no middle above it */
        __m256i inside = _mm256_min_epi32(below, _mm256_set1_epi32(254));
        __m256i equal = _mm256_castps_si256(
            _mm256_cmp_ps(_mm256_i32gather_ps(middle, inside, 4), want, _CMP_EQ_OQ));
        __m256i odd = _mm256_and_si256(inside, _mm256_set1_epi32(1));
        below = _mm256_add_epi32(below, _mm256_and_si256(equal, odd));
        __m128i half =
            _mm_packus_epi32(_mm256_castsi256_si128(below), _mm256_extracti128_si256(below, 1));
        _mm_storel_epi64((__m128i *)(void *)(q + i), _mm_packus_epi16(half, half));
    }
}

#endif
#endif
