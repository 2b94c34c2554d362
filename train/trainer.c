#include "train/trainer_private.h"

#include <math.h>

#include "libformat/base/clock.h"
#include "libformat/base/mem.h"
#include "train/run_facts.h"

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- opening ---- */

static int check_stopping(const struct sft_trainer_config *c, struct sf_err *err)
{
    if (c->early_stopping_patience < 0 || !(c->early_stopping_threshold >= 0))
        return sf_fail(err, SF_EINVAL, "early stopping: patience %lld, threshold %g",
                       (long long)c->early_stopping_patience, c->early_stopping_threshold);
    if ((c->load_best || c->early_stopping_patience) && (!c->eval || c->eval_steps == 0))
        return sf_fail(err, SF_EINVAL,
                       "the best adapter and early stopping go by held-out losses on the way: they "
                       "need held-out data and a number of steps between evaluations");
    return SF_OK;
}

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
    if (!(c->least_rate >= 0 && c->least_rate <= 1))
        return sf_fail(err, SF_EINVAL, "the lowest learning rate is %g of the highest",
                       c->least_rate);
    if (!(c->warmup_ratio >= 0 && c->warmup_ratio <= 1) || c->warmup_steps < 0)
        return sf_fail(err, SF_EINVAL, "a warm-up of %lld steps, or of %g of all",
                       (long long)c->warmup_steps, c->warmup_ratio);
    if (!(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1))
        return sf_fail(err, SF_EINVAL, "AdamW's betas are %g and %g, not in [0, 1)", c->beta1,
                       c->beta2);
    if (!(c->epsilon > 0) || !(c->weight_decay >= 0) || !(c->max_grad_norm >= 0))
        return sf_fail(err, SF_EINVAL, "epsilon %g, weight decay %g, greatest gradient norm %g",
                       c->epsilon, c->weight_decay, (double)c->max_grad_norm);
    if (c->eval_steps < 0 || c->save_steps < 0 || c->save_total_limit < 0)
        return sf_fail(err, SF_EINVAL,
                       "evaluating every %lld steps, saving every %lld, keeping %lld checkpoints",
                       (long long)c->eval_steps, (long long)c->save_steps,
                       (long long)c->save_total_limit);
    return check_stopping(c, err);
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
    t->schedule = (struct sft_schedule){.kind = c->schedule,
                                        .rate = c->learning_rate,
                                        .steps = steps,
                                        .warmup = c->warmup_steps,
                                        .least = c->least_rate};
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
                                     .trial = c->trial,
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
    t->state = sft_run_state_new();
    t->output.saved = -1;
    if (config->train_batch < 1)
        code =
            sf_fail(err, SF_EINVAL, "a micro-batch of %lld rows", (long long)config->train_batch);
    if (!code) {
        count_steps(t);
        code = open_batches(t, err);
    }
    if (!code)
        code = open_step(t, err);
    if (!code)
        code = sft_run_facts(&t->facts, &t->arena, &t->config, &t->schedule, err);
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
    sft_run_output_close(&trainer->output);
    sf_arena_free(&trainer->arena);
    sf_free(trainer->order);
    sf_free(trainer);
}

void sft_trainer_plan(struct sft_plan *plan, const struct sft_trainer *trainer)
{
    sft_step_plan(plan, trainer->step);
}

const struct sft_profile *sft_trainer_profile(const struct sft_trainer *trainer, int64_t *steps)
{
    *steps = trainer->profiled;
    return *steps ? sft_step_profiled(trainer->step) : NULL;
}

int64_t sft_trainer_steps(const struct sft_trainer *trainer)
{
    return trainer->schedule.steps;
}

int64_t sft_trainer_warmup(const struct sft_trainer *trainer)
{
    return trainer->schedule.warmup;
}

/* ---- going on ---- */

void sft_trainer_note(const struct sft_trainer *trainer, const char *text)
{
    if (trainer->config.on_note && text)
        trainer->config.on_note(trainer->config.context, text);
}

static void note_checkpoint(void *context, const char *text)
{
    sft_trainer_note(context, text);
}

