#include <string.h>

#include "libformat/base/mem.h"
#include "train/data/dataset.h"

/* A dataset of the rows that are `wanted`, in their order. */
static int gather(struct sft_dataset *out, const struct sft_dataset *from, const bool *held,
                  bool wanted, struct sf_err *err)
{
    void *start = NULL, *id = NULL, *target = NULL;
    *out = (struct sft_dataset){0};
    for (int64_t row = 0; row < from->rows; row++) {
        out->rows += held[row] == wanted;
        out->tokens += held[row] == wanted ? sft_dataset_length(from, row) : 0;
    }
    int code = sf_alloc_for(&start, ((uint64_t)out->rows + 1) * sizeof *out->start, "rows", err);
    out->start = start;
    if (!code)
        code = sf_alloc_for(&id, (uint64_t)out->tokens * sizeof *out->id, "tokens", err);
    out->id = id;
    if (!code)
        code = sf_alloc_for(&target, (uint64_t)out->tokens * sizeof *out->target, "targets", err);
    out->target = target;
    int64_t at = 0;
    for (int64_t row = 0; !code && row < from->rows; row++) {
        int64_t length = sft_dataset_length(from, row);
        if (held[row] != wanted)
            continue;
        memcpy(out->id + out->start[at], from->id + from->start[row],
               (size_t)length * sizeof *out->id);
        memcpy(out->target + out->start[at], from->target + from->start[row],
               (size_t)length * sizeof *out->target);
        for (int64_t i = out->start[at]; i < out->start[at] + length; i++)
            out->targets += out->target[i] != SFT_NO_TARGET;
        out->longest = length > out->longest ? length : out->longest;
        out->start[at + 1] = out->start[at] + length;
        at++;
    }
    if (code)
        sft_dataset_free(out);
    return code;
}

static int split(struct sft_dataset *held_out, struct sft_dataset *data, const bool *held,
                 struct sf_err *err)
{
    struct sft_dataset rest;
    int code = gather(held_out, data, held, true, err);
    if (!code)
        code = gather(&rest, data, held, false, err);
    if (code) {
        sft_dataset_free(held_out);
        return code;
    }
    rest.tail_tokens =
        data->tail_tokens; /* what was said of all of it stays with the larger part */
    rest.truncated_rows = data->truncated_rows;
    rest.truncated_tokens = data->truncated_tokens;
    rest.long_rows = data->long_rows;
    rest.untrainable_rows = data->untrainable_rows;
    sft_dataset_free(data);
    *data = rest;
    return SF_OK;
}

int sft_dataset_split(struct sft_dataset *held_out, struct sft_dataset *data, const int64_t *order,
                      int64_t rows, struct sf_err *err)
{
    void *held;
    *held_out = (struct sft_dataset){0};
    if (rows < 1 || rows >= data->rows)
        return sf_fail(err, SF_EINVAL, "%lld of %lld rows cannot be held out", (long long)rows,
                       (long long)data->rows);
    int code = sf_alloc_for(&held, (uint64_t)data->rows * sizeof(bool), "marks of rows", err);
    if (code)
        return code;
    for (int64_t i = 0; i < rows; i++)
        ((bool *)held)[order[i]] = true;
    code = split(held_out, data, held, err);
    sf_free(held);
    return code;
}
