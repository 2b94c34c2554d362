/* NF4's loops for AVX-512 (F, BW, VL, DQ). Meaning: nf4_kernels.h and nf4_portable.c. */
#if defined(__x86_64__)
#include "libformat/codec/nf4_kernels.h"
#include "libformat/codec/nf4_search_x86.h"
#include "libformat/codec/nf4_x86.h"

enum { BLOCK = SF_NF4_BLOCK };

static __m512i load32(const void *p)
{
    return _mm512_loadu_si512(p);
}

static __m512i magnitudes(__m512i x)
{
    return _mm512_and_si512(x, _mm512_set1_epi16(0x7fff));
}

void sf_nf4_tops_avx512(uint16_t *top, const unsigned char *src, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK) {
        __m512i most = _mm512_max_epi16(magnitudes(load32(src)), magnitudes(load32(src + 64)));
        __m256i quarter =
            _mm256_max_epi16(_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64(most, 1));
        __m128i eighth =
            _mm_max_epi16(_mm256_castsi256_si128(quarter), _mm256_extracti128_si256(quarter, 1));
        eighth = _mm_minpos_epu16(_mm_xor_si128(eighth, _mm_set1_epi16(-1)));
        top[b] = (uint16_t)~_mm_extract_epi16(eighth, 0);
    }
}

void sf_nf4_tops_down_avx512(uint16_t *top, const unsigned char *src, int64_t stride,
                             int64_t columns)
{
    int64_t c = 0;
    for (int r = 0; r < BLOCK; r++) {
        const unsigned char *row = src + 2 * r * stride;
        for (c = 0; c + 32 <= columns; c += 32) {
            __m512i before = r ? load32(top + c) : _mm512_setzero_si512();
            _mm512_storeu_si512(top + c, _mm512_max_epi16(before, magnitudes(load32(row + 2 * c))));
        }
    }
    if (c < columns)
        sf_nf4_tops_down_portable(top + c, src + 2 * c, stride, columns - c);
}

/* The fifteen limits of a block as 16-bit sort keys; see threshold_key in nf4_portable.c. */
static void limits_of(int16_t limit[16], float absmax)
{
    const __m512 threshold = _mm512_maskz_loadu_ps(0x7fff, sf_nf4_threshold);
    __m512i bits = _mm512_castps_si512(_mm512_mul_ps(threshold, _mm512_set1_ps(absmax)));
    __m512i up = _mm512_add_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)),
                                  _mm512_set1_epi32(0xffff));
    __m512i below = _mm512_xor_si512(_mm512_srli_epi32(up, 16), _mm512_set1_epi32(-1));
    __m512i keys = _mm512_mask_mov_epi32(_mm512_srli_epi32(bits, 16), 0x007f, below);
    _mm256_storeu_si256((__m256i *)(void *)limit, _mm512_cvtepi32_epi16(keys));
}

/* Integers that sort as the numbers do; subnormals are zeros. */
static __m512i sort_keys(__m512i x)
{
    __m512i flips = magnitudes(_mm512_srai_epi16(x, 15));
    __mmask32 normal = _mm512_cmpgt_epi16_mask(magnitudes(x), _mm512_set1_epi16(0x007f));
    return _mm512_maskz_mov_epi16(normal, _mm512_xor_si512(x, flips));
}

static __m512i count_above(__m512i count, __m512i key, __m512i limit)
{
    __mmask32 above = _mm512_cmpgt_epi16_mask(key, limit);
    return _mm512_mask_add_epi16(count, above, count, _mm512_set1_epi16(1));
}

