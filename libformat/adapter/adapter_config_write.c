#include <math.h>
#include <string.h>

#include "libformat/adapter/adapter_config.h"
#include "libformat/adapter/adapter_names.h"
#include "libformat/base/json.h"

struct writer {
    struct sf_json_writer json;
    struct sf_arena *arena;
    const struct sf_adapter *adapter;
    const struct sf_model_spec *spec; /* or NULL: how many layers there are is not known */
};

static int no_memory(struct sf_err *err)
{
    return sf_fail(err, SF_ENOMEM, "no memory for adapter_config.json");
}

/* ---- which layers ---- */

static int32_t layers_of(const struct writer *w)
{
    int32_t layers = w->spec ? (int32_t)w->spec->layers : 0;
    for (int64_t i = 0; i < w->adapter->modules; i++)
        if (w->adapter->module[i].role.layer >= layers)
            layers = w->adapter->module[i].role.layer + 1;
    return layers;
}

static const struct sf_adapter_module *find(const struct writer *w, enum sf_part part,
                                            int32_t layer)
{
    return sf_adapter_find(w->adapter, (struct sf_role){part, layer, -1});
}

enum coverage { NOWHERE, SOMEWHERE, EVERYWHERE };

/* Is `part` adapted in all layers of the model that have it? */
static enum coverage covers(const struct writer *w, enum sf_part part)
{
    int64_t has = 0, adapted = 0;
    if (part == SF_PART_HEAD)
        return find(w, part, -1) ? EVERYWHERE : NOWHERE;
    for (int32_t layer = 0; layer < layers_of(w); layer++) {
        has += w->spec && sf_spec_has(w->spec, part, layer);
        adapted += find(w, part, layer) != NULL;
    }
    if (adapted == 0)
        return NOWHERE;
    return adapted == has ? EVERYWHERE : SOMEWHERE;
}

/* ---- lists of names ---- */

/* Adds `shortest` where all layers' are adapted, else the path of each that is. */
static int write_names(struct writer *w, enum sf_part part, const char *shortest,
                       struct sf_err *err)
{
    enum coverage coverage = covers(w, part);
    if (coverage == EVERYWHERE)
        sf_json_write_string(&w->json, NULL, shortest);
    for (int32_t layer = 0; coverage == SOMEWHERE && layer < layers_of(w); layer++) {
        char *path =
            sf_adapter_target(w->arena, SF_ADAPTER_TEXT, (struct sf_role){part, layer, -1});
        if (!path)
            return no_memory(err);
        if (find(w, part, layer))
            sf_json_write_string(&w->json, NULL, path);
    }
    return SF_OK;
}

static bool is_module(enum sf_part part)
{
    return adapter_path_in_layer(part) && !sf_adapter_is_parameter(part);
}

static int write_list(struct writer *w, struct sf_err *err)
{
    int code = SF_OK;
    sf_json_write_array(&w->json, "target_modules");
    for (int p = 0; p < SF_PART_COUNT && !code; p++)
        if (is_module((enum sf_part)p))
            code = write_names(w, (enum sf_part)p, sf_adapter_module_name((enum sf_part)p), err);
    sf_json_write_end(&w->json, ']');
    return code;
}

static int write_parameters(struct writer *w, struct sf_err *err)
{
    int code = SF_OK, used = 0;
    for (int p = 0; p < SF_PART_COUNT; p++)
        used += sf_adapter_is_parameter((enum sf_part)p) && covers(w, (enum sf_part)p) != NOWHERE;
    if (!used) {
        sf_json_write_null(&w->json, "target_parameters");
        return SF_OK;
    }
    sf_json_write_array(&w->json, "target_parameters");
    for (int p = 0; p < SF_PART_COUNT && !code; p++)
        if (sf_adapter_is_parameter((enum sf_part)p))
            code = write_names(w, (enum sf_part)p, adapter_parameter_name((enum sf_part)p), err);
    sf_json_write_end(&w->json, ']');
    return code;
}

/* ---- the pattern of the multimodal class ---- */

