/* The adapter's block: its places, its memory, its numbers. */
#include "train/lora.h"

#include <math.h>
#include <string.h>

#include "kernels/philox.h"
#include "libformat/base/mem.h"

const struct sft_lora_module *sft_lora_find(const struct sft_lora *lora, struct sf_role role)
{
    int32_t number = lora ? lora->index[sft_lora_slot(role)] : 0;
    return number ? &lora->module[number - 1] : NULL;
}

static const struct {
    const char *name;
    enum sft_optim optim;
} optims[] = {
    {"adamw_torch", SFT_ADAMW}, {"adamw_8bit", SFT_ADAMW_8BIT}, {"adamw_bnb_8bit", SFT_ADAMW_8BIT}};

bool sft_optim_from_name(enum sft_optim *out, const char *name)
{
    for (size_t i = 0; i < sizeof optims / sizeof *optims; i++) {
        if (strcmp(optims[i].name, name) == 0) {
            *out = optims[i].optim;
            return true;
        }
    }
    return false;
}

/* Scales start on 256 bytes, as everything in the block. */
struct sft_moments sft_lora_moments(const struct sft_lora *lora)
{
    uint64_t count = (uint64_t)lora->count, floats = count * sizeof(float);
    struct sft_moments o = {.m = 2 * floats, .code_bytes = floats};
    if (lora->optim == SFT_ADAMW_8BIT) {
        o.code_bytes = count;
        o.scale_bytes =
            (uint64_t)sft_lora_aligned(sk_adamw_blocks(lora->count) * (int64_t)sizeof(float));
    }
    o.v = o.m + o.code_bytes;
    o.m_scale = o.v + o.code_bytes;
    o.v_scale = o.m_scale + o.scale_bytes;
    o.bytes = 2 * (o.code_bytes + o.scale_bytes);
    return o;
}

uint64_t sft_lora_bytes(const struct sft_lora *lora, bool training)
{
    uint64_t floats = (uint64_t)lora->count * sizeof(float);
    return training ? 2 * floats + sft_lora_moments(lora).bytes : floats;
}

static int allocate(struct sft_lora *lora, struct sf_err *err)
{
    const struct sk_memory *memory = lora->ops->memory;
    uint64_t bytes = sft_lora_bytes(lora, lora->training);
    void *home = NULL;
    int code = memory->allocate(&lora->block, lora->ctx, SK_PLACE_OPS, bytes, "the adapter", err);
    struct sk_fill_zero zero = {.data = lora->block, .bytes = (int64_t)bytes};
    if (!code)
        code = lora->ops->run[SK_FILL_ZERO](lora->ctx, &zero, err);
    if (!code && lora->ops->device)
        code = sf_alloc_for(&home, sft_lora_bytes(lora, false), "the adapter's copy", err);
    if (!code)
        lora->parameters = lora->ops->device ? home : lora->block;
    return code;
}

int sft_lora_allocate(struct sft_lora *lora, bool training, const struct sk_ops *ops,
                      struct sk_ctx *ctx, struct sf_err *err)
{
    lora->ops = ops;
    lora->ctx = ctx;
    lora->training = training;
    int code = allocate(lora, err);
    if (code)
        sft_lora_free(lora);
    return code;
}

void sft_lora_free(struct sft_lora *lora)
{
    if (!lora->ops)
        return;
    if (lora->ops->device)
        sf_free(lora->parameters);
    lora->ops->memory->release(lora->ctx, SK_PLACE_OPS, lora->block);
    lora->block = NULL;
    lora->parameters = NULL;
    lora->ops = NULL;
}

int sft_lora_push(struct sft_lora *lora, struct sf_err *err)
{
    if (!lora->ops->device)
        return SF_OK;
    return lora->ops->memory->write(lora->ctx, lora->block, lora->parameters,
                                    sft_lora_bytes(lora, false), err);
}

int sft_lora_read(float *out, const struct sft_lora *lora, enum sft_lora_state state, int64_t first,
                  int64_t count, struct sf_err *err)
{
    return lora->ops->memory->read(lora->ctx, out, sft_lora_state(lora, state) + first,
                                   (uint64_t)count * sizeof *out, err);
}

