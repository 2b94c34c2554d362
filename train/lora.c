#include "train/lora.h"

#include <math.h>
#include <string.h>

#include "kernels/adamw_8bit.h"
#include "libformat/base/mem.h"
#include "kernels/philox.h"

enum { TENSOR_ALIGN = SK_ADAMW_BLOCK }; /* elements: a block of moments is of one tensor */

static int64_t aligned(int64_t count)
{
    return (count + TENSOR_ALIGN - 1) / TENSOR_ALIGN * TENSOR_ALIGN;
}

static int32_t *index_of(const struct sft_lora *lora, struct sf_role role)
{
    return &lora->index[(role.layer + 1) * SF_PART_COUNT + role.part];
}

const struct sft_lora_module *sft_lora_find(const struct sft_lora *lora, struct sf_role role)
{
    int32_t number = lora ? *index_of(lora, role) : 0;
    return number ? &lora->module[number - 1] : NULL;
}

/* Room for one module per part and layer, the index empty. */
static int begin(struct sft_lora *out, struct sf_arena *arena, const struct sf_model_spec *spec,
                 struct sf_err *err)
{
    uint64_t slots = (uint64_t)(spec->layers + 1) * SF_PART_COUNT;
    *out = (struct sft_lora){0};
    out->module = sf_arena_array(arena, slots, sizeof *out->module);
    out->index = sf_arena_array(arena, slots, sizeof *out->index);
    if (!out->module || !out->index)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of adapted matrices");
    return SF_OK;
}

static void add_module(struct sft_lora *lora, const struct sf_model_spec *spec, struct sf_role role,
                       int64_t rank, double alpha, double scale)
{
    struct sf_shape shape = sf_spec_shape(spec, role.part);
    struct sft_lora_module *m = &lora->module[lora->modules++];
    *m = (struct sft_lora_module){.role = role,
                                  .groups = sf_part_is_expert(role.part) ? spec->experts : 1,
                                  .rank = rank,
                                  .alpha = alpha,
                                  .scale = scale,
                                  .out = shape.dim[0] * (role.part == SF_ADAPTER_GATE_UP ? 2 : 1),
                                  .in = shape.dim[1]};
    m->a = lora->count;
    m->b = m->a + aligned(sft_lora_a_count(m));
    lora->count = m->b + aligned(sft_lora_b_count(m));
    lora->trained += sft_lora_a_count(m) + sft_lora_b_count(m);
    *index_of(lora, role) = (int32_t)lora->modules;
}

/* PEFT's rule for a list: the module's whole path, or its end after a dot. */
static bool path_ends_with(const char *path, const char *target)
{
    size_t path_length = strlen(path), length = strlen(target);
    if (length == 0 || length > path_length)
        return false;
    return strcmp(path + path_length - length, target) == 0 &&
           (length == path_length || path[path_length - length - 1] == '.');
}

/* "model.layers.3.self_attn.q_proj": the key without PEFT's wrapping. NULL: out of memory. */
static const char *module_path(struct sf_arena *arena, struct sf_role role)
{
    static const char head[] = "base_model.model.", tail[] = ".lora_A.weight";
    char *key = sf_adapter_key(arena, SF_ADAPTER_TEXT, role, 'A');
    if (!key)
        return NULL;
    key[strlen(key) - (sizeof tail - 1)] = '\0';
    return key + sizeof head - 1;
}

/* "model.layers.3.feed_forward.experts.down_proj": a parameter of the layer. */
static const char *parameter_path(struct sf_arena *arena, struct sf_role role)
{
    return sf_arena_printf(arena, "model.layers.%d.feed_forward.experts.%s", role.layer,
                           role.part == SF_ADAPTER_GATE_UP ? "gate_up_proj" : "down_proj");
}

struct names { /* a list of PEFT's, and which of them have matched something */
    const char *const *name;
    int64_t count;
    bool *used;
};

static int take_names(struct names *out, struct sf_arena *arena, const char *const *name,
                      int64_t count, struct sf_err *err)
{
    *out = (struct names){.name = name, .count = count};
    out->used = sf_arena_array(arena, (uint64_t)count + 1, sizeof *out->used);
    return out->used ? SF_OK
                     : sf_fail(err, SF_ENOMEM, "no memory for a list of %lld target modules",
                               (long long)count);
}

/* *matched: some name is this path's. */
static int match_path(bool *matched, struct names *names, const char *path, struct sf_err *err)
{
    *matched = false;
    if (!path)
        return sf_fail(err, SF_ENOMEM, "no memory for a module's name");
    for (int64_t t = 0; t < names->count; t++) {
        if (path_ends_with(path, names->name[t]))
            *matched = names->used[t] = true;
    }
    return SF_OK;
}

