/* dataset_rows.h -- the lines of a data file as rows. Private to train/data. */
#ifndef SCOUT_TRAIN_DATA_DATASET_ROWS_H
#define SCOUT_TRAIN_DATA_DATASET_ROWS_H

#include "train/data/dataset.h"

/* Rows under way: lists that grow. */
struct row_builder {
    const struct sft_dataset_config *config;
    struct sft_row_tokens tokens; /* of the row in hand */
    enum sft_row_kind kind;
    const char *kind_file;           /* where the kind was first seen; NULL: no row yet */
    int64_t kind_line;               /* 0: a .txt file */
    struct sf_ids id, label, length; /* label: not for text; length: one per row */
    int64_t truncated_rows, truncated_tokens, long_rows, untrainable_rows;
    const char *file; /* being read, and the line in hand; 0: a .txt file */
    int64_t line;
};

/* Adds one file, by the ending of its name. Messages name the file. */
int rows_add_file(struct row_builder *b, const char *path, struct sf_err *err);

#endif
