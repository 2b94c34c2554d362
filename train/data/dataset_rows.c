#include "train/data/dataset_rows.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/base/map_guard.h"

/* All rows of a file are of one kind: the first one's. */
static int take_kind(struct row_builder *b, enum sft_row_kind kind, const char *path, int64_t line,
                     struct sf_err *err)
{
    if (!b->kind_file) {
        b->kind = kind;
        b->kind_file = path;
        b->kind_line = line;
    }
    if (b->kind == kind)
        return kind == SFT_ROW_TEXT ? SF_OK : rows_end_text(b, err);
    return sf_fail(err, SF_EFORMAT, "a row of %s, but line %lld of %s is a row of %s",
                   sft_row_kind_name(kind), (long long)b->kind_line, b->kind_file,
                   sft_row_kind_name(b->kind));
}

/* ---- rows that are not as they should be ---- */

/* `times`: rows of this sort, this one included. */
static void note(const struct row_builder *b, int64_t times, const char *what, int64_t tokens)
{
    char place[32] = "", text[640];
    if (!b->config->on_note || times > SFT_NOTES_MOST)
        return;
    if (b->line)
        snprintf(place, sizeof place, "line %lld: ", (long long)b->line);
    snprintf(text, sizeof text, "%.400s: %sa row of %lld tokens %s%s", b->file, place,
             (long long)tokens, what,
             times == SFT_NOTES_MOST ? "; others like it are only counted" : "");
    b->config->on_note(b->config->context, text);
}

/* *take: how many of `count` tokens are kept, 0 when the row is left out. */
static int judge_length(int64_t *take, struct row_builder *b, int64_t count, struct sf_err *err)
{
    int64_t most = b->config->max_length;
    enum sft_too_long wanted = b->config->too_long;
    *take = count;
    if (count <= most)
        return SF_OK;
    if (wanted == SFT_LONG_ERROR || (wanted == SFT_LONG_DEFAULT && b->kind == SFT_ROW_INPUT_IDS))
        return sf_fail(err, SF_EFORMAT, "%lld %s, more than the maximal sequence length of %lld",
                       (long long)count, b->kind == SFT_ROW_INPUT_IDS ? "input_ids" : "tokens",
                       (long long)most);
    if (wanted == SFT_LONG_SKIP) {
        *take = 0;
        note(b, ++b->long_rows, "is too long and left out", count);
        return SF_OK;
    }
    *take = most;
    b->truncated_tokens += count - most;
    note(b, ++b->truncated_rows, "is too long and cut", count);
    return SF_OK;
}

/* True when the row is left out for having nothing to train on. */
static bool leaves_out(struct row_builder *b, int64_t tokens)
{
    if (b->config->untrainable == SFT_UNTRAINABLE_ERROR)
        return false;
    note(b, ++b->untrainable_rows, "has nothing to be trained on and is left out", tokens);
    return true;
}

/* Ends a row of so many tokens. */
static int end_row(struct row_builder *b, int64_t tokens, int32_t file, struct sf_err *err)
{
    int32_t length = (int32_t)tokens;
    const int32_t place[] = {file, b->line < INT32_MAX ? (int32_t)b->line : INT32_MAX};
    int code = sf_ids_append(&b->place, place, 2, err);
    return code ? code : sf_ids_append(&b->length, &length, 1, err);
}

/* ---- text ---- */

/* Ends a document. */
static int end_document(struct row_builder *b, int64_t first, struct sf_err *err)
{
    int64_t count = b->id.count - first, take;
    int code = judge_length(&take, b, count, err);
    if (code)
        return code;
    b->id.count = b->label.count = first + take;
    if (take == 0 && count > 0)
        return SF_OK;
    if (take < 2 && leaves_out(b, count)) {
        b->id.count = b->label.count = first;
        return SF_OK;
    }
    if (take < 2)
        return sf_fail(err, SF_EFORMAT,
                       "a document of %lld tokens has no token to be trained on; 2 are needed",
                       (long long)count);
    return end_row(b, take, b->file_number, err);
}

static int check_ids(const struct row_builder *b, int64_t first, struct sf_err *err)
{
    for (int64_t i = first; i < b->id.count; i++)
        if (b->id.id[i] >= b->config->encoder.vocabulary)
            return sf_fail(
                err, SF_EFORMAT, "token %lld has id %d, outside the model's vocabulary of %lld",
                (long long)(i - first), (int)b->id.id[i], (long long)b->config->encoder.vocabulary);
    return SF_OK;
}

static int add_text(struct row_builder *b, const char *text, uint64_t bytes, struct sf_err *err)
{
    const struct sft_row_encoder *e = &b->config->encoder;
    int64_t first = b->id.count;
    if (!e->tokenizer)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "text, but the container carries no tokenizer.json; rows of input_ids need "
                       "none");
    if (e->train_on == SFT_TRAIN_ON_ASSISTANT || e->train_on == SFT_TRAIN_ON_LAST)
        return sf_fail(err, SF_EINVAL, "text has no part that an assistant said");
    int code = sf_tokenizer_encode(&b->id, e->tokenizer, text, bytes, e->add_special,
                                   b->tokens.scratch, err);
    if (!code)
        code = check_ids(b, first, err);
    if (!code && b->id.count > first)
        code = sf_ids_append(&b->label, b->id.id + first, b->id.count - first, err);
    if (!code && b->config->mode == SFT_TEXT_DOCUMENTS)
        return end_document(b, first, err);
    if (b->text < 0) {
        b->text = first;
        b->text_file = b->file_number;
    }
    if (b->text_file != b->file_number)
        b->text_file = -1;
    return code;
}

