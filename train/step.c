#include "train/step.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/adamw.h"
#include "kernels/head_loss.h"
#include "libformat/base/mem.h"

struct program {
    struct sft_program wanted;
    struct sft_tape tape;
    struct sft_ports ports;
};

struct sft_step {
    struct sf_arena arena; /* tapes and what goes with them */
    struct sft_step_config config;
    struct program *program;
    struct sft_tape zero, update; /* of the adapter; without nodes where there is none */
    int32_t norm, clip, hyper;    /* ports of `update` */
    float *inv_freq;
    unsigned char *block;
    uint64_t block_bytes;
    const struct program *last; /* ran last */
};

/* ---- opening ---- */

static int open_program(struct sft_step *step, struct program *program, struct sft_program wanted,
                        struct sf_err *err)
{
    const struct sft_step_config *c = &step->config;
    program->wanted = wanted;
    sft_tape_begin(&program->tape, &step->arena);
    int code = sft_model_emit(&program->tape, &program->ports, c->spec, c->lora, wanted.shape,
                              wanted.mode, err);
    if (code)
        return code;
    sft_policy_apply(&program->tape, c->policy);
    return sft_tape_finish(&program->tape, c->ops, c->ctx->threads, err);
}

static int open_zero(struct sft_step *step, struct sf_err *err)
{
    const struct sft_lora *lora = step->config.lora;
    uint64_t bytes = (uint64_t)lora->count * sizeof(float);
    struct sft_tape *tape = &step->zero;
    struct sk_fill_zero args = {.bytes = (int64_t)bytes};
    struct sft_ref gradients = sft_at(sft_tape_adapter(tape, bytes, bytes, "gradients"), 0);
    sft_tape_emit(tape, SK_FILL_ZERO, &args, &gradients, 1);
    return sft_tape_finish(tape, step->config.ops, step->config.ctx->threads, err);
}

static int open_update(struct sft_step *step, struct sf_err *err)
{
    const struct sft_step_config *c = &step->config;
    uint64_t bytes = (uint64_t)c->lora->count * sizeof(float);
    struct sft_tape *t = &step->update;
    step->norm = sft_tape_buffer(t, SFT_KEPT, SFT_PORT, sizeof(float), "gradient norm");
    step->clip = sft_tape_buffer(t, SFT_KEPT, SFT_PORT, sizeof(float), "clip");
    step->hyper =
        sft_tape_buffer(t, SFT_KEPT, SFT_PORT, sizeof(struct sk_adamw_hyper), "learning rate");
    struct sft_ref p = sft_at(sft_tape_adapter(t, 0, bytes, "parameters"), 0);
    struct sft_ref g = sft_at(sft_tape_adapter(t, bytes, bytes, "gradients"), 0);
    struct sft_ref m = sft_at(sft_tape_adapter(t, 2 * bytes, bytes, "m"), 0);
    struct sft_ref v = sft_at(sft_tape_adapter(t, 3 * bytes, bytes, "v"), 0);
    struct sft_ref clip = sft_at(step->clip, 0), hyper = sft_at(step->hyper, 0);
    struct sk_grad_norm norm = {.count = c->lora->count, .max_norm = c->max_grad_norm};
    sft_tape_emit(t, SK_GRAD_NORM, &norm, (struct sft_ref[]){sft_at(step->norm, 0), clip, g}, 3);
    struct sk_adamw adamw = {.count = c->lora->count,
                             .beta1 = c->beta1,
                             .beta2 = c->beta2,
                             .epsilon = c->epsilon,
                             .weight_decay = c->weight_decay};
    sft_tape_emit(t, SK_ADAMW, &adamw, (struct sft_ref[]){p, m, v, g, clip, hyper}, 6);
    return sft_tape_finish(t, c->ops, c->ctx->threads, err);
}

