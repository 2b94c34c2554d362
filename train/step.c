/* Running a step: batches into tapes, tapes over the op table. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/adamw.h"
#include "kernels/head_loss.h"
#include "libformat/codec/halves.h"
#include "train/step_private.h"
#include "train/tape_run.h"

/* ---- running ---- */

static struct sft_places places_of(const struct sft_step *step)
{
    const struct sft_lora *lora = step->config.lora;
    return (struct sft_places){.image = step->image,
                               .step = step->block,
                               .host = step->host,
                               .adapter = lora ? lora->block : NULL};
}

static void *resolve(const struct sft_step *step, const struct sft_tape *tape, struct sft_ref ref)
{
    struct sft_places places = places_of(step);
    return sft_place_of(&places, tape, ref);
}

static int run_nodes(struct sft_step *step, const struct sft_tape *tape, int32_t first,
                     int32_t count, struct sf_err *err)
{
    struct sft_profile *profile = step->profile.watch ? &step->profile : NULL;
    struct sft_places places = places_of(step);
    int code = SF_OK;
    assert(step->block && (!step->config.lora || step->config.lora->block));
    for (int32_t i = 0; !code && i < count; i++) {
        code = profile ? sft_profile_mark(profile, i, &tape->node[first + i], err) : SF_OK;
        if (!code)
            code = sft_node_run(&places, tape, &tape->node[first + i], step->config.ops,
                                step->config.ctx, err);
        if (!code && step->watch)
            code = step->watch(step->watch_context, step, tape, &tape->node[first + i], err);
    }
    return code || !profile ? code : sft_profile_add(profile, tape, first, count, err);
}

void sft_step_watch(struct sft_step *step, sft_node_watch watch, void *context)
{
    step->watch = watch;
    step->watch_context = context;
}

int sft_step_profile(struct sft_step *step, struct sf_err *err)
{
    const struct sft_step_config *c = &step->config;
    int32_t most = step->update.nodes;
    for (int64_t i = 0; i < c->programs; i++)
        most = most < step->program[i].tape.nodes ? step->program[i].tape.nodes : most;
    return sft_profile_open(&step->profile, &step->arena, c->ops, c->ctx, most, err);
}

void sft_step_profile_end(struct sft_step *step)
{
    sft_profile_close(&step->profile);
}

const struct sft_profile *sft_step_profiled(const struct sft_step *step)
{
    return &step->profile;
}

/* NULL when this tape does not touch the buffer. */
static void *port(const struct sft_step *step, const struct sft_tape *tape, int32_t buffer)
{
    return tape->buffer[buffer].birth < 0 ? NULL : resolve(step, tape, sft_at(buffer, 0));
}

static int fill_port(const struct sft_step *step, const struct sft_tape *tape, int32_t buffer,
                     const void *data, uint64_t bytes, struct sf_err *err)
{
    const struct sft_step_config *c = &step->config;
    void *to = port(step, tape, buffer);
    return to ? c->ops->memory->write(c->ctx, to, data, bytes, err) : SF_OK;
}

static int read_port(void *out, const struct sft_step *step, const struct sft_tape *tape,
                     int32_t buffer, uint64_t bytes, struct sf_err *err)
{
    const struct sft_step_config *c = &step->config;
    return c->ops->memory->read(c->ctx, out, port(step, tape, buffer), bytes, err);
}

const struct sft_ports *sft_step_ports(const struct sft_step *step)
{
    return &step->last->ports;
}

int sft_step_read(void *out, const struct sft_step *step, int32_t buffer, uint64_t bytes,
                  struct sf_err *err)
{
    return read_port(out, step, &step->last->tape, buffer, bytes, err);
}

uint64_t sft_step_element(const struct sft_step *step)
{
    return sk_activation_bytes(step->config.ops->activation);
}

int sft_step_read_activations(float *out, const struct sft_step *step, int32_t buffer,
                              int64_t count, struct sf_err *err)
{
    enum sk_format format = step->config.ops->activation;
    uint64_t bytes = (uint64_t)count * sk_activation_bytes(format);
    if (format == SK_FORMAT_F32)
        return sft_step_read(out, step, buffer, bytes, err);
    /* bfloat16 into the second half, then widened from the front. */
    unsigned char *half = (unsigned char *)out + bytes;
    int code = sft_step_read(half, step, buffer, bytes, err);
    for (int64_t i = 0; !code && i < count; i++) {
        uint16_t bits;
        memcpy(&bits, half + 2 * i, sizeof bits);
        out[i] = sf_f32_from_bf16(bits);
    }
    return code;
}

/* ---- expert load ---- */

