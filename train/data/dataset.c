#include "train/data/dataset.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "train/data/dataset_private.h"
#include "train/data/dataset_rows.h"

bool sft_too_long_from_name(enum sft_too_long *out, const char *name)
{
    static const char *const names[] = {"default", "truncate", "skip", "error"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum sft_too_long)i;
            return true;
        }
    }
    return false;
}

bool sft_untrainable_from_name(enum sft_untrainable *out, const char *name)
{
    bool skip = strcmp(name, "skip") == 0;
    *out = skip ? SFT_UNTRAINABLE_SKIP : SFT_UNTRAINABLE_ERROR;
    return skip || strcmp(name, "error") == 0;
}

/* ---- opening ---- */

/* Made anew, or mapped as it was made before. */
static int read_cached(struct sft_tokens **out, bool *cached, const struct sft_dataset_config *c,
                       struct sf_err *err)
{
    struct sf_hash128 key, now;
    int code = dataset_key(&key, c, err);
    if (code)
        return code;
    code = sft_tokens_map(out, c->cache, key, c->encoder.vocabulary, err);
    *cached = code == SF_OK;
    if (code == SF_EDAMAGED || code == SF_EFORMAT || code == SF_EIO) {
        char text[sizeof err->message + 32];
        snprintf(text, sizeof text, "%s; it is made anew", err ? err->message : c->cache);
        if (c->on_note)
            c->on_note(c->context, text);
        code = SF_ENOENT;
    }
    if (code != SF_ENOENT)
        return code;
    code = rows_read(out, c, c->cache, key, err);
    if (code)
        return code;
    code = dataset_key(&now, c, err);
    if (!code && (now.low != key.low || now.high != key.high))
        code = sf_fail(err, SF_EFORMAT, "%s%s changed while being read", c->file[0],
                       c->files > 1 ? " or another data file" : "");
    if (code) {
        sft_tokens_release(*out);
        sf_remove_file(c->cache, NULL);
    }
    return code;
}

static int read_all(struct sft_tokens **out, bool *cached, const struct sft_dataset_config *c,
                    struct sf_err *err)
{
    static const struct sf_hash128 none;
    if (c->files < 1)
        return sf_fail(err, SF_EINVAL, "no data file is given");
    if (c->max_length < 2 || c->max_length > INT32_MAX)
        return sf_fail(err, SF_EINVAL, "rows of %lld tokens; 2 are the least",
                       (long long)c->max_length);
    return c->cache ? read_cached(out, cached, c, err) : rows_read(out, c, NULL, none, err);
}

static void fill_ends(const struct sft_dataset_config *c, const struct sft_tokens *source)
{
    int64_t row = 0;
    for (int64_t f = 0; f < c->files; f++) {
        while (row < source->rows && source->row[row].file <= f)
            row++;
        c->file_end[f] = row;
    }
}

int sft_dataset_over(struct sft_dataset *out, struct sft_tokens *source, struct sf_err *err)
{
    *out = (struct sft_dataset){.source = source, .counts = source->counts};
    int code = dataset_select(out, NULL, source->rows, err);
    if (code)
        sft_dataset_free(out);
    return code;
}

int sft_dataset_open(struct sft_dataset *out, const struct sft_dataset_config *config,
                     struct sf_err *err)
{
    struct sft_tokens *source;
    bool cached = false;
    *out = (struct sft_dataset){0};
    int code = read_all(&source, &cached, config, err);
    if (!code)
        code = sft_dataset_over(out, source, err);
    if (code)
        return code;
    out->cached = cached;
    if (config->file_end)
        fill_ends(config, source);
    for (int64_t i = 0; config->on_note && i < source->notes; i++)
        config->on_note(config->context, sft_tokens_string(source, source->files + i));
    return SF_OK;
}

void sft_dataset_free(struct sft_dataset *dataset)
{
    sft_tokens_release(dataset->source);
    sf_free(dataset->document);
    sf_free(dataset->first);
    *dataset = (struct sft_dataset){0};
}

/* ---- reading ---- */

const char *sft_dataset_place(char text[SFT_PLACE_TEXT], const struct sft_dataset *data,
                              int64_t row)
{
    int n = snprintf(text, SFT_PLACE_TEXT, "row %lld of the data", (long long)row + 1);
    const struct sft_token_row *r = &data->source->row[row];
    if (r->file < 0)
        return text;
    n += snprintf(text + n, (size_t)(SFT_PLACE_TEXT - n), " (%.150s",
                  sft_tokens_string(data->source, r->file));
    if (r->line)
        n += snprintf(text + n, (size_t)(SFT_PLACE_TEXT - n), ", line %d", (int)r->line);
    snprintf(text + n, (size_t)(SFT_PLACE_TEXT - n), ")");
    return text;
}

/* Position t of a document is trained on the label of t + 1. */
void sft_dataset_read(int32_t *id, int32_t *target, const struct sft_dataset *data, int64_t row)
{
    int64_t at = 0;
    for (int64_t d = sft_dataset_first(data, row); d < sft_dataset_first(data, row + 1); d++) {
        const struct sft_token_row *r = sft_dataset_document(data, d);
        const struct sft_token *token = data->source->token + r->start;
        for (int32_t i = 0; i < r->length; i++, at++) {
            id[at] = token[i].id;
            target[at] = i + 1 < r->length ? token[i + 1].label : SFT_NO_TARGET;
        }
    }
}
