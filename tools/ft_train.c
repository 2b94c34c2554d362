/* The verb train. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "tools/ft_fit.h"
#include "tools/ft_verbs.h"

/* ---- what it says while it runs ---- */

struct progress {
    bool terminal, line_open; /* line_open: the terminal's line is not ended */
    int64_t every;            /* a line every so many steps where there is no terminal */
    double started;
    const struct sft_backend *backend;
    const struct sf_map *map; /* that weights are read from while the run lasts; NULL: none */
};

static uint64_t memory_used(void *context)
{
    const struct progress *p = context;
    return sft_backend_memory(p->backend);
}

static void end_line(struct progress *p)
{
    if (p->line_open)
        fprintf(stderr, "\n");
    p->line_open = false;
}

static void on_step(void *context, const struct sft_metrics_step *row, int64_t steps)
{
    struct progress *p = context;
    bool last = row->step == steps;
    char memory[TOOL_SIZE_TEXT];
    if (!p->terminal && !last && row->step != 1 && (p->every < 1 || row->step % p->every != 0))
        return;
    double left = (tool_now() - p->started) / (double)row->step * (double)(steps - row->step);
    fprintf(stderr, "%sstep %lld/%lld  loss %.4f  lr %.3g  %.0f tokens/s  %s  %lld:%02lld left%s",
            p->terminal ? "\r" : "", (long long)row->step, (long long)steps, row->loss,
            row->learning_rate, (double)row->tokens / row->seconds,
            tool_size(memory, row->memory_bytes), (long long)left / 60, (long long)left % 60,
            p->terminal ? "\033[K" : "\n");
    p->line_open = p->terminal;
    fflush(stderr);
}

static int check_weights(void *context, struct sf_err *err)
{
    const struct progress *p = context;
    return p->map ? sf_map_check(p->map, err) : SF_OK;
}

static void on_eval(void *context, const struct sft_metrics_eval *row, int64_t steps)
{
    struct progress *p = context;
    end_line(p);
    if (row->step > 0 && row->step < steps)
        fprintf(stderr, "held-out loss after step %lld: %.5f\n", (long long)row->step, row->loss);
    else
        fprintf(stderr, "held-out loss %s: %.5f\n",
                row->step ? "after training" : "before training", row->loss);
    if (row->step == 0)
        p->started = tool_now(); /* time left is of steps */
}

void ft_describe_data(const char *what, const struct sft_dataset *data)
{
    fprintf(stderr, "%s: %lld rows of up to %lld tokens, %lld tokens", what, (long long)data->rows,
            (long long)data->longest, (long long)data->tokens);
    if (data->tail_tokens)
        fprintf(stderr, "; %lld more at the end make no row and are left out",
                (long long)data->tail_tokens);
    if (data->truncated_rows)
        fprintf(stderr, "; %lld rows were too long: %lld tokens are cut off",
                (long long)data->truncated_rows, (long long)data->truncated_tokens);
    fprintf(stderr, "\n");
}

/* ---- the run ---- */

struct sft_trainer_config ft_trainer_config(struct ft_model *model,
                                            const struct ft_options *options,
                                            const struct sft_dataset *data,
                                            const struct sft_dataset *eval)
{
    const struct ft_options *o = options;
    const char *base = o->base_model ? o->base_model : sf_map_summary(model->map)->model_id;
    struct sft_policy policy = sft_policy_of(o->recompute, model->spec.layers);
    policy.offload = o->offload;
    return (struct sft_trainer_config){
        .spec = &model->spec,
        .lora = &model->lora,
        .ops = model->ops,
        .ctx = model->ctx,
        .data = data,
        .eval = eval,
        .train_batch = o->train_batch,
        .eval_batch = o->eval_batch,
        .accumulation = o->accumulation,
        .max_steps = o->max_steps > 0 ? o->max_steps : 0,
        .epochs = o->epochs,
        .shuffle = !o->no_shuffle,
        .seed = (uint64_t)o->seed,
        .schedule = o->schedule,
        .learning_rate = o->learning_rate,
        .warmup_ratio = o->warmup_ratio,
        .warmup_steps = o->warmup_steps,
        .beta1 = o->beta1,
        .beta2 = o->beta2,
        .epsilon = o->epsilon,
        .weight_decay = o->weight_decay,
        .max_grad_norm = (float)o->max_grad_norm,
        .eval_steps = o->eval_steps,
        .save_steps = o->save_steps,
        .policy = policy,
        .exact_policy = o->recompute != SFT_RECOMPUTE_AUTO,
        .output = {.directory = o->output_dir,
                   .base_model = base ? base : "",
                   .prefix = ft_model_prefix(model, o)},
    };
}

