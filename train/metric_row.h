/* metric_row.h -- a row of metrics: names and numbers, in the order in which they are written.
 *
 * One list for every reader: a line of metrics.jsonl, scalars of TensorBoard. The fields and what
 * they mean: spec/metrics.md. Plain data, copied freely; names are static or the arena's. */
#ifndef SCOUT_TRAIN_METRIC_ROW_H
#define SCOUT_TRAIN_METRIC_ROW_H

#include "libformat/base/json.h"
#include "train/step.h"

struct sft_metrics_step {
    int64_t step;
    double epoch, loss, grad_norm, learning_rate, seconds;
    int64_t tokens, targets;
    bool skipped;          /* nothing was learnt: loss and norm are NAN */
    double flops;          /* of the model for this step (flops.h); 0: not told */
    double matmul_rate;    /* FLOP/s that the machine multiplies at best; 0: not measured */
    uint64_t memory_bytes; /* 0: not told */
    struct sft_expert_load expert_load;
};
struct sft_metrics_eval {
    int64_t step;
    double epoch, loss, seconds;
    int64_t targets;
};

enum { SFT_METRICS_MOST = 32 };
struct sft_metric_row {
    struct {
        const char *name;
        double value; /* NAN: null */
    } item[SFT_METRICS_MOST];
    int count;
};

/* `time`: seconds since 1970. */
void sft_metric_row_of_step(struct sft_metric_row *out, const struct sft_metrics_step *step,
                            double time);
void sft_metric_row_of_eval(struct sft_metric_row *out, const struct sft_metrics_eval *eval,
                            double time);
/* NAN when there is none of that name. */
double sft_metric_row_get(const struct sft_metric_row *row, const char *name);
/* One JSON object without a newline, in `arena`. */
int sft_metric_row_write(char **text, uint64_t *bytes, struct sf_arena *arena,
                         const struct sft_metric_row *row, struct sf_err *err);
/* Names are copied into `arena`. SF_EFORMAT: not an object of numbers, booleans and nulls, or more of
 * them than a row has. */
int sft_metric_row_read(struct sft_metric_row *out, struct sf_arena *arena, const char *text,
                        uint64_t bytes, struct sf_err *err);

#endif
