/* Which matrices an adapter has: what a list of PEFT's targets matches, or what was read. */
#include "train/lora.h"

#include <math.h>
#include <string.h>

/* Room for one module per part and layer, the index empty. */
static int begin(struct sft_lora *out, struct sf_arena *arena, const struct sf_model_spec *spec,
                 struct sf_err *err)
{
    uint64_t slots = (uint64_t)(spec->layers + 1) * SF_PART_COUNT; /* layer -1: lm_head */
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
    m->b = m->a + sft_lora_aligned(sft_lora_a_count(m));
    lora->count = m->b + sft_lora_aligned(sft_lora_b_count(m));
    lora->trained += sft_lora_a_count(m) + sft_lora_b_count(m);
    lora->index[sft_lora_slot(role)] = (int32_t)lora->modules;
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

struct names { /* a list of PEFT's, and which of them have matched something */
    const char *const *name;
    int64_t count;
    bool *used;
};

struct targets {
    struct names modules, parameters;
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

/* Modules by the list of modules, routed experts and router by that of parameters; up goes with
 * gate. */
static int match_role(bool *matched, struct targets *targets, struct sf_arena *arena,
                      struct sf_role role, struct sf_err *err)
{
    *matched = false;
    if (!sf_adapter_module_name(role.part))
        return SF_OK;
    struct names *names =
        sf_adapter_is_parameter(role.part) ? &targets->parameters : &targets->modules;
    return match_path(matched, names, sf_adapter_target(arena, SF_ADAPTER_TEXT, role), err);
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
    const char *path = sf_adapter_target(arena, SF_ADAPTER_TEXT, role);
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
            const char *path = sf_adapter_target(arena, SF_ADAPTER_TEXT, lora->module[i].role);
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

static int add_if_matched(struct sft_lora *out, struct targets *targets, struct sf_arena *arena,
                          const struct sf_model_spec *spec, struct sf_role role, struct sf_err *err)
{
    bool matched;
    if (!sf_spec_has(spec, role.part, role.layer))
        return SF_OK;
    int code = match_role(&matched, targets, arena, role, err);
    return code || !matched ? code : add_planned(out, arena, spec, role, err);
}

/* Layers first: what is outside them stands behind, and changes no number of theirs. */
static struct sf_role role_at(const struct sf_model_spec *spec, int64_t place)
{
    int64_t layer = place / SF_PART_UNUSED;
    return (struct sf_role){(enum sf_part)(place % SF_PART_UNUSED),
                            layer < spec->layers ? (int32_t)layer : -1, -1};
}

static int64_t places(const struct sf_model_spec *spec)
{
    return (spec->layers + 1) * SF_PART_UNUSED;
}

static int add_matches(struct sft_lora *out, struct targets *targets, struct sf_arena *arena,
                       const struct sf_model_spec *spec, struct sf_err *err)
{
    int code = SF_OK;
    for (int64_t i = 0; i < places(spec) && !code; i++)
        code = add_if_matched(out, targets, arena, spec, role_at(spec, i), err);
    return code;
}

/* It is there, and no linear module: "matches nothing" would be wrong of it. */
static int check_router(const struct names *modules, struct sf_err *err)
{
    for (int64_t t = 0; t < modules->count; t++)
        if (!modules->used[t] &&
            path_ends_with("model.layers.0.feed_forward.router", modules->name[t]))
            return sf_fail(err, SF_EINVAL,
                           "target module '%s': the router is a parameter to PEFT: "
                           "--target-parameters router.weight",
                           modules->name[t]);
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
    struct targets targets;
    code = check_config(config, err);
    if (!code)
        code = take_names(&targets.modules, arena, config->target, config->targets, err);
    if (!code)
        code = take_names(&targets.parameters, arena, config->parameter, config->parameters, err);
    if (!code)
        code = add_matches(out, &targets, arena, spec, err);
    if (!code)
        code = check_router(&targets.modules, err);
    if (!code)
        code = check_used(&targets.modules, "module",
                          "linear modules are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
                          "down_proj, lm_head, and target parameters experts.gate_up_proj, "
                          "experts.down_proj, router.weight",
                          err);
    if (!code)
        code =
            check_used(&targets.parameters, "parameter",
                       "they are experts.gate_up_proj, experts.down_proj and router.weight", err);
    if (!code)
        code = check_patterns(out, arena, "rank", config->rank_pattern, config->rank_patterns, err);
    return code ? code
                : check_patterns(out, arena, "alpha", config->alpha_pattern, config->alpha_patterns,
                                 err);
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
    for (int64_t i = 0; i < places(spec); i++) {
        struct sf_role role = role_at(spec, i);
        const struct sf_adapter_module *m = sf_adapter_find(adapter, role);
        if (m && sf_spec_has(spec, role.part, role.layer))
            add_module(out, spec, role, m->rank, m->alpha, m->scale);
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
        if (sf_adapter_is_parameter(lora->module[i].role.part))
            return sf_fail(err, SF_EUNSUPPORTED,
                           "LoRA dropout %g: %s is adapted, and PEFT has no dropout for parameters",
                           probability, sf_adapter_module_name(lora->module[i].role.part));
    lora->dropout = probability;
    lora->draw = (struct sk_dropout){.probability = (float)probability, .key = key};
    return SF_OK;
}
