/* metrics.h -- what a run says of itself while it goes: metrics.jsonl, one JSON object a line
 * (spec/metrics.md), and the same rows for TensorBoard in events.out.tfevents.scout.
 *
 * Rows are written as they happen, each in one write. Not thread-safe. */
#ifndef SCOUT_TRAIN_METRICS_H
#define SCOUT_TRAIN_METRICS_H

#include "train/metric_row.h"

struct sft_metrics; /* owns the files */

/* Replaces what stood in `directory` by the rows of the file `kept` (NULL: by none) and holds it: one
 * process at a time, SF_EACCES. */
int sft_metrics_open(struct sft_metrics **out, const char *directory, const char *kept,
                     struct sf_err *err);
/* Of metrics.jsonl. */
const char *sft_metrics_path(const struct sft_metrics *metrics);
int sft_metrics_step(struct sft_metrics *metrics, const struct sft_metrics_step *row,
                     struct sf_err *err);
int sft_metrics_eval(struct sft_metrics *metrics, const struct sft_metrics_eval *row,
                     struct sf_err *err);
void sft_metrics_close(struct sft_metrics *metrics); /* NULL is welcome */

#endif
