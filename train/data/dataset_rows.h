/* dataset_rows.h -- the lines of a data file as rows. Private to train/data. */
#ifndef SCOUT_TRAIN_DATA_DATASET_ROWS_H
#define SCOUT_TRAIN_DATA_DATASET_ROWS_H

#include "train/data/dataset.h"

/* Rows under way: lists that grow. */
struct row_builder {
    const struct sft_dataset_config *config;
    struct sft_row_tokens tokens;    /* of the row in hand */
    enum sft_row_kind kind;          /* of the file in hand */
    const char *kind_file;           /* where it was seen first; NULL: no row of the file yet */
    int64_t kind_line;               /* 0: a .txt file */
    struct sf_ids id, label, length; /* length: one per row */
    int64_t text; /* mode BLOCKS: where text begins that is not cut into rows yet; -1: nowhere */
    int32_t text_file;   /* the file that it is in; -1: several */
    struct sf_ids place; /* two for each row: struct sft_row_place */
    int64_t tail_tokens;
    int32_t file_number; /* of the file in hand */
    int64_t truncated_rows, truncated_tokens, long_rows, untrainable_rows;
    const char *file; /* being read, and the line in hand; 0: a .txt file */
    int64_t line;
};

/* Adds one file, by the ending of its name. Messages name the file. */
int rows_add_file(struct row_builder *b, const char *path, struct sf_err *err);
/* out->file: a copy of these names, one block. */
int rows_name_files(struct sft_dataset *out, const char *const *file, int64_t files,
                    struct sf_err *err);
/* Mode BLOCKS: text that is under way becomes rows; what is left over at its end is not used. */
int rows_end_text(struct row_builder *b, struct sf_err *err);

#endif
