#include "libformat/adapter/adapter_names.h"

#include <stddef.h>
#include <string.h>

static const struct {
    enum sf_part part;
    const char *path;
    int short_at;          /* where the short name starts in `path` */
    const char *parameter; /* as target_parameters names it; NULL: a linear module */
} table[] = {
    {SF_PART_Q, "self_attn.q_proj", 10, NULL},
    {SF_PART_K, "self_attn.k_proj", 10, NULL},
    {SF_PART_V, "self_attn.v_proj", 10, NULL},
    {SF_PART_O, "self_attn.o_proj", 10, NULL},
    {SF_PART_ROUTER, "feed_forward.router", 13, "feed_forward.router.weight"},
    {SF_PART_SHARED_GATE, "feed_forward.shared_expert.gate_proj", 13, NULL},
    {SF_PART_SHARED_UP, "feed_forward.shared_expert.up_proj", 13, NULL},
    {SF_PART_SHARED_DOWN, "feed_forward.shared_expert.down_proj", 13, NULL},
    /* "gate_proj" alone would match the shared experts of other layers too */
    {SF_PART_DENSE_GATE, "feed_forward.gate_proj", 0, NULL},
    {SF_PART_DENSE_UP, "feed_forward.up_proj", 0, NULL},
    {SF_PART_DENSE_DOWN, "feed_forward.down_proj", 0, NULL},
    {SF_ADAPTER_GATE_UP, "feed_forward.experts.gate_up_proj", 13,
     "feed_forward.experts.gate_up_proj"},
    {SF_PART_EXPERT_DOWN, "feed_forward.experts.down_proj", 13, "feed_forward.experts.down_proj"},
    {SF_PART_HEAD, "lm_head", 0, NULL},
};
enum { PATHS = sizeof table / sizeof table[0] };

static const char wrapped[] = "base_model.model.";
static const char layers[] = "model.layers.";
static const char *const prefixes[] = {
    [SF_ADAPTER_TEXT] = "", [SF_ADAPTER_MULTIMODAL] = "language_model."};

static int row_of(enum sf_part part)
{
    for (int i = 0; i < PATHS; i++)
        if (table[i].part == part)
            return i;
    return -1;
}

const char *adapter_path_in_layer(enum sf_part part)
{
    int row = row_of(part);
    return row < 0 ? NULL : table[row].path;
}

const char *sf_adapter_module_name(enum sf_part part)
{
    int row = row_of(part);
    return row < 0 ? NULL : table[row].path + table[row].short_at;
}

const char *adapter_parameter_name(enum sf_part part)
{
    int row = row_of(part);
    return row < 0 ? NULL : table[row].parameter;
}

bool sf_adapter_is_parameter(enum sf_part part)
{
    return adapter_parameter_name(part) != NULL;
}

const char *adapter_parameter_tail(enum sf_part part)
{
    return part == SF_PART_ROUTER ? ".weight" : "";
}

char *sf_adapter_path(struct sf_arena *arena, enum sf_adapter_prefix prefix, struct sf_role role)
{
    const char *path = adapter_path_in_layer(role.part);
    if (role.layer < 0)
        return sf_arena_printf(arena, "%s%s", prefixes[prefix], path);
    return sf_arena_printf(arena, "%s%s%d.%s", prefixes[prefix], layers, (int)role.layer, path);
}

char *sf_adapter_target(struct sf_arena *arena, enum sf_adapter_prefix prefix, struct sf_role role)
{
    char *path = sf_adapter_path(arena, prefix, role);
    return path ? sf_arena_printf(arena, "%s%s", path, adapter_parameter_tail(role.part)) : NULL;
}

char *adapter_experts_key(struct sf_arena *arena, enum sf_adapter_prefix prefix, int32_t layer,
                          bool nested, char which)
{
    return sf_arena_printf(arena, "%s%s%s%d.feed_forward.experts%s.lora_%c.weight", wrapped,
                           prefixes[prefix], layers, (int)layer, nested ? ".base_layer" : "",
                           which);
}

