/* entry_decode.h -- the numbers of a container's tensor, whatever its encoding, as float32.
 * Reads through a map; pure otherwise; any number of threads. */
#ifndef SCOUT_LIBFORMAT_CONVERT_ENTRY_DECODE_H
#define SCOUT_LIBFORMAT_CONVERT_ENTRY_DECODE_H

#include "libformat/container/container_map.h"
#include "libformat/convert/nf4_planes.h"

/* out[count] = elements first .. first + count of the row-major tensor. NF4 gives
 * bf16(codebook[code] * absmax), with the file's own codebook and map; `first` must then be a
 * multiple of 64. SF_EUNSUPPORTED: elements that are no floats, or other blocks than ours. */
int sf_entry_decode(float *out, const struct sf_map *map, const struct sf_entry *entry,
                    int64_t first, int64_t count, struct sf_err *err);

/* The planes of an NF4 matrix: blocks of 64, nested by 256 or not, flat or along either axis.
 * SF_EUNSUPPORTED: others. */
int sf_entry_planes(struct sf_nf4_planes *out, const struct sf_map *map,
                    const struct sf_entry *entry, struct sf_err *err);
/* out[rows, cols] of a matrix, from (row, col) on; where it is NF4, as sf_nf4_planes_rectangle. */
int sf_entry_rectangle(float *out, const struct sf_map *map, const struct sf_entry *entry,
                       int64_t row, int64_t rows, int64_t col, int64_t cols, struct sf_err *err);

/* out[count] = bf16, f16 or f32 elements at any address. SF_EUNSUPPORTED: no floats. */
int sf_floats_read(float *out, const void *elements, enum sf_dtype dtype, int64_t count,
                   struct sf_err *err);
/* absmax[count] of an NF4 tensor's blocks first .. first + count, restored where it is nested. */
void sf_entry_scales(float *absmax, const struct sf_map *map, const struct sf_entry *entry,
                     int64_t first, int64_t count);

#endif