static int compare_run(struct sft_trainer *t, const struct sft_resume_record *record,
                       struct sf_err *err)
{
    static const struct sft_facts nowhere;
    const struct sft_facts *place = t->config.place ? t->config.place : &nowhere;
    const char *differs = sft_facts_differences(&t->arena, &record->run, &t->facts);
    if (differs)
        return sf_fail(err, SF_EINVAL, "%s is of another run: %s", t->resume_from, differs);
    differs = sft_facts_differences(&t->arena, &record->place, place);
    if (differs)
        sft_trainer_note(
            t, sf_arena_printf(&t->arena,
                               "%s was written elsewhere (%s): the run goes on, but not bit for "
                               "bit as if it had never been stopped",
                               t->resume_from, differs));
    return SF_OK;
}

int sft_trainer_resume(struct sft_trainer *trainer, struct sf_err *err)
{
    struct sft_trainer *t = trainer;
    struct sft_resume_record record;
    const char *directory = t->config.output.directory;
    int code = sft_checkpoint_newest(&record, &t->resume_from, &t->arena, directory,
                                     note_checkpoint, t, err);
    if (!code && !t->resume_from)
        sft_trainer_note(
            t, sf_arena_printf(&t->arena, "%s: no checkpoint yet; the run begins at its beginning",
                               directory));
    if (code || !t->resume_from)
        return code;
    code = compare_run(t, &record, err);
    t->state = record.state;
    return code;
}

const struct sft_facts *sft_trainer_facts(const struct sft_trainer *trainer)
{
    return &trainer->facts;
}

const struct sft_run_state *sft_trainer_state(const struct sft_trainer *trainer)
{
    return &trainer->state;
}

static int begin(struct sft_trainer *t, const struct sft_image *image, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    int code = sft_step_allocate(t->step, image, err);
    if (!code)
        code = sft_run_output_open(&t->output, &c->output, c->save_total_limit, t->resume_from,
                                   t->state.step, err);
    if (!code && t->resume_from)
        code = sft_checkpoint_load(c->lora, &t->output.where, t->resume_from, err);
    return code;
}

/* ---- a run ---- */

static int evaluate(struct sft_trainer *t, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    int64_t done = t->state.step;
    struct sft_loss loss;
    double started = sf_clock_seconds();
    int code = sft_evaluate(&loss, t->step, &t->eval, c->interrupted, err);
    if (!code)
        code = sft_trainer_check_mapped(t, err);
    if (code)
        return code;
    struct sft_metrics_eval row = {.step = done,
                                   .epoch = (double)done / (double)t->epoch_steps,
                                   .loss = loss.sum / (double)loss.targets,
                                   .targets = loss.targets,
                                   .seconds = sf_clock_seconds() - started};
    if (!isfinite(row.loss))
        return sf_fail(err, SF_ENUMERIC, "the held-out loss after step %lld is %g", (long long)done,
                       row.loss);
    if (c->on_eval)
        c->on_eval(c->context, &row, t->schedule.steps);
    code = sft_metrics_eval(t->output.metrics, &row, err);
    if (!code)
        sft_run_state_evaluated(&t->state, row.loss, c->early_stopping_threshold);
    return code;
}

static int saved(struct sft_trainer *t, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    return c->on_save ? c->on_save(c->context, &t->state, err) : SF_OK;
}

static int save(struct sft_trainer *t, struct sf_err *err)
{
    struct sft_resume_record record = {.state = t->state, .run = t->facts};
    if (t->config.place)
        record.place = *t->config.place;
    if (t->output.saved == t->state.step)
        return SF_OK;
    int code = sft_run_output_save(&t->output, t->config.lora, &record, err);
    return code ? code : saved(t, err);
}

static bool every(int64_t interval, int64_t done)
{
    return interval > 0 && done % interval == 0;
}

static bool stopped_early(const struct sft_trainer *t)
{
    int64_t patience = t->config.early_stopping_patience;
    return patience > 0 && t->state.worse >= patience;
}

static bool is_last(const struct sft_trainer *t)
{
    return t->state.step >= t->schedule.steps || stopped_early(t);
}

static bool evaluation_is_due(const struct sft_trainer *t)
{
    const struct sft_run_state *s = &t->state;
    if (!t->config.eval || s->evaluated == s->step)
        return false;
    return s->step == 0 || is_last(t) || every(t->config.eval_steps, s->step);
}

static bool save_is_due(const struct sft_trainer *t)
{
    const struct sft_run_state *s = &t->state;
    bool best = t->config.load_best && s->best_step == s->step;
    if (s->step == 0)
        return false;
    return best || every(t->config.save_steps, s->step) || (t->config.save_steps && is_last(t));
}