static int open_tapes(struct sft_step *step, struct sf_err *err)
{
    const struct sft_step_config *c = &step->config;
    int64_t half = c->spec->head_size / 2;
    step->program = sf_arena_array(&step->arena, (uint64_t)c->programs + 1, sizeof *step->program);
    step->inv_freq = sf_arena_array(&step->arena, (uint64_t)half + 1, sizeof *step->inv_freq);
    if (!step->program || !step->inv_freq)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld tapes", (long long)c->programs);
    sf_rope_frequencies(step->inv_freq, &c->spec->rope, c->spec->head_size);
    int code = SF_OK;
    for (int64_t i = 0; !code && i < c->programs; i++) {
        code = open_program(step, &step->program[i], c->program[i], err);
        if (!code && step->program[i].tape.step_bytes > step->block_bytes)
            step->block_bytes = step->program[i].tape.step_bytes;
    }
    sft_tape_begin(&step->zero, &step->arena);
    sft_tape_begin(&step->update, &step->arena);
    if (!code && c->lora)
        code = open_zero(step, err);
    if (!code && c->lora)
        code = open_update(step, err);
    if (step->update.step_bytes > step->block_bytes)
        step->block_bytes = step->update.step_bytes;
    return code;
}

int sft_step_open(struct sft_step **out, const struct sft_step_config *config, struct sf_err *err)
{
    void *memory;
    *out = NULL;
    int code = sf_alloc_for(&memory, sizeof(struct sft_step), "a step", err);
    if (code)
        return code;
    struct sft_step *step = memory;
    step->config = *config;
    code = open_tapes(step, err);
    if (code)
        sft_step_close(step);
    else
        *out = step;
    return code;
}

void sft_step_close(struct sft_step *step)
{
    if (!step)
        return;
    sf_free(step->block);
    sf_arena_free(&step->arena);
    sf_free(step);
}

void sft_step_plan(struct sft_plan *plan, const struct sft_step *step)
{
    const struct sft_lora *lora = step->config.lora;
    bool training = false;
    for (int64_t i = 0; i < step->config.programs; i++) {
        sft_plan_tape(plan, &step->program[i].tape);
        enum sft_mode mode = step->program[i].wanted.mode;
        training |= mode == SFT_TRAIN || mode == SFT_PROBE_GRADS;
    }
    if (plan->step_bytes < step->block_bytes)
        plan->step_bytes = step->block_bytes;
    if (lora)
        sft_plan_adapter(plan, sft_lora_bytes(lora, false), training);
}

uint64_t sft_step_bytes(const struct sft_step *step)
{
    return step->block_bytes;
}

int sft_step_allocate(struct sft_step *step, struct sf_err *err)
{
    /* The heap aligns less strictly than the packer promises: the slack is the difference. */
    void *memory;
    int code = sf_alloc_for(&memory, step->block_bytes + SFT_BLOCK_ALIGN, "the step block", err);
    if (!code)
        step->block = memory;
    return code;
}

/* ---- running ---- */

static unsigned char *block_base(const struct sft_step *step)
{
    uintptr_t base = (uintptr_t)step->block, past = base % SFT_BLOCK_ALIGN;
    return step->block + (past ? SFT_BLOCK_ALIGN - past : 0);
}

static const void *resolve(const struct sft_step *step, const struct sft_tape *tape,
                           struct sft_ref ref)
{
    if (ref.buffer < 0)
        return NULL;
    const struct sft_buffer *b = &tape->buffer[ref.buffer];
    switch (b->class) {
    case SFT_WEIGHT:
        return sft_image_matrices(step->config.image, b->role);
    case SFT_ADAPTER:
        return (const unsigned char *)step->config.lora->block + b->offset + ref.offset;
    default:
        return block_base(step) + b->offset + ref.offset;
    }
}

static int run_node(struct sft_step *step, const struct sft_tape *tape, const struct sft_node *node,
                    struct sf_err *err)
{
    unsigned char args[SFT_MAX_ARGS] __attribute__((aligned(16)));
    memcpy(args, node->args, sizeof args);
    for (int k = 0; k < node->operands; k++) {
        const void *pointer = resolve(step, tape, node->operand[k]);
        memcpy(args + (size_t)k * sizeof pointer, &pointer, sizeof pointer);
    }
    int code = step->config.ops->run[node->op](step->config.ctx, args, err);
    if (!code)
        return SF_OK;
    int32_t first = node->operand[0].buffer;
    return sf_err_prefix(err, "%s (%s)", sk_op_info(node->op)->name,
                         first < 0 ? "no output" : tape->buffer[first].name);
}

static int run_nodes(struct sft_step *step, const struct sft_tape *tape, int32_t first,
                     int32_t count, struct sf_err *err)
{
    int code = SF_OK;
    assert(step->block && (!step->config.lora || step->config.lora->block));
    for (int32_t i = first; !code && i < first + count; i++)
        code = run_node(step, tape, &tape->node[i], err);
    return code;
}

