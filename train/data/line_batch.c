#include "train/data/line_batch.h"

#include <string.h>

#include "libformat/base/jobs.h"
#include "libformat/base/mem.h"

enum {
    JOB_BYTES = 1 << 16, /* of a job, and no line is cut */
    JOBS_PER_THREAD = 8  /* lines differ: whoever is done takes another */
};

struct line {
    int64_t number, first, count; /* its tokens among the job's */
    enum sft_row_kind kind;
    bool known, trained, failed;
};

struct job {
    const char *at, *end; /* whole lines */
    int64_t line;         /* the first one's number */
    struct sf_ids id, label;
    struct line *done; /* [lines] that are not blank */
    int64_t lines, capacity;
    struct sf_err err; /* of the last of them, if that failed */
};

struct line_batch {
    const struct sft_row_encoder *encoder;
    struct sft_row_tokens *worker; /* [threads] */
    struct job *job;               /* [room] */
    int threads;
    int64_t room, jobs; /* jobs: filled */
    int64_t now, next;  /* the line that is handed on next: of job `now` */
};

int line_batch_open(struct line_batch **out, const struct sft_row_encoder *encoder, int threads,
                    struct sf_err *err)
{
    void *block, *worker, *job;
    int code = sf_alloc_for(&block, sizeof(struct line_batch), "lines", err);
    if (code)
        return code;
    struct line_batch *b = block;
    b->encoder = encoder;
    b->room = (int64_t)threads * JOBS_PER_THREAD;
    code = sf_alloc_for(&worker, (uint64_t)threads * sizeof *b->worker, "lines", err);
    if (!code) {
        b->worker = worker;
        code = sf_alloc_for(&job, (uint64_t)b->room * sizeof *b->job, "lines", err);
    }
    if (!code)
        b->job = job;
    for (int i = 0; !code && i < threads; i++) {
        code = sft_row_tokens_open(&b->worker[i], encoder, err);
        b->threads += !code;
    }
    if (code)
        line_batch_close(b);
    else
        *out = b;
    return code;
}

void line_batch_close(struct line_batch *b)
{
    if (!b)
        return;
    for (int i = 0; i < b->threads; i++)
        sft_row_tokens_close(&b->worker[i]);
    for (int64_t i = 0; b->job && i < b->room; i++) {
        sf_ids_free(&b->job[i].id);
        sf_ids_free(&b->job[i].label);
        sf_free(b->job[i].done);
    }
    sf_free(b->worker);
    sf_free(b->job);
    sf_free(b);
}

/* ---- one line ---- */

static int check_ids(const int32_t *id, int64_t count, int64_t vocabulary, struct sf_err *err)
{
    for (int64_t i = 0; i < count; i++)
        if (id[i] >= vocabulary)
            return sf_fail(err, SF_EFORMAT,
                           "token %lld has id %d, outside the model's vocabulary of %lld",
                           (long long)i, (int)id[i], (long long)vocabulary);
    return SF_OK;
}

static int encode_text(struct sf_ids *id, const struct sft_row_encoder *e,
                       struct sf_tokenizer_scratch *scratch, const char *text, uint64_t bytes,
                       struct sf_err *err)
{
    int64_t first = id->count;
    if (!e->tokenizer)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "text, but the container carries no tokenizer.json; rows of input_ids need "
                       "none");
    if (e->train_on == SFT_TRAIN_ON_ASSISTANT || e->train_on == SFT_TRAIN_ON_LAST)
        return sf_fail(err, SF_EINVAL, "text has no part that an assistant said");
    int code = sf_tokenizer_encode(id, e->tokenizer, text, bytes, e->add_special, scratch, err);
    if (code || id->count == first)
        return code;
    return check_ids(id->id + first, id->count - first, e->vocabulary, err);
}

static int encode_text_row(struct job *job, const struct sft_row_encoder *e,
                           struct sft_row_tokens *worker, const struct sf_json *row,
                           struct sf_err *err)
{
    const char *text;
    if (sf_json_get(row, "labels"))
        return sf_fail(err, SF_EFORMAT, "a row of text with labels; labels belong to input_ids");
    int code = sf_json_as_string(&text, sf_json_get(row, "text"), "text", err);
    return code ? code : encode_text(&job->id, e, worker->scratch, text, strlen(text), err);
}

/* Labels stand beside the job's ids: of text, which has none, nothing does. */
static int encode_labelled(struct job *job, struct line *line, const struct sft_row_encoder *e,
                           struct sft_row_tokens *worker, const struct sf_json *row,
                           struct sf_err *err)
{
    static const int32_t none = SFT_NO_TARGET;
    int code = sft_row_encode(worker, e, row, err);
    while (!code && job->label.count < job->id.count)
        code = sf_ids_append(&job->label, &none, 1, err);
    if (!code)
        code = sf_ids_append(&job->id, worker->id.id, worker->id.count, err);
    if (!code)
        code = sf_ids_append(&job->label, worker->label.id, worker->label.count, err);
    line->trained = worker->trained > 0;
    return code;
}

