#include "train/data/dataset.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/mem.h"
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

/* Position t of a row is trained on the label of t + 1. */
static void fill_targets(struct sft_dataset *out, const int32_t *label)
{
    for (int64_t row = 0; row < out->rows; row++) {
        for (int64_t i = out->start[row]; i + 1 < out->start[row + 1]; i++) {
            out->target[i] = label[i + 1];
            out->targets += label[i + 1] != SFT_NO_TARGET;
        }
        out->target[out->start[row + 1] - 1] = SFT_NO_TARGET;
        if (sft_dataset_length(out, row) > out->longest)
            out->longest = sft_dataset_length(out, row);
    }
}

static int finish(struct sft_dataset *out, struct row_builder *b, struct sf_err *err)
{
    void *start = NULL, *target = NULL;
    int code = rows_end_text(b, err);
    if (!code && b->length.count == 0 && b->tail_tokens > 0)
        code = sf_fail(err, SF_EINVAL, "%lld tokens of text make no row of %lld; shorten the rows",
                       (long long)b->tail_tokens, (long long)b->config->max_length);
    if (!code && b->length.count == 0)
        code = sf_fail(err, SF_EINVAL, "%s%s: the dataset is empty%s", b->config->file[0],
                       b->config->files > 1 ? " and the others" : "",
                       b->long_rows + b->untrainable_rows ? ": every row is left out" : "");
    if (code)
        return code;
    out->rows = b->length.count;
    out->tokens = b->id.count;
    code = sf_alloc_for(&start, ((uint64_t)out->rows + 1) * sizeof *out->start, "rows", err);
    if (!code)
        code = sf_alloc_for(&target, (uint64_t)out->tokens * sizeof *out->target, "targets", err);
    out->start = start;
    out->target = target;
    if (code)
        return code;
    for (int64_t i = 0; i < out->rows; i++)
        out->start[i + 1] = out->start[i] + b->length.id[i];
    fill_targets(out, b->label.id);
    out->tail_tokens = b->tail_tokens;
    out->truncated_rows = b->truncated_rows;
    out->truncated_tokens = b->truncated_tokens;
    out->long_rows = b->long_rows;
    out->untrainable_rows = b->untrainable_rows;
    out->id = b->id.id; /* handed over, as the places are: pairs of two numbers */
    out->place = (struct sft_row_place *)b->place.id;
    b->id = b->place = (struct sf_ids){0};
    return rows_name_files(out, b->config->file, b->config->files, err);
}

int rows_name_files(struct sft_dataset *out, const char *const *file, int64_t files,
                    struct sf_err *err)
{
    uint64_t bytes = (uint64_t)files * sizeof *out->file;
    void *block;
    for (int64_t i = 0; i < files; i++)
        bytes += strlen(file[i]) + 1;
    int code = sf_alloc_for(&block, bytes, "names of files", err);
    if (code)
        return code;
    out->file = block;
    out->files = files;
    char *at = (char *)(out->file + files);
    for (int64_t i = 0; i < files; i++) {
        out->file[i] = at;
        at = stpcpy(at, file[i]) + 1;
    }
    return SF_OK;
}

static int build(struct sft_dataset *out, struct row_builder *b, struct sf_err *err)
{
    const struct sft_dataset_config *c = b->config;
    int code = SF_OK;
    if (c->files < 1)
        return sf_fail(err, SF_EINVAL, "no data file is given");
    if (c->max_length < 2 || c->max_length > INT32_MAX)
        return sf_fail(err, SF_EINVAL, "rows of %lld tokens; 2 are the least",
                       (long long)c->max_length);
    code = sft_row_tokens_open(&b->tokens, &c->encoder, err);
    for (int64_t i = 0; !code && i < c->files; i++) {
        b->file_number = (int32_t)i;
        code = rows_add_file(b, c->file[i], err);
        if (!code && c->file_end)
            code = rows_end_text(b, err);
        if (!code && c->file_end)
            c->file_end[i] = b->length.count;
    }
    return code ? code : finish(out, b, err);
}

int sft_dataset_open(struct sft_dataset *out, const struct sft_dataset_config *config,
                     struct sf_err *err)
{
    struct row_builder b = {.config = config, .text = -1};
    *out = (struct sft_dataset){0};
    int code = build(out, &b, err);
    sft_row_tokens_close(&b.tokens);
    sf_ids_free(&b.id);
    sf_ids_free(&b.label);
    sf_ids_free(&b.length);
    sf_ids_free(&b.place);
    if (code)
        sft_dataset_free(out);
    return code;
}

const char *sft_dataset_place(char text[SFT_PLACE_TEXT], const struct sft_dataset *data,
                              int64_t row)
{
    int n = snprintf(text, SFT_PLACE_TEXT, "row %lld of the data", (long long)row + 1);
    const struct sft_row_place *place = &data->place[row];
    if (place->file < 0)
        return text;
    n += snprintf(text + n, (size_t)(SFT_PLACE_TEXT - n), " (%.150s", data->file[place->file]);
    if (place->line)
        n += snprintf(text + n, (size_t)(SFT_PLACE_TEXT - n), ", line %d", (int)place->line);
    snprintf(text + n, (size_t)(SFT_PLACE_TEXT - n), ")");
    return text;
}

void sft_dataset_free(struct sft_dataset *dataset)
{
    sf_free(dataset->id);
    sf_free(dataset->target);
    sf_free(dataset->start);
    sf_free(dataset->document);
    sf_free(dataset->first);
    sf_free(dataset->origin);
    sf_free(dataset->place);
    sf_free(dataset->file);
    *dataset = (struct sft_dataset){0};
}
