#include "train/probe.h"

#include <string.h>

#include "kernels/head_loss.h"

struct run { /* one probe under way */
    const struct sft_probe_config *config;
    struct sf_arena *arena;
    struct sft_probe *out;
    struct sft_step *step;
    int64_t sequences, length;
    int64_t room; /* of out->tensor */
};

/* Position t is scored on labels[t + 1]; the last position of a sequence on nothing. */
static int32_t *shift_labels(struct sf_arena *arena, const int32_t *labels, int64_t sequences,
                             int64_t length)
{
    int32_t *targets = sf_arena_array(arena, (uint64_t)(sequences * length), sizeof *targets);
    for (int64_t row = 0; targets && row < sequences * length; row++)
        targets[row] = row % length == length - 1 ? SK_IGNORE_INDEX : labels[row + 1];
    return targets;
}

static int32_t *document_starts(struct sf_arena *arena, int64_t sequences, int64_t length)
{
    int32_t *start = sf_arena_array(arena, (uint64_t)sequences + 1, sizeof *start);
    for (int64_t d = 0; start && d <= sequences; d++)
        start[d] = (int32_t)(d * length);
    return start;
}

/* A copy of `data` under `name` (already in the arena). */
static int add_tensor(struct run *run, const char *name, enum sf_dtype dtype, struct sf_shape shape,
                      const void *data, struct sf_err *err)
{
    uint64_t bytes;
    void *copy = NULL;
    if (name && run->out->tensors < run->room && sf_shape_bytes(&bytes, &shape, dtype))
        copy = sf_arena_alloc(run->arena, bytes);
    if (!copy)
        return sf_fail(err, SF_ENOMEM, "no memory for a probe's tensors");
    memcpy(copy, data, bytes);
    run->out->tensor[run->out->tensors++] = (struct sft_probe_tensor){
        name, {.dtype = dtype, .shape = shape, .data = copy, .bytes = bytes}};
    return SF_OK;
}

static int add_port(struct run *run, const char *name, struct sf_shape shape, int32_t buffer,
                    bool activations, struct sf_err *err)
{
    int64_t count = 0;
    float *data = NULL;
    if (sf_shape_count(&count, &shape))
        data = sf_arena_array(run->arena, (uint64_t)count + 1, sizeof *data);
    if (!data)
        return sf_fail(err, SF_ENOMEM, "no memory for a probe's tensors");
    int code = activations ? sft_step_read_activations(data, run->step, buffer, count, err)
                           : sft_step_read(data, run->step, buffer, (uint64_t)count * 4, err);
    return code ? code : add_tensor(run, name, SF_F32, shape, data, err);
}

static int add_layers(struct run *run, struct sf_err *err)
{
    const struct sf_model_spec *spec = run->config->spec;
    const struct sft_ports *ports = sft_step_ports(run->step);
    int code = SF_OK;
    for (int i = 0; !code && i < spec->layers; i++) {
        struct sf_shape shape = {3, {run->sequences, run->length, spec->hidden}};
        code = add_port(run, sf_arena_printf(run->arena, "hidden.%d", i), shape, ports->hidden[i],
                        true, err);
    }
    for (int i = 0; !code && i < spec->layers; i++) {
        struct sf_shape shape = {2, {run->sequences * run->length, spec->experts}};
        if (ports->router[i] >= 0)
            code = add_port(run, sf_arena_printf(run->arena, "router.%d", i), shape,
                            ports->router[i], false, err);
    }
    return code;
}

/* [B, S - 1]: the last position of a sequence has no loss. */
static int add_token_loss(struct run *run, struct sf_err *err)
{
    int64_t scored = run->length - 1;
    struct sf_shape shape = {2, {run->sequences, scored}};
    int64_t rows = run->sequences * run->length;
    float *from = sf_arena_array(run->arena, (uint64_t)rows, sizeof *from);
    float *loss = sf_arena_array(run->arena, (uint64_t)(run->sequences * scored) + 1, sizeof *loss);
    if (!loss || !from)
        return sf_fail(err, SF_ENOMEM, "no memory for a probe's tensors");
    int code = sft_step_read(from, run->step, sft_step_ports(run->step)->token_loss,
                             (uint64_t)rows * sizeof *from, err);
    if (code)
        return code;
    for (int64_t b = 0; b < run->sequences; b++)
        memcpy(loss + b * scored, from + b * run->length, (size_t)scored * sizeof *loss);
    return add_tensor(run, "token_loss", SF_F32, shape, loss, err);
}

static int add_losses(struct run *run, struct sf_err *err)
{
    float loss = (float)run->out->loss;
    struct sf_shape logits = {3, {run->sequences, run->length, run->config->spec->vocabulary}};
    int code = add_port(run, "logits", logits, sft_step_ports(run->step)->logits, false, err);
    if (!code)
        code = add_token_loss(run, err);
    return code ? code : add_tensor(run, "loss", SF_F32, (struct sf_shape){1, {1}}, &loss, err);
}