static int encode_row(struct job *job, struct line *line, const struct sft_row_encoder *e,
                      struct sft_row_tokens *worker, const struct sf_json *row, struct sf_err *err)
{
    int code = sft_row_kind_of(&line->kind, row, err);
    if (code)
        return code;
    line->known = true;
    return line->kind == SFT_ROW_TEXT ? encode_text_row(job, e, worker, row, err)
                                      : encode_labelled(job, line, e, worker, row, err);
}

/* ---- jobs ---- */

static bool is_blank(const char *text, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

static int add_line(struct job *job, int64_t number, struct line **out, struct sf_err *err)
{
    void *done = job->done;
    int code =
        sf_grow(&done, &job->capacity, job->lines, job->lines + 1, sizeof *job->done, "lines", err);
    job->done = done;
    if (code)
        return code;
    *out = &job->done[job->lines++];
    **out = (struct line){.number = number, .first = job->id.count};
    return SF_OK;
}

static int encode_line(struct job *job, struct line *line, const struct sft_row_encoder *e,
                       struct sft_row_tokens *worker, const char *at, const char *end,
                       struct sf_err *err)
{
    struct sf_json *root;
    int code = sf_json_parse(&root, at, (uint64_t)(end - at), err);
    if (code)
        return code;
    code = encode_row(job, line, e, worker, root, err);
    sf_json_free(root);
    line->count = job->id.count - line->first;
    return code;
}

/* The lines of job `index`, up to the first that is wrong: that is no failure of the job. */
static int run_job(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct line_batch *b = context;
    struct job *job = &b->job[index];
    int64_t number = job->line;
    job->id.count = job->label.count = job->lines = 0;
    for (const char *at = job->at; at < job->end; number++) {
        const char *stop = memchr(at, '\n', (size_t)(job->end - at));
        struct line *line;
        stop = stop ? stop : job->end;
        if (!is_blank(at, (uint64_t)(stop - at))) {
            int code = add_line(job, number, &line, err);
            if (code)
                return code;
            if (encode_line(job, line, b->encoder, &b->worker[worker], at, stop, &job->err)) {
                line->failed = true;
                return SF_OK;
            }
        }
        at = stop + 1;
    }
    return SF_OK;
}

static int64_t count_lines(const char *at, const char *end)
{
    int64_t lines = 0;
    for (; at < end && (at = memchr(at, '\n', (size_t)(end - at))); at++)
        lines++;
    return lines;
}

int line_batch_read(struct line_batch *b, const char **at, const char *end, int64_t *line,
                    struct sf_err *err)
{
    b->now = b->next = b->jobs = 0;
    while (b->jobs < b->room && *at < end) {
        struct job *job = &b->job[b->jobs++];
        const char *stop = end;
        if (end - *at > JOB_BYTES) {
            stop = memchr(*at + JOB_BYTES, '\n', (size_t)(end - *at - JOB_BYTES));
            stop = stop ? stop + 1 : end;
        }
        job->at = *at;
        job->end = stop;
        job->line = *line;
        *line += count_lines(*at, stop);
        *at = stop;
    }
    int threads = b->jobs < b->threads ? (int)b->jobs : b->threads;
    return b->jobs ? sf_jobs_run(run_job, b, b->jobs, threads, err) : SF_OK;
}

bool line_batch_next(struct line_tokens *out, struct line_batch *b)
{
    while (b->now < b->jobs && b->next == b->job[b->now].lines) {
        b->now++;
        b->next = 0;
    }
    if (b->now == b->jobs)
        return false;
    const struct job *job = &b->job[b->now];
    const struct line *line = &job->done[b->next++];
    *out = (struct line_tokens){.line = line->number,
                                .count = line->count,
                                .trained = line->trained,
                                .known = line->known,
                                .kind = line->kind,
                                .err = line->failed ? &job->err : NULL};
    if (line->count) {
        out->id = job->id.id + line->first;
        out->label = line->kind == SFT_ROW_TEXT ? out->id : job->label.id + line->first;
    }
    return true;
}

int line_batch_text(struct line_tokens *out, struct line_batch *b, const char *text, uint64_t bytes,
                    struct sf_err *err)
{
    struct job *job = &b->job[0];
    job->id.count = 0;
    int code = encode_text(&job->id, b->encoder, b->worker[0].scratch, text, bytes, err);
    *out = (struct line_tokens){.id = job->id.id,
                                .label = job->id.id,
                                .count = job->id.count,
                                .known = true,
                                .kind = SFT_ROW_TEXT};
    return code;
}
