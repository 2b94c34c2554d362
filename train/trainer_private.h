/* trainer_private.h -- the inside of a trainer, for train/trainer*.c. */
#ifndef SCOUT_TRAIN_TRAINER_PRIVATE_H
#define SCOUT_TRAIN_TRAINER_PRIVATE_H

#include "train/trainer.h"

struct sft_trainer {
    struct sf_arena arena; /* facts, paths */
    struct sft_trainer_config config;
    struct sft_program program[2 * SFT_FORM_PROGRAMS];
    struct sft_batches train, eval;
    struct sft_step *step;
    struct sft_schedule schedule;
    int64_t epoch_batches, epoch_steps; /* of a whole epoch */
    int64_t *order;                     /* of the rows, in the epoch at hand */
    int64_t ordered_epoch;              /* which that is; -1: none yet */
    struct sft_run_state state;
    struct sft_facts facts;  /* of the run */
    const char *resume_from; /* a checkpoint; NULL: a new run */
    struct sft_run_output output;
    int64_t profiled; /* steps whose ops were timed */
};

/* Tells a person, if somebody listens; NULL (no memory for a sentence) is not told. */
void sft_trainer_note(const struct sft_trainer *trainer, const char *text);
int sft_trainer_check_mapped(const struct sft_trainer *trainer, struct sf_err *err);
/* The step behind state.step. A step whose loss or gradient is no number is SF_ENUMERIC, told down
 * to layer and rows; or, where it may be skipped, a note, a row without loss, and nothing changed. */
int sft_trainer_learn(struct sft_metrics_step *row, struct sft_trainer *trainer,
                      struct sf_err *err);

#endif
