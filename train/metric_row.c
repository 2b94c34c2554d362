#include "train/metric_row.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static void add(struct sft_metric_row *row, const char *name, double value)
{
    assert(row->count < SFT_METRICS_MOST);
    row->item[row->count].name = name;
    row->item[row->count++].value = value;
}

void sft_metric_row_of_step(struct sft_metric_row *out, const struct sft_metrics_step *step,
                            double time)
{
    const struct sft_metrics_step *s = step;
    double rate = s->seconds > 0 ? 1 / s->seconds : 0;
    out->count = 0;
    add(out, "step", (double)s->step);
    add(out, "epoch", s->epoch);
    add(out, "loss", s->loss);
    add(out, "grad_norm", s->grad_norm);
    add(out, "learning_rate", s->learning_rate);
    if (s->skipped)
        add(out, "skipped", 1);
    add(out, "tokens", (double)s->tokens);
    add(out, "targets", (double)s->targets);
    add(out, "seconds", s->seconds);
    add(out, "tokens_per_second", (double)s->tokens * rate);
    if (s->flops > 0)
        add(out, "model_flops_per_second", s->flops * rate);
    if (s->flops > 0 && s->matmul_rate > 0)
        add(out, "matmul_share", s->flops * rate / s->matmul_rate);
    if (s->memory_bytes)
        add(out, "memory_bytes", (double)s->memory_bytes);
    if (s->expert_load.most > 0) {
        add(out, "expert_load_mean", s->expert_load.mean);
        add(out, "expert_load_max", s->expert_load.most);
    }
    add(out, "time", time);
}

void sft_metric_row_of_eval(struct sft_metric_row *out, const struct sft_metrics_eval *eval,
                            double time)
{
    out->count = 0;
    add(out, "step", (double)eval->step);
    add(out, "epoch", eval->epoch);
    add(out, "eval_loss", eval->loss);
    add(out, "eval_perplexity", exp(eval->loss));
    add(out, "eval_targets", (double)eval->targets);
    add(out, "eval_seconds", eval->seconds);
    add(out, "time", time);
}

double sft_metric_row_get(const struct sft_metric_row *row, const char *name)
{
    for (int i = 0; i < row->count; i++)
        if (strcmp(row->item[i].name, name) == 0)
            return row->item[i].value;
    return NAN;
}

/* ---- as JSON ---- */

static bool is_flag(const char *name)
{
    return strcmp(name, "skipped") == 0;
}

int sft_metric_row_write(char **text, uint64_t *bytes, struct sf_arena *arena,
                         const struct sft_metric_row *row, struct sf_err *err)
{
    struct sf_json_writer w;
    sf_json_write_begin(&w, arena, 0);
    sf_json_write_object(&w, NULL);
    for (int i = 0; i < row->count; i++) {
        double value = row->item[i].value;
        const char *name = row->item[i].name;
        if (is_flag(name))
            sf_json_write_bool(&w, name, value != 0);
        else if (value == floor(value) && fabs(value) < 0x1p53) /* counts as such */
            sf_json_write_int(&w, name, (int64_t)value);
        else
            sf_json_write_double(&w, name, value);
    }
    sf_json_write_end(&w, '}');
    return sf_json_write_finish(text, bytes, &w, err);
}

static int read_value(double *out, const struct sf_json *v, struct sf_err *err)
{
    bool flag;
    *out = NAN;
    if (sf_json_type(v) == SF_JSON_NULL)
        return SF_OK;
    if (sf_json_type(v) != SF_JSON_BOOL)
        return sf_json_as_double(out, v, sf_json_key(v), err);
    int code = sf_json_as_bool(&flag, v, sf_json_key(v), err);
    *out = flag;
    return code;
}

static int read_object(struct sft_metric_row *out, struct sf_arena *arena,
                       const struct sf_json *root, struct sf_err *err)
{
    int code = SF_OK;
    if (sf_json_type(root) != SF_JSON_OBJECT || sf_json_count(root) > SFT_METRICS_MOST)
        return sf_fail(err, SF_EFORMAT, "no row of at most %d metrics", SFT_METRICS_MOST);
    for (const struct sf_json *v = sf_json_first(root); v && !code; v = sf_json_next(v)) {
        double value;
        const char *name = sf_arena_strdup(arena, sf_json_key(v));
        code = name ? read_value(&value, v, err)
                    : sf_fail(err, SF_ENOMEM, "no memory for a metric's name");
        if (!code)
            add(out, name, value);
    }
    return code;
}

int sft_metric_row_read(struct sft_metric_row *out, struct sf_arena *arena, const char *text,
                        uint64_t bytes, struct sf_err *err)
{
    struct sf_json *root;
    out->count = 0;
    int code = sf_json_parse(&root, text, bytes, err);
    if (code)
        return code;
    code = read_object(out, arena, root, err);
    sf_json_free(root);
    return code;
}
