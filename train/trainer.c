#include "train/trainer.h"

#include <math.h>

#include "libformat/base/clock.h"
#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "train/row_order.h"

struct sft_trainer {
    struct sft_trainer_config config;
    struct sft_program program[2 * SFT_FORM_PROGRAMS];
    struct sft_batches train, eval;
    struct sft_step *step;
    struct sft_schedule schedule;
    int64_t epoch_batches, epoch_steps; /* of a whole epoch */
    int64_t *order;                     /* of the rows, in the epoch at hand */
    int64_t ordered_epoch;              /* which that is; -1: none yet */
    struct sft_metrics *metrics;
};

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- opening ---- */

static int check_figures(const struct sft_trainer_config *c, struct sf_err *err)
{
    if (c->accumulation < 1 || c->accumulation > 1 << 20)
        return sf_fail(err, SF_EINVAL, "%lld micro-batches a step; at least 1 is needed",
                       (long long)c->accumulation);
    if (c->max_steps < 0 || (c->max_steps == 0 && !(c->epochs > 0 && c->epochs < 1e9)))
        return sf_fail(err, SF_EINVAL, "%g epochs make no run", c->epochs);
    if (!(c->learning_rate > 0 && isfinite(c->learning_rate)))
        return sf_fail(err, SF_EINVAL, "the learning rate is %g; nothing would be learned",
                       c->learning_rate);
    if (!(c->warmup_ratio >= 0 && c->warmup_ratio <= 1) || c->warmup_steps < 0)
        return sf_fail(err, SF_EINVAL, "a warm-up of %lld steps, or of %g of all",
                       (long long)c->warmup_steps, c->warmup_ratio);
    if (!(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1))
        return sf_fail(err, SF_EINVAL, "AdamW's betas are %g and %g, not in [0, 1)", c->beta1,
                       c->beta2);
    if (!(c->epsilon > 0) || !(c->weight_decay >= 0) || !(c->max_grad_norm >= 0))
        return sf_fail(err, SF_EINVAL, "epsilon %g, weight decay %g, greatest gradient norm %g",
                       c->epsilon, c->weight_decay, (double)c->max_grad_norm);
    if (c->eval_steps < 0 || c->save_steps < 0)
        return sf_fail(err, SF_EINVAL, "evaluating every %lld steps, saving every %lld",
                       (long long)c->eval_steps, (long long)c->save_steps);
    return SF_OK;
}

/* Trainer's count: an epoch's last step takes what is left; whole steps of fractions of epochs. */
static void count_steps(struct sft_trainer *t)
{
    const struct sft_trainer_config *c = &t->config;
    t->epoch_batches = divide_up(c->data->rows, c->train_batch);
    t->epoch_steps = divide_up(t->epoch_batches, c->accumulation);
    int64_t steps = c->max_steps;
    if (steps == 0)
        steps = (int64_t)ceil(c->epochs * (double)t->epoch_steps);
    t->schedule = (struct sft_schedule){c->schedule, c->learning_rate, steps, c->warmup_steps};
    if (c->warmup_steps == 0)
        t->schedule.warmup = sft_schedule_warmup(c->warmup_ratio, steps);
}

static int open_batches(struct sft_trainer *t, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    struct sft_batch_form form;
    void *order;
    int64_t slots = c->accumulation < t->epoch_batches ? c->accumulation : t->epoch_batches;
    int code = sf_alloc_for(&order, (uint64_t)c->data->rows * sizeof *t->order, "row order", err);
    if (code)
        return code;
    t->order = order;
    code = sft_batch_form_of(&form, c->data, c->train_batch, err);
    if (!code)
        code = sft_batches_open(&t->train, c->data, &form, slots, err);
    if (!code && c->eval)
        code = sft_batch_form_of(&form, c->eval, c->eval_batch, err);
    if (!code && c->eval)
        code = sft_batches_open(&t->eval, c->eval, &form, 1, err);
    return code;
}

