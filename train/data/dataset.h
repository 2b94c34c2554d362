/* dataset.h -- training data: files of text or of token ids become rows of tokens and targets.
 *
 * A file is plain text (.txt) or JSON lines (.jsonl, .json): one object a line, of one of the kinds of
 * row.h, the same throughout the file. Empty lines are skipped.
 *
 * Text in mode BLOCKS: everything tokenized, files of text that follow each other end to end, cut into
 * rows of `max_length` tokens; what is left over at the end is not used, and counted. In mode DOCUMENTS a line, or a .txt file, is a
 * row, as a line of every other kind is. A row that is too long is cut, left out or an error; one with
 * nothing to train on is an error or left out. What was cut or left out is counted, and told row by
 * row, as far as anybody would read.
 *
 * The target of a position is the next token of its row (or the next label); the last position has
 * none. Life: the caller's struct, ended by sft_dataset_free. Threads: read-only once open. */
#ifndef SCOUT_TRAIN_DATA_DATASET_H
#define SCOUT_TRAIN_DATA_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"
#include "train/data/row.h"

enum sft_text_mode { SFT_TEXT_BLOCKS, SFT_TEXT_DOCUMENTS };
enum sft_too_long {
    SFT_LONG_DEFAULT, /* cut, but an error for input_ids, whose makers cut them as they wanted */
    SFT_LONG_TRUNCATE,
    SFT_LONG_SKIP,
    SFT_LONG_ERROR
};
enum sft_untrainable { SFT_UNTRAINABLE_ERROR, SFT_UNTRAINABLE_SKIP };
/* "default", "truncate", "skip", "error"; and "error", "skip". */
bool sft_too_long_from_name(enum sft_too_long *out, const char *name);
bool sft_untrainable_from_name(enum sft_untrainable *out, const char *name);

struct sft_dataset_config {
    const char *const *file; /* [files] */
    int64_t files;
    struct sft_row_encoder encoder; /* tokenizer, chat format, what is trained */
    int64_t max_length;             /* tokens of a row, at least 2 */
    enum sft_text_mode mode;
    enum sft_too_long too_long;
    enum sft_untrainable untrainable;
    /* One sentence for a row that was cut or left out, with file and line; of each sort the first
     * SFT_NOTES_MOST. NULL: not told. */
    void (*on_note)(void *context, const char *text);
    void *context;
    int64_t *file_end; /* [files], filled: the row behind each file's last. Text then ends with its
                          file. NULL: not asked */
};
enum { SFT_NOTES_MOST = 5 };

/* Where a row stands in its file. */
struct sft_row_place {
    int32_t file; /* of the config's; -1: in several, text end to end */
    int32_t line; /* from 1; 0: not lines of rows; the last of them stands for those behind 2^31 */
};

struct sft_dataset {
    int64_t rows;
    int64_t *start;  /* [rows + 1] into id and target */
    int32_t *id;     /* [tokens] */
    int32_t *target; /* [tokens]: the next token, or SFT_NO_TARGET */
    int64_t tokens, targets;
    int64_t longest;                          /* tokens of the longest row */
    int64_t tail_tokens;                      /* BLOCKS: left over at the end */
    int64_t truncated_rows, truncated_tokens; /* rows cut, tokens cut off */
    int64_t long_rows, untrainable_rows;      /* left out: too long, nothing to train on */
    /* Packed (packing.h): a row is documents end to end. Else 0 and NULL: a row is one document. */
    int64_t documents;
    int64_t *document;           /* [documents + 1] into id and target */
    int64_t *first;              /* [rows + 1] into document: each row's */
    int64_t *origin;             /* [documents]: which row it was */
    struct sft_row_place *place; /* [rows before packing] */
    char **file;                 /* [files] names */
    int64_t files;
};

/* SF_EFORMAT names the file and the line or offset: not UTF-8, broken JSON, an id outside the
 * vocabulary, two kinds of rows, a row without a target. SF_EINVAL: no row at all. */
int sft_dataset_open(struct sft_dataset *out, const struct sft_dataset_config *config,
                     struct sf_err *err);
/* "row 17 of the data (chat.jsonl, line 18)" of a row before packing, from 0. */
enum { SFT_PLACE_TEXT = 256 };
const char *sft_dataset_place(char text[SFT_PLACE_TEXT], const struct sft_dataset *data,
                              int64_t row);
void sft_dataset_free(struct sft_dataset *dataset); /* a zeroed one is welcome */
/* Moves rows order[0..rows) into a dataset of their own; the others, and those, stay in their order.
 * Both are copies: for a moment there is room for all tokens twice. SF_EINVAL: none, or all. */
int sft_dataset_split(struct sft_dataset *held_out, struct sft_dataset *data, const int64_t *order,
                      int64_t rows, struct sf_err *err);

/* File f counts weight[f] times: all its rows as often as the whole part says, and of the rest as many
 * more as that is, those that stand first in `order` (a permutation of all rows). taken[f]: its rows
 * then. end[f]: the row behind its last, as sft_dataset_open told. Copies, as split does. SF_EINVAL: a
 * weight that is not above 0 and at most 1000, or leaves a file no row. */
int sft_dataset_weigh(struct sft_dataset *data, const int64_t *end, const double *weight,
                      int64_t files, const int64_t *order, int64_t *taken, struct sf_err *err);

static inline int64_t sft_dataset_length(const struct sft_dataset *dataset, int64_t row)
{
    return dataset->start[row + 1] - dataset->start[row];
}
static inline int64_t sft_dataset_documents(const struct sft_dataset *dataset, int64_t row)
{
    return dataset->first ? dataset->first[row + 1] - dataset->first[row] : 1;
}

#endif
