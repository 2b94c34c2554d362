#include "train/trouble.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/linear.h"
#include "libformat/base/mem.h"

struct search {
    struct sft_trouble *out;
    const struct sft_batch *batch;
    float *value; /* [room] the result that is looked at */
    uint64_t room;
};

/* ---- one result ---- */

/* A result as rows and columns; what lies outside first .. first + count of a row is not its own. */
struct result {
    const struct sft_buffer *buffer;
    int32_t number;
    int64_t rows, cols, first, count;
    bool sorted; /* rows stand by expert, not in the batch's order */
};

static bool is_activation(const struct sft_buffer *b)
{
    return sft_class_in_step(b->class) &&
           (b->kind <= SFT_RESIDUAL || b->kind == SFT_GRADIENT); /* the kinds of activations */
}

static uint64_t tape_rows(const struct sft_step *step, const struct sft_tape *tape)
{
    return tape->buffer[sft_step_ports(step)->token_loss].bytes / sizeof(float);
}

/* gate and up share a buffer: a linear may have filled half of each row. */
static void narrow(struct result *r, const struct sft_node *node, int k, uint64_t element)
{
    if (node->op == SK_LINEAR_FORWARD) {
        struct sk_linear_forward args;
        memcpy(&args, node->args, sizeof args);
        r->sorted = args.groups > 1;
        if (k == 0 && args.y_stride != args.out) {
            r->first = (int64_t)(node->operand[k].offset / element);
            r->count = args.out;
        }
    }
    if (node->op == SK_LINEAR_BACKWARD) {
        struct sk_linear_backward args;
        memcpy(&args, node->args, sizeof args);
        r->sorted = args.groups > 1;
    }
    r->sorted |= strstr(r->buffer->name, "experts") || strstr(r->buffer->name, "router.u");
}

static bool result_of(struct result *out, const struct sft_step *step, const struct sft_tape *tape,
                      const struct sft_node *node, int k, uint64_t element)
{
    struct sft_ref ref = node->operand[k];
    if (ref.buffer < 0)
        return false;
    const struct sft_buffer *b = &tape->buffer[ref.buffer];
    if (!is_activation(b))
        return false;
    int64_t rows = (int64_t)tape_rows(step, tape);
    int64_t cols = (int64_t)(b->bytes / element) / rows;
    *out = (struct result){b, ref.buffer, rows, cols, 0, cols, false};
    narrow(out, node, k, element);
    return true;
}

static bool row_is_finite(const float *row, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(row[i]))
            return false;
    return true;
}

/* Rows that a tape is filled up with count for nothing; sorted ones cannot be told from others. */
static int64_t count_bad(int64_t first[SFT_TROUBLE_ROWS], const float *value,
                         const struct result *r, int64_t batch_rows)
{
    int64_t bad = 0, rows = r->sorted ? r->rows : batch_rows;
    for (int64_t row = 0; row < rows; row++) {
        if (row_is_finite(value + row * r->cols + r->first, r->count))
            continue;
        if (bad < SFT_TROUBLE_ROWS)
            first[bad] = row;
        bad++;
    }
    return bad;
}

/* ---- the search ---- */

static void note(struct search *s, const struct sft_node *node, const char *name, int32_t layer,
                 bool sorted, int64_t bad, const int64_t first[SFT_TROUBLE_ROWS])
{
    struct sft_trouble *out = s->out;
    if (!out->found) {
        snprintf(out->what, sizeof out->what, "%s (%s)", name, sk_op_info(node->op)->name);
        out->layer = layer;
        out->backward = node->backward;
        out->found = true;
    }
    if (sorted)
        return;
    out->rows = bad;
    memcpy(out->row, first, sizeof out->row);
}

static int make_room(struct search *s, uint64_t count, struct sf_err *err)
{
    void *memory;
    if (count <= s->room)
        return SF_OK;
    int code = sf_alloc_for(&memory, count * sizeof(float), "a search for NaN", err);
    if (code)
        return code;
    sf_free(s->value);
    s->value = memory;
    s->room = count;
    return SF_OK;
}

static int look_at(struct search *s, const struct sft_step *step, const struct sft_node *node,
                   const struct result *r, struct sf_err *err)
{
    int64_t first[SFT_TROUBLE_ROWS] = {0};
    int64_t count = r->rows * r->cols;
    int code = make_room(s, (uint64_t)count, err);
    if (!code)
        code = sft_step_read_activations(s->value, step, r->number, count, err);
    int64_t bad = code ? 0 : count_bad(first, s->value, r, s->batch->rows);
    if (bad)
        note(s, node, r->buffer->name, r->buffer->layer, r->sorted, bad, first);
    return code;
}

static int look_at_losses(struct search *s, const struct sft_step *step,
                          const struct sft_node *node, struct sf_err *err)
{
    int64_t first[SFT_TROUBLE_ROWS] = {0};
    struct result r = {NULL, -1, s->batch->rows, 1, 0, 1, false};
    int code = make_room(s, (uint64_t)s->batch->rows, err);
    if (!code)
        code = sft_step_read(s->value, step, sft_step_ports(step)->token_loss,
                             (uint64_t)s->batch->rows * sizeof(float), err);
    int64_t bad = code ? 0 : count_bad(first, s->value, &r, s->batch->rows);
    if (bad)
        note(s, node, "the tokens' losses", -1, false, bad, first);
    return code;
}