/* Where the host writes a port; NULL when this tape does not read it. */
static void *port(const struct sft_step *step, const struct sft_tape *tape, int32_t buffer)
{
    const struct sft_buffer *b = &tape->buffer[buffer];
    return b->birth < 0 ? NULL : block_base(step) + b->offset;
}

static void fill_port(const struct sft_step *step, const struct sft_tape *tape, int32_t buffer,
                      const void *data, uint64_t bytes)
{
    void *to = port(step, tape, buffer);
    if (to)
        memcpy(to, data, bytes);
}

const struct sft_ports *sft_step_ports(const struct sft_step *step)
{
    return &step->last->ports;
}

const void *sft_step_read(const struct sft_step *step, int32_t buffer)
{
    return resolve(step, &step->last->tape, sft_at(buffer, 0));
}

/* ---- batches ---- */

static int64_t pad_documents(int64_t rows, int64_t longest)
{
    return (rows + longest - 1) / longest;
}

static bool holds(struct sft_shape shape, struct sft_shape batch)
{
    return shape.rows >= batch.rows && shape.longest >= batch.longest &&
           shape.documents >=
               batch.documents + pad_documents(shape.rows - batch.rows, shape.longest);
}

static bool same_shape(struct sft_shape a, struct sft_shape b)
{
    return a.rows == b.rows && a.documents == b.documents && a.longest == b.longest;
}

static int batch_shape(struct sft_shape *out, const struct sft_batch *batch, struct sf_err *err)
{
    *out = (struct sft_shape){batch->rows, batch->documents, 0};
    for (int64_t d = 0; d < batch->documents; d++) {
        int64_t length = (int64_t)batch->document[d + 1] - batch->document[d];
        if (length < 0)
            return sf_fail(err, SF_EINVAL,
                           "document %lld of a batch begins at row %d and ends at %d", (long long)d,
                           batch->document[d], batch->document[d + 1]);
        if (length > out->longest)
            out->longest = length;
    }
    if (batch->documents < 1 || batch->document[0] != 0 ||
        batch->document[batch->documents] != batch->rows || batch->rows < 1)
        return sf_fail(err, SF_EINVAL, "the documents of a batch do not cover its %lld rows",
                       (long long)batch->rows);
    return SF_OK;
}

static int find_program(const struct program **out, const struct sft_step *step,
                        struct sft_shape shape, enum sft_mode mode, struct sf_err *err)
{
    *out = NULL;
    for (int64_t i = 0; i < step->config.programs; i++) {
        const struct program *p = &step->program[i];
        if (p->wanted.mode != mode || !holds(p->wanted.shape, shape))
            continue;
        bool exact = same_shape(p->wanted.shape, shape);
        if (exact || !*out || p->wanted.shape.rows < (*out)->wanted.shape.rows ||
            (p->wanted.shape.rows == (*out)->wanted.shape.rows &&
             p->tape.step_bytes < (*out)->tape.step_bytes))
            *out = p;
        if (exact)
            return SF_OK;
    }
    if (*out)
        return SF_OK;
    return sf_fail(err, SF_EINVAL,
                   "no tape of this run holds a micro-batch of %lld rows in %lld documents of at "
                   "most %lld",
                   (long long)shape.rows, (long long)shape.documents, (long long)shape.longest);
}

/* Document starts of the batch, then those of the rows it is filled up with, then empty ones. */
static void fill_documents(int32_t *to, int64_t documents, const struct sft_batch *batch,
                           struct sft_shape shape)
{
    memcpy(to, batch->document, ((size_t)batch->documents + 1) * sizeof *to);
    for (int64_t d = batch->documents + 1; d <= documents; d++) {
        int64_t next = to[d - 1] + shape.longest;
        to[d] = (int32_t)(next < shape.rows ? next : shape.rows);
    }
}

static void fill_positions(int32_t *positions, const int32_t *document, int64_t documents)
{
    for (int64_t d = 0; d < documents; d++)
        for (int32_t row = document[d]; row < document[d + 1]; row++)
            positions[row] = row - document[d];
}

