/* Datasets of some of another's rows: a part held out, files that count more or less. */
#include <math.h>
#include <string.h>

#include "libformat/base/mem.h"
#include "train/data/dataset_private.h"

int dataset_select(struct sft_dataset *out, const int64_t *row, int64_t rows, struct sf_err *err)
{
    void *list;
    int code = sf_alloc_for(&list, (uint64_t)rows * sizeof *out->document, "rows", err);
    if (code)
        return code;
    out->document = list;
    out->rows = out->documents = rows;
    out->tokens = out->targets = out->longest = 0;
    for (int64_t i = 0; i < rows; i++) {
        out->document[i] = row ? row[i] : i;
        const struct sft_token_row *r = sft_dataset_document(out, i);
        out->tokens += r->length;
        out->targets += r->targets;
        out->longest = r->length > out->longest ? r->length : out->longest;
    }
    return SF_OK;
}

/* A dataset of rows row[0..rows) of `from`. */
static int gather(struct sft_dataset *out, const struct sft_dataset *from, int64_t *row,
                  int64_t rows, struct sf_err *err)
{
    *out = (struct sft_dataset){.source = from->source};
    for (int64_t i = 0; i < rows; i++)
        row[i] = from->document[row[i]];
    int code = dataset_select(out, row, rows, err);
    if (code)
        *out = (struct sft_dataset){0};
    else
        sft_tokens_share(out->source);
    return code;
}

/* `rest` takes the place of `data`, and keeps what was said of all of it. */
static void replace(struct sft_dataset *data, struct sft_dataset *rest)
{
    rest->counts = data->counts;
    rest->cached = data->cached;
    sft_dataset_free(data);
    *data = *rest;
}

int sft_dataset_split(struct sft_dataset *held_out, struct sft_dataset *data, const int64_t *order,
                      int64_t rows, struct sf_err *err)
{
    void *memory;
    struct sft_dataset rest;
    *held_out = (struct sft_dataset){0};
    if (rows < 1 || rows >= data->rows)
        return sf_fail(err, SF_EINVAL, "%lld of %lld rows cannot be held out", (long long)rows,
                       (long long)data->rows);
    int code = sf_alloc_for(&memory, 2 * (uint64_t)data->rows * sizeof(int64_t), "rows", err);
    if (code)
        return code;
    int64_t *held = memory, *list = held + data->rows, held_rows = 0, other_rows = 0;
    for (int64_t i = 0; i < rows; i++)
        held[order[i]] = 1;
    for (int64_t i = 0; i < data->rows; i++) /* the held from the front, the others behind them */
        list[held[i] ? held_rows++ : rows + other_rows++] = i;
    code = gather(held_out, data, list, rows, err);
    if (!code)
        code = gather(&rest, data, list + rows, data->rows - rows, err);
    if (code)
        sft_dataset_free(held_out);
    else
        replace(data, &rest);
    sf_free(memory);
    return code;
}

int sft_dataset_weigh(struct sft_dataset *data, const int64_t *end, const double *weight,
                      int64_t files, const int64_t *order, int64_t *taken, struct sf_err *err)
{
    struct sft_dataset weighed;
    void *memory;
    int64_t rows = 0, at = 0;
    for (int64_t f = 0; f < files; f++) {
        int64_t own = end[f] - (f ? end[f - 1] : 0);
        if (!(weight[f] > 0 && weight[f] <= 1000))
            return sf_fail(err, SF_EINVAL, "a weight of %g; above 0, at most 1000", weight[f]);
        taken[f] = (int64_t)(weight[f] * (double)own + 0.5);
        if (taken[f] == 0)
            return sf_fail(err, SF_EINVAL, "a weight of %g leaves none of %lld rows", weight[f],
                           (long long)own);
        rows += taken[f];
    }
    int code = sf_alloc_for(&memory, (uint64_t)rows * sizeof(int64_t), "rows", err);
    if (code)
        return code;
    int64_t *list = memory;
    for (int64_t f = 0; f < files; f++) {
        int64_t first = f ? end[f - 1] : 0, own = end[f] - first, left = taken[f];
        for (; left >= own; left -= own)
            for (int64_t i = 0; i < own; i++)
                list[at++] = first + i;
        for (int64_t i = 0; left > 0 && i < data->rows; i++) { /* the first of them by `order` */
            if (order[i] < first || order[i] >= end[f])
                continue;
            list[at++] = order[i];
            left--;
        }
    }
    code = gather(&weighed, data, list, rows, err);
    sf_free(memory);
    if (!code)
        replace(data, &weighed);
    return code;
}
