/* row_error.h -- how far a quantized weight lies from its source: in all, and in its worst block.
 *
 * Pure; sums are float64 in block order, so that threads and instruction sets cannot show. */
#ifndef SCOUT_LIBFORMAT_CONVERT_ROW_ERROR_H
#define SCOUT_LIBFORMAT_CONVERT_ROW_ERROR_H

#include "libformat/convert/convert_plan.h"

/* Takes error[blocks] and norm[blocks], the squares of each block summed (sf_nf4_errors), into the
 * row: its sums, its worst block, and the entry's two errors. A block whose norm is 0 has no
 * relative error and does not count. */
void sf_row_measure(struct sf_convert_row *row, const float *error, const float *norm,
                    int64_t blocks);
/* Norm of the error over norm of the weight; 0 if that is 0. */
double sf_row_error(const struct sf_convert_row *row);
/* The same as a ratio of signal to noise in dB; HUGE_VAL without noise. */
double sf_row_snr(double relative_error);

#endif
