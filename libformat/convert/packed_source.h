/* packed_source.h -- a weight whose source is quantized already: its planes as they are, or its
 * numbers, decoded with the source's own codebook and map. Pure; any number of threads. */
#ifndef SCOUT_LIBFORMAT_CONVERT_PACKED_SOURCE_H
#define SCOUT_LIBFORMAT_CONVERT_PACKED_SOURCE_H

#include "libformat/convert/convert_plan.h"
#include "libformat/convert/nf4_planes.h"

/* The planes of a weight of `shape` that `source` (packed) holds. */
struct sf_nf4_planes sf_packed_planes(const struct sf_source *source, const struct sf_shape *shape);

/* Copies them bit for bit into extent[0..), where extent[0] has payload address `base`. Errors
 * against the source are 0. */
void sf_packed_take(unsigned char *extent, uint64_t base, struct sf_convert_row *row);

/* Elements [row, row + rows) x [col, col + cols) as the bf16 numbers that they decode to, with
 * `stride` elements from row to row of `out`. Not for what is taken over flat: blocks down columns. */
void sf_packed_rectangle(uint16_t *out, int64_t stride, const struct sf_convert_row *row_of,
                         int64_t row, int64_t rows, int64_t col, int64_t cols);

#endif
