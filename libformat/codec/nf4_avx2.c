/* NF4's loops for AVX2. Meaning: nf4_kernels.h and nf4_portable.c. */
#if defined(__x86_64__)
#include "libformat/codec/nf4_kernels.h"
#include "libformat/codec/nf4_search_x86.h"
#include "libformat/codec/nf4_x86.h"

enum { BLOCK = SF_NF4_BLOCK };

/* Of each 16-bit lane's magnitude; bf16 magnitudes sort as integers. */
static __m256i largest(__m256i top, __m256i x)
{
    return _mm256_max_epi16(top, _mm256_and_si256(x, _mm256_set1_epi16(0x7fff)));
}

void sf_nf4_tops_avx2(uint16_t *top, const unsigned char *src, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK) {
        __m256i most = _mm256_setzero_si256();
        for (int v = 0; v < 4; v++)
            most = largest(most, load16(src + 32 * v));
        __m128i half =
            _mm_max_epi16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        /* minpos finds a minimum: of the complements */
        half = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi16(-1)));
        top[b] = (uint16_t)~_mm_extract_epi16(half, 0);
    }
}

void sf_nf4_tops_down_avx2(uint16_t *top, const unsigned char *src, int64_t stride, int64_t columns)
{
    int64_t c = 0;
    for (int r = 0; r < BLOCK; r++) {
        const unsigned char *row = src + 2 * r * stride;
        for (c = 0; c + 16 <= columns; c += 16) {
            __m256i before = r ? load16(top + c) : _mm256_setzero_si256();
            _mm256_storeu_si256((__m256i *)(void *)(top + c), largest(before, load16(row + 2 * c)));
        }
    }
    if (c < columns)
        sf_nf4_tops_down_portable(top + c, src + 2 * c, stride, columns - c);
}

/* The fifteen limits of a block as 16-bit sort keys; see threshold_key in nf4_portable.c. */
static void limits_of(int16_t limit[16], float absmax)
{
    __m256 a = _mm256_set1_ps(absmax);
    /* thresholds 0 .. 6 are negative, 7 .. 14 positive; lane 7 of the first is not used */
    __m256 below = _mm256_loadu_ps(sf_nf4_threshold), above = _mm256_loadu_ps(sf_nf4_threshold + 7);
    __m256i low = _mm256_castps_si256(_mm256_mul_ps(below, a));
    __m256i high = _mm256_castps_si256(_mm256_mul_ps(above, a));
    low = _mm256_and_si256(low, _mm256_set1_epi32(0x7fffffff));
    low = _mm256_srli_epi32(_mm256_add_epi32(low, _mm256_set1_epi32(0xffff)), 16);
    low = _mm256_xor_si256(low, _mm256_set1_epi32(-1));
    high = _mm256_srli_epi32(high, 16);
    __m256i keys = _mm256_packs_epi32(low, high); /* low 0-3, high 0-3, low 4-7, high 4-7 */
    keys = _mm256_permute4x64_epi64(keys, 0xd8);
    _mm_storeu_si128((__m128i *)(void *)limit, _mm256_castsi256_si128(keys));
    _mm_storeu_si128((__m128i *)(void *)(limit + 7), _mm256_extracti128_si256(keys, 1));
}

/* Integers that sort as the numbers do; subnormals are zeros. */
static __m256i sort_keys(__m256i x)
{
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);
    __m256i flips = _mm256_and_si256(_mm256_srai_epi16(x, 15), magnitude);
    __m256i normal = _mm256_cmpgt_epi16(_mm256_and_si256(x, magnitude), _mm256_set1_epi16(0x007f));
    return _mm256_and_si256(_mm256_xor_si256(x, flips), normal);
}

/* 32 bytes of codes, their dwords in the order 0 2 4 6 1 3 5 7. */
static __m256i codes_of(const unsigned char *src, float absmax)
{
    int16_t limit[16];
    __m256i key[4], count[4];
    limits_of(limit, absmax);
    for (int v = 0; v < 4; v++) {
        key[v] = sort_keys(load16(src + 32 * v));
        count[v] = _mm256_setzero_si256();
    }
    for (int t = 0; t < 15; t++) {
        __m256i above = _mm256_set1_epi16(limit[t]);
        for (int v = 0; v < 4; v++)
            count[v] = _mm256_sub_epi16(count[v], _mm256_cmpgt_epi16(key[v], above));
    }
    const __m256i weights = _mm256_set1_epi16(0x0110); /* bytes 16, 1: even * 16 + odd */
    __m256i first = _mm256_maddubs_epi16(_mm256_packus_epi16(count[0], count[1]), weights);
    __m256i second = _mm256_maddubs_epi16(_mm256_packus_epi16(count[2], count[3]), weights);
    return _mm256_packus_epi16(first, second);
}

void sf_nf4_codes_avx2(uint8_t *codes, const unsigned char *src, const float *absmax,
                       int64_t blocks)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK, codes += BLOCK / 2) {
        __m256i packed = _mm256_permutevar8x32_epi32(codes_of(src, absmax[b]), in_order);
        _mm256_storeu_si256((__m256i *)(void *)codes, packed);
    }
}

