/* batches.h -- rows of a dataset as micro-batches, and the tapes those need.
 *
 * A micro-batch is some rows end to end, each a document of its own, or several where it is packed. Memory for them is taken once;
 * filling allocates nothing. Life: sft_batches_free. */
#ifndef SCOUT_TRAIN_BATCHES_H
#define SCOUT_TRAIN_BATCHES_H

#include "train/data/dataset.h"
#include "train/step.h"

/* How large the micro-batches of a dataset get. */
struct sft_batch_form {
    int64_t rows;      /* of the dataset in a micro-batch, at most */
    int64_t documents; /* those have, at most: as many, if they are not packed */
    int64_t tokens;    /* of any of them, at most */
    int64_t longest;   /* tokens of a document, at most */
    bool ragged;       /* rows differ in length */
};
/* SF_EINVAL when `rows` is below 1 or a micro-batch would not fit 31 bits. */
int sft_batch_form_of(struct sft_batch_form *out, const struct sft_dataset *data, int64_t rows,
                      struct sf_err *err);

/* The tapes for a form: one, or for ragged rows one per quarter of the largest micro-batch, so that
 * small ones are not filled up all the way. Returns how many. */
enum { SFT_FORM_PROGRAMS = 4 };
int64_t sft_batch_form_programs(struct sft_program program[SFT_FORM_PROGRAMS],
                                const struct sft_batch_form *form, enum sft_mode mode);

struct sft_batches {
    const struct sft_dataset *data;
    struct sft_batch_form form;
    int64_t slots;
    struct sft_batch *batch; /* [slots] */
    int32_t *memory;
    int64_t *origin; /* [slots][form.documents]: the row of the data's source that a document is */
};
/* Memory for `slots` micro-batches at once. */
int sft_batches_open(struct sft_batches *out, const struct sft_dataset *data,
                     const struct sft_batch_form *form, int64_t slots, struct sf_err *err);
void sft_batches_free(struct sft_batches *batches); /* a zeroed one is welcome */
static inline const int64_t *sft_batches_origin(const struct sft_batches *batches, int64_t slot)
{
    return batches->origin + slot * batches->form.documents;
}
/* batch[slot] = rows order[first..first + count) of the dataset; order NULL: as they stand. */
void sft_batches_fill(struct sft_batches *batches, int64_t slot, const int64_t *order,
                      int64_t first, int64_t count);

/* Loss over a whole dataset, in order, in micro-batches of one slot. `interrupted` (may be NULL) is
 * asked before each: SF_EINTERRUPTED. */
int sft_evaluate(struct sft_loss *out, struct sft_step *step, struct sft_batches *batches,
                 bool (*interrupted)(void), struct sf_err *err);

#endif
