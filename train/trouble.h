/* trouble.h -- where numbers stopped being numbers: the first result of a step that is not finite.
 *
 * After a step whose loss or gradient was NaN or infinite: its micro-batch is run again, and every
 * result is looked at as it comes. Slow (each goes to the host) and exact: the run is the same run.
 * The adapter's gradients are not what they were afterwards. */
#ifndef SCOUT_TRAIN_TROUBLE_H
#define SCOUT_TRAIN_TROUBLE_H

#include "train/data/dataset.h"
#include "train/step.h"

enum { SFT_TROUBLE_ROWS = 4, SFT_TROUBLE_TEXT = 1400 };

struct sft_trouble {
    bool found;
    bool told;                     /* `what` is an op's own sentence */
    char what[200];                /* "layers.3.q (linear_forward)" */
    int32_t layer;                 /* -1: outside the layers */
    bool backward;                 /* in the way back: the loss was finite */
    int64_t rows;                  /* of the micro-batch with such a number; 0: not known */
    int64_t row[SFT_TROUBLE_ROWS]; /* the first of them */
};
/* Runs the batch as a training step would. Another failure than such a number is an error. */
int sft_trouble_find(struct sft_trouble *out, struct sft_step *step, const struct sft_batch *batch,
                     struct sf_err *err);
/* Modules whose part of the adapter's state (parameters or gradients) is not finite: *count of them,
 * the first one's name, "layers.3.q_proj lora_A". */
int sft_trouble_modules(int64_t *count, char first[96], const struct sft_lora *lora,
                        enum sft_lora_state state, struct sf_err *err);
/* One clause: "layers.3.q (linear_forward) was the first result that is not finite, in 2 of 64 tokens:
 * token 5 of row 17 of the data (chat.jsonl, line 18), ...". data_row[document]: the row of `data`,
 * before packing, that a document is. */
void sft_trouble_format(char text[SFT_TROUBLE_TEXT], const struct sft_trouble *trouble,
                        const struct sft_batch *batch, const struct sft_dataset *data,
                        const int64_t *data_row);

#endif
