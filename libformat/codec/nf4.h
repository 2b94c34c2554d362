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

#include <stdbool.h>
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

/* The two halves of sf_nf4_encode, for a source that is walked twice: all absmax first, then, when
 * the restored scales are known, codes and errors while the elements are in cache.
 *
 * The second takes the first's absmax; `src` without NaN and Inf. */
void sf_nf4_absmax(float *absmax, const void *src, enum sf_dtype dtype, int64_t n,
                   struct sf_nf4_findings *findings);
void sf_nf4_codes(uint8_t *codes, const void *src, enum sf_dtype dtype, const float *absmax,
                  int64_t n);
/* absmax of blocks that run down the columns of a bf16 source [64, stride], which is so never
 * turned: absmax[c * step] is that of column c < columns. A finding's place is not told. */
void sf_nf4_absmax_down(float *absmax, int64_t step, const void *src, int64_t stride,
                        int64_t columns, struct sf_nf4_findings *findings);

/* Transposes: dst[c * dst_stride + r] = src[r * src_stride + c] for r < rows, c < columns. Elements
 * of 2 or 4 bytes at any address, strides in elements. */
void sf_nf4_turn(void *dst, int64_t dst_stride, const void *src, int64_t src_stride, int64_t rows,
                 int64_t columns, enum sf_dtype dtype);

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

/* Squared error against the decoded form, and squared norm, of every block: error[b], norm[b] for
 * n elements in sf_nf4_blocks(n) blocks. float32 in this order: the products of elements j, j + 16,
 * j + 32, j + 48 are added into lane j in turn; then lane j and lane j + 8, j + 4, j + 2, j + 1.
 * Elements that a short last block lacks count as exact. */
void sf_nf4_errors(float *error, float *norm, const void *src, enum sf_dtype dtype,
                   const uint8_t *codes, const float *absmax, int64_t n);

/* Those of a matrix: float64 over blocks in order, so neither threads nor tiles can show. */
struct sf_nf4_error {
    double squared_error, squared_norm;
};
void sf_nf4_error_add(struct sf_nf4_error *sum, const float *error, const float *norm,
                      int64_t blocks);
/* Both at once; *out starts at zero. */
void sf_nf4_measure(struct sf_nf4_error *out, const void *src, enum sf_dtype dtype,
                    const uint8_t *codes, const float *absmax, int64_t n);

/* Which instructions do it: "avx512", "avx2", "neon" or "portable"; all give the same bits. The
 * best that the processor has, or what the environment variable SCOUT_NF4 names (sf_nf4_check_choice
 * says whether it can be had; where not, the best). sf_nf4_use changes it for the whole process and
 * returns false, changing nothing, where `path` is unknown or the processor lacks it; NULL goes back to the best. */
bool sf_nf4_use(const char *path);
const char *sf_nf4_path(void);
/* SF_EINVAL, with the names to choose from, where SCOUT_NF4 names nothing that this processor has.
 * For programs, before they begin. */
int sf_nf4_check_choice(struct sf_err *err);

#endif
