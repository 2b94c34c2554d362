/* entry_decode.h -- the numbers of a container's tensor, whatever its encoding, as float32.
 * Reads through a map; pure otherwise; any number of threads. */
#ifndef SCOUT_LIBFORMAT_CONVERT_ENTRY_DECODE_H
#define SCOUT_LIBFORMAT_CONVERT_ENTRY_DECODE_H

#include "libformat/container/container_map.h"

/* out[count] = elements first .. first + count of the row-major tensor. NF4 gives
 * bf16(codebook[code] * absmax), with the file's own codebook and map; `first` must then be a
 * multiple of 64. SF_EUNSUPPORTED: elements that are no floats, or blocks along an axis. */
int sf_entry_decode(float *out, const struct sf_map *map, const struct sf_entry *entry,
                    int64_t first, int64_t count, struct sf_err *err);

/* out[count] = bf16, f16 or f32 elements at any address. SF_EUNSUPPORTED: no floats. */
int sf_floats_read(float *out, const void *elements, enum sf_dtype dtype, int64_t count,
                   struct sf_err *err);
/* absmax[count] of an NF4 tensor's blocks first .. first + count, restored where it is nested. */
void sf_entry_scales(float *absmax, const struct sf_map *map, const struct sf_entry *entry,
                     int64_t first, int64_t count);

#endif
