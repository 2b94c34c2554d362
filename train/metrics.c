#include "train/metrics.h"

#include <math.h>
#include <string.h>

#include "libformat/base/append_file.h"
#include "libformat/base/arena.h"
#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/base/mem.h"

struct sft_metrics {
    struct sf_arena line; /* reset with each: no memory is taken once it is warm */
    struct sf_append_file *file;
};

/* A file that begins with these rows is only cut. */
static int put_back(struct sft_metrics *m, const struct sf_mapping *kept, struct sf_err *err)
{
    enum { LARGEST = 1 << 30 };
    unsigned char *stands;
    uint64_t bytes = sf_append_file_bytes(m->file);
    int code = sf_append_file_read(&stands, m->file, &m->line, LARGEST, err);
    if (code)
        return code;
    if (bytes >= kept->bytes && kept->bytes && memcmp(stands, kept->data, kept->bytes) == 0)
        return sf_append_file_cut(m->file, kept->bytes, err);
    code = sf_append_file_cut(m->file, 0, err);
    return code ? code : sf_append_file_add(m->file, kept->data, kept->bytes, err);
}

static int take_rows(struct sft_metrics *m, const char *kept, struct sf_err *err)
{
    struct sf_mapping rows;
    int code = sf_map_file(&rows, kept, err);
    if (code)
        return code;
    code = put_back(m, &rows, err);
    sf_unmap(&rows);
    sf_arena_reset(&m->line);
    return code;
}

int sft_metrics_open(struct sft_metrics **out, const char *path, const char *kept,
                     struct sf_err *err)
{
    void *memory;
    int code = sf_alloc_for(&memory, sizeof(struct sft_metrics), "metrics", err);
    if (code)
        return code;
    struct sft_metrics *m = memory;
    code = sf_append_file_open(&m->file, path, err);
    if (!code)
        code = kept ? take_rows(m, kept, err) : sf_append_file_cut(m->file, 0, err);
    if (code)
        sft_metrics_close(m);
    else
        *out = m;
    return code;
}

void sft_metrics_close(struct sft_metrics *metrics)
{
    if (!metrics)
        return;
    sf_append_file_close(metrics->file);
    sf_arena_free(&metrics->line);
    sf_free(metrics);
}

/* The NUL behind the text becomes its newline: one write, so that no line is ever torn. */
static int write_line(struct sft_metrics *m, struct sf_json_writer *w, struct sf_err *err)
{
    char *text;
    uint64_t bytes;
    sf_json_write_end(w, '}');
    int code = sf_json_write_finish(&text, &bytes, w, err);
    if (!code) {
        text[bytes] = '\n';
        code = sf_append_file_add(m->file, text, bytes + 1, err);
    }
    sf_arena_reset(&m->line);
    return code;
}

static void begin_line(struct sf_json_writer *w, struct sft_metrics *m, int64_t step, double epoch)
{
    sf_json_write_begin(w, &m->line, 0);
    sf_json_write_object(w, NULL);
    sf_json_write_int(w, "step", step);
    sf_json_write_double(w, "epoch", epoch);
}

int sft_metrics_step(struct sft_metrics *metrics, const struct sft_metrics_step *row,
                     struct sf_err *err)
{
    struct sf_json_writer w;
    begin_line(&w, metrics, row->step, row->epoch);
    sf_json_write_double(&w, "loss", row->loss);
    sf_json_write_double(&w, "grad_norm", row->grad_norm);
    sf_json_write_double(&w, "learning_rate", row->learning_rate);
    sf_json_write_int(&w, "tokens", row->tokens);
    sf_json_write_int(&w, "targets", row->targets);
    sf_json_write_double(&w, "seconds", row->seconds);
    sf_json_write_double(&w, "tokens_per_second",
                         row->seconds > 0 ? (double)row->tokens / row->seconds : 0);
    if (row->memory_bytes)
        sf_json_write_int(&w, "memory_bytes", (int64_t)row->memory_bytes);
    if (row->expert_load.most > 0) {
        sf_json_write_double(&w, "expert_load_mean", row->expert_load.mean);
        sf_json_write_double(&w, "expert_load_max", row->expert_load.most);
    }
    return write_line(metrics, &w, err);
}

int sft_metrics_eval(struct sft_metrics *metrics, const struct sft_metrics_eval *row,
                     struct sf_err *err)
{
    struct sf_json_writer w;
    begin_line(&w, metrics, row->step, row->epoch);
    sf_json_write_double(&w, "eval_loss", row->loss);
    sf_json_write_double(&w, "eval_perplexity", exp(row->loss));
    sf_json_write_int(&w, "eval_targets", row->targets);
    sf_json_write_double(&w, "eval_seconds", row->seconds);
    return write_line(metrics, &w, err);
}
