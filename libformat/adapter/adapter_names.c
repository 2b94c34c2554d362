#include "libformat/adapter/adapter_names.h"

#include <stddef.h>
#include <string.h>

static const struct {
    enum sf_part part;
    const char *path;
    int short_at; /* where the short name starts in `path` */
} table[] = {
    {SF_PART_Q, "self_attn.q_proj", 10},
    {SF_PART_K, "self_attn.k_proj", 10},
    {SF_PART_V, "self_attn.v_proj", 10},
    {SF_PART_O, "self_attn.o_proj", 10},
    {SF_PART_SHARED_GATE, "feed_forward.shared_expert.gate_proj", 13},
    {SF_PART_SHARED_UP, "feed_forward.shared_expert.up_proj", 13},
    {SF_PART_SHARED_DOWN, "feed_forward.shared_expert.down_proj", 13},
    /* "gate_proj" alone would match the shared experts of other layers too */
    {SF_PART_DENSE_GATE, "feed_forward.gate_proj", 0},
    {SF_PART_DENSE_UP, "feed_forward.up_proj", 0},
    {SF_PART_DENSE_DOWN, "feed_forward.down_proj", 0},
};
enum { PATHS = sizeof table / sizeof table[0] };

static const char *const prefixes[] = {
    [SF_ADAPTER_TEXT] = "base_model.model.model.layers.",
    [SF_ADAPTER_MULTIMODAL] = "base_model.model.language_model.model.layers.",
};

const char *adapter_path_in_layer(enum sf_part part)
{
    for (int i = 0; i < PATHS; i++)
        if (table[i].part == part)
            return table[i].path;
    return NULL;
}

const char *sf_adapter_module_name(enum sf_part part)
{
    for (int i = 0; i < PATHS; i++)
        if (table[i].part == part)
            return table[i].path + table[i].short_at;
    return NULL;
}

char *sf_adapter_key(struct sf_arena *arena, enum sf_adapter_prefix prefix, struct sf_role role,
                     char which)
{
    return sf_arena_printf(arena, "%s%d.%s.lora_%c.weight", prefixes[prefix], (int)role.layer,
                           adapter_path_in_layer(role.part), which);
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

bool adapter_key_parse(enum sf_adapter_prefix *prefix, struct sf_role *role, char *which,
                       const char *key)
{
    const char *rest = NULL;
    for (int p = SF_ADAPTER_TEXT; p <= SF_ADAPTER_MULTIMODAL; p++) {
        if (strncmp(key, prefixes[p], strlen(prefixes[p])) == 0) {
            *prefix = (enum sf_adapter_prefix)p;
            rest = key + strlen(prefixes[p]);
        }
    }
    if (!rest || !(rest = take_layer(&role->layer, rest)) || *rest++ != '.')
        return false;
    role->expert = -1;
    for (int i = 0; i < PATHS; i++) {
        size_t length = strlen(table[i].path);
        const char *end = rest + length;
        if (strncmp(rest, table[i].path, length) != 0)
            continue;
        if (strcmp(end, ".lora_A.weight") != 0 && strcmp(end, ".lora_B.weight") != 0)
            continue;
        role->part = table[i].part;
        *which = end[6];
        return true;
    }
    return false;
}
