/* dataset_private.h -- what the parts of dataset.h share. */
#ifndef SCOUT_TRAIN_DATA_DATASET_PRIVATE_H
#define SCOUT_TRAIN_DATA_DATASET_PRIVATE_H

#include "train/data/dataset.h"

/* out->document, rows, tokens, targets and longest: rows row[0..rows) of its source (NULL: the first
 * `rows`), in that order; a row may stand there more than once. Leaves the rest of *out alone. */
int dataset_select(struct sft_dataset *out, const int64_t *row, int64_t rows, struct sf_err *err);

/* A hash of everything that the tokens follow from: the files' names and bytes, and the options. */
int dataset_key(struct sf_hash128 *out, const struct sft_dataset_config *config,
                struct sf_err *err);

#endif
