/* row_private.h -- rows of input_ids (row_ids.c), for row.c. Private to train/data. */
#ifndef SCOUT_TRAIN_DATA_ROW_PRIVATE_H
#define SCOUT_TRAIN_DATA_ROW_PRIVATE_H

#include "train/data/row.h"

int sft_row_encode_ids(struct sft_row_tokens *out, const struct sft_row_encoder *encoder,
                       const struct sf_json *row, struct sf_err *err);

#endif
