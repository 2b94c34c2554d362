#include "libformat/adapter/adapter_config.h"

#include <math.h>
#include <string.h>

#include "libformat/adapter/adapter_names.h"
#include "libformat/base/json.h"

/* ---- reading ---- */

/* Fields that say nothing about what B A x is, once the tensors are there. */
static const char *const indifferent[] = {
    "auto_mapping",   "revision",          "task_type",           "inference_mode",
    "target_modules", "exclude_modules",   "layers_to_transform", "layers_pattern",
    "peft_version",   "loftq_config",      "eva_config",          "corda_config",
    "lora_ga_config", "qalora_group_size", "megatron_config",     "megatron_core",
    "runtime_config",
};

/* null, false, 0, "", [], {}: the field asks for nothing. */
static bool says_nothing(const struct sf_json *value)
{
    double number = 1;
    bool flag = true;
    const char *string = "?";
    switch (sf_json_type(value)) {
    case SF_JSON_NULL:
        return true;
    case SF_JSON_BOOL:
        return sf_json_as_bool(&flag, value, "", NULL) == SF_OK && !flag;
    case SF_JSON_NUMBER:
        return sf_json_as_double(&number, value, "", NULL) == SF_OK && number == 0;
    case SF_JSON_STRING:
        return sf_json_as_string(&string, value, "", NULL) == SF_OK && !*string;
    default:
        return sf_json_count(value) == 0;
    }
}

static int read_peft_type(const struct sf_json *value, struct sf_err *err)
{
    const char *text;
    int code = sf_json_as_string(&text, value, "peft_type", err);
    if (!code && strcmp(text, "LORA") != 0)
        code = sf_fail(err, SF_EUNSUPPORTED, "peft_type is %s; LORA is what we read", text);
    return code;
}

static int read_bias(const struct sf_json *value, struct sf_err *err)
{
    const char *text;
    int code = sf_json_as_string(&text, value, "bias", err);
    if (!code && strcmp(text, "none") != 0)
        code = sf_fail(err, SF_EUNSUPPORTED, "bias is %s; trained biases are not supported", text);
    return code;
}

/* Some starts (PiSSA, OLoRA, CorDA, LoftQ) change the base weights: the adapter then belongs to a
 * base that we do not have. */
static int read_init(const struct sf_json *value, struct sf_err *err)
{
    static const char *const harmless[] = {"gaussian", "eva", "orthogonal"};
    const char *text;
    if (sf_json_type(value) == SF_JSON_BOOL || sf_json_type(value) == SF_JSON_NULL)
        return SF_OK;
    int code = sf_json_as_string(&text, value, "init_lora_weights", err);
    for (size_t i = 0; !code && i < sizeof harmless / sizeof harmless[0]; i++)
        if (strcmp(text, harmless[i]) == 0)
            return SF_OK;
    return code ? code
                : sf_fail(err, SF_EUNSUPPORTED,
                          "init_lora_weights is %s, which may change the base weights", text);
}

static int read_field(struct sf_adapter *out, struct sf_arena *arena, const struct sf_json *value,
                      struct sf_err *err)
{
    const char *key = sf_json_key(value), *text;
    if (strcmp(key, "r") == 0)
        return sf_json_as_int(&out->rank, value, key, err);
    if (strcmp(key, "lora_alpha") == 0)
        return sf_json_as_double(&out->alpha, value, key, err);
    if (strcmp(key, "lora_dropout") == 0)
        return sf_json_as_double(&out->dropout, value, key, err);
    if (strcmp(key, "use_rslora") == 0)
        return sf_json_as_bool(&out->rslora, value, key, err);
    if (strcmp(key, "peft_type") == 0)
        return read_peft_type(value, err);
    if (strcmp(key, "bias") == 0)
        return read_bias(value, err);
    if (strcmp(key, "init_lora_weights") == 0)
        return read_init(value, err);
    if (strcmp(key, "base_model_name_or_path") == 0 && sf_json_type(value) == SF_JSON_STRING) {
        int code = sf_json_as_string(&text, value, key, err);
        if (!code && !(out->base_model = sf_arena_strdup(arena, text)))
            code = sf_fail(err, SF_ENOMEM, "no memory for %s", key);
        return code;
    }
    for (size_t i = 0; i < sizeof indifferent / sizeof indifferent[0]; i++)
        if (strcmp(key, indifferent[i]) == 0)
            return SF_OK;
    if (says_nothing(value))
        return SF_OK;
    return sf_fail(err, SF_EUNSUPPORTED, "%s is set; only plain LoRA of linear modules is read",
                   key);
}

