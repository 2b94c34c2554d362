/* The verb train. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "tools/ft_data.h"
#include "tools/ft_fit.h"
#include "tools/ft_tokens.h"
#include "tools/ft_verbs.h"
#include "tools/run_report.h"
#include "train/matmul_rate.h"
#include "train/row_order.h"

/* ---- what it says while it runs ---- */

struct progress {
    bool terminal, line_open; /* line_open: the terminal's line is not ended */
    int64_t every;            /* a line every so many steps where there is no terminal */
    double started;
    int64_t begun; /* steps of earlier sessions */
    const struct sft_backend *backend;
    struct run_report report;
    const struct sf_map *map; /* that weights are read from while the run lasts; NULL: none */
    const struct sft_dataset *data, *eval; /* eval NULL: none */
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
    if (!p->terminal && !last && row->step != p->begun + 1 &&
        (p->every < 1 || row->step % p->every != 0))
        return;
    double left =
        (tool_now() - p->started) / (double)(row->step - p->begun) * (double)(steps - row->step);
    fprintf(stderr, "%sstep %lld/%lld  loss %.4f  lr %.3g  %.0f tokens/s  %s  %lld:%02lld left%s",
            p->terminal ? "\r" : "", (long long)row->step, (long long)steps, row->loss,
            row->learning_rate, (double)row->tokens / row->seconds,
            tool_size(memory, row->memory_bytes), (long long)left / 60, (long long)left % 60,
            p->terminal ? "\033[K" : "\n");
    p->line_open = p->terminal;
    fflush(stderr);
}

static void on_note(void *context, const char *text)
{
    end_line(context);
    fprintf(stderr, "%s\n", text);
}

static int on_save(void *context, const struct sft_run_state *state, struct sf_err *err)
{
    struct progress *p = context;
    p->report.stopping = tool_interrupted();
    return run_report_write(&p->report, state, err);
}

static int check_mapped(void *context, struct sf_err *err)
{
    const struct progress *p = context;
    int code = p->map ? sf_map_check(p->map, err) : SF_OK;
    if (!code)
        code = sft_tokens_check(p->data->source, err);
    return code || !p->eval ? code : sft_tokens_check(p->eval->source, err);
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
        .least_rate = o->min_lr_rate,
        .warmup_steps = o->warmup_steps,
        .beta1 = o->beta1,
        .beta2 = o->beta2,
        .epsilon = o->epsilon,
        .weight_decay = o->weight_decay,
        .max_grad_norm = (float)o->max_grad_norm,
        .eval_steps = o->eval_steps,
        .save_steps = o->save_steps,
        .save_total_limit = o->save_total_limit,
        .load_best = o->load_best,
        .early_stopping_patience = o->early_stopping_patience,
        .early_stopping_threshold = o->early_stopping_threshold,
        .skip_nan = o->skip_nan,
        .policy = policy,
        .exact_policy = o->recompute != SFT_RECOMPUTE_AUTO,
        .output = {.directory = o->output_dir,
                   .base_model = base ? base : "",
                   .prefix = ft_model_prefix(model, o),
                   .layout = o->peft_layout},
    };
}

/* What is written in a checkpoint beside the run: which bits a place gives. */
static int describe_place(struct sft_facts *out, struct ft_model *m, struct sf_err *err)
{
    const struct sft_backend_info *info = sft_backend_info(m->backend);
    *out = (struct sft_facts){0};
    sft_facts_add(out, &m->arena, "device", "%s", info->name);
    sft_facts_add(out, &m->arena, "library", "%s", info->library ? info->library : "unknown");
    sft_facts_add(out, &m->arena, "scout", "%s", SCOUT_VERSION);
    return out->failed ? sf_fail(err, SF_ENOMEM, "no memory to name this machine") : SF_OK;
}

static void report_losses(const struct sft_trainer_result *r)
{
    const struct sft_run_state *s = &r->state;
    if (isnan(s->eval_before) || s->evaluated <= 0)
        return;
    printf("held-out loss %.5f -> %.5f\n", s->eval_before, s->eval_last);
    if (r->result_step != s->step)
        printf("the adapter is that of step %lld, the lowest: held-out loss %.5f\n",
               (long long)r->result_step, s->best_loss);
}

