#include "train/data/dataset_rows.h"

#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/map_guard.h"
#include "libformat/base/json.h"

static const char *kind_name(enum row_kind kind)
{
    return kind == ROWS_TEXT ? "text" : "input_ids";
}

/* All rows of a dataset are of one kind: the first one's. */
static int take_kind(struct row_builder *b, enum row_kind kind, const char *path, int64_t line,
                     struct sf_err *err)
{
    if (b->kind == ROWS_UNKNOWN) {
        b->kind = kind;
        b->kind_file = path;
        b->kind_line = line;
    }
    if (b->kind == kind)
        return SF_OK;
    if (b->kind_line == 0)
        return sf_fail(err, SF_EFORMAT, "a row of %s, but %s is text", kind_name(kind),
                       b->kind_file);
    return sf_fail(err, SF_EFORMAT, "a row of %s, but line %lld of %s is a row of %s",
                   kind_name(kind), (long long)b->kind_line, b->kind_file, kind_name(b->kind));
}

static int check_ids(const struct row_builder *b, int64_t first, struct sf_err *err)
{
    for (int64_t i = first; i < b->id.count; i++)
        if (b->id.id[i] >= b->config->vocabulary)
            return sf_fail(
                err, SF_EFORMAT, "token %lld has id %d, outside the model's vocabulary of %lld",
                (long long)(i - first), (int)b->id.id[i], (long long)b->config->vocabulary);
    return SF_OK;
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

static int add_text(struct row_builder *b, const char *text, uint64_t bytes, struct sf_err *err)
{
    int64_t first = b->id.count;
    if (!b->config->tokenizer)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "text, but the container carries no tokenizer.json; rows of input_ids need "
                       "none");
    int code = sf_tokenizer_encode(&b->id, b->config->tokenizer, text, bytes,
                                   b->config->add_special, b->scratch, err);
    if (!code)
        code = check_ids(b, first, err);
    if (!code && b->config->mode == SFT_TEXT_DOCUMENTS)
        code = end_document(b, first, err);
    return code;
}

/* ---- rows of ids ---- */

/* Appends the whole numbers of an array, each at least `least`, but `also` is welcome too. */
static int add_numbers(struct sf_ids *out, const struct sf_json *array, const char *name,
                       int64_t least, int64_t also, struct sf_err *err)
{
    if (sf_json_type(array) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "%s is %s, not an array", name,
                       sf_json_type_name(sf_json_type(array)));
    const struct sf_json *item = sf_json_first(array);
    for (int64_t i = 0; item; item = sf_json_next(item), i++) {
        int64_t value;
        int code = sf_json_as_int(&value, item, name, err);
        if (code)
            return sf_err_prefix(err, "element %lld", (long long)i);
        if ((value < least && value != also) || value > INT32_MAX)
            return sf_fail(err, SF_EFORMAT, "%s[%lld] is %lld, no token id", name, (long long)i,
                           (long long)value);
        int32_t id = (int32_t)value;
        if ((code = sf_ids_append(out, &id, 1, err)))
            return code;
    }
    return SF_OK;
}

static int check_mask(const struct sf_json *mask, int64_t count, struct sf_err *err)
{
    struct sf_ids ones = {0};
    int code = SF_OK;
    if (mask)
        code = add_numbers(&ones, mask, "attention_mask", 0, 0, err);
    if (!code && mask && ones.count != count)
        code = sf_fail(err, SF_EFORMAT, "attention_mask has %lld numbers, input_ids %lld",
                       (long long)ones.count, (long long)count);
    for (int64_t i = 0; !code && i < ones.count; i++)
        if (ones.id[i] != 1)
            code = sf_fail(err, SF_EUNSUPPORTED,
                           "attention_mask[%lld] is %d: rows are taken whole, without padding",
                           (long long)i, (int)ones.id[i]);
    sf_ids_free(&ones);
    return code;
}

static int check_labels(const struct row_builder *b, int64_t first, int64_t count,
                        struct sf_err *err)
{
    int64_t targets = 0;
    if (b->label.count - first != count)
        return sf_fail(err, SF_EFORMAT, "%lld labels for %lld input_ids",
                       (long long)(b->label.count - first), (long long)count);
    for (int64_t i = 0; i < count; i++) {
        if (b->label.id[first + i] >= b->config->vocabulary)
            return sf_fail(
                err, SF_EFORMAT, "labels[%lld] is %d, outside the model's vocabulary of %lld",
                (long long)i, (int)b->label.id[first + i], (long long)b->config->vocabulary);
        targets += i > 0 && b->label.id[first + i] != SFT_NO_TARGET;
    }
    if (targets == 0)
        return sf_fail(err, SF_EFORMAT,
                       "a row of %lld tokens without any to be trained on (the first one has "
                       "nothing before it)",
                       (long long)count);
    return SF_OK;
}

static int add_ids(struct row_builder *b, const struct sf_json *row, struct sf_err *err)
{
    int64_t first = b->id.count;
    const struct sf_json *labels = sf_json_get(row, "labels");
    int code = add_numbers(&b->id, sf_json_get(row, "input_ids"), "input_ids", 0, 0, err);
    int64_t count = b->id.count - first;
    if (!code && count > b->config->max_length)
        code = sf_fail(err, SF_EFORMAT,
                       "%lld input_ids, more than the maximal sequence length of %lld",
                       (long long)count, (long long)b->config->max_length);
    if (!code)
        code = check_ids(b, first, err);
    if (!code)
        code = check_mask(sf_json_get(row, "attention_mask"), count, err);
    if (!code && labels)
        code = add_numbers(&b->label, labels, "labels", 0, SFT_NO_TARGET, err);
    if (!code && !labels && count > 0)
        code = sf_ids_append(&b->label, b->id.id + first, count, err);
    if (!code)
        code = check_labels(b, first, count, err);
    int32_t length = (int32_t)count;
    return code ? code : sf_ids_append(&b->length, &length, 1, err);
}

/* ---- files ---- */

static int add_row(struct row_builder *b, const struct sf_json *row, const char *path, int64_t line,
                   struct sf_err *err)
{
    const struct sf_json *text = sf_json_get(row, "text");
    bool ids = sf_json_get(row, "input_ids") != NULL;
    const char *string;
    if (!text == !ids || (text && sf_json_get(row, "labels")))
        return sf_fail(err, SF_EFORMAT,
                       "a row is {\"text\": ...} or {\"input_ids\": [...]} with or without labels");
    int code = take_kind(b, ids ? ROWS_IDS : ROWS_TEXT, path, line, err);
    if (!code && ids)
        return add_ids(b, row, err);
    if (!code)
        code = sf_json_as_string(&string, text, "text", err);
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
    int code = take_kind(b, ROWS_TEXT, path, 0, err);
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