bool sft_trainer_has_work(const struct sft_trainer *trainer)
{
    return !is_last(trainer) || evaluation_is_due(trainer);
}

/* What the step that was just done brings with it; or, in a run that goes on, what is left of that. */
static int after_step(struct sft_trainer *t, struct sf_err *err)
{
    int code = evaluation_is_due(t) ? evaluate(t, err) : SF_OK;
    return code || !save_is_due(t) ? code : save(t, err);
}

static int count_step(struct sft_trainer *t, const struct sft_metrics_step *row, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    struct sft_run_state *s = &t->state;
    s->step = row->step;
    s->tokens += row->tokens;
    s->skipped += row->skipped;
    s->skipped_last = row->skipped ? s->skipped_last + 1 : 0;
    if (!row->skipped)
        s->last_loss = row->loss;
    if (isnan(s->first_loss))
        s->first_loss = row->loss;
    if (c->on_step)
        c->on_step(c->context, row, t->schedule.steps);
    return sft_metrics_step(t->output.metrics, row, err);
}

static int profile(struct sft_trainer *t, int64_t in_session, struct sf_err *err)
{
    int64_t steps = t->config.profile_steps;
    if (steps && in_session == 1 + steps)
        sft_step_profile_end(t->step);
    t->profiled += in_session >= 1 && in_session <= steps;
    return steps && in_session == 1 ? sft_step_profile(t->step, err) : SF_OK;
}

static int run_steps(struct sft_trainer *t, struct sf_err *err)
{
    const struct sft_trainer_config *c = &t->config;
    struct sft_metrics_step row;
    int64_t begun = t->state.step;
    int code;
    while (!(code = after_step(t, err)) && !is_last(t)) {
        if (c->interrupted && c->interrupted())
            return sf_fail(err, SF_EINTERRUPTED, "stopped");
        code = profile(t, t->state.step - begun, err);
        if (!code)
            code = sft_trainer_learn(&row, t, err);
        if (!code)
            code = count_step(t, &row, err);
        if (code)
            return code;
    }
    return code;
}

static int take_best(struct sft_trainer_result *out, struct sft_trainer *t, struct sf_err *err)
{
    int64_t best = t->state.best_step;
    bool found = true;
    if (!t->config.load_best || best < 0 || best == t->state.step || out->interrupted)
        return SF_OK;
    int code = sft_run_output_load_best(&found, &t->output, t->config.lora, best, err);
    if (!code && !found)
        sft_trainer_note(
            t, sf_arena_printf(&t->arena,
                               "checkpoint-%lld, the best, is gone or damaged: the result is the "
                               "last step's adapter",
                               (long long)best));
    else if (!code)
        out->result_step = best;
    return code;
}

/* A run that is stopped leaves a checkpoint to go on from, and the adapter as it stands. */
static int finish(struct sft_trainer_result *out, struct sft_trainer *t, struct sf_err *err)
{
    int code = out->interrupted ? save(t, err) : SF_OK;
    out->result_step = t->state.step;
    if (!code)
        code = take_best(out, t, err);
    if (!code)
        code = sft_run_output_finish(&t->output, t->config.lora, err);
    if (code)
        return code;
    out->saved = true;
    return saved(t, err);
}

struct sft_policy sft_trainer_policy(const struct sft_trainer *trainer)
{
    return sft_step_policy(trainer->step);
}

int sft_trainer_run(struct sft_trainer_result *out, struct sft_trainer *trainer,
                    const struct sft_image *image, struct sf_err *err)
{
    double started = sf_clock_seconds();
    int64_t tokens = trainer->state.tokens;
    *out = (struct sft_trainer_result){.begun = trainer->state.step};
    int code = begin(trainer, image, err);
    if (!code)
        code = run_steps(trainer, err);
    if (code == SF_EINTERRUPTED) {
        out->interrupted = true;
        code = SF_OK;
    }
    if (!code && trainer->state.step > 0)
        code = finish(out, trainer, err);
    out->state = trainer->state;
    out->stopped_early = stopped_early(trainer) && trainer->state.step < trainer->schedule.steps;
    out->checkpoint = trainer->output.saved;
    out->tokens = trainer->state.tokens - tokens;
    out->seconds = sf_clock_seconds() - started;
    return code;
}
