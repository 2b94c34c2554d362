/* run_state.h -- where a run stands: what a checkpoint carries beside the arrays.
 *
 * Everything else that a step needs follows from `step` and the seed: the rows (row_order.h), the
 * learning rate (schedule.h), random numbers (philox.h). Plain numbers, copied freely. */
#ifndef SCOUT_TRAIN_RUN_STATE_H
#define SCOUT_TRAIN_RUN_STATE_H

#include <stdbool.h>

#include "libformat/base/json.h"

struct sft_run_state {
    int64_t step;         /* done */
    int64_t tokens;       /* of these steps */
    int64_t skipped;      /* steps that changed nothing, since their loss was no number */
    int64_t skipped_last; /* so many of the last ones, in a row */
    double first_loss, last_loss;
    int64_t evaluated;             /* after this step the last evaluation was; -1: none yet */
    double eval_before, eval_last; /* held-out loss before step 1 and at the last evaluation */
    double best_loss;              /* the lowest of those behind step 0 */
    int64_t best_step;             /* where that was; -1: none yet */
    int64_t worse;                 /* evaluations in a row that count as no improvement */
};

/* Of a run that has not begun: losses NAN. */
struct sft_run_state sft_run_state_new(void);
/* Takes note of a held-out loss, by transformers' EarlyStoppingCallback: an evaluation improves on
 * the best before it when it is lower by more than `threshold`. The best itself is any that is
 * lower. Step 0 is noted as the start only. True: a new best. */
bool sft_run_state_evaluated(struct sft_run_state *state, double loss, double threshold);

/* As one JSON object. Reading checks every number: SF_EFORMAT names the key. */
void sft_run_state_write(struct sf_json_writer *w, const char *key,
                         const struct sft_run_state *state);
int sft_run_state_read(struct sft_run_state *out, const struct sf_json *object, struct sf_err *err);

#endif
