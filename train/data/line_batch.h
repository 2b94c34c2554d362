/* line_batch.h -- lines of a file as tokens, many at a time, on several threads. Private to train/data.
 *
 * Lines are parsed and tokenized in jobs of some lines each; what became of them is then handed on line
 * by line, in order, so that nothing depends on how many threads there were. A line that is wrong ends
 * its job; whoever takes the lines in order meets it before anything behind it. */
#ifndef SCOUT_TRAIN_DATA_LINE_BATCH_H
#define SCOUT_TRAIN_DATA_LINE_BATCH_H

#include "libformat/base/file.h"
#include "train/data/row.h"

struct line_tokens {
    int64_t line;              /* from 1 */
    const int32_t *id, *label; /* [count] */
    int64_t count;
    bool trained; /* a label behind the first one, before any cut */
    bool known;   /* the kind is */
    enum sft_row_kind kind;
    const struct sf_err *err; /* what is wrong with it; NULL: nothing */
};

struct line_batch;
int line_batch_open(struct line_batch **out, const struct sft_row_encoder *encoder, int threads,
                    struct sf_err *err);
void line_batch_close(struct line_batch *batch); /* NULL is welcome */

/* Reads lines from *at on, which is line *line, and moves both behind them: some MiB, one line at
 * least. Only what is wrong with the machine (memory) is an error. */
int line_batch_read(struct line_batch *batch, const char **at, const char *end, int64_t *line,
                    struct sf_err *err);
/* The next line that is not blank; false behind the last. Valid until the next read. */
bool line_batch_next(struct line_tokens *out, struct line_batch *batch);
/* A text by itself, on the caller's thread. */
int line_batch_text(struct line_tokens *out, struct line_batch *batch, const char *text,
                    uint64_t bytes, struct sf_err *err);

#endif