/* Adapters of these can be read and merged; the model has no LoRA there yet. */
static bool cannot_be_trained(enum sf_part part)
{
    return part == SF_PART_ROUTER || part == SF_PART_HEAD;
}

/* Modules by the list of modules, routed experts by that of parameters; up goes with gate. */
static int match_role(bool *matched, struct names *modules, struct names *parameters,
                      struct sf_arena *arena, struct sf_role role, struct sf_err *err)
{
    *matched = false;
    if (role.part == SF_ADAPTER_GATE_UP || role.part == SF_PART_EXPERT_DOWN)
        return match_path(matched, parameters, parameter_path(arena, role), err);
    if (sf_part_is_expert(role.part) || !sf_adapter_module_name(role.part) ||
        cannot_be_trained(role.part))
        return SF_OK;
    return match_path(matched, modules, module_path(arena, role), err);
}

static int check_rank(double rank, struct sf_err *err)
{
    if (!(rank >= 1 && rank <= 65536) || rank != floor(rank))
        return sf_fail(err, SF_EINVAL, "LoRA rank %.10g is no whole number from 1 to 65536", rank);
    return SF_OK;
}

/* With the rank and alpha that the patterns give it. */
static int add_planned(struct sft_lora *out, struct sf_arena *arena,
                       const struct sf_model_spec *spec, struct sf_role role, struct sf_err *err)
{
    const struct sft_lora_config *c = &out->config;
    const char *path = sf_adapter_path(arena, SF_ADAPTER_TEXT, role);
    double rank, alpha;
    if (!path)
        return sf_fail(err, SF_ENOMEM, "no memory for a module's name");
    int code = sf_adapter_pattern_find(&rank, c->rank_pattern, c->rank_patterns, path,
                                       (double)c->rank, err);
    if (!code)
        code = sf_adapter_pattern_find(&alpha, c->alpha_pattern, c->alpha_patterns, path, c->alpha,
                                       err);
    if (!code && (code = check_rank(rank, err)))
        sf_err_prefix(err, "%s", path);
    if (!code && alpha == 0)
        code = sf_fail(err, SF_EINVAL, "%s: alpha 0 would change nothing", path);
    if (!code)
        add_module(out, spec, role, (int64_t)rank, alpha,
                   sf_adapter_scale(alpha, (int64_t)rank, c->rslora));
    return code;
}

/* Patterns are found by the first that matches: one that stands behind another may give nothing, and
 * is used all the same. */
static int check_patterns(const struct sft_lora *lora, struct sf_arena *arena, const char *what,
                          const struct sf_adapter_pattern *pattern, int64_t patterns,
                          struct sf_err *err)
{
    for (int64_t p = 0; p < patterns; p++) {
        bool used = false;
        for (int64_t i = 0; i < lora->modules && !used; i++) {
            const char *path = sf_adapter_path(arena, SF_ADAPTER_TEXT, lora->module[i].role);
            int code = path ? sf_adapter_pattern_match(&used, pattern[p].key, path, err)
                            : sf_fail(err, SF_ENOMEM, "no memory for a module's name");
            if (code)
                return code;
        }
        if (!used)
            return sf_fail(err, SF_EINVAL, "%s pattern '%s' matches nothing that is adapted", what,
                           pattern[p].key);
    }
    return SF_OK;
}

static int add_matches(struct sft_lora *out, struct names *modules, struct names *parameters,
                       struct sf_arena *arena, const struct sf_model_spec *spec, struct sf_err *err)
{
    for (int32_t layer = 0; layer < spec->layers; layer++) {
        for (int part = 0; part < SF_PART_UNUSED; part++) {
            struct sf_role role = {(enum sf_part)part, layer, -1};
            bool matched;
            if (!sf_spec_has(spec, role.part, layer))
                continue;
            int code = match_role(&matched, modules, parameters, arena, role, err);
            if (!code && matched)
                code = add_planned(out, arena, spec, role, err);
            if (code)
                return code;
        }
    }
    return SF_OK;
}

/* They are there, and PEFT could: "matches nothing" would be wrong of them. */
static int check_trainable(const struct names *names, struct sf_err *err)
{
    static const char *const path[] = {"model.layers.0.feed_forward.router", "lm_head"};
    for (int64_t t = 0; t < names->count; t++)
        for (int i = 0; i < 2 && !names->used[t]; i++)
            if (path_ends_with(path[i], names->name[t]))
                return sf_fail(err, SF_EUNSUPPORTED,
                               "target module '%s' can be read and merged, not run or trained",
                               names->name[t]);
    return SF_OK;
}