int sft_lora_pull(struct sft_lora *lora, struct sf_err *err)
{
    if (!lora->ops->device)
        return SF_OK;
    return sft_lora_read(lora->parameters, lora, SFT_LORA_PARAMETERS, 0, lora->count, err);
}

/* Element i of module `number` is word i % 4 of counter i / 4 on that module's stream. */
static void fill_uniform(float *out, int64_t count, float bound, uint64_t seed, uint64_t number)
{
    uint32_t word[4];
    for (int64_t i = 0; i < count; i++) {
        if (i % 4 == 0)
            sk_philox(word, seed, number, (uint64_t)i / 4);
        out[i] = bound * (2 * sk_philox_uniform(word[i % 4]) - 1);
    }
}

void sft_lora_init(struct sft_lora *lora, uint64_t seed)
{
    for (int64_t i = 0; i < lora->modules; i++) {
        const struct sft_lora_module *m = &lora->module[i];
        fill_uniform(lora->parameters + m->a, sft_lora_a_count(m), 1 / sqrtf((float)m->in), seed,
                     (uint64_t)i);
        memset(lora->parameters + m->b, 0, (size_t)sft_lora_b_count(m) * sizeof(float));
    }
}

static int load_module(struct sft_lora *lora, const struct sft_lora_module *m,
                       const struct sf_adapter *adapter, struct sf_err *err)
{
    char text[SF_ROLE_TEXT];
    const struct sf_adapter_module *from = sf_adapter_find(adapter, m->role);
    if (!from)
        return sf_fail(err, SF_EINVAL, "the adapter has nothing for %s",
                       sf_role_format(text, m->role));
    if (from->groups != m->groups || from->rank != m->rank || from->in != m->in ||
        from->out != m->out)
        return sf_fail(err, SF_EINVAL,
                       "%s: the adapter's matrices are %lld x [%lld, %lld] and [%lld, %lld], ours "
                       "%lld x [%lld, %lld] and [%lld, %lld]",
                       sf_role_format(text, m->role), (long long)from->groups,
                       (long long)from->rank, (long long)from->in, (long long)from->out,
                       (long long)from->rank, (long long)m->groups, (long long)m->rank,
                       (long long)m->in, (long long)m->out, (long long)m->rank);
    memcpy(lora->parameters + m->a, from->a, (size_t)sft_lora_a_count(m) * sizeof(float));
    memcpy(lora->parameters + m->b, from->b, (size_t)sft_lora_b_count(m) * sizeof(float));
    return SF_OK;
}

int sft_lora_load(struct sft_lora *lora, const struct sf_adapter *adapter, struct sf_err *err)
{
    if (adapter->modules != lora->modules)
        return sf_fail(err, SF_EINVAL, "the adapter has %lld modules, this run adapts %lld",
                       (long long)adapter->modules, (long long)lora->modules);
    for (int64_t i = 0; i < lora->modules; i++) {
        int code = load_module(lora, &lora->module[i], adapter, err);
        if (code)
            return code;
    }
    return SF_OK;
}

int sft_lora_export(struct sf_adapter *out, const struct sft_lora *lora, struct sf_arena *arena,
                    struct sf_err *err)
{
    *out = (struct sf_adapter){.rank = lora->config.rank,
                               .alpha = lora->config.alpha,
                               .rslora = lora->config.rslora,
                               .dropout = lora->dropout,
                               .modules = lora->modules};
    out->module = sf_arena_array(arena, (uint64_t)lora->modules + 1, sizeof *out->module);
    if (!out->module)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of adapted matrices");
    for (int64_t i = 0; i < lora->modules; i++) {
        const struct sft_lora_module *m = &lora->module[i];
        out->module[i] = (struct sf_adapter_module){.role = m->role,
                                                    .groups = m->groups,
                                                    .alpha = m->alpha,
                                                    .rank = m->rank,
                                                    .in = m->in,
                                                    .out = m->out,
                                                    .scale = m->scale,
                                                    .a = lora->parameters + m->a,
                                                    .b = lora->parameters + m->b};
    }
    return SF_OK;
}
