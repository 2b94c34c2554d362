/* nf4.h -- bitsandbytes' NF4 with double quantization: encode and decode, bit for bit.
 *
 * One scale (absmax) per block of 64 consecutive elements of the row-major flattened matrix; a code
 * is the number of thresholds strictly below x / absmax; two codes a byte, the first element in the
 * high nibble. Double quantization ("nesting"): the scales, less their mean (offset), become 8-bit
 * codes of a fixed 256-entry map in groups of 256. Formulas: spec/quantization.md.
 *
 * Pure functions over caller's memory; any number of threads. A matrix of n elements has
 * sf_nf4_blocks(n) blocks and (n + 1) / 2 code bytes; calls on slices must start on whole blocks.
 */
#ifndef SCOUT_LIBFORMAT_CODEC_NF4_H
#define SCOUT_LIBFORMAT_CODEC_NF4_H

#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/codec/nf4_tables.h" /* sf_nf4_code_value[16], thresholds, the 8-bit map */
#include "libformat/tensor/dtype.h"

enum { SF_NF4_BLOCK = 64, SF_NF4_NEST = 256 };

static inline int64_t sf_nf4_blocks(int64_t n)
{
    return (n + SF_NF4_BLOCK - 1) / SF_NF4_BLOCK;
}

static inline int64_t sf_nf4_groups(int64_t blocks)
{
    return (blocks + SF_NF4_NEST - 1) / SF_NF4_NEST;
}

/* What the encoder saw that a weight should not hold. */
struct sf_nf4_findings {
    int64_t nan_count, inf_count;
    int64_t first_bad; /* element index of the first of them, -1 if none */
};

/* Encodes n elements of `src` (bf16, f16 or f32, little-endian, any address) as bitsandbytes' CUDA
 * path does: codes[(n + 1) / 2], absmax[sf_nf4_blocks(n)] float32. NaN and Inf are encoded as that
 * path encodes them and counted in *findings (added up; may be NULL; first_bad must start at -1).
 */
void sf_nf4_encode(uint8_t *codes, float *absmax, const void *src, enum sf_dtype dtype, int64_t n,
                   struct sf_nf4_findings *findings);

/* offset = mean of absmax, summed in float64 in order, rounded once to float32. */
float sf_nf4_offset(const float *absmax, int64_t blocks);
/* q[blocks], nested_absmax[sf_nf4_groups(blocks)] from absmax less `offset`. */
void sf_nf4_nest(uint8_t *q, float *nested_absmax, const float *absmax, int64_t blocks,
                 float offset);
/* absmax[count] of the blocks first_block .. first_block + count: two roundings,
 * fl(fl(map[q] * nested_absmax) + offset). `q` and `nested_absmax` are those of the whole matrix.
 */
void sf_nf4_unnest(float *absmax, const uint8_t *q, const float *nested_absmax,
                   const float map[256], float offset, int64_t first_block, int64_t count);

/* out[count] = bf16(codebook[code] * absmax) as float32, for elements first .. first + count of the
 * matrix; `first` is a multiple of SF_NF4_BLOCK. `codes` are the whole matrix's; `absmax` is
 * restored float32 with absmax[0] belonging to block first / 64. */
void sf_nf4_decode(float *out, const uint8_t *codes, const float *absmax, const float codebook[16],
                   int64_t first, int64_t count);

/* Squared error and squared norm of a matrix against its decoded form, for the report. Sums are
 * float32 inside a block of 64 and float64 over blocks in order, so threads cannot show. */
struct sf_nf4_error {
    double squared_error, squared_norm;
};
void sf_nf4_measure(struct sf_nf4_error *out, const void *src, enum sf_dtype dtype,
                    const uint8_t *codes, const float *absmax, int64_t n);

#endif