static int read_fields(struct sf_adapter *out, struct sf_arena *arena, const struct sf_json *root,
                       struct sf_err *err)
{
    if (sf_json_type(root) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "is no JSON object");
    int code = sf_json_check_unique(root, err);
    if (!code && !sf_json_get(root, "peft_type"))
        code = sf_fail(err, SF_EFORMAT, "peft_type is missing");
    const struct sf_json *value = sf_json_first(root);
    for (; !code && value; value = sf_json_next(value))
        code = read_field(out, arena, value, err);
    if (!code && (out->rank < 1 || out->rank > 65536))
        code = sf_fail(err, SF_EFORMAT, "r is %lld, not between 1 and 65536", (long long)out->rank);
    if (!code && !(isfinite(out->alpha) && out->alpha != 0))
        code = sf_fail(err, SF_EFORMAT, "lora_alpha is %g: the adapter would change nothing",
                       out->alpha);
    if (!code && !(out->dropout >= 0 && out->dropout < 1))
        code = sf_fail(err, SF_EFORMAT, "lora_dropout is %g, not in [0, 1)", out->dropout);
    return code;
}

int adapter_config_read(struct sf_adapter *out, struct sf_arena *arena, const char *text,
                        uint64_t bytes, struct sf_err *err)
{
    struct sf_json *root;
    *out = (struct sf_adapter){.rank = 8, .alpha = 8, .base_model = ""}; /* PEFT's defaults */
    int code = sf_json_parse(&root, text, bytes, err);
    if (code)
        return code;
    code = read_fields(out, arena, root, err);
    sf_json_free(root);
    return code;
}

/* ---- writing ---- */

/* Is `part` adapted in `layer`? */
static bool adapts(const struct sf_adapter *adapter, enum sf_part part, int32_t layer)
{
    for (int64_t i = 0; i < adapter->modules; i++)
        if (adapter->module[i].role.part == part && adapter->module[i].role.layer == layer)
            return true;
    return false;
}

/* Layers of the model that have `part`, and those of them that are adapted. */
static void count_layers(int64_t *has, int64_t *adapted, const struct sf_adapter *adapter,
                         const struct sf_model_spec *spec, enum sf_part part)
{
    *has = *adapted = 0;
    for (int32_t layer = 0; layer < spec->layers; layer++) {
        *has += sf_spec_has(spec, part, layer);
        *adapted += adapts(adapter, part, layer);
    }
}

/* The list for the text class: a name that ends the paths of all layers' modules, or, where only
 * some layers are adapted, each of those paths. */
static int write_list(struct sf_json_writer *w, struct sf_arena *arena,
                      const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                      struct sf_err *err)
{
    sf_json_write_array(w, "target_modules");
    for (int p = 0; p < SF_PART_COUNT; p++) {
        enum sf_part part = (enum sf_part)p;
        int64_t has, adapted;
        const char *path = adapter_path_in_layer(part);
        if (!path)
            continue;
        count_layers(&has, &adapted, adapter, spec, part);
        if (adapted == has && has > 0)
            sf_json_write_string(w, NULL, sf_adapter_module_name(part));
        for (int32_t layer = 0; adapted < has && layer < spec->layers; layer++) {
            char *name = sf_arena_printf(arena, "model.layers.%d.%s", (int)layer, path);
            if (!name)
                return sf_fail(err, SF_ENOMEM, "no memory for target_modules");
            if (adapts(adapter, part, layer))
                sf_json_write_string(w, NULL, name);
        }
    }
    sf_json_write_end(w, ']');
    return SF_OK;
}

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
static char *alternative(struct sf_arena *arena, const struct sf_adapter *adapter,
                         const struct sf_model_spec *spec, enum sf_part part)
{
    int64_t has, adapted;
    char *path = escape_dots(arena, adapter_path_in_layer(part)), *list = NULL;
    count_layers(&has, &adapted, adapter, spec, part);
    if (!path || adapted == has)
        return path ? sf_arena_printf(arena, "[0-9]+\\.%s", path) : NULL;
    for (int32_t layer = 0; layer < spec->layers; layer++) {
        if (!adapts(adapter, part, layer))
            continue;
        list = list ? sf_arena_printf(arena, "%s|%d", list, (int)layer)
                    : sf_arena_printf(arena, "%d", (int)layer);
        if (!list)
            return NULL;
    }
    return sf_arena_printf(arena, "(?:%s)\\.%s", list, path);
}

