/* extract.h -- some tensors of a container as a .npy or .safetensors file.
 *
 * Three forms: the planes as they are stored, or the numbers that they stand for, as bf16 or
 * float32. A .npy takes one plane of one tensor; a .safetensors any number of tensors, and of raw
 * quantized ones every plane as "<name>.<plane>". The file appears whole or not at all. Memory: a
 * few MiB, whatever is extracted. */
#ifndef SCOUT_LIBFORMAT_CONVERT_EXTRACT_H
#define SCOUT_LIBFORMAT_CONVERT_EXTRACT_H

#include "libformat/container/container_map.h"

enum sf_extract_form { SF_EXTRACT_RAW, SF_EXTRACT_BF16, SF_EXTRACT_F32 };

struct sf_extract_options {
    enum sf_extract_form form;
    /* Rows first .. end of the first axis of every tensor; end 0: all. Raw quantized tensors can be
     * cut in their codes alone, where a row is a whole number of bytes. */
    int64_t first_row, end_row;
    const char *plane; /* RAW: this plane alone ("codes", "scale", ...); NULL: codes in a .npy,
                          every plane in a .safetensors */
};

/* `path` ends in .npy or .safetensors. SF_EINVAL: two tensors for a .npy, rows that are not there,
 * a plane that a tensor lacks. SF_EUNSUPPORTED: elements that cannot become floats. */
int sf_extract(const char *path, const struct sf_map *map, const struct sf_entry *const *entry,
               int64_t count, const struct sf_extract_options *options, struct sf_err *err);

#endif