int rows_end_text(struct row_builder *b, struct sf_err *err)
{
    int64_t length = b->config->max_length, line = b->line;
    int code = SF_OK;
    if (b->text < 0)
        return SF_OK;
    int64_t tail = (b->id.count - b->text) % length, blocks = (b->id.count - b->text) / length;
    b->line = 0;
    for (int64_t i = 0; !code && i < blocks; i++)
        code = end_row(b, length, b->text_file, err);
    b->line = line;
    b->id.count -= tail;
    b->label.count -= tail;
    b->tail_tokens += tail;
    b->text = -1;
    return code;
}

/* ---- rows with labels ---- */

static int add_labelled(struct row_builder *b, const struct sf_json *row, struct sf_err *err)
{
    const struct sft_row_tokens *t = &b->tokens;
    int64_t count = 0, trained = 0;
    int code = sft_row_encode(&b->tokens, &b->config->encoder, row, err);
    if (!code)
        code = judge_length(&count, b, t->id.count, err);
    if (code || (count == 0 && t->id.count > 0))
        return code;
    for (int64_t i = 1; i < count; i++)
        trained += t->label.id[i] != SFT_NO_TARGET;
    if (trained == 0 && leaves_out(b, t->id.count))
        return SF_OK;
    if (trained == 0)
        return sf_fail(err, SF_EFORMAT,
                       "a row of %lld tokens without any to be trained on (the first one has "
                       "nothing before it)%s",
                       (long long)t->id.count,
                       t->trained ? "; those that were are behind the maximal sequence length"
                                  : "");
    code = sf_ids_append(&b->id, t->id.id, count, err);
    if (!code)
        code = sf_ids_append(&b->label, t->label.id, count, err);
    return code ? code : end_row(b, count, b->file_number, err);
}

/* ---- files ---- */

static int add_row(struct row_builder *b, const struct sf_json *row, const char *path, int64_t line,
                   struct sf_err *err)
{
    enum sft_row_kind kind;
    const char *string;
    int code = sft_row_kind_of(&kind, row, err);
    if (!code)
        code = take_kind(b, kind, path, line, err);
    if (!code && kind != SFT_ROW_TEXT)
        return add_labelled(b, row, err);
    if (!code && sf_json_get(row, "labels"))
        return sf_fail(err, SF_EFORMAT, "a row of text with labels; labels belong to input_ids");
    if (!code)
        code = sf_json_as_string(&string, sf_json_get(row, "text"), "text", err);
    return code ? code : add_text(b, string, strlen(string), err);
}

static bool is_blank(const char *text, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

static int add_line(struct row_builder *b, const char *text, uint64_t bytes, const char *path,
                    int64_t line, struct sf_err *err)
{
    struct sf_json *root;
    if (is_blank(text, bytes))
        return SF_OK;
    int code = sf_json_parse(&root, text, bytes, err);
    if (code)
        return code;
    code = add_row(b, root, path, line, err);
    sf_json_free(root);
    return code;
}

static int add_lines(struct row_builder *b, const struct sf_mapping *file, const char *path,
                     struct sf_err *err)
{
    const char *at = (const char *)file->data, *end = at + file->bytes;
    int64_t line = 1;
    for (; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop ? stop : end;
        b->line = line;
        int code = add_line(b, at, (uint64_t)(stop - at), path, line, err);
        if (code)
            return sf_err_prefix(err, "line %lld", (long long)line);
        at = stop + 1;
    }
    return SF_OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static int add_mapped(struct row_builder *b, const struct sf_mapping *file, const char *path,
                      struct sf_err *err)
{
    if (ends_with(path, ".jsonl") || ends_with(path, ".json"))
        return file->bytes ? add_lines(b, file, path, err) : SF_OK;
    if (!ends_with(path, ".txt"))
        return sf_fail(err, SF_EINVAL, "data files end in .txt or .jsonl");
    if (file->bytes == 0)
        return SF_OK;
    int code = take_kind(b, SFT_ROW_TEXT, path, 0, err);
    return code ? code : add_text(b, (const char *)file->data, file->bytes, err);
}

int rows_add_file(struct row_builder *b, const char *path, struct sf_err *err)
{
    struct sf_mapping file;
    int code = sf_map_file(&file, path, err); /* its message names the path */
    if (code)
        return code;
    b->file = path;
    b->line = 0;
    b->kind_file = NULL;
    code = add_mapped(b, &file, path, err);
    if (code)
        sf_err_prefix(err, "%s", path);
    int there = sf_mapping_check(&file, path, err);
    sf_unmap(&file);
    return there ? there : code;
}