static int open_step(struct sft_trainer *t, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    int64_t programs = sft_batch_form_programs(t->program, &t->train.form, SFT_TRAIN);
    if (c->eval)
        programs += sft_batch_form_programs(t->program + programs, &t->eval.form, SFT_EVAL);
    struct sft_step_config config = {.spec = c->spec,
                                     .lora = c->lora,
                                     .ops = c->ops,
                                     .ctx = c->ctx,
                                     .policy = c->policy,
                                     .exact_policy = c->exact_policy,
                                     .limit = c->limit,
                                     .program = t->program,
                                     .programs = programs,
                                     .beta1 = c->beta1,
                                     .beta2 = c->beta2,
                                     .epsilon = c->epsilon,
                                     .weight_decay = c->weight_decay,
                                     .max_grad_norm = c->max_grad_norm};
    return sft_step_open(&t->step, &config, err);
}

int sft_trainer_open(struct sft_trainer **out, const struct sft_trainer_config *config,
                     struct sf_err *err)
{
    void *memory;
    *out = NULL;
    int code = check_figures(config, err);
    if (!code)
        code = sf_alloc_for(&memory, sizeof(struct sft_trainer), "a trainer", err);
    if (code)
        return code;
    struct sft_trainer *t = memory;
    t->config = *config;
    t->config.output.spec = config->spec;
    t->ordered_epoch = -1;
    if (config->train_batch < 1)
        code =
            sf_fail(err, SF_EINVAL, "a micro-batch of %lld rows", (long long)config->train_batch);
    if (!code) {
        count_steps(t);
        code = open_batches(t, err);
    }
    if (!code)
        code = open_step(t, err);
    if (code)
        sft_trainer_close(t);
    else
        *out = t;
    return code;
}

void sft_trainer_close(struct sft_trainer *trainer)
{
    if (!trainer)
        return;
    sft_step_close(trainer->step);
    sft_batches_free(&trainer->train);
    sft_batches_free(&trainer->eval);
    sft_metrics_close(trainer->metrics);
    sf_free(trainer->order);
    sf_free(trainer);
}

void sft_trainer_plan(struct sft_plan *plan, const struct sft_trainer *trainer)
{
    sft_step_plan(plan, trainer->step);
}

const struct sft_profile *sft_trainer_profile(const struct sft_trainer *trainer)
{
    return trainer->config.profile_steps ? sft_step_profiled(trainer->step) : NULL;
}

int64_t sft_trainer_steps(const struct sft_trainer *trainer)
{
    return trainer->schedule.steps;
}

int64_t sft_trainer_warmup(const struct sft_trainer *trainer)
{
    return trainer->schedule.warmup;
}

/* ---- a step ---- */

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

static int check_weights(const struct sft_trainer *t, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    return c->check_weights ? c->check_weights(c->context, err) : SF_OK;
}

static int learn(struct sft_metrics_step *row, struct sft_trainer *t, int64_t step,
                 struct sf_err *err)
{
    struct sft_loss loss;
    float norm;
    int64_t count = fill_batches(t, step);
    double started = sf_clock_seconds();
    *row = (struct sft_metrics_step){.step = step + 1,
                                     .epoch = (double)(step + 1) / (double)t->epoch_steps,
                                     .learning_rate = sft_schedule_rate(&t->schedule, step)};
    for (int64_t i = 0; i < count; i++)
        row->tokens += t->train.batch[i].rows;
    int code = sft_step_zero_gradients(t->step, err);
    if (!code)
        code = sft_step_forward_backward(&loss, t->step, t->train.batch, count, err);
    if (!code)
        code = check_weights(t, err);
    if (code)
        return sf_err_prefix(err, "step %lld", (long long)(step + 1));
    row->targets = loss.targets;
    row->loss = loss.sum / (double)loss.targets;
    if (!isfinite(row->loss))
        return sf_fail(err, SF_ENUMERIC, "step %lld: the loss is %g; try a lower learning rate",
                       (long long)(step + 1), row->loss);
    code = sft_step_update(&norm, t->step, row->learning_rate, step + 1, err);
    row->grad_norm = norm;
    row->seconds = sf_clock_seconds() - started;
    row->expert_load = sft_step_expert_load(t->step);
    row->memory_bytes = t->config.memory_used ? t->config.memory_used(t->config.context) : 0;
    return code ? sf_err_prefix(err, "step %lld", (long long)(step + 1)) : SF_OK;
}

/* ---- a run ---- */

