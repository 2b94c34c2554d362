/* Datasets of some of another's rows: a part held out, files that count more or less. */
#include <math.h>
#include <string.h>

#include "libformat/base/mem.h"
#include "train/data/dataset_rows.h"

/* A dataset of rows row[0..rows) of `from`, in that order; a row may stand there more than once. */
static int gather(struct sft_dataset *out, const struct sft_dataset *from, const int64_t *row,
                  int64_t rows, struct sf_err *err)
{
    void *start = NULL, *id = NULL, *target = NULL, *place = NULL;
    *out = (struct sft_dataset){.rows = rows};
    for (int64_t i = 0; i < rows; i++)
        out->tokens += sft_dataset_length(from, row[i]);
    int code = sf_alloc_for(&start, ((uint64_t)rows + 1) * sizeof *out->start, "rows", err);
    out->start = start;
    if (!code)
        code = sf_alloc_for(&id, (uint64_t)out->tokens * sizeof *out->id, "tokens", err);
    out->id = id;
    if (!code)
        code = sf_alloc_for(&target, (uint64_t)out->tokens * sizeof *out->target, "targets", err);
    out->target = target;
    if (!code)
        code = sf_alloc_for(&place, (uint64_t)rows * sizeof *out->place, "places of rows", err);
    out->place = place;
    if (!code)
        code = rows_name_files(out, (const char *const *)from->file, from->files, err);
    for (int64_t i = 0; !code && i < rows; i++) {
        int64_t length = sft_dataset_length(from, row[i]), at = out->start[i];
        memcpy(out->id + at, from->id + from->start[row[i]], (size_t)length * sizeof *out->id);
        memcpy(out->target + at, from->target + from->start[row[i]],
               (size_t)length * sizeof *out->target);
        for (int64_t k = at; k < at + length; k++)
            out->targets += out->target[k] != SFT_NO_TARGET;
        out->longest = length > out->longest ? length : out->longest;
        out->start[i + 1] = at + length;
        out->place[i] = from->place[row[i]];
    }
    if (code)
        sft_dataset_free(out);
    return code;
}

/* `rest` takes the place of `data`, and keeps what was said of all of it. */
static void replace(struct sft_dataset *data, struct sft_dataset *rest)
{
    rest->tail_tokens = data->tail_tokens;
    rest->truncated_rows = data->truncated_rows;
    rest->truncated_tokens = data->truncated_tokens;
    rest->long_rows = data->long_rows;
    rest->untrainable_rows = data->untrainable_rows;
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
