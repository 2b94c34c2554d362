/* flat_rows.h -- the rows of a small dataset end to end, to be looked at. */
#ifndef SCOUT_TESTS_TRAIN_FLAT_ROWS_H
#define SCOUT_TESTS_TRAIN_FLAT_ROWS_H

#include "tests/support/support.h"
#include "train/data/dataset.h"

enum { FLAT_TOKENS = 1 << 16, FLAT_ROWS = 4096 };

struct flat_rows {
    int32_t id[FLAT_TOKENS], target[FLAT_TOKENS];
    int64_t start[FLAT_ROWS + 1];
};

static inline void flatten(struct flat_rows *out, const struct sft_dataset *data)
{
    ck_assert_int_le(data->rows, FLAT_ROWS);
    ck_assert_int_le(data->tokens, FLAT_TOKENS);
    out->start[0] = 0;
    for (int64_t row = 0; row < data->rows; row++) {
        int64_t at = out->start[row];
        sft_dataset_read(out->id + at, out->target + at, data, row);
        out->start[row + 1] = at + sft_dataset_length(data, row);
    }
    ck_assert_int_eq(out->start[data->rows], data->tokens);
}

#endif
