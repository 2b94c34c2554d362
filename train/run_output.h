/* run_output.h -- what a run leaves in its folder: metrics, checkpoints, and at its end the adapter.
 *
 * Open holds metrics.jsonl (one process a folder) and puts the folder in order: a new run's is empty
 * of checkpoints, a resumed run's is as it was when its checkpoint was written. Life: close. */
#ifndef SCOUT_TRAIN_RUN_OUTPUT_H
#define SCOUT_TRAIN_RUN_OUTPUT_H

#include "train/checkpoint_list.h"
#include "train/metrics.h"

struct sft_run_output {
    struct sf_arena arena;
    struct sft_checkpoint where;
    int64_t limit; /* of checkpoints kept; 0: all */
    struct sft_metrics *metrics;
    int64_t saved; /* step of the last checkpoint; -1: none */
};

/* `from`: the checkpoint that the run goes on from, of step `step`; NULL and -1: a new run.
 * SF_EACCES: another process is at work in this folder. */
int sft_run_output_open(struct sft_run_output *out, const struct sft_checkpoint *where,
                        int64_t limit, const char *from, int64_t step, struct sf_err *err);
void sft_run_output_close(struct sft_run_output *output); /* a zeroed one is welcome */

/* A checkpoint of record->state.step unless it was the last one already; then the oldest go. */
int sft_run_output_save(struct sft_run_output *output, struct sft_lora *lora,
                        const struct sft_resume_record *record, struct sf_err *err);
/* The adapter into the folder itself. */
int sft_run_output_finish(struct sft_run_output *output, struct sft_lora *lora, struct sf_err *err);
/* Parameters of the checkpoint of `step` back into the adapter. *found false: it is gone. */
int sft_run_output_load_best(bool *found, struct sft_run_output *output, struct sft_lora *lora,
                             int64_t step, struct sf_err *err);

#endif
