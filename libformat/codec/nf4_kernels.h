/* nf4_kernels.h -- the loops of NF4 that are written once per instruction set; for libformat/codec.
 *
 * One file per set (nf4_portable.c, nf4_avx2.c, ...), the same names with the set's suffix, one
 * place that chooses (nf4_dispatch.c). All sets give the same bits: the loops round every operation
 * by itself and add in the order that nf4.h defines. What is rare (NaN, Inf, blocks of zeros, short
 * last blocks, float16 and float32 sources) stays with the callers in nf4.c. */
#ifndef SCOUT_LIBFORMAT_CODEC_NF4_KERNELS_H
#define SCOUT_LIBFORMAT_CODEC_NF4_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* `src` is bf16, little-endian, at any address; blocks are whole.
 *
 * tops       top[b] = the largest 15-bit magnitude of block b.
 * tops_down  top[c] = the largest magnitude of 64 rows' column c; strides in elements.
 * codes      codes[32 * blocks] for the given absmax, each a bf16 number in [2^-126, 2^126];
 *            other absmax give arbitrary codes. Codes of NaN are arbitrary.
 * errors     error[b] and norm[b]: the sums over block b of (decoded - x)^2 and of x^2.
 * decode     out[64 * blocks] as sf_nf4_decode.
 * turn       dst[c * dst_stride + r] = src[r * src_stride + c] for 16-bit elements; rows and
 *            columns are multiples of 16.
 * nearest    q[i] = the number of middle[0..255) strictly below s[i], and one more where s[i] equals
 *            the middle above an odd q; 0 for NaN. count is a multiple of 16.
 * search     of each block the best of the tries; see nf4_search.c for the units. Exact: integers. */
struct sf_nf4_search_tables {
    int tries;
    int16_t limit[24][16];         /* [try][15]: thresholds in positions; the last is not used */
    int16_t value[16], square[16]; /* what a code stands for, and its square */
};
struct sf_nf4_search_block {
    int16_t position[64]; /* of the elements, for comparing with limits */
    int16_t weight[64];   /* and their importance, */
    int16_t product[64];  /* and importance times element */
};
/* The first try of the largest products^2 / squares, among those with products > 0; 0 and 0 without
 * one. products = sum of product * value, squares = sum of weight * square. */
struct sf_nf4_search_fit {
    int32_t products, squares;
};

/* Keeps the better of two tries, the earlier of equals, and tells whether it is the new one: by
 * p^2 / s without dividing. float64 in this order is the same everywhere. */
static inline bool sf_nf4_search_keep(struct sf_nf4_search_fit *best, int32_t products,
                                      int32_t squares)
{
    double p = products, q = best->products;
    bool better = products > 0 && squares > 0 &&
                  (best->products == 0 || p * p * best->squares > q * q * squares);
    if (better)
        *best = (struct sf_nf4_search_fit){products, squares};
    return better;
}

#define SF_NF4_KERNELS(path)                                                                       \
    void sf_nf4_tops_##path(uint16_t *top, const unsigned char *src, int64_t blocks);              \
    void sf_nf4_tops_down_##path(uint16_t *top, const unsigned char *src, int64_t stride,          \
                                 int64_t columns);                                                 \
    void sf_nf4_codes_##path(uint8_t *codes, const unsigned char *src, const float *absmax,        \
                             int64_t blocks);                                                      \
    void sf_nf4_errors_##path(float *error, float *norm, const unsigned char *src,                 \
                              const uint8_t *codes, const float *absmax, int64_t blocks);          \
    void sf_nf4_decode_##path(float *out, const uint8_t *codes, const float *absmax,               \
                              const float codebook[16], int64_t blocks);                           \
    void sf_nf4_turn_##path(unsigned char *dst, int64_t dst_stride, const unsigned char *src,      \
                            int64_t src_stride, int64_t rows, int64_t columns);                    \
    void sf_nf4_nearest_##path(uint8_t *q, const float *s, const float middle[255],                \
                               int64_t count);                                                     \
    void sf_nf4_search_##path(struct sf_nf4_search_fit *fit,                                       \
                              const struct sf_nf4_search_block *block,                             \
                              const struct sf_nf4_search_tables *tables, int64_t blocks)

SF_NF4_KERNELS(portable);
SF_NF4_KERNELS(avx2);
SF_NF4_KERNELS(avx512);
SF_NF4_KERNELS(neon);

struct sf_nf4_kernels {
    const char *name;
    void (*tops)(uint16_t *, const unsigned char *, int64_t);
    void (*tops_down)(uint16_t *, const unsigned char *, int64_t, int64_t);
    void (*codes)(uint8_t *, const unsigned char *, const float *, int64_t);
    void (*errors)(float *, float *, const unsigned char *, const uint8_t *, const float *,
                   int64_t);
    void (*decode)(float *, const uint8_t *, const float *, const float *, int64_t);
    void (*turn)(unsigned char *, int64_t, const unsigned char *, int64_t, int64_t, int64_t);
    void (*nearest)(uint8_t *, const float *, const float *, int64_t);
    void (*search)(struct sf_nf4_search_fit *, const struct sf_nf4_search_block *,
                   const struct sf_nf4_search_tables *, int64_t);
};

/* The set in use: the one asked for, or the best that this processor has. */
const struct sf_nf4_kernels *sf_nf4_kernels(void);

#endif
