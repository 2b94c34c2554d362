#include "libformat/convert/names.h"

#include <string.h>

static const char MULTIMODAL_PREFIX[] = "language_model.";
static const char LAYER_PREFIX[] = "model.layers.";
enum { LARGEST_LAYER = 1 << 20 };

static const struct {
    const char *name; /* behind the prefix, or behind "model.layers.N." */
    enum sf_part part;
} weight_names[] = {
    {"model.embed_tokens.weight", SF_PART_EMBEDDING},
    {"model.norm.weight", SF_PART_FINAL_NORM},
    {"lm_head.weight", SF_PART_HEAD},
    {"input_layernorm.weight", SF_PART_INPUT_NORM},
    {"self_attn.q_proj.weight", SF_PART_Q},
    {"self_attn.k_proj.weight", SF_PART_K},
    {"self_attn.v_proj.weight", SF_PART_V},
    {"self_attn.o_proj.weight", SF_PART_O},
    {"post_attention_layernorm.weight", SF_PART_POST_NORM},
    {"feed_forward.router.weight", SF_PART_ROUTER},
    {"feed_forward.shared_expert.gate_proj.weight", SF_PART_SHARED_GATE},
    {"feed_forward.shared_expert.up_proj.weight", SF_PART_SHARED_UP},
    {"feed_forward.shared_expert.down_proj.weight", SF_PART_SHARED_DOWN},
    {"feed_forward.gate_proj.weight", SF_PART_DENSE_GATE},
    {"feed_forward.up_proj.weight", SF_PART_DENSE_UP},
    {"feed_forward.down_proj.weight", SF_PART_DENSE_DOWN},
};
enum { WEIGHT_NAMES = sizeof weight_names / sizeof weight_names[0] };

static const struct {
    enum sf_part part;
    const char *name; /* behind "feed_forward.experts.E." */
} expert_names[] = {
    {SF_PART_EXPERT_GATE, "gate_proj.weight"},
    {SF_PART_EXPERT_UP, "up_proj.weight"},
    {SF_PART_EXPERT_DOWN, "down_proj.weight"},
};

static const char *skip_prefix(const char *text, const char *prefix)
{
    size_t n = strlen(prefix);
    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

/* bitsandbytes, compressed-tensors, FP8 and ModelOpt keep side tensors under these names. */
static bool is_packed(const char *name)
{
    static const char *const suffixes[] = {
        ".absmax",        ".quant_map",    ".nested_absmax", ".nested_quant_map",
        ".weight_packed", ".weight_scale", ".weight_shape",  ".weight_zero_point",
        ".input_scale",   "_proj_scale",   "_weight_scale",  "_input_scale",
    };
    if (strstr(name, ".quant_state."))
        return true;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (ends_with(name, suffixes[i]))
            return true;
    return false;
}

/* "12.rest" -> 12 and "rest"; NULL if it does not start with a plain number and a dot. */
static const char *take_number(int32_t *out, const char *text)
{
    int64_t value = 0;
    const char *s = text;
    if (*s == '0' && s[1] != '.')
        return NULL;
    for (; *s >= '0' && *s <= '9' && value <= LARGEST_LAYER; s++)
        value = value * 10 + (*s - '0');
    if (s == text || *s != '.' || value > LARGEST_LAYER)
        return NULL;
    *out = (int32_t)value;
    return s + 1;
}

static struct sf_name parse_text_name(const char *name)
{
    struct sf_name out = {.kind = SF_NAME_UNKNOWN, .layer = -1};
    const char *rest = skip_prefix(name, LAYER_PREFIX);
    if (rest && !(rest = take_number(&out.layer, rest)))
        return out;
    if (rest && strcmp(rest, "feed_forward.experts.gate_up_proj") == 0)
        out.kind = SF_NAME_FUSED_GATE_UP;
    else if (rest && strcmp(rest, "feed_forward.experts.down_proj") == 0)
        out.kind = SF_NAME_FUSED_DOWN;
    for (int i = 0; i < WEIGHT_NAMES && out.kind == SF_NAME_UNKNOWN; i++) {
        out.part = weight_names[i].part;
        if (sf_part_in_layer(out.part) == (rest != NULL) &&
            strcmp(rest ? rest : name, weight_names[i].name) == 0)
            out.kind = SF_NAME_WEIGHT;
    }
    return out;
}

struct sf_name sf_name_parse(const char *name)
{
    const char *text = skip_prefix(name, MULTIMODAL_PREFIX);
    struct sf_name out = parse_text_name(text ? text : name);
    if (out.kind != SF_NAME_UNKNOWN)
        return out;
    if (is_packed(name))
        return (struct sf_name){.kind = SF_NAME_PACKED, .layer = -1};
    if (skip_prefix(name, "vision_model.") || skip_prefix(name, "multi_modal_projector."))
        return (struct sf_name){.kind = SF_NAME_UNUSED, .part = SF_PART_UNUSED, .layer = -1};
    return out;
}

char *sf_name_of_role(struct sf_arena *arena, bool multimodal, struct sf_role role)
{
    const char *prefix = multimodal ? MULTIMODAL_PREFIX : "";
    for (size_t i = 0; i < sizeof expert_names / sizeof expert_names[0]; i++)
        if (expert_names[i].part == role.part)
            return sf_arena_printf(arena, "%s%s%d.feed_forward.experts.%d.%s", prefix, LAYER_PREFIX,
                                   role.layer, role.expert, expert_names[i].name);
    for (int i = 0; i < WEIGHT_NAMES; i++) {
        if (weight_names[i].part != role.part)
            continue;
        if (!sf_part_in_layer(role.part))
            return sf_arena_printf(arena, "%s%s", prefix, weight_names[i].name);
        return sf_arena_printf(arena, "%s%s%d.%s", prefix, LAYER_PREFIX, role.layer,
                               weight_names[i].name);
    }
    return NULL;
}
