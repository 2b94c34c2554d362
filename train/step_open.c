/* Opening a step: its tapes, the memory policy that fits, the blocks. */
#include <assert.h>
#include <string.h>

#include "kernels/adamw_8bit.h"
#include "libformat/base/mem.h"
#include "train/step_private.h"

/* ---- tapes ---- */

/* `enough`: pack.h. */
static int open_program(struct step_program *program, struct sf_arena *arena,
                        const struct sft_step_config *c, struct sft_program wanted, uint64_t enough,
                        struct sf_err *err)
{
    program->wanted = wanted;
    sft_tape_begin(&program->tape, arena);
    program->tape.enough_bytes = enough;
    int code = sft_model_emit(&program->tape, &program->ports, c->ops, c->spec, c->lora,
                              wanted.shape, wanted.mode, err);
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

/* Elements of the block whose AdamW is one node: all of them, or a tensor. */
struct range {
    int64_t first, count;
};

/* The update's ports, as operands: clipping, and A's or B's learning rate. */
struct rates {
    struct sft_ref clip, hyper;
};

static struct sft_ref adapter_at(struct sft_tape *t, uint64_t offset, uint64_t bytes,
                                 const char *name)
{
    return sft_at(sft_tape_adapter(t, offset, bytes, "%s", name), 0);
}

static void emit_adamw(struct sft_tape *t, const struct sft_step_config *c, struct range r,
                       struct rates rates)
{
    struct sft_moments o = sft_lora_moments(c->lora);
    uint64_t count = (uint64_t)r.count, first = (uint64_t)r.first, floats = count * sizeof(float);
    bool bytes = c->lora->optim == SFT_ADAMW_8BIT;
    uint64_t code = bytes ? 1 : sizeof(float);
    struct sft_ref p = adapter_at(t, first * sizeof(float), floats, "parameters");
    struct sft_ref g =
        adapter_at(t, ((uint64_t)c->lora->count + first) * sizeof(float), floats, "gradients");
    struct sft_ref m = adapter_at(t, o.m + first * code, count * code, "m");
    struct sft_ref v = adapter_at(t, o.v + first * code, count * code, "v");
    struct sk_adamw adamw = {.count = r.count,
                             .beta1 = c->beta1,
                             .beta2 = c->beta2,
                             .epsilon = c->epsilon,
                             .weight_decay = c->weight_decay};
    if (!bytes) {
        sft_tape_emit(t, SK_ADAMW, &adamw, (struct sft_ref[]){p, m, v, g, rates.clip, rates.hyper},
                      6);
        return;
    }
    uint64_t scale = first / SK_ADAMW_BLOCK * sizeof(float);
    uint64_t scales = (uint64_t)sk_adamw_blocks(r.count) * sizeof(float);
    struct sft_ref ms = adapter_at(t, o.m_scale + scale, scales, "scales of m");
    struct sft_ref vs = adapter_at(t, o.v_scale + scale, scales, "scales of v");
    struct sk_adamw_8bit adamw_8bit = {.count = adamw.count,
                                       .beta1 = adamw.beta1,
                                       .beta2 = adamw.beta2,
                                       .epsilon = adamw.epsilon,
                                       .weight_decay = adamw.weight_decay};
    sft_tape_emit(t, SK_ADAMW_8BIT, &adamw_8bit,
                  (struct sft_ref[]){p, m, v, ms, vs, g, rates.clip, rates.hyper}, 8);
}

/* Everything at once where A and B learn alike, else tensor by tensor. */
static void emit_updates(struct sft_tape *t, const struct sft_step_config *c, int32_t clip,
                         int32_t hyper)
{
    const struct sft_lora *lora = c->lora;
    struct rates a = {sft_at(clip, 0), sft_at(hyper, 0)}, b = a;
    if (sft_lora_b_rate(lora) == 1) {
        emit_adamw(t, c, (struct range){0, lora->count}, a);
        return;
    }
    b.hyper = sft_at(hyper, sizeof(struct sk_adamw_hyper));
    for (int64_t i = 0; i < lora->modules; i++) {
        const struct sft_lora_module *m = &lora->module[i];
        emit_adamw(t, c, (struct range){m->a, sft_lora_a_count(m)}, a);
        emit_adamw(t, c, (struct range){m->b, sft_lora_b_count(m)}, b);
    }
}

static int open_update(struct sft_step *step, struct sf_err *err)
{
    const struct sft_step_config *c = &step->config;
    uint64_t bytes = (uint64_t)c->lora->count * sizeof(float);
    struct sft_tape *t = &step->update;
    step->norm = sft_tape_buffer(t, SFT_KEPT, SFT_PORT, sizeof(float), "gradient norm");
    step->clip = sft_tape_buffer(t, SFT_KEPT, SFT_PORT, sizeof(float), "clip");
    step->hyper =
        sft_tape_buffer(t, SFT_KEPT, SFT_PORT, 2 * sizeof(struct sk_adamw_hyper), "learning rates");
    struct sft_ref g = adapter_at(t, bytes, bytes, "gradients");
    struct sk_grad_norm norm = {.count = c->lora->count, .max_norm = c->max_grad_norm};
    sft_tape_emit(t, SK_GRAD_NORM, &norm,
                  (struct sft_ref[]){sft_at(step->norm, 0), sft_at(step->clip, 0), g}, 3);
    emit_updates(t, c, step->clip, step->hyper);
    return sft_tape_finish(t, c->ops, c->ctx->threads, err);
}

static void take_larger(uint64_t *bytes, uint64_t other)
{
    if (*bytes < other)
        *bytes = other;
}

/* Arrays that are filled for each batch. */
static bool make_arrays(struct sft_step *step)
{
    const struct sft_step_config *c = &step->config;
    int64_t rows = 0, documents = 0;
    for (int64_t i = 0; i < c->programs; i++) {
        struct sft_shape shape = c->program[i].shape;
        rows = rows < shape.rows ? shape.rows : rows;
        documents = documents < shape.documents ? shape.documents : documents;
    }
    step->inv_freq =
        sf_arena_array(&step->arena, (uint64_t)c->spec->head_size / 2 + 1, sizeof *step->inv_freq);
    step->targets = sf_arena_array(&step->arena, (uint64_t)rows + 1, sizeof *step->targets);
    step->positions = sf_arena_array(&step->arena, (uint64_t)rows + 1, sizeof *step->positions);
    step->documents =
        sf_arena_array(&step->arena, (uint64_t)documents + 1, sizeof *step->documents);
    return step->inv_freq && step->targets && step->positions && step->documents;
}

static int open_tapes(struct sft_step *step, struct sf_err *err)
{
    const struct sft_step_config *c = &step->config;
    step->program = sf_arena_array(&step->arena, (uint64_t)c->programs + 1, sizeof *step->program);
    if (!step->program || !make_arrays(step))
        return sf_fail(err, SF_ENOMEM, "no memory for %lld tapes", (long long)c->programs);
    sf_rope_frequencies(step->inv_freq, &c->spec->rope, c->spec->head_size);
    int code = SF_OK;
    for (int64_t i = 0; !code && i < c->programs; i++) {
        code = open_program(&step->program[i], &step->arena, c, c->program[i],
                            c->trial ? c->limit : 0, err);
        take_larger(&step->block_bytes, step->program[i].tape.step_bytes);
        take_larger(&step->host_bytes, step->program[i].tape.host_bytes);
    }
    sft_tape_begin(&step->zero, &step->arena);
    sft_tape_begin(&step->update, &step->arena);
    if (!code && c->lora)
        code = open_zero(step, err);
    if (!code && c->lora)
        code = open_update(step, err);
    take_larger(&step->block_bytes, step->update.step_bytes);
    return code;
}

/* ---- fitting into a limit ---- */

/* Bytes of the step block when `policy` is taken, by emitting everything for a moment: no more than
 * the limit when it fits, else more. */
static int measure_policy(uint64_t *bytes, const struct sft_step_config *config,
                          struct sft_policy policy, struct sf_err *err)
{
    struct sft_step_config trial = *config;
    int code = SF_OK;
    *bytes = 0;
    trial.policy = policy;
    for (int64_t i = 0; !code && i < config->programs; i++) {
        struct sf_arena arena = {0};
        struct step_program program = {0};
        code = open_program(&program, &arena, &trial, config->program[i], config->limit, err);
        take_larger(bytes, program.tape.step_bytes);
        sf_arena_free(&arena);
    }
    return code;
}

/* Makes again what either does. */
static struct sft_policy both(struct sft_policy a, struct sft_policy b)
{
    for (int k = 0; k < SFT_ACTIVATION_KINDS; k++)
        a.again[k] = a.again[k] < b.again[k] ? b.again[k] : a.again[k];
    a.offload |= b.offload;
    return a;
}

/* The first step of the walk from keeping all to keeping nothing that fits (bisection: the block
 * shrinks along the walk). */
static int fit_policy(struct sft_step_config *c, struct sf_err *err)
{
    int64_t layers = c->spec->layers, low = 0, high = sft_policy_steps(layers, c->ops->device) - 1;
    uint64_t bytes;
    int code = measure_policy(&bytes, c, c->policy, err);
    if (code || bytes <= c->limit)
        return code;
    if (c->exact_policy)
        return sf_fail(err, SF_ENOMEM,
                       "a step that keeps what was asked for takes at least %llu bytes beside "
                       "weights and adapter, there is room for %llu",
                       (unsigned long long)bytes, (unsigned long long)c->limit);
    code = measure_policy(&bytes, c, sft_policy_step(high, layers, c->ops->device), err);
    if (code)
        return code;
    if (bytes > c->limit)
        return sf_fail(err, SF_ENOMEM,
                       "a step takes at least %llu bytes beside weights and adapter, there is room "
                       "for %llu",
                       (unsigned long long)bytes, (unsigned long long)c->limit);
    while (low + 1 < high) { /* `low` does not fit, `high` does */
        int64_t middle = (low + high) / 2;
        code = measure_policy(
            &bytes, c, both(c->policy, sft_policy_step(middle, layers, c->ops->device)), err);
        if (code)
            return code;
        if (bytes <= c->limit)
            high = middle;
        else
            low = middle;
    }
    c->policy = both(c->policy, sft_policy_step(high, layers, c->ops->device));
    return SF_OK;
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
    if (config->limit)
        code = fit_policy(&step->config, err);
    if (!code)
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
    const struct sft_step_config *c = &step->config;
    sft_profile_close(&step->profile);
    c->ops->memory->release(c->ctx, SK_PLACE_OPS, step->block);
    c->ops->memory->release(c->ctx, SK_PLACE_HOST, step->host);
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
    if (plan->host_bytes < step->host_bytes)
        plan->host_bytes = step->host_bytes;
    if (lora)
        sft_plan_adapter(plan, sft_lora_bytes(lora, false), sft_lora_moments(lora).bytes, training);
}

uint64_t sft_step_bytes(const struct sft_step *step)
{
    return step->block_bytes;
}

uint64_t sft_step_host_bytes(const struct sft_step *step)
{
    return step->host_bytes;
}

struct sft_policy sft_step_policy(const struct sft_step *step)
{
    return step->config.policy;
}

int sft_step_allocate(struct sft_step *step, const struct sft_image *image, struct sf_err *err)
{
    step->image = image;
    const struct sft_step_config *c = &step->config;
    const struct sk_memory *memory = c->ops->memory;
    int code = memory->allocate(&step->block, c->ctx, SK_PLACE_OPS, step->block_bytes,
                                "the step block", err);
    return code ? code
                : memory->allocate(&step->host, c->ctx, SK_PLACE_HOST, step->host_bytes,
                                   "the host block", err);
}
