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
 * none.
 *
 * Lines are tokenized on `threads` threads, with the same result whatever their number. A dataset is a
 * list over the rows that were read (tokens.h): parts held out, files that count more, and packs are
 * other lists over the same tokens. With a `cache` file these are on disk and mapped, made once for the
 * same data and options; without, they are in memory.
 *
 * Life: the caller's struct, ended by sft_dataset_free. Threads: read-only once open. */
#ifndef SCOUT_TRAIN_DATA_DATASET_H
#define SCOUT_TRAIN_DATA_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"
#include "train/data/row.h"
#include "train/data/tokens.h"

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
    int threads; /* that tokenize; below 1: one */
    /* One sentence for a row that was cut or left out, with file and line; of each sort the first
     * SFT_NOTES_MOST. And one for a cache that is not as it was written. NULL: not told. */
    void (*on_note)(void *context, const char *text);
    void (*on_progress)(void *context, uint64_t done,
                        uint64_t bytes); /* of the files; may be NULL */
    bool (*interrupted)(void);           /* asked now and then: SF_EINTERRUPTED; may be NULL */
    void *context;
    int64_t *file_end; /* [files], filled: the row behind each file's last. Text then ends with its
                          file. NULL: not asked */
    const char *cache; /* file for the tokens, its folder is there; NULL: memory */
    const char
        *cache_identity; /* what else they follow from: the tokenizer, the program's version */
};
enum { SFT_NOTES_MOST = 5 };

struct sft_dataset {
    struct sft_tokens *source; /* all rows that were read, shared */
    int64_t rows, documents;   /* packed (packing.h), a row is documents end to end; else one */
    int64_t *document;         /* [documents]: which row of the source each is */
    int64_t *first;            /* [rows + 1] into document; NULL: not packed */
    int64_t tokens, targets;
    int64_t longest; /* tokens of the longest row */
    struct sft_token_counts counts;
    bool cached; /* the tokens were there already */
};

/* SF_EFORMAT names the file and the line or offset: not UTF-8, broken JSON, an id outside the
 * vocabulary, two kinds of rows, a row without a target. SF_EINVAL: no row at all. */
int sft_dataset_open(struct sft_dataset *out, const struct sft_dataset_config *config,
                     struct sf_err *err);
/* All rows of `source`, which is the dataset's from here on, whether or not there is an error. */
int sft_dataset_over(struct sft_dataset *out, struct sft_tokens *source, struct sf_err *err);
/* "row 17 of the data (chat.jsonl, line 18)" of a row of the source, from 0. */
enum { SFT_PLACE_TEXT = 256 };
const char *sft_dataset_place(char text[SFT_PLACE_TEXT], const struct sft_dataset *data,
                              int64_t row);
void sft_dataset_free(struct sft_dataset *dataset); /* a zeroed one is welcome */
/* Moves rows order[0..rows) into a dataset of their own; the others, and those, stay in their order.
 * SF_EINVAL: none, or all. */
int sft_dataset_split(struct sft_dataset *held_out, struct sft_dataset *data, const int64_t *order,
                      int64_t rows, struct sf_err *err);

/* File f counts weight[f] times: all its rows as often as the whole part says, and of the rest as many
 * more as that is, those that stand first in `order` (a permutation of all rows). taken[f]: its rows
 * then. end[f]: the row behind its last, as sft_dataset_open told. SF_EINVAL: a weight that is not above
 * 0 and at most 1000, or leaves a file no row. */
int sft_dataset_weigh(struct sft_dataset *data, const int64_t *end, const double *weight,
                      int64_t files, const int64_t *order, int64_t *taken, struct sf_err *err);

/* ---- rows and documents ---- */

/* Document d of the dataset, as it was read. */
static inline const struct sft_token_row *sft_dataset_document(const struct sft_dataset *data,
                                                               int64_t d)
{
    return &data->source->row[data->document[d]];
}
/* The first document of a row; of row `rows` one more than there are. */
static inline int64_t sft_dataset_first(const struct sft_dataset *data, int64_t row)
{
    return data->first ? data->first[row] : row;
}
static inline int64_t sft_dataset_documents(const struct sft_dataset *data, int64_t row)
{
    return sft_dataset_first(data, row + 1) - sft_dataset_first(data, row);
}
static inline int64_t sft_dataset_length(const struct sft_dataset *data, int64_t row)
{
    int64_t length = 0;
    for (int64_t d = sft_dataset_first(data, row); d < sft_dataset_first(data, row + 1); d++)
        length += sft_dataset_document(data, d)->length;
    return length;
}
/* Its ids and targets, [length] each. */
void sft_dataset_read(int32_t *id, int32_t *target, const struct sft_dataset *data, int64_t row);

#endif
