/* nf4_search_x86.h -- the search loop in 256-bit pieces, for the AVX2 and the AVX-512 file. */
#ifndef SCOUT_LIBFORMAT_CODEC_NF4_SEARCH_X86_H
#define SCOUT_LIBFORMAT_CODEC_NF4_SEARCH_X86_H

#ifdef __AVX2__
#include "libformat/codec/nf4_kernels.h"
#include "libformat/codec/nf4_x86.h"

/* Sixteen 16-bit numbers as a table of their low and one of their high bytes, in both halves. */
struct search_table {
    __m256i low, high;
};

static inline struct search_table search_table(const int16_t value[16])
{
    __m256i words = load16(value);
    __m256i low = _mm256_and_si256(words, _mm256_set1_epi16(0xff));
    __m256i bytes = _mm256_packus_epi16(low, _mm256_srli_epi16(words, 8));
    return (struct search_table){_mm256_permute4x64_epi64(bytes, 0x88),
                                 _mm256_permute4x64_epi64(bytes, 0xdd)};
}

/* The sum of factor[i] * table[code[i]] over 32 elements, whose codes are packed bytes of two
 * vectors: unpacking undoes the order of packing. */
static inline __m256i search_dot(__m256i codes, struct search_table table, const int16_t *factor)
{
    __m256i l = _mm256_shuffle_epi8(table.low, codes), h = _mm256_shuffle_epi8(table.high, codes);
    __m256i first = _mm256_madd_epi16(_mm256_unpacklo_epi8(l, h), load16(factor));
    __m256i second = _mm256_madd_epi16(_mm256_unpackhi_epi8(l, h), load16(factor + 16));
    return _mm256_add_epi32(first, second);
}

static inline void search_one(struct sf_nf4_search_fit *fit, const struct sf_nf4_search_block *b,
                              const struct sf_nf4_search_tables *tables, struct search_table value,
                              struct search_table square)
{
    __m256i x0 = load16(b->position), x1 = load16(b->position + 16);
    __m256i x2 = load16(b->position + 32), x3 = load16(b->position + 48);
    *fit = (struct sf_nf4_search_fit){0, 0};
    for (int k = 0; k < tables->tries; k++) {
        __m256i c0 = _mm256_setzero_si256(), c1 = c0, c2 = c0, c3 = c0;
        for (int t = 0; t < 15; t++) {
            __m256i limit = _mm256_set1_epi16(tables->limit[k][t]);
            c0 = _mm256_sub_epi16(c0, _mm256_cmpgt_epi16(x0, limit));
            c1 = _mm256_sub_epi16(c1, _mm256_cmpgt_epi16(x1, limit));
            c2 = _mm256_sub_epi16(c2, _mm256_cmpgt_epi16(x2, limit));
            c3 = _mm256_sub_epi16(c3, _mm256_cmpgt_epi16(x3, limit));
        }
        c0 = _mm256_packus_epi16(c0, c1);
        c2 = _mm256_packus_epi16(c2, c3);
        __m256i products = _mm256_add_epi32(search_dot(c0, value, b->product),
                                            search_dot(c2, value, b->product + 32));
        __m256i squares = _mm256_add_epi32(search_dot(c0, square, b->weight),
                                           search_dot(c2, square, b->weight + 32));
        __m256i both = _mm256_hadd_epi32(products, squares); /* p p s s, twice */
        __m128i sum =
            _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        sum = _mm_hadd_epi32(sum, sum);
        sf_nf4_search_keep(fit, _mm_cvtsi128_si32(sum), _mm_extract_epi32(sum, 1));
    }
}

static inline void search_all(struct sf_nf4_search_fit *fit,
                              const struct sf_nf4_search_block *block,
                              const struct sf_nf4_search_tables *tables, int64_t blocks)
{
    struct search_table value = search_table(tables->value), square = search_table(tables->square);
    for (int64_t b = 0; b < blocks; b++)
        search_one(&fit[b], &block[b], tables, value, square);
}

#endif
#endif