static int evaluate(double *out, struct sft_trainer *t, int64_t done, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    struct sft_loss loss;
    double started = sf_clock_seconds();
    int code = sft_evaluate(&loss, t->step, &t->eval, c->interrupted, err);
    if (!code)
        code = check_weights(t, err);
    if (code)
        return code;
    *out = loss.sum / (double)loss.targets;
    struct sft_metrics_eval row = {.step = done,
                                   .epoch = (double)done / (double)t->epoch_steps,
                                   .loss = *out,
                                   .targets = loss.targets,
                                   .seconds = sf_clock_seconds() - started};
    if (!isfinite(*out))
        return sf_fail(err, SF_ENUMERIC, "the held-out loss after step %lld is %g", (long long)done,
                       *out);
    if (c->on_eval)
        c->on_eval(c->context, &row, t->schedule.steps);
    return sft_metrics_eval(t->metrics, &row, err);
}

static bool every(int64_t interval, int64_t done)
{
    return interval > 0 && done % interval == 0;
}

static int after_step(struct sft_trainer_result *out, struct sft_trainer *t,
                      const struct sft_metrics_step *row, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    int64_t done = row->step;
    out->steps = done;
    out->tokens += row->tokens;
    out->last_loss = row->loss;
    if (done == 1)
        out->first_loss = row->loss;
    if (c->on_step)
        c->on_step(c->context, row, t->schedule.steps);
    int code = sft_metrics_step(t->metrics, row, err);
    if (!code && every(c->save_steps, done))
        code = sft_checkpoint_write(&c->output, c->lora, done, err);
    if (!code && c->eval && every(c->eval_steps, done) && done < t->schedule.steps)
        code = evaluate(&out->eval_after, t, done, err);
    return code;
}

static bool stopped(const struct sft_trainer *t)
{
    return t->config.interrupted && t->config.interrupted();
}

static int run_steps(struct sft_trainer_result *out, struct sft_trainer *t, struct sf_err *err)
{
    struct sft_metrics_step row;
    int code = SF_OK;
    if (t->config.eval)
        code = evaluate(&out->eval_before, t, 0, err);
    while (!code && out->steps < t->schedule.steps) {
        if (stopped(t))
            return sf_fail(err, SF_EINTERRUPTED, "stopped");
        if (t->config.profile_steps && out->steps == 1)
            code = sft_step_profile(t->step, err);
        if (t->config.profile_steps && out->steps == 1 + t->config.profile_steps)
            sft_step_profile_end(t->step);
        if (!code)
            code = learn(&row, t, out->steps, err);
        if (!code)
            code = after_step(out, t, &row, err);
    }
    return code;
}

/* The adapter is written before the last evaluation: an interruption there loses nothing. */
static int finish(struct sft_trainer_result *out, struct sft_trainer *t, struct sf_err *err)
{
    int code = sft_checkpoint_write(&t->config.output, t->config.lora, 0, err);
    if (code)
        return code;
    out->saved = true;
    if (t->config.eval && !out->interrupted)
        code = evaluate(&out->eval_after, t, out->steps, err);
    return code;
}

static int open_metrics(struct sft_trainer *t, struct sf_err *err)
{
    struct sf_arena arena = {0};
    char *path = sf_path_join(&arena, t->config.output.directory, "metrics.jsonl");
    int code = path ? sft_metrics_open(&t->metrics, path, err)
                    : sf_fail(err, SF_ENOMEM, "no memory for a path");
    sf_arena_free(&arena);
    return code;
}

struct sft_policy sft_trainer_policy(const struct sft_trainer *trainer)
{
    return sft_step_policy(trainer->step);
}

int sft_trainer_run(struct sft_trainer_result *out, struct sft_trainer *trainer,
                    const struct sft_image *image, struct sf_err *err)
{
    double started = sf_clock_seconds();
    *out = (struct sft_trainer_result){.eval_before = NAN, .eval_after = NAN};
    int code = sft_step_allocate(trainer->step, image, err);
    if (!code)
        code = open_metrics(trainer, err);
    if (!code)
        code = run_steps(out, trainer, err);
    if (code == SF_EINTERRUPTED) {
        out->interrupted = true;
        code = SF_OK;
    }
    if (!code && out->steps > 0)
        code = finish(out, trainer, err);
    if (code == SF_EINTERRUPTED) {
        out->interrupted = true;
        code = SF_OK;
    }
    out->seconds = sf_clock_seconds() - started;
    return code;
}