/* The pattern for the multimodal class, which PEFT matches with the whole path: the vision tower
 * has modules of the same names. */
static int write_pattern(struct sf_json_writer *w, struct sf_arena *arena,
                         const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                         struct sf_err *err)
{
    char *all = sf_arena_strdup(arena, "");
    for (int p = 0; all && p < SF_PART_COUNT; p++) {
        int64_t has, adapted = 0;
        if (adapter_path_in_layer((enum sf_part)p))
            count_layers(&has, &adapted, adapter, spec, (enum sf_part)p);
        if (adapted == 0)
            continue;
        char *one = alternative(arena, adapter, spec, (enum sf_part)p);
        all = one ? sf_arena_printf(arena, "%s%s%s", all, *all ? "|" : "", one) : NULL;
    }
    char *pattern =
        all ? sf_arena_printf(arena, "(?:.*\\.)?language_model\\.model\\.layers\\.(?:%s)", all)
            : NULL;
    if (!pattern)
        return sf_fail(err, SF_ENOMEM, "no memory for target_modules");
    sf_json_write_string(w, "target_modules", pattern);
    return SF_OK;
}

static void write_alpha(struct sf_json_writer *w, double alpha)
{
    if (alpha == floor(alpha) && fabs(alpha) < 0x1p53)
        sf_json_write_int(w, "lora_alpha", (int64_t)alpha);
    else
        sf_json_write_double(w, "lora_alpha", alpha);
}

int adapter_config_write(char **text, uint64_t *bytes, struct sf_arena *arena,
                         const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                         struct sf_err *err)
{
    struct sf_json_writer w;
    sf_json_write_begin(&w, arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_object(&w, "alpha_pattern");
    sf_json_write_end(&w, '}');
    sf_json_write_string(&w, "base_model_name_or_path", adapter->base_model);
    sf_json_write_string(&w, "bias", "none");
    sf_json_write_bool(&w, "fan_in_fan_out", false);
    sf_json_write_bool(&w, "inference_mode", true);
    sf_json_write_bool(&w, "init_lora_weights", true);
    sf_json_write_null(&w, "layers_pattern");
    sf_json_write_null(&w, "layers_to_transform");
    write_alpha(&w, adapter->alpha);
    sf_json_write_double(&w, "lora_dropout", adapter->dropout);
    sf_json_write_null(&w, "modules_to_save");
    sf_json_write_string(&w, "peft_type", "LORA");
    sf_json_write_int(&w, "r", adapter->rank);
    sf_json_write_object(&w, "rank_pattern");
    sf_json_write_end(&w, '}');
    int code = adapter->prefix == SF_ADAPTER_MULTIMODAL
                   ? write_pattern(&w, arena, adapter, spec, err)
                   : write_list(&w, arena, adapter, spec, err);
    if (code)
        return code;
    sf_json_write_null(&w, "target_parameters");
    sf_json_write_string(&w, "task_type", "CAUSAL_LM");
    sf_json_write_bool(&w, "use_dora", false);
    sf_json_write_bool(&w, "use_rslora", adapter->rslora);
    sf_json_write_end(&w, '}');
    return sf_json_write_finish(text, bytes, &w, err);
}
