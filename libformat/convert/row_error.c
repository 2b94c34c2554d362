#include "libformat/convert/row_error.h"

#include <float.h>
#include <math.h>

double sf_row_error(const struct sf_convert_row *row)
{
    return row->squared_norm > 0 ? sqrt(row->squared_error / row->squared_norm) : 0;
}

double sf_row_snr(double relative_error)
{
    return relative_error > 0 ? -20 * log10(relative_error) : HUGE_VAL;
}

void sf_row_measure(struct sf_convert_row *row, const float *error, const float *norm,
                    int64_t blocks)
{
    double worst = 0;
    row->squared_error = row->squared_norm = 0;
    row->worst_block = 0;
    for (int64_t i = 0; i < blocks; i++) {
        row->squared_error += error[i];
        row->squared_norm += norm[i];
        double ratio = norm[i] > 0 ? (double)error[i] / norm[i] : 0;
        if (ratio > worst) {
            worst = ratio;
            row->worst_block = i;
        }
    }
    worst = sqrt(worst);
    row->entry->worst_block_error = worst > FLT_MAX ? FLT_MAX : (float)worst;
    row->entry->relative_rms_error = sf_row_error(row);
}
