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

static const char EXPERTS_PREFIX[] = "feed_forward.experts.";
static const struct {
    enum sf_part part;
    const char
        *name; /* "...experts.E.gate_proj.weight"; behind "experts." without a number: stacked */
    const char *plural; /* Axolotl's: "...experts.gate_projs.E.weight" */
} expert_names[] = {
    {SF_PART_EXPERT_GATE, "gate_proj.weight", "gate_projs."},
    {SF_PART_EXPERT_UP, "up_proj.weight", "up_projs."},
    {SF_PART_EXPERT_DOWN, "down_proj.weight", "down_projs."},
};
enum { EXPERT_NAMES = sizeof expert_names / sizeof expert_names[0] };

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

/* The tensors that bitsandbytes keeps beside 4-bit codes. */
static bool is_bnb(const char *name)
{
    static const char *const suffixes[] = {".absmax", ".quant_map", ".nested_absmax",
                                           ".nested_quant_map"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (ends_with(name, suffixes[i]))
            return true;
    return strstr(name, ".quant_state.bitsandbytes__") != NULL;
}

/* By whose names others keep theirs; NULL: none known. The first suffix that fits counts. */
static const char *packing_of(const char *name)
{
    static const struct {
        const char *suffix, *packing;
    } known[] = {
        {".weight_packed", "compressed-tensors, packed integers such as W4A16"},
        {".weight_shape", "compressed-tensors, packed integers such as W4A16"},
        {".weight_zero_point", "compressed-tensors"},
        {".weight_g_idx", "compressed-tensors"},
        {"_proj_weight_scale", "ModelOpt, FP8 or FP4"},
        {"_proj_input_scale", "ModelOpt, FP8 or FP4"},
        {".weight_scale_2", "ModelOpt, FP4"},
        {".weight_scale_inv", "FP8 in blocks"},
        {".weight_scale", "FP8 or integers with scales, such as compressed-tensors or ModelOpt"},
        {".input_scale", "FP8 with scales, such as compressed-tensors or ModelOpt"},
        {"_proj_scale", "FBGEMM, FP8"},
        {".qweight", "GPTQ or AWQ"},
        {".qzeros", "GPTQ or AWQ"},
        {".g_idx", "GPTQ"},
        {".scales", "GPTQ, AWQ or MLX"},
        {".SCB", "bitsandbytes, 8 bit"},
        {".weight_format", "bitsandbytes, 8 bit"},
        {"_blocks", "MXFP4"},
        {"_scales", "MXFP4"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (ends_with(name, known[i].suffix))
            return known[i].packing;
    return NULL;
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

/* `rest` stands behind "feed_forward.experts.". */
static void parse_expert_name(struct sf_name *out, const char *rest)
{
    const char *behind;
    if (strcmp(rest, "gate_up_proj") == 0)
        out->kind = SF_NAME_FUSED_GATE_UP;
    else if (strcmp(rest, "down_proj") == 0)
        out->kind = SF_NAME_FUSED_DOWN;
    for (int i = 0; i < EXPERT_NAMES && out->kind == SF_NAME_UNKNOWN; i++) {
        out->part = expert_names[i].part;
        if (strcmp(rest, expert_names[i].name) == 0)
            out->kind = SF_NAME_STACKED;
        else if (((behind = take_number(&out->expert, rest)) &&
                  strcmp(behind, expert_names[i].name) == 0) ||
                 ((behind = skip_prefix(rest, expert_names[i].plural)) &&
                  (behind = take_number(&out->expert, behind)) && strcmp(behind, "weight") == 0))
            out->kind = SF_NAME_WEIGHT;
    }
}

static struct sf_name parse_text_name(const char *name)
{
    struct sf_name out = {.kind = SF_NAME_UNKNOWN, .layer = -1, .expert = -1};
    const char *rest = skip_prefix(name, LAYER_PREFIX), *expert;
    if (rest && !(rest = take_number(&out.layer, rest)))
        return out;
    if (rest && (expert = skip_prefix(rest, EXPERTS_PREFIX)))
        parse_expert_name(&out, expert);
    for (int i = 0; i < WEIGHT_NAMES && out.kind == SF_NAME_UNKNOWN; i++) {
        out.part = weight_names[i].part;
        if (sf_part_in_layer(out.part) == (rest != NULL) &&
            strcmp(rest ? rest : name, weight_names[i].name) == 0)
            out.kind = SF_NAME_WEIGHT;
    }
    return out;
}

/* What vision tensors are does not matter: they are carried as they come, quantized or not. */
struct sf_name sf_name_parse(const char *name)
{
    const char *text = skip_prefix(name, MULTIMODAL_PREFIX);
    struct sf_name out = parse_text_name(text ? text : name);
    if (out.kind != SF_NAME_UNKNOWN)
        return out;
    out = (struct sf_name){.kind = SF_NAME_UNKNOWN, .layer = -1, .expert = -1};
    if (skip_prefix(name, "vision_model.") || skip_prefix(name, "multi_modal_projector.")) {
        out.kind = SF_NAME_UNUSED;
        out.part = SF_PART_UNUSED;
    } else if (is_bnb(name)) {
        out.kind = SF_NAME_BNB;
    } else if ((out.packing = packing_of(name)) != NULL) {
        out.kind = SF_NAME_PACKED;
    }
    return out;
}

char *sf_name_of_role(struct sf_arena *arena, bool multimodal, struct sf_role role)
{
    const char *prefix = multimodal ? MULTIMODAL_PREFIX : "";
    for (int i = 0; i < EXPERT_NAMES; i++)
        if (expert_names[i].part == role.part)
            return sf_arena_printf(arena, "%s%s%d.%s%d.%s", prefix, LAYER_PREFIX, role.layer,
                                   EXPERTS_PREFIX, role.expert, expert_names[i].name);
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
