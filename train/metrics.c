#include "train/metrics.h"

#include <string.h>

#include "libformat/base/append_file.h"
#include "libformat/base/clock.h"
#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "train/event_file.h"

struct sft_metrics {
    struct sf_arena arena; /* paths */
    struct sf_arena line;  /* reset with each: no memory is taken once it is warm */
    const char *path;
    struct sf_append_file *file;
    struct sft_event_file *events;
};

/* ---- the rows of a checkpoint ---- */

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

/* TensorBoard's file is made again from the rows. */
static int tell_again(struct sft_metrics *m, const struct sf_mapping *kept, struct sf_err *err)
{
    const char *at = (const char *)kept->data, *end = at + kept->bytes;
    int code = SF_OK;
    while (!code && at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        struct sft_metric_row row;
        sf_arena_reset(&m->line);
        code = sft_metric_row_read(&row, &m->line, at, (uint64_t)(stop - at), err);
        if (!code)
            code = sft_event_file_add(m->events, &row, err);
        at = stop + 1;
    }
    return code;
}

static int take_rows(struct sft_metrics *m, const char *kept, struct sf_err *err)
{
    struct sf_mapping rows;
    int code = sf_map_file(&rows, kept, err);
    if (code)
        return code;
    code = put_back(m, &rows, err);
    if (!code && rows.bytes)
        code = tell_again(m, &rows, err);
    sf_unmap(&rows);
    sf_arena_reset(&m->line);
    return code ? sf_err_prefix(err, "%s", kept) : SF_OK;
}

/* ---- life ---- */

static int open_files(struct sft_metrics *m, const char *directory, const char *kept,
                      struct sf_err *err)
{
    m->path = sf_path_join(&m->arena, directory, "metrics.jsonl");
    const char *events = sf_path_join(&m->arena, directory, "events.out.tfevents.scout");
    if (!m->path || !events)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = sf_append_file_open(&m->file, m->path, err);
    if (!code)
        code = sft_event_file_open(&m->events, events, err);
    if (!code)
        code = kept ? take_rows(m, kept, err) : sf_append_file_cut(m->file, 0, err);
    return code;
}

int sft_metrics_open(struct sft_metrics **out, const char *directory, const char *kept,
                     struct sf_err *err)
{
    void *memory;
    int code = sf_alloc_for(&memory, sizeof(struct sft_metrics), "metrics", err);
    if (code)
        return code;
    struct sft_metrics *m = memory;
    code = open_files(m, directory, kept, err);
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
    sft_event_file_close(metrics->events);
    sf_arena_free(&metrics->line);
    sf_arena_free(&metrics->arena);
    sf_free(metrics);
}

const char *sft_metrics_path(const struct sft_metrics *metrics)
{
    return metrics->path;
}

/* ---- rows ---- */

/* The NUL behind the text becomes its newline: one write, so that no line is ever torn. */
static int add_row(struct sft_metrics *m, const struct sft_metric_row *row, struct sf_err *err)
{
    char *text;
    uint64_t bytes;
    int code = sft_metric_row_write(&text, &bytes, &m->line, row, err);
    if (!code) {
        text[bytes] = '\n';
        code = sf_append_file_add(m->file, text, bytes + 1, err);
    }
    if (!code)
        code = sft_event_file_add(m->events, row, err);
    sf_arena_reset(&m->line);
    return code;
}

int sft_metrics_step(struct sft_metrics *metrics, const struct sft_metrics_step *row,
                     struct sf_err *err)
{
    struct sft_metric_row line;
    sft_metric_row_of_step(&line, row, sf_clock_unix());
    return add_row(metrics, &line, err);
}

int sft_metrics_eval(struct sft_metrics *metrics, const struct sft_metrics_eval *row,
                     struct sf_err *err)
{
    struct sft_metric_row line;
    sft_metric_row_of_eval(&line, row, sf_clock_unix());
    return add_row(metrics, &line, err);
}
