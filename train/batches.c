#include "train/batches.h"

#include <assert.h>
#include <string.h>

#include "kernels/head_loss.h"
#include "libformat/base/mem.h"

_Static_assert((int)SFT_NO_TARGET == (int)SK_IGNORE_INDEX,
               "data and kernels ignore the same target");

/* Tokens of the `documents` longest rows: what no micro-batch exceeds. *ragged: lengths differ. */
static int most_tokens(int64_t *out, bool *ragged, const struct sft_dataset *data,
                       int64_t documents, struct sf_err *err)
{
    void *memory;
    int code = sf_alloc_for(&memory, ((uint64_t)data->longest + 1) * sizeof(int64_t),
                            "a count of row lengths", err);
    if (code)
        return code;
    int64_t *count = memory, left = documents;
    for (int64_t row = 0; row < data->rows; row++)
        count[sft_dataset_length(data, row)]++;
    *ragged = count[data->longest] != data->rows;
    *out = 0;
    for (int64_t length = data->longest; length > 0 && left > 0; length--) {
        int64_t taken = count[length] < left ? count[length] : left;
        *out += taken * length;
        left -= taken;
    }
    sf_free(memory);
    return SF_OK;
}

int sft_batch_form_of(struct sft_batch_form *out, const struct sft_dataset *data, int64_t documents,
                      struct sf_err *err)
{
    if (documents < 1)
        return sf_fail(err, SF_EINVAL, "a micro-batch of %lld rows", (long long)documents);
    *out = (struct sft_batch_form){.documents = documents, .longest = data->longest};
    if (documents > data->rows)
        out->documents = data->rows;
    int code = most_tokens(&out->tokens, &out->ragged, data, out->documents, err);
    if (!code && out->tokens > INT32_MAX)
        code = sf_fail(err, SF_EINVAL, "a micro-batch of %lld rows has up to %lld tokens, too many",
                       (long long)documents, (long long)out->tokens);
    return code;
}

int64_t sft_batch_form_programs(struct sft_program program[SFT_FORM_PROGRAMS],
                                const struct sft_batch_form *form, enum sft_mode mode)
{
    int64_t parts = form->ragged && form->tokens >= SFT_FORM_PROGRAMS ? SFT_FORM_PROGRAMS : 1;
    for (int64_t i = 0; i < parts; i++) {
        int64_t rows = (form->tokens * (i + 1) + parts - 1) / parts;
        int64_t longest = form->longest < rows ? form->longest : rows;
        /* what fills up a tape lies in documents of its own, none longer than `longest` */
        int64_t filling = form->ragged ? (rows + longest - 1) / longest : 0;
        int64_t documents = form->documents + filling;
        documents = documents < rows ? documents : rows; /* each holds a token */
        program[i] = (struct sft_program){{rows, documents, longest}, mode};
    }
    return parts;
}

int sft_batches_open(struct sft_batches *out, const struct sft_dataset *data,
                     const struct sft_batch_form *form, int64_t slots, struct sf_err *err)
{
    void *list = NULL, *memory = NULL;
    uint64_t each = (uint64_t)(2 * form->tokens + form->documents + 1), total;
    *out = (struct sft_batches){.data = data, .form = *form, .slots = slots};
    if (!sf_mul(&total, each * sizeof *out->memory, (uint64_t)slots))
        return sf_fail(err, SF_EINVAL, "%lld micro-batches a step are too many", (long long)slots);
    int code = sf_alloc_for(&list, (uint64_t)slots * sizeof *out->batch, "micro-batches", err);
    if (!code)
        code = sf_alloc_for(&memory, total, "micro-batches", err);
    out->batch = list;
    out->memory = memory;
    for (int64_t i = 0; !code && i < slots; i++) {
        int32_t *at = out->memory + (uint64_t)i * each;
        out->batch[i] = (struct sft_batch){
            .ids = at, .targets = at + form->tokens, .document = at + 2 * form->tokens};
    }
    if (code)
        sft_batches_free(out);
    return code;
}

void sft_batches_free(struct sft_batches *batches)
{
    sf_free(batches->batch);
    sf_free(batches->memory);
    *batches = (struct sft_batches){0};
}

void sft_batches_fill(struct sft_batches *batches, int64_t slot, const int64_t *order,
                      int64_t first, int64_t count)
{
    const struct sft_dataset *data = batches->data;
    const struct sft_batch_form *form = &batches->form;
    uint64_t each = (uint64_t)(2 * form->tokens + form->documents + 1);
    int32_t *ids = batches->memory + (uint64_t)slot * each;
    int32_t *targets = ids + form->tokens, *document = targets + form->tokens, at = 0;
    assert(slot < batches->slots && count <= form->documents);
    for (int64_t i = 0; i < count; i++) {
        int64_t row = order ? order[first + i] : first + i, start = data->start[row];
        int32_t length = (int32_t)sft_dataset_length(data, row);
        memcpy(ids + at, data->id + start, (size_t)length * sizeof *ids);
        memcpy(targets + at, data->target + start, (size_t)length * sizeof *targets);
        document[i] = at;
        at += length;
    }
    document[count] = at;
    batches->batch[slot].rows = at;
    batches->batch[slot].documents = count;
}

int sft_evaluate(struct sft_loss *out, struct sft_step *step, struct sft_batches *batches,
                 bool (*interrupted)(void), struct sf_err *err)
{
    int64_t rows = batches->data->rows, most = batches->form.documents;
    *out = (struct sft_loss){0};
    for (int64_t first = 0; first < rows; first += most) {
        if (interrupted && interrupted())
            return sf_fail(err, SF_EINTERRUPTED, "stopped after %lld of %lld rows",
                           (long long)first, (long long)rows);
        sft_batches_fill(batches, 0, NULL, first, rows - first < most ? rows - first : most);
        int code = sft_step_eval(out, step, &batches->batch[0], err);
        if (code)
            return code;
    }
    return SF_OK;
}
