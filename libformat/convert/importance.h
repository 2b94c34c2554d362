/* importance.h -- how much each input channel of a matrix counts when its scales are searched.
 *
 * A safetensors file (f32, bf16 or f16) with one vector per matrix, such as the mean square of what
 * a channel carries in calibration. A vector is found under the matrix's name in the container, or
 * under the name of the source tensor: [in] for one matrix or for all experts of a stacked tensor,
 * [experts, in] for each expert its own. Matrices without one count all channels the same. */
#ifndef SCOUT_LIBFORMAT_CONVERT_IMPORTANCE_H
#define SCOUT_LIBFORMAT_CONVERT_IMPORTANCE_H

#include "libformat/codec/frame.h"
#include "libformat/container/entry.h"

struct sf_importance;

/* Reads all of it. SF_ENUMERIC with name and place for a number that is negative, NaN or Inf, and
 * for a vector of zeros. The caller owns *out and ends it with sf_importance_close. */
int sf_importance_open(struct sf_importance **out, const char *path, struct sf_err *err);
void sf_importance_close(struct sf_importance *importance); /* NULL is welcome */
/* Of everything in it: tells one file from another. */
struct sf_hash128 sf_importance_hash(const struct sf_importance *importance);

/* *out[in] borrows; NULL where the file has none for this matrix. Marks what was found. SF_EFORMAT
 * with both shapes where it does not fit. */
int sf_importance_find(const float **out, struct sf_importance *importance,
                       const struct sf_entry *entry, int64_t experts, struct sf_err *err);
/* SF_EINVAL naming the first vector that never was found; forgets all marks. */
int sf_importance_check_used(struct sf_importance *importance, struct sf_err *err);

#endif
