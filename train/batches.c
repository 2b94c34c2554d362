#include "train/batches.h"

#include <assert.h>
#include <string.h>

#include "kernels/head_loss.h"
#include "libformat/base/mem.h"

_Static_assert((int)SFT_NO_TARGET == (int)SK_IGNORE_INDEX,
               "data and kernels ignore the same target");

typedef int64_t measure_fn(const struct sft_dataset *data, int64_t row);

/* The `rows` largest measures together: what no micro-batch exceeds. None is above `largest`;
 * *equal: all rows are of that size. */
static int sum_of_largest(int64_t *out, bool *equal, const struct sft_dataset *data,
                          measure_fn *measure, int64_t largest, int64_t rows, struct sf_err *err)
{
    void *memory;
    int code = sf_alloc_for(&memory, ((uint64_t)largest + 1) * sizeof(int64_t),
                            "a count of row lengths", err);
    if (code)
        return code;
    int64_t *count = memory, left = rows;
    for (int64_t row = 0; row < data->rows; row++)
        count[measure(data, row)]++;
    *equal = count[largest] == data->rows;
    *out = 0;
    for (int64_t size = largest; size > 0 && left > 0; size--) {
        int64_t taken = count[size] < left ? count[size] : left;
        *out += taken * size;
        left -= taken;
    }
    sf_free(memory);
    return SF_OK;
}

/* The largest of a packed dataset's documents, and the most that a row has. */
static int measure_documents(struct sft_batch_form *out, const struct sft_dataset *data,
                             struct sf_err *err)
{
    int64_t most = 0;
    bool equal;
    out->longest = 0;
    for (int64_t d = 0; d < data->documents; d++)
        if (sft_dataset_document(data, d)->length > out->longest)
            out->longest = sft_dataset_document(data, d)->length;
    for (int64_t row = 0; row < data->rows; row++)
        if (sft_dataset_documents(data, row) > most)
            most = sft_dataset_documents(data, row);
    return sum_of_largest(&out->documents, &equal, data, sft_dataset_documents, most, out->rows,
                          err);
}

int sft_batch_form_of(struct sft_batch_form *out, const struct sft_dataset *data, int64_t rows,
                      struct sf_err *err)
{
    bool equal;
    if (rows < 1)
        return sf_fail(err, SF_EINVAL, "a micro-batch of %lld rows", (long long)rows);
    *out = (struct sft_batch_form){.rows = rows < data->rows ? rows : data->rows,
                                   .longest = data->longest};
    out->documents = out->rows;
    int code = sum_of_largest(&out->tokens, &equal, data, sft_dataset_length, data->longest,
                              out->rows, err);
    if (code)
        return code;
    out->ragged = !equal;
    if (out->tokens > INT32_MAX)
        return sf_fail(err, SF_EINVAL, "a micro-batch of %lld rows has up to %lld tokens, too many",
                       (long long)rows, (long long)out->tokens);
    return data->first ? measure_documents(out, data, err) : SF_OK;
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
    void *list = NULL, *memory = NULL, *origin = NULL;
    uint64_t each = (uint64_t)(2 * form->tokens + form->documents + 1), total;
    *out = (struct sft_batches){.data = data, .form = *form, .slots = slots};
    if (!sf_mul(&total, each * sizeof *out->memory, (uint64_t)slots))
        return sf_fail(err, SF_EINVAL, "%lld micro-batches a step are too many", (long long)slots);
    int code = sf_alloc_for(&list, (uint64_t)slots * sizeof *out->batch, "micro-batches", err);
    if (!code)
        code = sf_alloc_for(&memory, total, "micro-batches", err);
    if (!code) /* fewer bytes than the product above */
        code = sf_alloc_for(&origin, (uint64_t)slots * (uint64_t)form->documents * sizeof(int64_t),
                            "micro-batches", err);
    out->batch = list;
    out->memory = memory;
    out->origin = origin;
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
    sf_free(batches->origin);
    *batches = (struct sft_batches){0};
}

/* Where the documents of a row begin that lies at `at`; returns how many they are. */
static int64_t fill_borders(int32_t *document, int64_t *origin, const struct sft_dataset *data,
                            int64_t row, int32_t at)
{
    int64_t count = sft_dataset_documents(data, row), first = sft_dataset_first(data, row);
    for (int64_t d = 0; d < count; d++) {
        document[d] = at;
        origin[d] = data->document[first + d];
        at += sft_dataset_document(data, first + d)->length;
    }
    return count;
}

void sft_batches_fill(struct sft_batches *batches, int64_t slot, const int64_t *order,
                      int64_t first, int64_t count)
{
    const struct sft_dataset *data = batches->data;
    const struct sft_batch_form *form = &batches->form;
    uint64_t each = (uint64_t)(2 * form->tokens + form->documents + 1);
    int32_t *ids = batches->memory + (uint64_t)slot * each;
    int32_t *targets = ids + form->tokens, *document = targets + form->tokens, at = 0;
    int64_t *origin = batches->origin + slot * form->documents, documents = 0;
    assert(slot < batches->slots && count <= form->rows);
    for (int64_t i = 0; i < count; i++) {
        int64_t row = order ? order[first + i] : first + i;
        sft_dataset_read(ids + at, targets + at, data, row);
        documents += fill_borders(document + documents, origin + documents, data, row, at);
        at += (int32_t)sft_dataset_length(data, row);
    }
    assert(documents <= form->documents);
    document[documents] = at;
    batches->batch[slot].rows = at;
    batches->batch[slot].documents = documents;
}

int sft_evaluate(struct sft_loss *out, struct sft_step *step, struct sft_batches *batches,
                 bool (*interrupted)(void), struct sf_err *err)
{
    int64_t rows = batches->data->rows, most = batches->form.rows;
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
