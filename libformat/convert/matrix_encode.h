/* matrix_encode.h -- one weight from its source elements to the planes of its container tensor.
 *
 * Sources are read where they lie; [in, out] ones (routed experts) are turned a tile at a time.
 * Threads: one call a worker, each with its own scratch. Results do not depend on tile sizes. */
#ifndef SCOUT_LIBFORMAT_CONVERT_MATRIX_ENCODE_H
#define SCOUT_LIBFORMAT_CONVERT_MATRIX_ENCODE_H

#include "libformat/convert/convert_plan.h"

/* Working memory of one worker, sized for the largest matrix of a plan. */
struct sf_encode_scratch {
    void *block;         /* the one allocation behind the rest */
    unsigned char *tile; /* for sf_tile_at */
    float *absmax;       /* or searched; one per block of the largest matrix, as the next three: */
    float *restored;     /* absmax after double quantization */
    float *error, *norm; /* sums of squares */
};

int sf_encode_scratch_open(struct sf_encode_scratch *out, const struct sf_convert_plan *plan,
                           struct sf_err *err);
void sf_encode_scratch_close(struct sf_encode_scratch *scratch);

/* Writes the planes of row->entry (not the shared codebooks) into extent[0..), where
 * extent[0] has payload address `base`; scales as row->scale says. Sets entry->relative_rms_error. A weight that text training
 * uses and that holds NaN or Inf is refused: SF_ENUMERIC with the element. */
int sf_matrix_encode(unsigned char *extent, uint64_t base, struct sf_convert_row *row,
                     struct sf_encode_scratch *scratch, struct sf_err *err);

/* SF_ENUMERIC naming the first NaN or Inf among `count` elements; `first` is the index of
 * elements[0] in its tensor. */
int sf_check_finite(const void *elements, enum sf_dtype dtype, int64_t first, int64_t count,
                    const char *name, struct sf_err *err);

#endif
