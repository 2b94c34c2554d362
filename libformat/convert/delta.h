/* delta.h -- an adapter's delta added to a tile of a weight: what export and merge do with adapters.
 *
 * weight += scale * B A in float32, products added rank by rank from the first, then scaled, then
 * added: PEFT's order, and the same for any cut into tiles. Pure; any number of threads. */
#ifndef SCOUT_LIBFORMAT_CONVERT_DELTA_H
#define SCOUT_LIBFORMAT_CONVERT_DELTA_H

#include "libformat/adapter/adapter_file.h"

/* delta[row, col] = scale * sum over k of left[row * left_row + k * left_rank]
 *                                       * right[k * right_rank + col * right_col] */
struct sf_delta {
    const float *left, *right;
    int64_t left_row, left_rank, right_rank, right_col, rank;
    float scale;
};

/* Of group `group`, rows [out_first, ..) of [out, in]: as containers, linear modules and experts one
 * by one have it. */
struct sf_delta sf_delta_of(const struct sf_adapter_module *m, int64_t group, int64_t out_first);
/* The same as [in, out]: as Hugging Face's fused experts have it. */
struct sf_delta sf_delta_turned(const struct sf_adapter_module *m, int64_t group);

/* tile[rows][stride] += delta[row .. row + rows, col .. col + cols] */
void sf_delta_add(float *tile, int64_t stride, const struct sf_delta *delta, int64_t row,
                  int64_t rows, int64_t col, int64_t cols);

/* Which module of `adapter` adapts the weight of `role` (experts one by one, or expert -1: all), and
 * which of its rows are that weight's; NULL: none. */
const struct sf_adapter_module *
sf_delta_module(int64_t *out_first, const struct sf_adapter *adapter, struct sf_role role);

#endif