static void report(const struct ft_options *o, const struct sft_trainer_result *r)
{
    const struct sft_run_state *s = &r->state;
    if (r->interrupted && !r->saved) {
        printf("interrupted before the first step; nothing was written\n");
        return;
    }
    printf("%s after %lld steps, %lld tokens in %.1f s: loss %.4f -> %.4f\n",
           r->interrupted ? "interrupted" : "done", (long long)s->step, (long long)r->tokens,
           r->seconds, s->first_loss, s->last_loss);
    if (r->stopped_early)
        printf("ended early: %lld evaluations in a row brought no lower held-out loss\n",
               (long long)s->worse);
    if (s->skipped)
        printf("%lld steps were skipped: their loss or gradient was no number\n",
               (long long)s->skipped);
    report_losses(r);
    printf("adapter in %s\n", o->output_dir);
    if (r->interrupted)
        printf("to go on from %s/checkpoint-%lld: the same command with --resume\n", o->output_dir,
               (long long)r->checkpoint);
}

/* A run that would be killed in its middle is refused; one that pushes others out is told of. */
static int check_host(const struct ft_model *m, const struct ft_fit *fit,
                      const struct sft_plan *plan, struct sf_err *err)
{
    struct ft_host host;
    char text[2][TOOL_SIZE_TEXT];
    ft_host_measure(&host, fit, plan, m->ctx->threads);
    int code = ft_host_check(&host, err);
    if (!code && host.need_bytes > host.memory.available_bytes && host.memory.total_bytes)
        fprintf(stderr, "%s: the run takes %s of this machine's memory, %s are available now\n",
                FT_PROGRAM, tool_size(text[0], host.need_bytes),
                tool_size(text[1], host.memory.available_bytes));
    return code;
}

/* Sizes, and what is made again, before anything is loaded. */
static int tell_plan(const struct ft_model *m, const struct ft_fit *fit,
                     const struct sft_trainer *trainer, struct sf_err *err)
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
    return check_host(m, fit, &plan, err);
}

/* ---- everything but the steps ---- */

enum { BINS = 8, FIRST_ROWS = 4 };

/* Rows by length, in eight equal steps up to the longest. */
static void print_lengths(const struct sft_dataset *data)
{
    int64_t count[BINS] = {0}, step = (data->longest + BINS - 1) / BINS;
    for (int64_t row = 0; row < data->rows; row++)
        count[(sft_dataset_length(data, row) - 1) / step]++;
    for (int i = 0; i < BINS; i++)
        if (i * step < data->longest)
            printf("  %6lld to %6lld tokens  %8lld rows  %5.1f %%\n", (long long)(i * step + 1),
                   (long long)((i + 1) * step < data->longest ? (i + 1) * step : data->longest),
                   (long long)count[i], 100 * (double)count[i] / (double)data->rows);
}

/* A target is the token that follows: as labels, each stands with its own token. */
static int print_row(const struct ft_model *m, const struct sft_dataset *data, int64_t row,
                     struct sf_err *err)
{
    int64_t count = sft_dataset_length(data, row), trained = 0;
    int32_t *id = sf_alloc((2 * (uint64_t)count + 1) * sizeof *id);
    if (!id)
        return sf_fail(err, SF_ENOMEM, "no memory for the labels of a row");
    int32_t *label = id + count;
    label[0] = SFT_NO_TARGET;
    sft_dataset_read(id, label + 1, data, row);
    for (int64_t i = 1; i < count; i++)
        trained += label[i] != SFT_NO_TARGET;
    printf("row %lld: %lld tokens, %lld trained\n", (long long)row + 1, (long long)count,
           (long long)trained);
    int code = ft_print_tokens(m, id, label, count, err);
    sf_free(id);
    return code;
}

static int rehearse(const struct ft_model *m, const struct ft_options *o,
                    const struct sft_dataset *data, const struct sft_trainer *trainer,
                    struct sf_err *err)
{
    int64_t *order = sf_alloc((uint64_t)data->rows * sizeof *order), batch = o->train_batch;
    if (!order)
        return sf_fail(err, SF_ENOMEM, "no memory for the order of rows");
    if (o->no_shuffle)
        sft_row_order_plain(order, data->rows);
    else
        sft_row_order_shuffle(order, data->rows, (uint64_t)o->seed, 0);
    batch = batch < data->rows ? batch : data->rows;
    printf("%lld rows, %lld tokens, %lld of them trained; %lld steps\n", (long long)data->rows,
           (long long)data->tokens, (long long)data->targets,
           (long long)sft_trainer_steps(trainer));
    print_lengths(data);
    printf("\nthe first micro-batch, %lld rows%s\n", (long long)batch,
           batch > FIRST_ROWS ? ", of which the first 4" : "");
    int code = SF_OK;
    for (int64_t i = 0; !code && i < batch && i < FIRST_ROWS; i++)
        code = print_row(m, data, order[i], err);
    sf_free(order);
    if (!code)
        printf("\ndry run: no step was taken, nothing was written\n");
    return code;
}

