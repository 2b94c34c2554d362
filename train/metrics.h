/* metrics.h -- metrics.jsonl: one JSON object a line, written out as it happens.
 *
 * A training step: step (from 1), epoch (a fraction), loss (mean over the step's targets),
 * grad_norm (before clipping), learning_rate, tokens (of this step), targets, seconds (of this
 * step), tokens_per_second, memory_bytes (of the process, or in use on the card), expert_load_mean and
 * expert_load_max (rows of the fullest expert over the mean; of the last micro-batch, over layers). An evaluation: step (so many were done), epoch, eval_loss,
 * eval_perplexity, eval_targets, eval_seconds. Names as Hugging Face's Trainer logs them. */
#ifndef SCOUT_TRAIN_METRICS_H
#define SCOUT_TRAIN_METRICS_H

#include <stdint.h>

#include "libformat/base/err.h"
#include "train/step.h"

struct sft_metrics_step {
    int64_t step;
    double epoch, loss, grad_norm, learning_rate, seconds;
    int64_t tokens, targets;
    uint64_t memory_bytes; /* 0: not told */
    struct sft_expert_load expert_load;
};
struct sft_metrics_eval {
    int64_t step;
    double epoch, loss, seconds;
    int64_t targets;
};

struct sft_metrics; /* owns the file */

/* Replaces what stood at `path` by the rows of the file `kept` (NULL: by none) and holds it: one
 * process at a time, SF_EACCES. */
int sft_metrics_open(struct sft_metrics **out, const char *path, const char *kept,
                     struct sf_err *err);
int sft_metrics_step(struct sft_metrics *metrics, const struct sft_metrics_step *row,
                     struct sf_err *err);
int sft_metrics_eval(struct sft_metrics *metrics, const struct sft_metrics_eval *row,
                     struct sf_err *err);
void sft_metrics_close(struct sft_metrics *metrics); /* NULL is welcome */

#endif