/* "self_attn\.q_proj": dots stand for themselves. */
static char *escape_dots(struct sf_arena *arena, const char *path)
{
    char *out = sf_arena_alloc(arena, 2 * strlen(path) + 1), *to = out;
    for (; out && *path; *to++ = *path++)
        if (*path == '.')
            *to++ = '\\';
    return out;
}

/* One alternative of the pattern: "[0-9]+\.<path>", or "(?:0|3)\.<path>" for some layers only. */
static char *alternative(struct writer *w, enum sf_part part)
{
    char *path = escape_dots(w->arena, adapter_path_in_layer(part)), *list = NULL;
    if (!path || covers(w, part) == EVERYWHERE)
        return path ? sf_arena_printf(w->arena, "[0-9]+\\.%s", path) : NULL;
    for (int32_t layer = 0; layer < layers_of(w); layer++) {
        if (!find(w, part, layer))
            continue;
        list = list ? sf_arena_printf(w->arena, "%s|%d", list, (int)layer)
                    : sf_arena_printf(w->arena, "%d", (int)layer);
        if (!list)
            return NULL;
    }
    return sf_arena_printf(w->arena, "(?:%s)\\.%s", list, path);
}

/* PEFT matches it with the whole path: the vision tower has modules of the same names. */
static char *pattern(struct writer *w)
{
    static const char start[] = "(?:.*\\.)?language_model\\.";
    bool head = covers(w, SF_PART_HEAD) != NOWHERE;
    char *all = sf_arena_strdup(w->arena, "");
    for (int p = 0; all && p < SF_PART_COUNT; p++) {
        enum sf_part part = (enum sf_part)p;
        if (!is_module(part) || part == SF_PART_HEAD || covers(w, part) == NOWHERE)
            continue;
        char *one = alternative(w, part);
        all = one ? sf_arena_printf(w->arena, "%s%s%s", all, *all ? "|" : "", one) : NULL;
    }
    if (all && *all)
        all = sf_arena_printf(w->arena, "model\\.layers\\.(?:%s)", all);
    if (!all || !head)
        return all ? sf_arena_printf(w->arena, "%s%s", start, all) : NULL;
    return *all ? sf_arena_printf(w->arena, "%s(?:%s|lm_head)", start, all)
                : sf_arena_printf(w->arena, "%slm_head", start);
}

static bool any_module(const struct writer *w)
{
    for (int64_t i = 0; i < w->adapter->modules; i++)
        if (is_module(w->adapter->module[i].role.part))
            return true;
    return false;
}

/* An empty list is how PEFT wants "no modules, parameters alone". */
static int write_modules(struct writer *w, struct sf_err *err)
{
    if (w->adapter->prefix == SF_ADAPTER_TEXT || !any_module(w))
        return write_list(w, err);
    char *text = pattern(w);
    if (!text)
        return no_memory(err);
    sf_json_write_string(&w->json, "target_modules", text);
    return SF_OK;
}

/* ---- ranks and alphas ---- */

static void write_number(struct sf_json_writer *w, const char *key, double value)
{
    if (value == floor(value) && fabs(value) < 0x1p53)
        sf_json_write_int(w, key, (int64_t)value);
    else
        sf_json_write_double(w, key, value);
}

static double value_of(const struct sf_adapter_module *m, bool alpha)
{
    return alpha ? m->alpha : (double)m->rank;
}

/* Do all modules of `part` say the same? *value: what. Then one key does for all. */
static bool agrees(double *value, const struct writer *w, enum sf_part part, bool alpha)
{
    bool first = true;
    for (int64_t i = 0; i < w->adapter->modules; i++) {
        const struct sf_adapter_module *m = &w->adapter->module[i];
        if (m->role.part != part)
            continue;
        if (!first && *value != value_of(m, alpha))
            return false;
        *value = value_of(m, alpha);
        first = false;
    }
    return !first;
}

