/* dataset_rows.h -- data files as rows: cut, left out or refused as asked, and counted. Private to
 * train/data. */
#ifndef SCOUT_TRAIN_DATA_DATASET_ROWS_H
#define SCOUT_TRAIN_DATA_DATASET_ROWS_H

#include "train/data/dataset.h"

/* All files of `config`, into memory or, if `path` is given, a file of this key. */
int rows_read(struct sft_tokens **out, const struct sft_dataset_config *config, const char *path,
              struct sf_hash128 key, struct sf_err *err);

#endif