/* The 16 bf16 values of a block as two tables of bytes, each in both halves. */
static void tables_of(__m256i *low, __m256i *high, float absmax)
{
    __m256 a = _mm256_set1_ps(absmax);
    __m256i first = round_values(_mm256_mul_ps(_mm256_loadu_ps(sf_nf4_code_value), a));
    __m256i second = round_values(_mm256_mul_ps(_mm256_loadu_ps(sf_nf4_code_value + 8), a));
    __m256i words =
        _mm256_packus_epi32(_mm256_srli_epi32(first, 16), _mm256_srli_epi32(second, 16));
    words = _mm256_permute4x64_epi64(words, 0xd8);
    __m256i bytes = _mm256_packus_epi16(_mm256_and_si256(words, _mm256_set1_epi16(0xff)),
                                        _mm256_srli_epi16(words, 8));
    *low = _mm256_permute4x64_epi64(bytes, 0x88);  /* quads 0 2 0 2 */
    *high = _mm256_permute4x64_epi64(bytes, 0xdd); /* quads 1 3 1 3 */
}

/* value[v]: float32 of every other element of 16 v .. 16 v + 16, from their codes in `nibbles`. */
static void look_up(__m256i value[4], __m256i nibbles, __m256i low, __m256i high)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i l = _mm256_shuffle_epi8(low, nibbles), h = _mm256_shuffle_epi8(high, nibbles);
    __m256i front = _mm256_unpacklo_epi8(l, h), back = _mm256_unpackhi_epi8(l, h);
    value[0] = _mm256_unpacklo_epi16(zero, front);
    value[1] = _mm256_unpackhi_epi16(zero, front);
    value[2] = _mm256_unpacklo_epi16(zero, back);
    value[3] = _mm256_unpackhi_epi16(zero, back);
}

static void add_squares(__m256 *error, __m256 *norm, __m256 x, __m256i y)
{
    __m256 d = _mm256_sub_ps(_mm256_castsi256_ps(y), x);
    *error = _mm256_add_ps(*error, _mm256_mul_ps(d, d));
    *norm = _mm256_add_ps(*norm, _mm256_mul_ps(x, x));
}

void sf_nf4_errors_avx2(float *error, float *norm, const unsigned char *src, const uint8_t *codes,
                        const float *absmax, int64_t blocks)
{
    const __m256i by_lane = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    const __m256i nibble = _mm256_set1_epi8(15), upper = _mm256_set1_epi32(-65536);
    for (int64_t b = 0; b < blocks; b++, src += 2 * BLOCK, codes += BLOCK / 2) {
        __m256i low, high, even[4], odd[4];
        tables_of(&low, &high, absmax[b]);
        __m256i packed = _mm256_permutevar8x32_epi32(load16(codes), by_lane);
        look_up(even, _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble), low, high);
        look_up(odd, _mm256_and_si256(packed, nibble), low, high);
        __m256 ee = _mm256_setzero_ps(), eo = ee, ne = ee, no = ee;
        for (int v = 0; v < 4; v++) {
            __m256i x = load16(src + 32 * v);
            add_squares(&ee, &ne, _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), even[v]);
            add_squares(&eo, &no, _mm256_castsi256_ps(_mm256_and_si256(x, upper)), odd[v]);
        }
        __m128 sums = fold_pair(ee, eo, ne, no);
        _mm_store_ss(error + b, sums);
        _mm_store_ss(norm + b, _mm_movehdup_ps(sums));
    }
}

/* Eight floats for the eight codes in the low bits of `index`: bit 3 chooses the table. */
static __m256 value_of(__m256i index, __m256 first, __m256 second)
{
    __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(first, index),
                            _mm256_permutevar8x32_ps(second, index), upper);
}

void sf_nf4_decode_avx2(float *out, const uint8_t *codes, const float *absmax,
                        const float codebook[16], int64_t blocks)
{
    const __m128i nibble = _mm_set1_epi8(15);
    for (int64_t b = 0; b < blocks; b++, codes += BLOCK / 2) {
        __m256 a = _mm256_set1_ps(absmax[b]);
        __m256i first = round_values(_mm256_mul_ps(_mm256_loadu_ps(codebook), a));
        __m256i second = round_values(_mm256_mul_ps(_mm256_loadu_ps(codebook + 8), a));
        for (int i = 0; i < BLOCK / 2; i += 8, out += 16) {
            __m128i packed = _mm_loadl_epi64((const __m128i *)(const void *)(codes + i));
            __m128i even = _mm_and_si128(_mm_srli_epi16(packed, 4), nibble);
            __m128i all = _mm_unpacklo_epi8(even, _mm_and_si128(packed, nibble));
            _mm256_storeu_ps(out, value_of(_mm256_cvtepu8_epi32(all), _mm256_castsi256_ps(first),
                                           _mm256_castsi256_ps(second)));
            _mm256_storeu_ps(out + 8,
                             value_of(_mm256_cvtepu8_epi32(_mm_srli_si128(all, 8)),
                                      _mm256_castsi256_ps(first), _mm256_castsi256_ps(second)));
        }
    }
}

void sf_nf4_turn_avx2(unsigned char *dst, int64_t dst_stride, const unsigned char *src,
                      int64_t src_stride, int64_t rows, int64_t columns)
{
    turn_all(dst, dst_stride, src, src_stride, rows, columns);
}

void sf_nf4_nearest_avx2(uint8_t *q, const float *s, const float middle[255], int64_t count)
{
    nearest_all(q, s, middle, count);
}

void sf_nf4_search_avx2(struct sf_nf4_search_fit *fit, const struct sf_nf4_search_block *block,
                        const struct sf_nf4_search_tables *tables, int64_t blocks)
{
    search_all(fit, block, tables, blocks);
}
#endif