static int run(struct ft_model *m, const struct ft_options *o, struct sft_trainer *trainer,
               struct progress *progress, struct sf_err *err)
{
    struct sft_trainer_result result;
    tool_catch_signals();
    progress->started = tool_now();
    progress->begun = sft_trainer_state(trainer)->step;
    if (progress->begun > 0)
        fprintf(stderr, "going on behind step %lld of %lld\n", (long long)progress->begun,
                (long long)sft_trainer_steps(trainer));
    int code = sft_trainer_run(&result, trainer, m->image, err);
    end_line(progress);
    progress->report.ended = result.stopped_early;
    if (!code && result.stopped_early)
        code = on_save(progress, &result.state, err);
    if (!code)
        report(o, &result);
    int64_t steps;
    const struct sft_profile *profile = sft_trainer_profile(trainer, &steps);
    if (!code && profile)
        ft_print_profile(profile, steps);
    if (!code && !profile && o->profile)
        fprintf(
            stderr,
            "nothing to tell of --profile: it leaves out the first step, and no other was run\n");
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
                                .map = m->ops->device ? NULL : m->map,
                                .data = data,
                                .eval = eval};
    struct sft_trainer_config config = ft_trainer_config(m, o, data, eval);
    struct sft_trainer *trainer = NULL;
    struct sft_facts place;
    struct ft_fit fit;
    config.model_identity = ft_model_identity(m);
    config.place = &place;
    config.on_step = on_step;
    config.on_eval = on_eval;
    config.on_note = on_note;
    config.on_save = on_save;
    config.check_mapped = check_mapped;
    config.context = &progress;
    config.memory_used = memory_used;
    config.profile_steps = o->profile;
    config.interrupted = tool_interrupted;
    int code = describe_place(&place, m, err);
    if (!code && m->ops->device) /* before the weights take their room */
        code = sft_matmul_rate(&config.matmul_rate, m->ops, m->ctx, err);
    if (!code)
        code = ft_fit_measure(&fit, m, o, err);
    if (!code)
        code = ft_fit_trainer(&trainer, &fit, &config, err);
    if (!code && o->resume)
        code = sft_trainer_resume(trainer, err);
    if (!code)
        code = tell_plan(m, &fit, trainer, err);
    if (!code && o->dry_run) {
        code = rehearse(m, o, data, trainer, err);
        sft_trainer_close(trainer);
        return code;
    }
    if (!code)
        progress.report = (struct run_report){.directory = o->output_dir,
                                              .model = config.output.base_model,
                                              .run = sft_trainer_facts(trainer),
                                              .place = &place,
                                              .steps = sft_trainer_steps(trainer)};
    if (!code && sft_trainer_has_work(trainer)) /* else only the result is written again */
        code = ft_model_load(m, o, err);
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
    bool evaluating = false;
    int code = ft_model_open(m, o, err);
    if (!code)
        code = ft_model_lora(m, o, true, err);
    if (!code)
        code = ft_data_open_all(&data, &eval, &evaluating, m, o, err);
    if (!code) {
        ft_data_describe("data", &data, o->max_seq_length);
        if (evaluating)
            ft_data_describe("held-out data", &eval, o->max_seq_length);
        code = plan_and_run(m, o, &data, evaluating ? &eval : NULL, err);
    }
    sft_dataset_free(&data);
    sft_dataset_free(&eval);
    return code;
}

int ft_train(const struct ft_options *options, struct sf_err *err)
{
    struct ft_model model = {0};
    if (options->dry_run) {
        int dry = train(&model, options, err);
        ft_model_close(&model);
        return dry;
    }
    bool ours = !sf_file_exists(options->output_dir);
    enum sft_output_mode mode = options->resume                 ? SFT_OUTPUT_RESUME
                                : options->overwrite_output_dir ? SFT_OUTPUT_OVERWRITE
                                                                : SFT_OUTPUT_NEW;
    int code = sft_checkpoint_prepare(options->output_dir, mode, err);
    if (code)
        return code;
    code = train(&model, options, err);
    if (code && ours)
        rmdir(options->output_dir); /* goes only if nothing was written */
    ft_model_close(&model);
    return code;
}