void sf_nf4_codes_avx512(uint8_t *codes, const unsigned char *src, const float *absmax,
                         int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK, codes += BLOCK / 2) {
        int16_t limit[16];
        limits_of(limit, absmax[b]);
        __m512i first = sort_keys(load32(src)), second = sort_keys(load32(src + 64));
        __m512i a = _mm512_setzero_si512(), c = a;
        for (int t = 0; t < 15; t++) {
            __m512i above = _mm512_set1_epi16(limit[t]);
            a = count_above(a, first, above);
            c = count_above(c, second, above);
        }
        /* of each pair of words: the even element's code << 4, the odd one's as it is */
        a = _mm512_or_si512(_mm512_slli_epi32(a, 4), _mm512_srli_epi32(a, 16));
        c = _mm512_or_si512(_mm512_slli_epi32(c, 4), _mm512_srli_epi32(c, 16));
        _mm_storeu_si128((__m128i *)(void *)codes, _mm512_cvtepi32_epi8(a));
        _mm_storeu_si128((__m128i *)(void *)(codes + 16), _mm512_cvtepi32_epi8(c));
    }
}

static __m512 values_of(const float codebook[16], float absmax)
{
    __m256 a = _mm256_set1_ps(absmax);
    __m256i first = round_values(_mm256_mul_ps(_mm256_loadu_ps(codebook), a));
    __m256i second = round_values(_mm256_mul_ps(_mm256_loadu_ps(codebook + 8), a));
    return _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
}

/* Adds the two halves' squares one after the other, as nf4.h orders them. */
static void add_squares(__m256 *sum, __m512 v)
{
    __m512 square = _mm512_mul_ps(v, v);
    *sum = _mm256_add_ps(*sum, _mm512_castps512_ps256(square));
    *sum = _mm256_add_ps(*sum, _mm512_extractf32x8_ps(square, 1));
}

void sf_nf4_errors_avx512(float *error, float *norm, const unsigned char *src, const uint8_t *codes,
                          const float *absmax, int64_t blocks)
{
    const __m512i upper = _mm512_set1_epi32(-65536);
    for (int64_t b = 0; b < blocks; b++) {
        __m512 value = values_of(sf_nf4_code_value, absmax[b]);
        __m256 ee = _mm256_setzero_ps(), eo = ee, ne = ee, no = ee;
        for (int half = 0; half < 2; half++, src += BLOCK, codes += BLOCK / 4) {
            __m512i x = load32(src);
            __m512i pair =
                _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)codes));
            __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
            __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(x, upper));
            /* the permutation reads the low four bits of an index */
            __m512 even_y = _mm512_permutexvar_ps(_mm512_srli_epi32(pair, 4), value);
            __m512 odd_y = _mm512_permutexvar_ps(pair, value);
            add_squares(&ee, _mm512_sub_ps(even_y, even));
            add_squares(&eo, _mm512_sub_ps(odd_y, odd));
            add_squares(&ne, even);
            add_squares(&no, odd);
        }
        __m128 sums = fold_pair(ee, eo, ne, no);
        _mm_store_ss(error + b, sums);
        _mm_store_ss(norm + b, _mm_movehdup_ps(sums));
    }
}

void sf_nf4_decode_avx512(float *out, const uint8_t *codes, const float *absmax,
                          const float codebook[16], int64_t blocks)
{
    const __m128i nibble = _mm_set1_epi8(15);
    for (int64_t b = 0; b < blocks; b++, codes += BLOCK / 2) {
        __m512 value = values_of(codebook, absmax[b]);
        for (int i = 0; i < BLOCK / 2; i += 8, out += 16) {
            __m128i packed = _mm_loadl_epi64((const __m128i *)(const void *)(codes + i));
            __m128i even = _mm_and_si128(_mm_srli_epi16(packed, 4), nibble);
            __m128i all = _mm_unpacklo_epi8(even, _mm_and_si128(packed, nibble));
            _mm512_storeu_ps(out, _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(all), value));
        }
    }
}

void sf_nf4_turn_avx512(unsigned char *dst, int64_t dst_stride, const unsigned char *src,
                        int64_t src_stride, int64_t rows, int64_t columns)
{
    turn_all(dst, dst_stride, src, src_stride, rows, columns);
}

void sf_nf4_nearest_avx512(uint8_t *q, const float *s, const float middle[255], int64_t count)
{
    nearest_all(q, s, middle, count);
}

void sf_nf4_search_avx512(struct sf_nf4_search_fit *fit, const struct sf_nf4_search_block *block,
                          const struct sf_nf4_search_tables *tables, int64_t blocks)
{
    search_all(fit, block, tables, blocks);
}
#endif
