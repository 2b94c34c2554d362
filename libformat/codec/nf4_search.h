/* nf4_search.h -- NF4 scales chosen for least squared error instead of the block's maximum.
 *
 * The format is the same and every reader decodes the result; only the encoder works harder. For
 * each block a fixed list of scales around absmax is tried; for the codes that one gives, the scale
 * that fits them best follows by least squares; the try with the least error wins. With negative
 * scales allowed, the mirrored codebook (8 levels below zero and 7 above become 7 and 8) is tried,
 * too. An importance per element weighs the squared error. Formulas: spec/quantization.md, section 6.
 *
 * Use: scales from sf_nf4_absmax, then this, then double quantization, then sf_nf4_search_codes
 * against the *restored* scales. Pure functions, any number of threads; sums are of integers, so
 * that all instruction sets (sf_nf4_use) give the same bits. */
#ifndef SCOUT_LIBFORMAT_CODEC_NF4_SEARCH_H
#define SCOUT_LIBFORMAT_CODEC_NF4_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/codec/nf4.h"

struct sf_nf4_search {
    bool negative; /* scales may be negative */
    /* NULL: all elements count the same. Else that of element i is importance[i % channels]: finite,
     * not negative. A block of which all is 0 counts as if it had none. */
    const float *importance;
    int64_t channels;
};

/* scale[b] for n elements of `src` (bf16, f16, f32; whole blocks but the last) whose first is
 * element `first` of the flattened matrix; `absmax` is what sf_nf4_absmax gave, and may be `scale`.
 * Blocks whose absmax is not in [2^-100, 2^126] keep it. */
void sf_nf4_search_scales(float *scale, const float *absmax, const void *src, enum sf_dtype dtype,
                          int64_t first, int64_t n, const struct sf_nf4_search *how);

/* codes[(n + 1) / 2] for scales of either sign and any value: code = the number of thresholds t with
 * fl(t * |scale|) strictly below x, or below -x where the scale is negative. A scale whose
 * magnitude is not in [2^-100, 2^126] gives code 7 (zero) everywhere. */
void sf_nf4_search_codes(uint8_t *codes, const void *src, enum sf_dtype dtype, const float *scale,
                         int64_t n);

#endif
