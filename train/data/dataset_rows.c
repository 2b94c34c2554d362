#include "train/data/dataset_rows.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/map_guard.h"
#include "train/data/line_batch.h"

/* Rows under way. */
struct reader {
    const struct sft_dataset_config *config;
    struct line_batch *lines;
    struct sft_token_writer *writer;
    struct sft_token_counts counts;
    int32_t file_number; /* in hand, and its name */
    const char *file;
    int64_t line;           /* in hand; 0: a .txt file */
    enum sft_row_kind kind; /* of the file */
    int64_t kind_line;      /* where it was seen first; 0: it is a .txt file */
    bool kind_known;        /* some row has been seen */
    struct sf_ids text;     /* mode BLOCKS: tokens that make no row yet, fewer than one has */
    int32_t text_file;      /* the file they are in; -1: several */
    uint64_t done, all;     /* bytes */
};

/* Mode BLOCKS: what is left over of text is not used. */
static void end_text(struct reader *r)
{
    r->counts.tail_tokens += r->text.count;
    r->text.count = 0;
}

/* All rows of a file are of one kind: the first one's. Text ends where other rows begin. */
static int take_kind(struct reader *r, enum sft_row_kind kind, struct sf_err *err)
{
    if (!r->kind_known) {
        r->kind_known = true;
        r->kind = kind;
        r->kind_line = r->line;
    }
    if (r->kind == kind) {
        if (kind != SFT_ROW_TEXT)
            end_text(r);
        return SF_OK;
    }
    return sf_fail(err, SF_EFORMAT, "a row of %s, but line %lld of %s is a row of %s",
                   sft_row_kind_name(kind), (long long)r->kind_line, r->file,
                   sft_row_kind_name(r->kind));
}

/* ---- rows that are not as they should be ---- */

/* `times`: rows of this sort, this one included. */
static int note(struct reader *r, int64_t times, const char *what, int64_t tokens,
                struct sf_err *err)
{
    char place[32] = "", text[640];
    if (times > SFT_NOTES_MOST)
        return SF_OK;
    if (r->line)
        snprintf(place, sizeof place, "line %lld: ", (long long)r->line);
    snprintf(text, sizeof text, "%.400s: %sa row of %lld tokens %s%s", r->file, place,
             (long long)tokens, what,
             times == SFT_NOTES_MOST ? "; others like it are only counted" : "");
    return sft_token_writer_note(r->writer, text, err);
}

/* *take: how many of `count` tokens are kept, 0 when the row is left out. */
static int judge_length(int64_t *take, struct reader *r, int64_t count, struct sf_err *err)
{
    int64_t most = r->config->max_length;
    enum sft_too_long wanted = r->config->too_long;
    *take = count;
    if (count <= most)
        return SF_OK;
    if (wanted == SFT_LONG_ERROR || (wanted == SFT_LONG_DEFAULT && r->kind == SFT_ROW_INPUT_IDS))
        return sf_fail(err, SF_EFORMAT, "%lld %s, more than the maximal sequence length of %lld",
                       (long long)count, r->kind == SFT_ROW_INPUT_IDS ? "input_ids" : "tokens",
                       (long long)most);
    if (wanted == SFT_LONG_SKIP) {
        *take = 0;
        return note(r, ++r->counts.long_rows, "is too long and left out", count, err);
    }
    *take = most;
    r->counts.truncated_tokens += count - most;
    return note(r, ++r->counts.truncated_rows, "is too long and cut", count, err);
}

/* A row, or a document, of so many tokens has nothing to train on, which is an error or noted. */
static int judge_untrainable(struct reader *r, const char *what, int64_t tokens, const char *why,
                             struct sf_err *err)
{
    if (r->config->untrainable == SFT_UNTRAINABLE_ERROR)
        return sf_fail(err, SF_EFORMAT, "a %s of %lld tokens %s", what, (long long)tokens, why);
    return note(r, ++r->counts.untrainable_rows, "has nothing to be trained on and is left out",
                tokens, err);
}

static int add_row(struct reader *r, const struct line_tokens *t, int64_t length,
                   struct sf_err *err)
{
    return sft_token_writer_row(r->writer, t->id, t->label, (int32_t)length, r->file_number,
                                r->line, err);
}

/* ---- text ---- */

static int add_document(struct reader *r, const struct line_tokens *t, struct sf_err *err)
{
    int64_t take;
    int code = judge_length(&take, r, t->count, err);
    if (code || (take == 0 && t->count > 0))
        return code;
    if (take < 2)
        return judge_untrainable(r, "document", t->count,
                                 "has no token to be trained on; 2 are needed", err);
    return add_row(r, t, take, err);
}

/* Behind the text so far; whole rows go on. */
static int add_blocks(struct reader *r, const int32_t *id, int64_t count, struct sf_err *err)
{
    int64_t length = r->config->max_length;
    int code = SF_OK;
    for (int64_t at = 0, take; !code && at < count; at += take) {
        const int32_t *row = id + at;
        bool begins = r->text.count == 0;
        take = length - r->text.count < count - at ? length - r->text.count : count - at;
        r->text_file = begins || r->text_file == r->file_number ? r->file_number : -1;
        if (!begins || take < length) {
            code = sf_ids_append(&r->text, id + at, take, err);
            row = r->text.id;
        }
        if (!code && (r->text.count == length || (begins && take == length))) {
            code = sft_token_writer_row(r->writer, row, row, (int32_t)length, r->text_file, 0, err);
            r->text.count = 0;
        }
    }
    return code;
}

static int add_text(struct reader *r, const struct line_tokens *t, struct sf_err *err)
{
    return r->config->mode == SFT_TEXT_DOCUMENTS ? add_document(r, t, err)
                                                 : add_blocks(r, t->id, t->count, err);
}