char *sf_adapter_key(struct sf_arena *arena, enum sf_adapter_prefix prefix, struct sf_role role,
                     char which)
{
    if (sf_part_is_expert(role.part))
        return adapter_experts_key(arena, prefix, role.layer, role.part == SF_ADAPTER_GATE_UP,
                                   which);
    char *path = sf_adapter_path(arena, prefix, role);
    return path ? sf_arena_printf(arena, "%s%s.lora_%c.weight", wrapped, path, which) : NULL;
}

char *sf_adapter_module_key(struct sf_arena *arena, const struct sf_adapter *adapter,
                            const struct sf_adapter_module *module, char which)
{
    struct sf_role role = module->role;
    if (!sf_part_is_expert(role.part))
        return sf_adapter_key(arena, adapter->prefix, role, which);
    struct sf_role down = {SF_PART_EXPERT_DOWN, role.layer, -1};
    bool nested = role.part == SF_ADAPTER_GATE_UP && sf_adapter_find(adapter, down) != NULL;
    return adapter_experts_key(arena, adapter->prefix, role.layer, nested, which);
}

/* What follows `start` in `text`; NULL when it does not begin so. */
static const char *after(const char *text, const char *start)
{
    size_t length = strlen(start);
    return text && strncmp(text, start, length) == 0 ? text + length : NULL;
}

/* A decimal number as it is printed: no sign, no leading zero. NULL if there is none. */
static const char *take_layer(int32_t *out, const char *text)
{
    int64_t value = 0;
    const char *p = text;
    while (*p >= '0' && *p <= '9' && p - text < 9)
        value = value * 10 + (*p++ - '0');
    if (p == text || (text[0] == '0' && p - text > 1))
        return NULL;
    *out = (int32_t)value;
    return p;
}

/* ".lora_A.weight", or with the adapter's name as it is in memory. */
static bool take_end(char *which, const char *rest)
{
    static const struct {
        const char *text;
        char which;
    } ends[] = {{".lora_A.weight", 'A'},
                {".lora_B.weight", 'B'},
                {".lora_A.default.weight", 'A'},
                {".lora_B.default.weight", 'B'}};
    for (size_t i = 0; rest && i < sizeof ends / sizeof *ends; i++) {
        if (strcmp(rest, ends[i].text) == 0) {
            *which = ends[i].which;
            return true;
        }
    }
    return false;
}

/* `rest`: the key without prefixes, outside the layers. */
static bool parse_outside(struct adapter_key *out, const char *rest)
{
    out->role = (struct sf_role){SF_PART_HEAD, -1, -1};
    if (take_end(&out->which, after(rest, "lm_head")))
        return true;
    out->kind = ADAPTER_KEY_COPY;
    if (strcmp(rest, "lm_head.base_layer.weight") == 0 || strcmp(rest, "lm_head.weight") == 0)
        return true;
    out->role.part = SF_PART_EMBEDDING;
    return strcmp(rest, "model.embed_tokens.weight") == 0;
}

static bool parse_in_layer(struct adapter_key *out, const char *rest)
{
    const char *experts = after(rest, "feed_forward.experts");
    const char *inner = after(experts, ".base_layer");
    out->kind = ADAPTER_KEY_EXPERTS;
    out->nested = inner != NULL;
    if (take_end(&out->which, inner ? inner : experts))
        return true;
    out->kind = ADAPTER_KEY_MODULE;
    for (int i = 0; i < PATHS; i++) {
        out->role.part = table[i].part;
        if (table[i].part != SF_PART_HEAD && !sf_part_is_expert(table[i].part) &&
            take_end(&out->which, after(rest, table[i].path)))
            return true;
    }
    return false;
}

bool adapter_key_parse(struct adapter_key *out, const char *key)
{
    const char *rest = after(key, wrapped);
    *out = (struct adapter_key){.role = {.layer = -1, .expert = -1}};
    if (!rest)
        return false;
    const char *inner = after(rest, prefixes[SF_ADAPTER_MULTIMODAL]);
    out->prefix = inner ? SF_ADAPTER_MULTIMODAL : SF_ADAPTER_TEXT;
    rest = inner ? inner : rest;
    const char *layer = after(rest, layers);
    if (!layer)
        return parse_outside(out, rest);
    layer = take_layer(&out->role.layer, layer);
    return layer && *layer == '.' && parse_in_layer(out, layer + 1);
}