struct sft_expert_load sft_step_expert_load(const struct sft_step *step)
{
    struct sft_expert_load load = {0};
    const struct sf_model_spec *spec = step->config.spec;
    int64_t layers = 0;
    for (int64_t i = 0; step->last && i < spec->layers; i++) {
        int32_t buffer = step->last->ports.host_offsets[i];
        const int32_t *offsets = buffer < 0 ? NULL : port(step, &step->last->tape, buffer);
        int32_t most = 0;
        for (int64_t e = 0; offsets && e < spec->experts; e++)
            most = most < offsets[e + 1] - offsets[e] ? offsets[e + 1] - offsets[e] : most;
        if (!offsets)
            continue;
        double ratio = (double)most * (double)spec->experts / (double)offsets[spec->experts];
        load.mean += ratio;
        load.most = load.most < ratio ? ratio : load.most;
        layers++;
    }
    if (layers)
        load.mean /= (double)layers;
    return load;
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

static int find_program(const struct step_program **out, const struct sft_step *step,
                        struct sft_shape shape, enum sft_mode mode, struct sf_err *err)
{
    *out = NULL;
    for (int64_t i = 0; i < step->config.programs; i++) {
        const struct step_program *p = &step->program[i];
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

static int check_tokens(const struct sft_batch *batch, int64_t vocabulary, struct sf_err *err)
{
    for (int64_t row = 0; row < batch->rows; row++) {
        int32_t target = batch->targets[row];
        if (target != SK_IGNORE_INDEX && (target < 0 || target >= vocabulary))
            return sf_fail(err, SF_EINVAL,
                           "target %d at position %lld is outside the vocabulary of %lld", target,
                           (long long)row, (long long)vocabulary);
    }
    return SF_OK;
}

/* The batch, filled up to the shape of its tape, into the tape's ports. */
static int load_batch(struct sft_step *step, const struct step_program *p,
                      const struct sft_batch *batch, float gradient_scale, struct sf_err *err)
{
    const struct sft_tape *tape = &p->tape;
    const struct sft_ports *ports = &p->ports;
    struct sft_shape shape = p->wanted.shape;
    int32_t *ids = port(step, tape, ports->ids);
    uint64_t rows_bytes = (uint64_t)shape.rows * sizeof(int32_t);
    int code = check_tokens(batch, step->config.spec->vocabulary, err);
    if (code)
        return code;
    memcpy(ids, batch->ids, (size_t)batch->rows * sizeof *ids);
    memcpy(step->targets, batch->targets, (size_t)batch->rows * sizeof *step->targets);
    for (int64_t row = batch->rows; row < shape.rows; row++) {
        ids[row] = 0;
        step->targets[row] = SK_IGNORE_INDEX;
    }
    memcpy(port(step, tape, ports->host_targets), step->targets, rows_bytes);
    fill_documents(step->documents, shape.documents, batch, shape);
    fill_positions(step->positions, step->documents, shape.documents);
    code = fill_port(step, tape, ports->targets, step->targets, rows_bytes, err);
    if (!code)
        code = fill_port(step, tape, ports->positions, step->positions, rows_bytes, err);
    if (!code)
        code = fill_port(step, tape, ports->documents, step->documents,
                         ((uint64_t)shape.documents + 1) * sizeof(int32_t), err);
    if (!code)
        code = fill_port(step, tape, ports->inv_freq, step->inv_freq,
                         (uint64_t)step->config.spec->head_size / 2 * sizeof(float), err);
    return code ? code
                : fill_port(step, tape, ports->gradient_scale, &gradient_scale,
                            sizeof gradient_scale, err);
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
    const struct step_program *p;
    int code = batch_shape(&shape, batch, err);
    if (!code)
        code = find_program(&p, step, shape, mode, err);
    if (code)
        return code;
    step->last = p;
    code = load_batch(step, p, batch, gradient_scale, err);
    if (!code)
        code = run_nodes(step, &p->tape, 0, p->tape.nodes, err);
    double sum;
    if (!code)
        code = read_port(&sum, step, &p->tape, p->ports.loss, sizeof sum, err);
    if (code)
        return code;
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
    for (int64_t i = 0; !code && i < count; i++) {
        code = run_batch(out, step, &batch[i], SFT_TRAIN, 1 / (float)targets, err);
        if (step->config.lora) /* the next micro-batch drops others */
            step->config.lora->draw.number++;
    }
    return code;
}

int sft_step_update(float *norm, struct sft_step *step, double learning_rate, int64_t number,
                    struct sf_err *err)
{
    assert(step->config.lora && step->config.lora->training);
    const struct sft_tape *tape = &step->update;
    double b_rate = sft_lora_b_rate(step->config.lora);
    struct sk_adamw_hyper hyper[] = {{.learning_rate = learning_rate, .step = number},
                                     {.learning_rate = learning_rate * b_rate, .step = number}};
    int code = fill_port(step, tape, step->hyper, hyper, sizeof hyper, err);
    if (!code)
        code = run_nodes(step, tape, 0, 1, err);
    if (!code)
        code = read_port(norm, step, tape, step->norm, sizeof *norm, err);
    if (code)
        return code;
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