/* Gradients of one module, named and laid out as its A and B are in a file. */
static int add_gradient(struct run *run, const struct sf_adapter *adapter, int64_t number,
                        char which, struct sf_err *err)
{
    const struct sft_lora *lora = run->config->lora;
    const struct sft_lora_module *m = &lora->module[number];
    struct sf_adapter_module module = adapter->module[number];
    struct sf_adapter_tensor tensor;
    int64_t count = which == 'A' ? sft_lora_a_count(m) : sft_lora_b_count(m);
    float *data = sf_arena_array(run->arena, (uint64_t)count, sizeof *data);
    if (!data)
        return sf_fail(err, SF_ENOMEM, "no memory for a probe's tensors");
    module.a = module.b = data;
    int code =
        sft_lora_read(data, lora, SFT_LORA_GRADIENTS, which == 'A' ? m->a : m->b, count, err);
    if (!code)
        code = sf_adapter_tensor(&tensor, run->arena, adapter, &module, which, err);
    if (code)
        return code;
    char *name = sf_arena_printf(run->arena, "grad.%s", tensor.key);
    return add_tensor(run, name, SF_F32, tensor.shape, tensor.data, err);
}

static int add_gradients(struct run *run, struct sf_err *err)
{
    struct sf_adapter adapter;
    int code = sft_lora_export(&adapter, run->config->lora, run->arena, err);
    adapter.prefix = run->config->prefix;
    adapter.layout = run->config->layout;
    for (int64_t i = 0; !code && i < adapter.modules; i++) {
        code = add_gradient(run, &adapter, i, 'A', err);
        if (!code)
            code = add_gradient(run, &adapter, i, 'B', err);
    }
    return code;
}

static int collect(struct run *run, const int32_t *ids, const int32_t *labels, struct sf_err *err)
{
    struct sf_shape shape = {2, {run->sequences, run->length}};
    int64_t modules = run->config->lora ? run->config->lora->modules : 0;
    run->room = 8 + 2 * run->config->spec->layers + 2 * modules;
    run->out->tensor = sf_arena_array(run->arena, (uint64_t)run->room, sizeof *run->out->tensor);
    if (!run->out->tensor)
        return sf_fail(err, SF_ENOMEM, "no memory for a probe's tensors");
    int code = add_tensor(run, "input_ids", SF_I32, shape, ids, err);
    if (!code)
        code = add_tensor(run, "labels", SF_I32, shape, labels, err);
    if (!code)
        code = add_layers(run, err);
    if (!code)
        code = add_losses(run, err);
    if (!code && run->config->gradients)
        code = add_gradients(run, err);
    return code;
}

static int open_step(struct run *run, enum sft_mode mode, struct sf_err *err)
{
    const struct sft_probe_config *c = run->config;
    struct sft_program program = {{run->sequences * run->length, run->sequences, run->length},
                                  mode};
    struct sft_step_config config = {.spec = c->spec,
                                     .lora = c->lora,
                                     .ops = c->ops,
                                     .ctx = c->ctx,
                                     .program = &program,
                                     .programs = 1};
    int code = sft_step_open(&run->step, &config, err);
    return code ? code : sft_step_allocate(run->step, c->image, err);
}

static int run_probe(struct run *run, const int32_t *ids, const int32_t *labels, struct sf_err *err)
{
    enum sft_mode mode = run->config->gradients ? SFT_PROBE_GRADS : SFT_PROBE;
    struct sft_batch batch = {
        .rows = run->sequences * run->length, .documents = run->sequences, .ids = ids};
    batch.targets = shift_labels(run->arena, labels, run->sequences, run->length);
    batch.document = document_starts(run->arena, run->sequences, run->length);
    if (!batch.targets || !batch.document)
        return sf_fail(err, SF_ENOMEM, "no memory for a probe's batch");
    int code = open_step(run, mode, err);
    if (!code && run->config->gradients)
        code = sft_step_zero_gradients(run->step, err);
    struct sft_loss loss;
    if (!code)
        code = sft_step_probe(&loss, run->step, &batch, mode, err);
    if (code)
        return code;
    run->out->loss = loss.targets ? loss.sum / (double)loss.targets : 0;
    return collect(run, ids, labels, err);
}

int sft_probe_run(struct sft_probe *out, struct sf_arena *arena,
                  const struct sft_probe_config *config, const int32_t *ids, const int32_t *labels,
                  int64_t sequences, int64_t length, struct sf_err *err)
{
    struct run run = {
        .config = config, .arena = arena, .out = out, .sequences = sequences, .length = length};
    *out = (struct sft_probe){0};
    if (sequences < 1 || length < 2 || sequences > INT32_MAX / length)
        return sf_fail(err, SF_EINVAL, "a probe of [%lld, %lld] tokens; lengths start at 2",
                       (long long)sequences, (long long)length);
    if (config->gradients && (!config->lora || config->lora->modules == 0))
        return sf_fail(err, SF_EINVAL, "gradients are the adapter's, and there is no adapter");
    int code = run_probe(&run, ids, labels, err);
    sft_step_close(run.step);
    return code;
}