/* ---- rows with labels ---- */

static int add_labelled(struct reader *r, const struct line_tokens *t, struct sf_err *err)
{
    int64_t count, trained = 0;
    int code = judge_length(&count, r, t->count, err);
    if (code || (count == 0 && t->count > 0))
        return code;
    for (int64_t i = 1; i < count; i++)
        trained += t->label[i] != SFT_NO_TARGET;
    if (trained)
        return add_row(r, t, count, err);
    return judge_untrainable(
        r, "row", t->count,
        t->trained ? "without any to be trained on (the first one has nothing before it); those "
                     "that were are behind the maximal sequence length"
                   : "without any to be trained on (the first one has nothing before it)",
        err);
}

/* ---- files ---- */

static int add_line(struct reader *r, const struct line_tokens *t, struct sf_err *err)
{
    int code = SF_OK;
    r->line = t->line;
    if (t->known)
        code = take_kind(r, t->kind, err);
    if (!code && t->err) {
        if (err)
            *err = *t->err;
        code = t->err->code;
    }
    if (!code)
        code = t->kind == SFT_ROW_TEXT ? add_text(r, t, err) : add_labelled(r, t, err);
    return code ? sf_err_prefix(err, "line %lld", (long long)t->line) : SF_OK;
}

static int tell(struct reader *r, uint64_t bytes, struct sf_err *err)
{
    const struct sft_dataset_config *c = r->config;
    if (c->interrupted && c->interrupted())
        return sf_fail(err, SF_EINTERRUPTED, "stopped at byte %llu", (unsigned long long)bytes);
    if (c->on_progress)
        c->on_progress(c->context, r->done + bytes, r->all);
    return SF_OK;
}

static int add_lines(struct reader *r, const struct sf_mapping *file, struct sf_err *err)
{
    const char *first = (const char *)file->data, *at = first, *end = first + file->bytes;
    struct line_tokens t;
    int code = SF_OK;
    for (int64_t line = 1; !code && at < end;) {
        code = line_batch_read(r->lines, &at, end, &line, err);
        while (!code && line_batch_next(&t, r->lines))
            code = add_line(r, &t, err);
        if (!code)
            code = tell(r, (uint64_t)(at - first), err);
    }
    return code;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static int add_mapped(struct reader *r, const struct sf_mapping *file, struct sf_err *err)
{
    struct line_tokens t;
    if (ends_with(r->file, ".jsonl") || ends_with(r->file, ".json"))
        return file->bytes ? add_lines(r, file, err) : SF_OK;
    if (!ends_with(r->file, ".txt"))
        return sf_fail(err, SF_EINVAL, "data files end in .txt or .jsonl");
    if (file->bytes == 0)
        return SF_OK;
    int code = take_kind(r, SFT_ROW_TEXT, err);
    if (!code)
        code = line_batch_text(&t, r->lines, (const char *)file->data, file->bytes, err);
    if (!code)
        code = add_text(r, &t, err);
    return code ? code : tell(r, file->bytes, err);
}

static int add_file(struct reader *r, int32_t number, struct sf_err *err)
{
    struct sf_mapping file;
    r->file_number = number;
    r->file = r->config->file[number];
    r->line = 0;
    r->kind_known = false;
    int code = sf_map_file(&file, r->file, err); /* its message names the path */
    if (code)
        return code;
    code = add_mapped(r, &file, err);
    if (code)
        sf_err_prefix(err, "%s", r->file);
    int there = sf_mapping_check(&file, r->file, err);
    r->done += file.bytes;
    sf_unmap(&file);
    if (r->config->file_end) /* text ends with its file */
        end_text(r);
    return there ? there : code;
}

/* ---- all of them ---- */

static int check(const struct reader *r, int64_t tail, struct sf_err *err)
{
    const struct sft_dataset_config *c = r->config;
    if (sft_token_writer_rows(r->writer) > 0)
        return SF_OK;
    if (tail > 0)
        return sf_fail(err, SF_EINVAL, "%lld tokens of text make no row of %lld; shorten the rows",
                       (long long)tail, (long long)c->max_length);
    return sf_fail(err, SF_EINVAL, "%s%s: the dataset is empty%s", c->file[0],
                   c->files > 1 ? " and the others" : "",
                   r->counts.long_rows + r->counts.untrainable_rows ? ": every row is left out"
                                                                    : "");
}

static int add_files(struct reader *r, struct sf_err *err)
{
    const struct sft_dataset_config *c = r->config;
    int code = SF_OK;
    for (int64_t i = 0; !code && i < c->files; i++) {
        struct sf_file_stat stat;
        code = sft_token_writer_name(r->writer, c->file[i], err);
        if (!code && sf_file_stat(&stat, c->file[i], NULL) == SF_OK) /* what is wrong comes later */
            r->all += stat.bytes;
    }
    for (int64_t i = 0; !code && i < c->files; i++)
        code = add_file(r, (int32_t)i, err);
    end_text(r);
    return code ? code : check(r, r->counts.tail_tokens, err);
}

int rows_read(struct sft_tokens **out, const struct sft_dataset_config *config, const char *path,
              struct sf_hash128 key, struct sf_err *err)
{
    struct reader r = {.config = config};
    int code =
        line_batch_open(&r.lines, &config->encoder, config->threads > 1 ? config->threads : 1, err);
    if (!code)
        code = sft_token_writer_open(&r.writer, path, err);
    if (!code)
        code = add_files(&r, err);
    if (!code) {
        code = sft_token_writer_finish(out, r.writer, &r.counts, key, err);
        r.writer = NULL;
    }
    sft_token_writer_abort(r.writer);
    line_batch_close(r.lines);
    sf_ids_free(&r.text);
    return code;
}