/* Ends the run, as an interruption, once rows are known in the batch's own order. */
static int look(void *context, const struct sft_step *step, const struct sft_tape *tape,
                const struct sft_node *node, struct sf_err *err)
{
    struct search *s = context;
    struct result r;
    int code = SF_OK;
    if (node->op == SK_TRANSFER_BEGIN || node->op == SK_TRANSFER_END)
        return SF_OK;
    if (node->op == SK_HEAD_LOSS) /* before the gradient that it gives at once */
        code = look_at_losses(s, step, node, err);
    for (int k = 0; !code && !s->out->rows && k < sk_op_info(node->op)->outputs; k++)
        if (result_of(&r, step, tape, node, k, sft_step_element(step)))
            code = look_at(s, step, node, &r, err);
    if (!code && s->out->found && s->out->rows)
        code = sf_fail(err, SF_EINTERRUPTED, "found");
    return code;
}

int sft_trouble_find(struct sft_trouble *out, struct sft_step *step, const struct sft_batch *batch,
                     struct sf_err *err)
{
    struct search search = {.out = out, .batch = batch};
    struct sf_err why = {0};
    struct sft_loss loss;
    *out = (struct sft_trouble){.layer = -1};
    sft_step_watch(step, look, &search);
    int code = sft_step_forward_backward(&loss, step, batch, 1, &why);
    sft_step_watch(step, NULL, NULL);
    sf_free(search.value);
    if (code == SF_ENUMERIC && !out->found) { /* an op saw it in what is no activation: a router */
        out->found = out->told = true;
        snprintf(out->what, sizeof out->what, "%s", why.message);
    }
    if (code == SF_OK || code == SF_EINTERRUPTED || code == SF_ENUMERIC)
        return SF_OK;
    if (err)
        *err = why;
    return code;
}

/* ---- the adapter ---- */

static int check_part(bool *bad, const struct sft_lora *lora, enum sft_lora_state state,
                      int64_t first, int64_t count, struct sf_err *err)
{
    enum { SLICE = 1 << 16 };
    void *memory = NULL;
    *bad = false;
    int code = sf_alloc_for(&memory, SLICE * sizeof(float), "a search for NaN", err);
    for (int64_t at = 0; !code && !*bad && at < count; at += SLICE) {
        int64_t n = count - at < SLICE ? count - at : SLICE;
        code = sft_lora_read(memory, lora, state, first + at, n, err);
        *bad = !code && !row_is_finite(memory, n);
    }
    sf_free(memory);
    return code;
}

int sft_trouble_modules(int64_t *count, char first[96], const struct sft_lora *lora,
                        enum sft_lora_state state, struct sf_err *err)
{
    *count = 0;
    for (int64_t i = 0; i < lora->modules; i++) {
        const struct sft_lora_module *m = &lora->module[i];
        char name[SF_ROLE_TEXT];
        bool a, b;
        int code = check_part(&a, lora, state, m->a, sft_lora_a_count(m), err);
        if (!code)
            code = check_part(&b, lora, state, m->b, sft_lora_b_count(m), err);
        if (code)
            return code;
        if ((a || b) && (*count)++ == 0)
            snprintf(first, 96, "%s lora_%c", sf_role_format(name, m->role), a ? 'A' : 'B');
    }
    return SF_OK;
}

/* ---- as text ---- */

static int64_t document_of(const struct sft_batch *batch, int64_t row)
{
    int64_t d = 0;
    while (d + 1 < batch->documents && batch->document[d + 1] <= row)
        d++;
    return d;
}

void sft_trouble_format(char text[SFT_TROUBLE_TEXT], const struct sft_trouble *trouble,
                        const struct sft_batch *batch, const struct sft_dataset *data,
                        const int64_t *data_row)
{
    char place[SFT_PLACE_TEXT];
    int at = snprintf(text, SFT_TROUBLE_TEXT, "%s%s", trouble->what,
                      trouble->told ? "" : " was the first result that is not finite");
    if (trouble->rows == 0)
        return;
    at += snprintf(text + at, (size_t)(SFT_TROUBLE_TEXT - at),
                   ", in %lld of %lld tokens: ", (long long)trouble->rows, (long long)batch->rows);
    for (int64_t i = 0; i < trouble->rows && i < SFT_TROUBLE_ROWS; i++) {
        int64_t d = document_of(batch, trouble->row[i]);
        at += snprintf(text + at, (size_t)(SFT_TROUBLE_TEXT - at), "%stoken %lld of %s",
                       i ? ", " : "", (long long)(trouble->row[i] - batch->document[d]) + 1,
                       sft_dataset_place(place, data, data_row[d]));
    }
    if (trouble->rows > SFT_TROUBLE_ROWS)
        snprintf(text + at, (size_t)(SFT_TROUBLE_TEXT - at), ", ...");
}