static int check_used(const struct names *names, const char *what, const char *known,
                      struct sf_err *err)
{
    for (int64_t t = 0; t < names->count; t++)
        if (!names->used[t])
            return sf_fail(err, SF_EINVAL, "target %s '%s' matches nothing in this model; %s", what,
                           names->name[t], known);
    return SF_OK;
}

static int check_config(const struct sft_lora_config *config, struct sf_err *err)
{
    int code = check_rank((double)config->rank, err);
    if (code)
        return code;
    if (config->targets + config->parameters < 1)
        return sf_fail(err, SF_EINVAL, "no target modules or parameters are given");
    return SF_OK;
}

int sft_lora_plan(struct sft_lora *out, struct sf_arena *arena, const struct sf_model_spec *spec,
                  const struct sft_lora_config *config, struct sf_err *err)
{
    int code = begin(out, arena, spec, err);
    if (code)
        return code;
    out->config = *config;
    struct names modules, parameters;
    code = check_config(config, err);
    if (!code)
        code = take_names(&modules, arena, config->target, config->targets, err);
    if (!code)
        code = take_names(&parameters, arena, config->parameter, config->parameters, err);
    if (!code)
        code = add_matches(out, &modules, &parameters, arena, spec, err);
    if (!code)
        code = check_trainable(&modules, err);
    if (!code)
        code = check_used(&modules, "module",
                          "linear modules are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
                          "down_proj, and target parameters experts.gate_up_proj, "
                          "experts.down_proj",
                          err);
    if (!code)
        code = check_used(&parameters, "parameter",
                          "they are experts.gate_up_proj and experts.down_proj", err);
    if (!code)
        code = check_patterns(out, arena, "rank", config->rank_pattern, config->rank_patterns, err);
    return code ? code
                : check_patterns(out, arena, "alpha", config->alpha_pattern, config->alpha_patterns,
                                 err);
}

static const struct sf_adapter_module *adapter_module(const struct sf_adapter *adapter,
                                                      struct sf_role role)
{
    for (int64_t i = 0; i < adapter->modules; i++) {
        struct sf_role r = adapter->module[i].role;
        if (r.part == role.part && r.layer == role.layer && r.expert == role.expert)
            return &adapter->module[i];
    }
    return NULL;
}

int sft_lora_plan_adapter(struct sft_lora *out, struct sf_arena *arena,
                          const struct sf_model_spec *spec, const struct sf_adapter *adapter,
                          struct sf_err *err)
{
    int code = begin(out, arena, spec, err);
    if (code)
        return code;
    out->config = (struct sft_lora_config){
        .rank = adapter->rank, .alpha = adapter->alpha, .rslora = adapter->rslora};
    out->dropout = adapter->dropout;
    for (int64_t i = 0; i < adapter->modules; i++) {
        enum sf_part part = adapter->module[i].role.part;
        if (cannot_be_trained(part))
            return sf_fail(err, SF_EUNSUPPORTED,
                           "the adapter adapts %s, which can be merged, not run or trained",
                           sf_adapter_module_name(part));
    }
    for (int32_t layer = 0; layer < spec->layers; layer++) {
        for (int part = 0; part < SF_PART_UNUSED; part++) {
            struct sf_role role = {(enum sf_part)part, layer, -1};
            const struct sf_adapter_module *m = adapter_module(adapter, role);
            if (m && sf_spec_has(spec, role.part, layer))
                add_module(out, spec, role, m->rank, m->alpha, m->scale);
        }
    }
    if (out->modules != adapter->modules)
        return sf_fail(err, SF_EINVAL, "the adapter has %lld modules, the model has %lld of them",
                       (long long)adapter->modules, (long long)out->modules);
    return SF_OK;
}

int sft_lora_drop(struct sft_lora *lora, double probability, uint64_t key, struct sf_err *err)
{
    if (!(probability >= 0 && probability < 1))
        return sf_fail(err, SF_EINVAL, "LoRA dropout %.10g is not from 0 to below 1", probability);
    if ((float)probability == 1) /* which is what is drawn against: nothing would be trained */
        return sf_fail(err, SF_EINVAL, "LoRA dropout %.10g is 1 in float32: it would drop all",
                       probability);
    for (int64_t i = 0; probability > 0 && i < lora->modules; i++)
        if (sf_part_is_expert(lora->module[i].role.part))
            return sf_fail(err, SF_EUNSUPPORTED,
                           "LoRA dropout %g: routed experts are adapted, and PEFT has no dropout "
                           "for parameters",
                           probability);
    lora->dropout = probability;
    lora->draw = (struct sk_dropout){.probability = (float)probability, .key = key};
    return SF_OK;
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
        o.scale_bytes = (uint64_t)aligned(sk_adamw_blocks(lora->count) * (int64_t)sizeof(float));
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
    const struct sf_adapter_module *from = adapter_module(adapter, m->role);
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