static void load_batch(const struct sft_step *step, const struct program *p,
                       const struct sft_batch *batch, float gradient_scale)
{
    const struct sft_tape *tape = &p->tape;
    struct sft_shape shape = p->wanted.shape;
    int32_t *ids = port(step, tape, p->ports.ids), *targets = port(step, tape, p->ports.targets);
    int32_t *documents = port(step, tape, p->ports.documents);
    int32_t *positions = port(step, tape, p->ports.positions);
    memcpy(ids, batch->ids, (size_t)batch->rows * sizeof *ids);
    memcpy(targets, batch->targets, (size_t)batch->rows * sizeof *targets);
    for (int64_t row = batch->rows; row < shape.rows; row++) {
        ids[row] = 0;
        targets[row] = SK_IGNORE_INDEX;
    }
    fill_documents(documents, shape.documents, batch, shape);
    if (positions)
        fill_positions(positions, documents, shape.documents);
    fill_port(step, tape, p->ports.inv_freq, step->inv_freq,
              (uint64_t)step->config.spec->head_size / 2 * sizeof(float));
    fill_port(step, tape, p->ports.gradient_scale, &gradient_scale, sizeof gradient_scale);
}

static int64_t count_targets(const struct sft_batch *batch)
{
    int64_t count = 0;
    for (int64_t row = 0; row < batch->rows; row++)
        count += batch->targets[row] != SK_IGNORE_INDEX;
    return count;
}

/* Runs a batch and adds its loss to *out. */
static int run_batch(struct sft_loss *out, struct sft_step *step, const struct sft_batch *batch,
                     enum sft_mode mode, float gradient_scale, struct sf_err *err)
{
    struct sft_shape shape;
    const struct program *p;
    int code = batch_shape(&shape, batch, err);
    if (!code)
        code = find_program(&p, step, shape, mode, err);
    if (code)
        return code;
    load_batch(step, p, batch, gradient_scale);
    code = run_nodes(step, &p->tape, 0, p->tape.nodes, err);
    if (code)
        return code;
    step->last = p;
    double sum;
    memcpy(&sum, port(step, &p->tape, p->ports.loss), sizeof sum);
    out->sum += sum;
    out->targets += count_targets(batch);
    return SF_OK;
}

/* ---- the parts of a step ---- */

int sft_step_zero_gradients(struct sft_step *step, struct sf_err *err)
{
    assert(step->config.lora && step->config.lora->training);
    return run_nodes(step, &step->zero, 0, step->zero.nodes, err);
}

int sft_step_forward_backward(struct sft_loss *out, struct sft_step *step,
                              const struct sft_batch *batch, int64_t count, struct sf_err *err)
{
    int64_t targets = 0;
    *out = (struct sft_loss){0};
    for (int64_t i = 0; i < count; i++)
        targets += count_targets(&batch[i]);
    if (targets == 0)
        return sf_fail(err, SF_EINVAL, "a step of %lld micro-batches has no target to learn from",
                       (long long)count);
    int code = SF_OK;
    for (int64_t i = 0; !code && i < count; i++)
        code = run_batch(out, step, &batch[i], SFT_TRAIN, 1 / (float)targets, err);
    return code;
}

int sft_step_update(float *norm, struct sft_step *step, double learning_rate, int64_t number,
                    struct sf_err *err)
{
    assert(step->config.lora && step->config.lora->training);
    const struct sft_tape *tape = &step->update;
    struct sk_adamw_hyper hyper = {.learning_rate = learning_rate, .step = number};
    fill_port(step, tape, step->hyper, &hyper, sizeof hyper);
    int code = run_nodes(step, tape, 0, 1, err);
    if (code)
        return code;
    memcpy(norm, port(step, tape, step->norm), sizeof *norm);
    if (!isfinite(*norm))
        return sf_fail(err, SF_ENUMERIC, "the gradient norm of step %lld is %g", (long long)number,
                       *norm);
    return run_nodes(step, tape, 1, tape->nodes - 1, err);
}

int sft_step_eval(struct sft_loss *out, struct sft_step *step, const struct sft_batch *batch,
                  struct sf_err *err)
{
    return run_batch(out, step, batch, SFT_EVAL, 1, err);
}

int sft_step_probe(struct sft_loss *out, struct sft_step *step, const struct sft_batch *batch,
                   enum sft_mode mode, struct sf_err *err)
{
    int64_t targets = count_targets(batch);
    *out = (struct sft_loss){0};
    return run_batch(out, step, batch, mode, targets ? 1 / (float)targets : 1, err);
}