static void report(const struct ft_options *o, const struct sft_trainer_result *r)
{
    if (r->interrupted && !r->saved) {
        printf("interrupted before the first step; nothing was written\n");
        return;
    }
    printf("%s after %lld steps, %lld tokens in %.1f s: loss %.4f -> %.4f\n",
           r->interrupted ? "interrupted" : "done", (long long)r->steps, (long long)r->tokens,
           r->seconds, r->first_loss, r->last_loss);
    if (!isnan(r->eval_before) && !isnan(r->eval_after))
        printf("held-out loss %.5f -> %.5f\n", r->eval_before, r->eval_after);
    printf("adapter in %s\n", o->output_dir);
}

/* Sizes, and what is made again, before anything is loaded. */
static void tell_plan(const struct ft_model *m, const struct ft_fit *fit,
                      const struct sft_trainer *trainer)
{
    struct sft_plan plan = {0};
    char text[5][TOOL_SIZE_TEXT], again[FT_POLICY_TEXT];
    sft_plan_weights(&plan, m->map);
    sft_trainer_plan(&plan, trainer);
    sft_plan_total(&plan);
    fprintf(stderr, "%lld trainable parameters in %lld modules; %lld steps; ",
            (long long)m->lora.trained, (long long)m->lora.modules,
            (long long)sft_trainer_steps(trainer));
    if (fit->device)
        fprintf(stderr, "%s of %s planned: %s weights, %s adapter, %s step",
                tool_size(text[0], ft_fit_bytes(fit, &plan)), tool_size(text[1], fit->total_bytes),
                tool_size(text[2], fit->weight_bytes), tool_size(text[3], fit->adapter_bytes),
                tool_size(text[4], plan.step_bytes));
    else
        fprintf(stderr, "%s planned", tool_size(text[0], plan.total_bytes));
    fprintf(stderr, "\nmade again in the backward: %s\n",
            ft_policy_text(again, sft_trainer_policy(trainer), m->spec.layers));
}

static int run(struct ft_model *m, const struct ft_options *o, struct sft_trainer *trainer,
               struct progress *progress, struct sf_err *err)
{
    struct sft_trainer_result result;
    tool_catch_signals();
    progress->started = tool_now();
    int code = sft_trainer_run(&result, trainer, m->image, err);
    end_line(progress);
    if (!code)
        report(o, &result);
    if (!code && sft_trainer_profile(trainer))
        ft_print_profile(sft_trainer_profile(trainer), o->profile);
    return code;
}

/* All sizes are known, and the plan fits, before a byte of the weights is read. */
static int plan_and_run(struct ft_model *m, const struct ft_options *o,
                        const struct sft_dataset *data, const struct sft_dataset *eval,
                        struct sf_err *err)
{
    struct progress progress = {.terminal = isatty(2) == 1,
                                .every = o->logging_steps,
                                .backend = m->backend,
                                .map = m->ops->device ? NULL : m->map};
    struct sft_trainer_config config = ft_trainer_config(m, o, data, eval);
    struct sft_trainer *trainer = NULL;
    struct ft_fit fit;
    config.on_step = on_step;
    config.on_eval = on_eval;
    config.check_weights = check_weights;
    config.context = &progress;
    config.memory_used = memory_used;
    config.profile_steps = o->profile;
    config.interrupted = tool_interrupted;
    int code = ft_fit_measure(&fit, m, o, err);
    if (!code)
        code = ft_fit_trainer(&trainer, &fit, &config, err);
    if (!code) {
        tell_plan(m, &fit, trainer);
        code = ft_model_load(m, o, err);
    }
    if (!code)
        code = ft_model_fill_lora(m, o, true, err);
    if (!code)
        code = run(m, o, trainer, &progress, err);
    sft_trainer_close(trainer);
    return code;
}

static int train(struct ft_model *m, const struct ft_options *o, struct sf_err *err)
{
    struct sft_dataset data = {0}, eval = {0};
    bool evaluating = o->eval_data.count > 0;
    int code = ft_model_open(m, o, err);
    if (!code)
        code = ft_model_lora(m, o, true, err);
    if (!code)
        code = ft_model_data(&data, m, o, &o->data, err);
    if (!code && evaluating)
        code = ft_model_data(&eval, m, o, &o->eval_data, err);
    if (!code) {
        ft_describe_data("data", &data);
        if (evaluating)
            ft_describe_data("held-out data", &eval);
        code = plan_and_run(m, o, &data, evaluating ? &eval : NULL, err);
    }
    sft_dataset_free(&data);
    sft_dataset_free(&eval);
    return code;
}

int ft_train(const struct ft_options *options, struct sf_err *err)
{
    struct ft_model model = {0};
    bool ours = !sf_file_exists(options->output_dir);
    int code = sft_checkpoint_prepare(options->output_dir, options->overwrite_output_dir, err);
    if (code)
        return code;
    code = train(&model, options, err);
    if (code && ours)
        rmdir(options->output_dir); /* goes only if nothing was written */
    ft_model_close(&model);
    return code;
}
