/* One step of a run: its rows, its loss and gradients, the update; what is said when numbers end. */
#include "train/trainer_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/clock.h"
#include "train/flops.h"
#include "train/row_order.h"
#include "train/trouble.h"

enum { MOST_SKIPPED = 10 }; /* in a row; then the adapter itself is broken, or the data */

static void order_rows(struct sft_trainer *t, int64_t epoch)
{
    const struct sft_trainer_config *c = &t->config;
    if (t->ordered_epoch == epoch)
        return;
    if (c->shuffle)
        sft_row_order_shuffle(t->order, c->data->rows, c->seed, (uint64_t)epoch);
    else
        sft_row_order_plain(t->order, c->data->rows);
    t->ordered_epoch = epoch;
}

/* Fills the micro-batches of step `step` (from 0); returns how many. */
static int64_t fill_batches(struct sft_trainer *t, int64_t step)
{
    const struct sft_trainer_config *c = &t->config;
    int64_t first = step % t->epoch_steps * c->accumulation, count = t->epoch_batches - first;
    order_rows(t, step / t->epoch_steps);
    if (count > c->accumulation)
        count = c->accumulation;
    for (int64_t i = 0; i < count; i++) {
        int64_t row = (first + i) * c->train_batch, left = c->data->rows - row;
        sft_batches_fill(&t->train, i, t->order, row,
                         left < c->train_batch ? left : c->train_batch);
    }
    return count;
}

int sft_trainer_check_mapped(const struct sft_trainer *trainer, struct sf_err *err)
{
    const struct sft_trainer_config *c = &trainer->config;
    return c->check_mapped ? c->check_mapped(c->context, err) : SF_OK;
}

/* ---- when numbers end ---- */

static int explain_batches(char text[SFT_TROUBLE_TEXT], struct sft_trouble *trouble,
                           struct sft_trainer *t, int64_t count, struct sf_err *err)
{
    *trouble = (struct sft_trouble){0};
    for (int64_t i = 0; i < count && !trouble->found; i++) {
        struct sf_err why = {0};
        int code = sft_trouble_find(trouble, t->step, &t->train.batch[i], &why);
        if (code && code != SF_EINVAL) { /* one without a target has no loss to go wrong */
            *err = why;
            return code;
        }
        if (trouble->found)
            sft_trouble_format(text, trouble, &t->train.batch[i], t->config.data,
                               sft_batches_origin(&t->train, i));
    }
    return SF_OK;
}

/* Why: an adapter that is broken already, a first result in some layer, or a gradient's sum. */
static int explain(char text[SFT_TROUBLE_TEXT], struct sft_trainer *t, int64_t count,
                   struct sf_err *err)
{
    struct sft_trouble trouble;
    char first[96];
    int64_t modules;
    snprintf(text, SFT_TROUBLE_TEXT, "run again, all its results were finite");
    int code = sft_trouble_modules(&modules, first, t->config.lora, SFT_LORA_PARAMETERS, err);
    if (!code && modules) {
        snprintf(
            text, SFT_TROUBLE_TEXT,
            "the adapter itself is not finite any more, in %lld modules, first %s; a step before "
            "was too long: try a lower learning rate",
            (long long)modules, first);
        return SF_OK;
    }
    if (!code)
        code = sft_trouble_modules(&modules, first, t->config.lora, SFT_LORA_GRADIENTS, err);
    if (!code)
        code = explain_batches(text, &trouble, t, count, err);
    size_t at = strlen(text);
    if (!code && modules && (!trouble.found || trouble.backward))
        snprintf(text + at, SFT_TROUBLE_TEXT - at, "; gradients of %lld modules are not, first %s",
                 (long long)modules, first);
    return code;
}

static int give_up_or_skip(struct sft_metrics_step *row, struct sft_trainer *t, int64_t count,
                           const char *what, struct sf_err *err)
{
    char text[SFT_TROUBLE_TEXT];
    long long step = (long long)row->step;
    int code = explain(text, t, count, err);
    if (code)
        return sf_err_prefix(err, "step %lld: %s; looking for the reason", step, what);
    if (!t->config.skip_nan)
        return sf_fail(err, SF_ENUMERIC, "step %lld: %s: %s", step, what, text);
    if (t->state.skipped_last + 1 >= MOST_SKIPPED)
        return sf_fail(err, SF_ENUMERIC, "step %lld: %s, as in the %d steps before: %s", step, what,
                       MOST_SKIPPED - 1, text);
    char sentence[SFT_TROUBLE_TEXT + 100];
    snprintf(sentence, sizeof sentence, "step %lld is skipped: %s: %s", step, what, text);
    sft_trainer_note(t, sentence);
    row->skipped = true;
    row->loss = row->grad_norm = NAN;
    return SF_OK;
}

/* ---- the step ---- */

static int run_step(struct sft_metrics_step *row, struct sft_trainer *t, int64_t count,
                    struct sf_err *err)
{
    struct sft_loss loss;
    char what[64];
    float norm;
    int code = sft_step_zero_gradients(t->step, err);
    t->config.lora->draw.number = (uint32_t)((row->step - 1) * t->config.accumulation);
    if (!code)
        code = sft_step_forward_backward(&loss, t->step, t->train.batch, count, err);
    if (!code || code == SF_ENUMERIC) {
        int mapped = sft_trainer_check_mapped(t, err);
        code = mapped ? mapped : code;
    }
    if (code == SF_ENUMERIC)
        return give_up_or_skip(row, t, count, "numbers are not finite", err);
    if (code)
        return sf_err_prefix(err, "step %lld", (long long)row->step);
    row->targets = loss.targets;
    row->loss = loss.sum / (double)loss.targets;
    if (!isfinite(row->loss)) {
        snprintf(what, sizeof what, "the loss is %g", row->loss);
        return give_up_or_skip(row, t, count, what, err);
    }
    code = sft_step_update(&norm, t->step, row->learning_rate, row->step, err);
    row->grad_norm = norm;
    if (code == SF_ENUMERIC) {
        snprintf(what, sizeof what, "the gradient norm is %g", (double)norm);
        return give_up_or_skip(row, t, count, what, err);
    }
    return code ? sf_err_prefix(err, "step %lld", (long long)row->step) : SF_OK;
}

int sft_trainer_learn(struct sft_metrics_step *row, struct sft_trainer *trainer, struct sf_err *err)
{
    struct sft_trainer *t = trainer;
    int64_t step = t->state.step, count = fill_batches(t, step);
    double started = sf_clock_seconds();
    *row = (struct sft_metrics_step){.step = step + 1,
                                     .epoch = (double)(step + 1) / (double)t->epoch_steps,
                                     .learning_rate = sft_schedule_rate(&t->schedule, step)};
    for (int64_t i = 0; i < count; i++)
        row->tokens += t->train.batch[i].rows;
    for (int64_t i = 0; i < count; i++)
        row->flops += sft_training_flops(t->config.spec, t->config.lora, &t->train.batch[i]);
    row->matmul_rate = t->config.matmul_rate;
    int code = run_step(row, t, count, err);
    row->seconds = sf_clock_seconds() - started;
    row->expert_load = sft_step_expert_load(t->step);
    row->memory_bytes = t->config.memory_used ? t->config.memory_used(t->config.context) : 0;
    return code;
}
