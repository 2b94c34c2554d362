#include "libformat/adapter/adapter_config.h"

#include <math.h>
#include <string.h>

#include "libformat/adapter/adapter_names.h"
#include "libformat/base/json.h"

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

/* A dict of numbers: rank_pattern, alpha_pattern. */
static int read_patterns(const struct sf_adapter_pattern **out, int64_t *count,
                         struct sf_arena *arena, const struct sf_json *dict, struct sf_err *err)
{
    const char *field = sf_json_key(dict);
    if (sf_json_type(dict) == SF_JSON_NULL)
        return SF_OK;
    if (sf_json_type(dict) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "%s is no object", field);
    struct sf_adapter_pattern *list =
        sf_arena_array(arena, (uint64_t)sf_json_count(dict) + 1, sizeof *list);
    if (!list)
        return sf_fail(err, SF_ENOMEM, "no memory for %s", field);
    int code = sf_json_check_unique(dict, err);
    const struct sf_json *value = sf_json_first(dict);
    for (*count = 0; !code && value; value = sf_json_next(value)) {
        struct sf_adapter_pattern *p = &list[(*count)++];
        code = sf_json_as_double(&p->value, value, sf_json_key(value), err);
        if (!code && !(p->key = sf_arena_strdup(arena, sf_json_key(value))))
            code = sf_fail(err, SF_ENOMEM, "no memory for a name");
    }
    *out = list;
    return code ? sf_err_prefix(err, "%s", field) : SF_OK;
}

static int read_parameters(struct adapter_config *out, struct sf_arena *arena,
                           const struct sf_json *list, struct sf_err *err)
{
    const char *text;
    if (sf_json_type(list) == SF_JSON_NULL)
        return SF_OK;
    if (sf_json_type(list) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "target_parameters is no list");
    const char **name = sf_arena_array(arena, (uint64_t)sf_json_count(list) + 1, sizeof *name);
    if (!name)
        return sf_fail(err, SF_ENOMEM, "no memory for target_parameters");
    int code = SF_OK;
    const struct sf_json *value = sf_json_first(list);
    for (; !code && value; value = sf_json_next(value)) {
        code = sf_json_as_string(&text, value, "target_parameters", err);
        if (!code && !(name[out->parameters++] = sf_arena_strdup(arena, text)))
            code = sf_fail(err, SF_ENOMEM, "no memory for a name");
    }
    out->parameter = name;
    return code;
}

/* PEFT's rule: the whole path, or its end after a dot. */
bool adapter_config_targets(const struct adapter_config *config, const char *path)
{
    size_t length = strlen(path);
    for (int64_t i = 0; i < config->parameters; i++) {
        size_t n = strlen(config->parameter[i]);
        if (n <= length && strcmp(path + length - n, config->parameter[i]) == 0 &&
            (n == length || path[length - n - 1] == '.'))
            return true;
    }
    return false;
}

/* Ours: for experts whose shapes do not tell (a square matrix). */
static int read_layout(struct adapter_config *out, const struct sf_json *value, struct sf_err *err)
{
    const char *text;
    int code = sf_json_as_string(&text, value, "scout_layout", err);
    if (code)
        return code;
    if (strcmp(text, "swapped") != 0 && strcmp(text, "natural") != 0)
        return sf_fail(err, SF_EFORMAT, "scout_layout is %s, not swapped or natural", text);
    out->layouts = 1u << (*text == 's' ? SF_ADAPTER_SWAPPED : SF_ADAPTER_NATURAL);
    return SF_OK;
}

/* Our own mark: PEFT would warn of it, and should. */
static int read_purpose(struct sf_adapter *out, const struct sf_json *value, struct sf_err *err)
{
    const char *text;
    int code = sf_json_as_string(&text, value, "scout_for", err);
    if (!code && strcmp(text, "vllm") != 0)
        code = sf_fail(err, SF_EUNSUPPORTED, "scout_for is %s; vllm is what we know", text);
    out->for_vllm = !code;
    return code;
}

static int read_field(struct adapter_config *config, struct sf_adapter *out, struct sf_arena *arena,
                      const struct sf_json *value, struct sf_err *err)
{
    const char *key = sf_json_key(value), *text;
    if (strcmp(key, "rank_pattern") == 0)
        return read_patterns(&config->rank, &config->ranks, arena, value, err);
    if (strcmp(key, "alpha_pattern") == 0)
        return read_patterns(&config->alpha, &config->alphas, arena, value, err);
    if (strcmp(key, "target_parameters") == 0)
        return read_parameters(config, arena, value, err);
    if (strcmp(key, "scout_for") == 0)
        return read_purpose(out, value, err);
    if (strcmp(key, "scout_layout") == 0)
        return read_layout(config, value, err);
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
    return sf_fail(err, SF_EUNSUPPORTED, "%s is set; only plain LoRA is read", key);
}

static int check_patterns(const struct adapter_config *c, struct sf_err *err)
{
    for (int64_t i = 0; i < c->ranks; i++)
        if (!(c->rank[i].value >= 1 && c->rank[i].value <= 65536) ||
            c->rank[i].value != floor(c->rank[i].value))
            return sf_fail(err, SF_EFORMAT, "rank_pattern: %s is %g, no rank from 1 to 65536",
                           c->rank[i].key, c->rank[i].value);
    for (int64_t i = 0; i < c->alphas; i++)
        if (!(isfinite(c->alpha[i].value) && c->alpha[i].value != 0))
            return sf_fail(err, SF_EFORMAT,
                           "alpha_pattern: %s is %g: the adapter would change nothing there",
                           c->alpha[i].key, c->alpha[i].value);
    return SF_OK;
}

static int read_fields(struct adapter_config *config, struct sf_adapter *out,
                       struct sf_arena *arena, const struct sf_json *root, struct sf_err *err)
{
    if (sf_json_type(root) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "is no JSON object");
    int code = sf_json_check_unique(root, err);
    if (!code && !sf_json_get(root, "peft_type"))
        code = sf_fail(err, SF_EFORMAT, "peft_type is missing");
    const struct sf_json *value = sf_json_first(root);
    for (; !code && value; value = sf_json_next(value))
        code = read_field(config, out, arena, value, err);
    if (!code && (out->rank < 1 || out->rank > 65536))
        code = sf_fail(err, SF_EFORMAT, "r is %lld, not between 1 and 65536", (long long)out->rank);
    if (!code && !(isfinite(out->alpha) && out->alpha != 0))
        code = sf_fail(err, SF_EFORMAT, "lora_alpha is %g: the adapter would change nothing",
                       out->alpha);
    if (!code && !(out->dropout >= 0 && out->dropout < 1))
        code = sf_fail(err, SF_EFORMAT, "lora_dropout is %g, not in [0, 1)", out->dropout);
    return code ? code : check_patterns(config, err);
}

int adapter_config_read(struct adapter_config *config, struct sf_adapter *out,
                        struct sf_arena *arena, const char *text, uint64_t bytes,
                        struct sf_err *err)
{
    struct sf_json *root;
    *config =
        (struct adapter_config){.layouts = 1u << SF_ADAPTER_SWAPPED | 1u << SF_ADAPTER_NATURAL};
    *out = (struct sf_adapter){.rank = 8, .alpha = 8, .base_model = ""}; /* PEFT's defaults */
    int code = sf_json_parse(&root, text, bytes, err);
    if (code)
        return code;
    code = read_fields(config, out, arena, root, err);
    sf_json_free(root);
    return code;
}
