#include "tools/run_report.h"

#include <math.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "tools/report/report_files.h"
#include "tools/report_page.h"

enum { MOST_POINTS = 1200 };

/* What the page draws, of a training step; the order of its rows. */
static const char *const columns[] = {"step",
                                      "loss",
                                      "grad_norm",
                                      "learning_rate",
                                      "tokens_per_second",
                                      "memory_bytes",
                                      "expert_load_mean",
                                      "expert_load_max",
                                      "model_flops_per_second",
                                      "matmul_share"};
enum { COLUMNS = sizeof columns / sizeof columns[0] };

struct bucket { /* neighbours whose mean is one point */
    double sum[COLUMNS];
    int64_t count[COLUMNS], rows;
};

struct page {
    struct sf_arena arena, line;
    struct sf_mapping metrics;
    struct sf_json_writer w;
    struct bucket bucket;
    int64_t each; /* so many rows of training steps are a point */
};

/* ---- rows ---- */

/* Calls `take` with each whole row of metrics.jsonl, in order. */
static int walk(struct page *p, void (*take)(struct page *page, const struct sft_metric_row *row),
                struct sf_err *err)
{
    const char *at = (const char *)p->metrics.data, *end = at + p->metrics.bytes, *newline;
    int code = SF_OK;
    while (!code && at < end && (newline = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        struct sft_metric_row row;
        sf_arena_reset(&p->line);
        code = sft_metric_row_read(&row, &p->line, at, (uint64_t)(newline - at), err);
        if (!code)
            take(p, &row);
        at = newline + 1;
    }
    return code;
}

static bool is_step(const struct sft_metric_row *row)
{
    return !isnan(sft_metric_row_get(row, "tokens"));
}

static void end_bucket(struct page *p)
{
    if (p->bucket.rows == 0)
        return;
    sf_json_write_array(&p->w, NULL);
    for (int i = 0; i < COLUMNS; i++)
        sf_json_write_double(
            &p->w, NULL, p->bucket.count[i] ? p->bucket.sum[i] / (double)p->bucket.count[i] : NAN);
    sf_json_write_end(&p->w, ']');
    p->bucket = (struct bucket){0};
}

static void add_step(struct page *p, const struct sft_metric_row *row)
{
    if (!is_step(row))
        return;
    for (int i = 0; i < COLUMNS; i++) {
        double value = sft_metric_row_get(row, columns[i]);
        if (!isfinite(value))
            continue;
        p->bucket.sum[i] += value;
        p->bucket.count[i]++;
    }
    if (++p->bucket.rows == p->each)
        end_bucket(p);
}

static void add_eval(struct page *p, const struct sft_metric_row *row)
{
    double loss = sft_metric_row_get(row, "eval_loss");
    if (isnan(loss))
        return;
    sf_json_write_array(&p->w, NULL);
    sf_json_write_double(&p->w, NULL, sft_metric_row_get(row, "step"));
    sf_json_write_double(&p->w, NULL, loss);
    sf_json_write_end(&p->w, ']');
}

/* ---- the object ---- */

static void write_facts(struct sf_json_writer *w, const char *key, const struct sft_facts *facts)
{
    sf_json_write_array(w, key);
    for (int64_t i = 0; facts && i < facts->count; i++) {
        sf_json_write_array(w, NULL);
        sf_json_write_string(w, NULL, facts->fact[i].name);
        sf_json_write_string(w, NULL, facts->fact[i].value);
        sf_json_write_end(w, ']');
    }
    sf_json_write_end(w, ']');
}

static void write_head(struct sf_json_writer *w, const struct run_report *r,
                       const struct sft_run_state *state)
{
    bool ended = r->ended || state->step >= r->steps;
    sf_json_write_string(w, "name", sf_path_base(r->directory));
    sf_json_write_string(w, "model", r->model ? r->model : "");
    sf_json_write_string(w, "is", ended ? "done" : r->stopping ? "stopped" : "saved");
    sf_json_write_int(w, "steps", r->steps);
    sft_run_state_write(w, "state", state);
    write_facts(w, "run", r->run);
    write_facts(w, "place", r->place);
}

static int write_rows(struct page *p, int64_t steps, struct sf_err *err)
{
    p->each = steps / MOST_POINTS + 1;
    sf_json_write_int(&p->w, "each", p->each);
    sf_json_write_array(&p->w, "columns");
    for (int i = 0; i < COLUMNS; i++)
        sf_json_write_string(&p->w, NULL, columns[i]);
    sf_json_write_end(&p->w, ']');
    sf_json_write_array(&p->w, "rows");
    int code = walk(p, add_step, err);
    end_bucket(p);
    sf_json_write_end(&p->w, ']');
    sf_json_write_array(&p->w, "evals");
    if (!code)
        code = walk(p, add_eval, err);
    sf_json_write_end(&p->w, ']');
    return code;
}

static int write_data(char **data, struct page *p, const struct run_report *r,
                      const struct sft_run_state *state, struct sf_err *err)
{
    char *text;
    uint64_t bytes;
    sf_json_write_begin(&p->w, &p->arena, 0);
    sf_json_write_object(&p->w, NULL);
    write_head(&p->w, r, state);
    int code = write_rows(p, state->step, err);
    sf_json_write_end(&p->w, '}');
    if (!code)
        code = sf_json_write_finish(&text, &bytes, &p->w, err);
    if (code)
        return code;
    *data = report_page_safe(&p->arena, text, bytes);
    return *data ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for report.html");
}

int run_report_write(const struct run_report *report, const struct sft_run_state *state,
                     struct sf_err *err)
{
    struct page page = {.each = 1};
    char *data;
    const char *from = sf_path_join(&page.arena, report->directory, "metrics.jsonl");
    const char *to = sf_path_join(&page.arena, report->directory, "report.html");
    int code = from && to ? sf_map_file(&page.metrics, from, err)
                          : sf_fail(err, SF_ENOMEM, "no memory for a path");
    if (!code)
        code = write_data(&data, &page, report, state, err);
    if (!code)
        code = report_page_write(to, run_html, run_js, data, err);
    sf_unmap(&page.metrics);
    sf_arena_free(&page.line);
    sf_arena_free(&page.arena);
    return code;
}