/* The dots in keys stand for any character to PEFT; no two of our paths differ in one only. */
static int write_pattern_of(struct writer *w, enum sf_part part, bool alpha, double otherwise,
                            struct sf_err *err)
{
    double value;
    if (agrees(&value, w, part, alpha)) {
        char *key = sf_arena_printf(w->arena, "%s%s", sf_adapter_module_name(part),
                                    adapter_parameter_tail(part));
        if (!key)
            return no_memory(err);
        if (value != otherwise)
            write_number(&w->json, key, value);
        return SF_OK;
    }
    for (int64_t i = 0; i < w->adapter->modules; i++) {
        const struct sf_adapter_module *m = &w->adapter->module[i];
        if (m->role.part != part || value_of(m, alpha) == otherwise)
            continue;
        char *path = sf_adapter_target(w->arena, SF_ADAPTER_TEXT, m->role);
        if (!path)
            return no_memory(err);
        write_number(&w->json, path, value_of(m, alpha));
    }
    return SF_OK;
}

static int write_patterns(struct writer *w, bool alpha, struct sf_err *err)
{
    double otherwise = alpha ? w->adapter->alpha : (double)w->adapter->rank;
    int code = SF_OK;
    sf_json_write_object(&w->json, alpha ? "alpha_pattern" : "rank_pattern");
    for (int p = 0; p < SF_PART_COUNT && !code; p++)
        if (adapter_path_in_layer((enum sf_part)p))
            code = write_pattern_of(w, (enum sf_part)p, alpha, otherwise, err);
    sf_json_write_end(&w->json, '}');
    return code;
}

/* ---- the file ---- */

/* PEFT refuses dropout where parameters are adapted. */
static double dropout_of(const struct writer *w)
{
    for (int64_t i = 0; i < w->adapter->modules; i++)
        if (sf_adapter_is_parameter(w->adapter->module[i].role.part))
            return 0;
    return w->adapter->dropout;
}

/* Only where a reader could not tell: PEFT would warn of a field that it does not know. */
static void write_layout(struct writer *w)
{
    bool experts = false, square = true;
    for (int64_t i = 0; i < w->adapter->modules; i++) {
        const struct sf_adapter_module *m = &w->adapter->module[i];
        experts = experts || sf_part_is_expert(m->role.part);
        square = square && (!sf_part_is_expert(m->role.part) || m->in == m->out);
    }
    if (experts && square)
        sf_json_write_string(&w->json, "scout_layout",
                             w->adapter->layout == SF_ADAPTER_NATURAL ? "natural" : "swapped");
}

static int write_fields(struct writer *w, struct sf_err *err)
{
    struct sf_json_writer *j = &w->json;
    const struct sf_adapter *adapter = w->adapter;
    int code = write_patterns(w, true, err);
    if (code)
        return code;
    sf_json_write_string(j, "base_model_name_or_path", adapter->base_model);
    sf_json_write_string(j, "bias", "none");
    sf_json_write_bool(j, "fan_in_fan_out", false);
    sf_json_write_bool(j, "inference_mode", true);
    sf_json_write_bool(j, "init_lora_weights", true);
    sf_json_write_null(j, "layers_pattern");
    sf_json_write_null(j, "layers_to_transform");
    write_number(j, "lora_alpha", adapter->alpha);
    sf_json_write_double(j, "lora_dropout", dropout_of(w));
    sf_json_write_null(j, "modules_to_save");
    sf_json_write_string(j, "peft_type", "LORA");
    sf_json_write_int(j, "r", adapter->rank);
    code = write_patterns(w, false, err);
    if (!code && adapter->for_vllm)
        sf_json_write_string(j, "scout_for", "vllm");
    write_layout(w);
    if (!code)
        code = write_modules(w, err);
    if (!code)
        code = write_parameters(w, err);
    sf_json_write_string(j, "task_type", "CAUSAL_LM");
    sf_json_write_bool(j, "use_dora", false);
    sf_json_write_bool(j, "use_rslora", adapter->rslora);
    return code;
}

int adapter_config_write(char **text, uint64_t *bytes, struct sf_arena *arena,
                         const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                         struct sf_err *err)
{
    struct writer w = {.arena = arena, .adapter = adapter, .spec = spec};
    sf_json_write_begin(&w.json, arena, 2);
    sf_json_write_object(&w.json, NULL);
    int code = write_fields(&w, err);
    if (code)
        return code;
    sf_json_write_end(&w.json, '}');
    return sf_json_write_finish(text, bytes, &w.json, err);
}
