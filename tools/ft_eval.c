/* The verb eval. */
#include <math.h>
#include <stdio.h>

#include "libformat/base/json.h"
#include "tools/ft_data.h"
#include "tools/ft_verbs.h"

struct evaluation {
    struct sft_loss loss;
    double seconds;
};

static int measure(struct evaluation *out, struct ft_model *m, const struct ft_options *o,
                   const struct sft_dataset *data, struct sf_err *err)
{
    struct sft_batch_form form;
    struct sft_batches batches = {0};
    struct sft_program program[SFT_FORM_PROGRAMS];
    struct sft_step *step = NULL;
    int code = sft_batch_form_of(&form, data, o->eval_batch, err);
    if (code)
        return code;
    struct sft_step_config config = {.spec = &m->spec,
                                     .lora = o->adapter ? &m->lora : NULL,
                                     .ops = m->ops,
                                     .ctx = m->ctx,
                                     .program = program,
                                     .programs = sft_batch_form_programs(program, &form, SFT_EVAL)};
    code = sft_batches_open(&batches, data, &form, 1, err);
    if (!code)
        code = sft_step_open(&step, &config, err);
    if (!code)
        code = sft_step_allocate(step, m->image, err);
    double started = tool_now();
    if (!code)
        code = sft_evaluate(&out->loss, step, &batches, tool_interrupted, err);
    out->seconds = tool_now() - started;
    sft_step_close(step);
    sft_batches_free(&batches);
    return code;
}

static int print_json(const struct evaluation *e, const struct sft_dataset *data, double loss,
                      struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct sf_json_writer w;
    char *text;
    sf_json_write_begin(&w, &arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_double(&w, "loss", loss);
    sf_json_write_double(&w, "perplexity", exp(loss));
    sf_json_write_int(&w, "targets", e->loss.targets);
    sf_json_write_int(&w, "tokens", data->tokens);
    sf_json_write_int(&w, "rows", data->rows);
    sf_json_write_double(&w, "seconds", e->seconds);
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, NULL, &w, err);
    if (!code)
        printf("%s\n", text);
    sf_arena_free(&arena);
    return code;
}

static int print(const struct ft_options *o, const struct evaluation *e,
                 const struct sft_dataset *data, struct sf_err *err)
{
    double loss = e->loss.sum / (double)e->loss.targets;
    if (!isfinite(loss))
        return sf_fail(err, SF_ENUMERIC, "the held-out loss is %g", loss);
    if (o->json)
        return print_json(e, data, loss, err);
    printf("held-out loss %.5f, perplexity %.3f over %lld targets in %lld rows (%.0f tokens/s)\n",
           loss, exp(loss), (long long)e->loss.targets, (long long)data->rows,
           (double)data->tokens / e->seconds);
    return SF_OK;
}

static int evaluate(struct ft_model *m, const struct ft_options *o, struct sft_dataset *data,
                    struct sf_err *err)
{
    struct evaluation e = {0};
    int code = ft_model_open(m, o, err);
    if (!code && o->adapter)
        code = ft_model_lora(m, o, false, err);
    if (!code && o->adapter)
        code = ft_model_fill_lora(m, o, false, err);
    if (!code)
        code = ft_data_open(data, m, o, err);
    if (code)
        return code;
    ft_data_describe("data", data, o->max_seq_length);
    code = ft_model_load(m, o, err);
    tool_catch_signals();
    if (!code)
        code = measure(&e, m, o, data, err);
    if (!code && !m->ops->device)
        code = sf_map_check(m->map, err);
    return code ? code : print(o, &e, data, err);
}

int ft_eval(const struct ft_options *options, struct sf_err *err)
{
    struct ft_model model = {0};
    struct sft_dataset data = {0};
    int code = evaluate(&model, options, &data, err);
    sft_dataset_free(&data);
    ft_model_close(&model);
    return code;
}
