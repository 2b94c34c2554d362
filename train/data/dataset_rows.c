#include "train/data/dataset_rows.h"

#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/map_guard.h"
#include "libformat/base/json.h"

/* All rows of a dataset are of one kind: the first one's. */
static int take_kind(struct row_builder *b, enum sft_row_kind kind, const char *path, int64_t line,
                     struct sf_err *err)
{
    if (!b->kind_file) {
        b->kind = kind;
        b->kind_file = path;
        b->kind_line = line;
    }
    if (b->kind == kind)
        return SF_OK;
    if (b->kind_line == 0)
        return sf_fail(err, SF_EFORMAT, "a row of %s, but %s is text", sft_row_kind_name(kind),
                       b->kind_file);
    return sf_fail(err, SF_EFORMAT, "a row of %s, but line %lld of %s is a row of %s",
                   sft_row_kind_name(kind), (long long)b->kind_line, b->kind_file,
                   sft_row_kind_name(b->kind));
}

/* ---- text ---- */

/* Ends a document: cuts it at max_length. */
static int end_document(struct row_builder *b, int64_t first, struct sf_err *err)
{
    int64_t count = b->id.count - first, most = b->config->max_length;
    if (count > most) {
        b->truncated_rows++;
        b->truncated_tokens += count - most;
        b->id.count = first + most;
        count = most;
    }
    if (count < 2)
        return sf_fail(err, SF_EFORMAT,
                       "a document of %lld tokens has no token to be trained on; 2 are needed",
                       (long long)count);
    int32_t length = (int32_t)count;
    return sf_ids_append(&b->length, &length, 1, err);
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
    if (!code && b->config->mode == SFT_TEXT_DOCUMENTS)
        code = end_document(b, first, err);
    return code;
}

/* ---- rows with labels ---- */

/* How many tokens of b->tokens are taken. Rows of input_ids are never cut. */
static int cut(int64_t *out, struct row_builder *b, struct sf_err *err)
{
    int64_t count = b->tokens.id.count, most = b->config->max_length;
    *out = count < most ? count : most;
    if (count <= most)
        return SF_OK;
    if (b->kind == SFT_ROW_INPUT_IDS)
        return sf_fail(err, SF_EFORMAT,
                       "%lld input_ids, more than the maximal sequence length of %lld",
                       (long long)count, (long long)most);
    b->truncated_rows++;
    b->truncated_tokens += count - most;
    return SF_OK;
}

static int add_labelled(struct row_builder *b, const struct sf_json *row, struct sf_err *err)
{
    const struct sft_row_tokens *t = &b->tokens;
    int64_t count = 0, trained = 0;
    int code = sft_row_encode(&b->tokens, &b->config->encoder, row, err);
    if (!code)
        code = cut(&count, b, err);
    if (code)
        return code;
    for (int64_t i = 1; i < count; i++)
        trained += t->label.id[i] != SFT_NO_TARGET;
    if (trained == 0)
        return sf_fail(err, SF_EFORMAT,
                       "a row of %lld tokens without any to be trained on (the first one has "
                       "nothing before it)%s",
                       (long long)t->id.count,
                       t->trained ? "; those that were are behind the maximal sequence length"
                                  : "");
    int32_t length = (int32_t)count;
    code = sf_ids_append(&b->id, t->id.id, count, err);
    if (!code)
        code = sf_ids_append(&b->label, t->label.id, count, err);
    return code ? code : sf_ids_append(&b->length, &length, 1, err);
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
    code = add_mapped(b, &file, path, err);
    if (code)
        sf_err_prefix(err, "%s", path);
    int there = sf_mapping_check(&file, path, err);
    sf_unmap(&file);
    return there ? there : code;
}
