#include "libformat/hf/hf_config.h"

#include <math.h>
#include <string.h>

#include "libformat/base/json.h"

/* transformers' Llama4TextConfig and its rotary defaults, where a field may be absent. */
static const double DEFAULT_THETA = 500000;
enum { DEFAULT_NO_ROPE_INTERVAL = 4, LARGEST_SIZE = 1 << 30, LARGEST_LAYERS = 4096 };

static bool is_null(const struct sf_json *value)
{
    return !value || sf_json_type(value) == SF_JSON_NULL;
}

/* A whole number within low .. LARGEST_SIZE; a missing or null field takes `fallback`. */
static int read_size(int64_t *out, const struct sf_json *text, const char *key, int64_t low,
                     int64_t fallback, struct sf_err *err)
{
    const struct sf_json *value = sf_json_get(text, key);
    *out = fallback;
    if (is_null(value))
        return SF_OK;
    int code = sf_json_as_int(out, value, key, err);
    if (code == SF_OK && (*out < low || *out > LARGEST_SIZE))
        return sf_fail(err, SF_EFORMAT, "%s is %lld, outside %lld..%d", key, (long long)*out,
                       (long long)low, LARGEST_SIZE);
    return code;
}

static int read_number(double *out, const struct sf_json *object, const char *key, double fallback,
                       struct sf_err *err)
{
    const struct sf_json *value = sf_json_get(object, key);
    *out = fallback;
    return is_null(value) ? SF_OK : sf_json_as_double(out, value, key, err);
}

static int read_positive(double *out, const struct sf_json *object, const char *key,
                         double fallback, struct sf_err *err)
{
    int code = read_number(out, object, key, fallback, err);
    if (code == SF_OK && !(*out > 0))
        return sf_fail(err, SF_EFORMAT, "%s is %.9g, not above 0", key, *out);
    return code;
}

/* A boolean; numbers count as in files saved by transformers 4.51 (attn_temperature_tuning: 4). */
static int read_flag(bool *out, const struct sf_json *text, const char *key, bool fallback,
                     struct sf_err *err)
{
    const struct sf_json *value = sf_json_get(text, key);
    *out = fallback;
    if (is_null(value))
        return SF_OK;
    if (sf_json_type(value) != SF_JSON_NUMBER)
        return sf_json_as_bool(out, value, key, err);
    double number = 0;
    int code = sf_json_as_double(&number, value, key, err);
    *out = number != 0;
    return code;
}

/* Fields that only their usual value is supported for. */
static int refuse_flag(const struct sf_json *text, const char *key, struct sf_err *err)
{
    bool set;
    int code = read_flag(&set, text, key, false, err);
    if (code == SF_OK && set)
        return sf_fail(err, SF_EUNSUPPORTED, "%s is true: such a model is not supported", key);
    return code;
}

static int check_activation(const struct sf_json *text, struct sf_err *err)
{
    const struct sf_json *value = sf_json_get(text, "hidden_act");
    const char *name;
    if (is_null(value))
        return SF_OK;
    int code = sf_json_as_string(&name, value, "hidden_act", err);
    if (code == SF_OK && strcmp(name, "silu") != 0)
        return sf_fail(err, SF_EUNSUPPORTED, "hidden_act is \"%s\", only silu is supported", name);
    return code;
}

static int read_sizes(struct sf_model_spec *s, const struct sf_json *text, struct sf_err *err)
{
    const struct {
        int64_t *out;
        const char *key;
        int64_t low, fallback;
    } sizes[] = {
        {&s->layers, "num_hidden_layers", 1, 48},
        {&s->hidden, "hidden_size", 1, 5120},
        {&s->vocabulary, "vocab_size", 1, 202048},
        {&s->heads, "num_attention_heads", 1, 40},
        {&s->expert_width, "intermediate_size", 1, 8192},
        {&s->dense_width, "intermediate_size_mlp", 1, 16384},
        {&s->experts, "num_local_experts", 1, 16},
        {&s->experts_per_token, "num_experts_per_tok", 1, 1},
        {&s->attention_chunk, "attention_chunk_size", 1, 8192},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int code =
            read_size(sizes[i].out, text, sizes[i].key, sizes[i].low, sizes[i].fallback, err);
        if (code != SF_OK)
            return code;
    }
    const struct sf_json *head_dim =
        sf_json_get(text, "head_dim"); /* null: derived, missing: 128 */
    int64_t derived = s->hidden / s->heads;
    int code = read_size(&s->kv_heads, text, "num_key_value_heads", 1,
                         sf_json_get(text, "num_key_value_heads") ? s->heads : 8, err);
    if (code == SF_OK)
        code = read_size(&s->head_size, text, "head_dim", 1, head_dim ? derived : 128, err);
    return code;
}

static int check_sizes(const struct sf_model_spec *s, struct sf_err *err)
{
    if (s->layers > LARGEST_LAYERS)
        return sf_fail(err, SF_EFORMAT, "num_hidden_layers is %lld, more than %d",
                       (long long)s->layers, LARGEST_LAYERS);
    if (s->head_size < 2 || s->head_size % 2 != 0)
        return sf_fail(err, SF_EFORMAT, "head_dim is %lld, rotary pairs need an even number",
                       (long long)s->head_size);
    if (s->heads % s->kv_heads != 0)
        return sf_fail(err, SF_EFORMAT,
                       "num_attention_heads %lld is not a multiple of num_key_value_heads %lld",
                       (long long)s->heads, (long long)s->kv_heads);
    if (s->experts_per_token != 1)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "num_experts_per_tok is %lld, only one expert per token is supported",
                       (long long)s->experts_per_token);
    return SF_OK;
}

/* ---- rotary embedding ---- */

/* The block's kind: rope_type, or "type" in older files; null and "default" mean plain. */
static int read_rope_kind(enum sf_rope_kind *out, const struct sf_json *block, struct sf_err *err)
{
    const struct sf_json *value = sf_json_get(block, "rope_type");
    const char *name = "default";
    if (is_null(value))
        value = sf_json_get(block, "type");
    if (!is_null(value)) {
        int code = sf_json_as_string(&name, value, "rope_type", err);
        if (code != SF_OK)
            return code;
    }
    *out = strcmp(name, "llama3") == 0 ? SF_ROPE_LLAMA3 : SF_ROPE_PLAIN;
    if (*out == SF_ROPE_PLAIN && strcmp(name, "default") != 0)
        return sf_fail(err, SF_EUNSUPPORTED, "rope_type \"%s\", only default and llama3 are known",
                       name);
    return SF_OK;
}

static int need_positive(double *out, const struct sf_json *block, const char *key,
                         struct sf_err *err)
{
    if (is_null(sf_json_get(block, key)))
        return sf_fail(err, SF_EFORMAT, "the llama3 rope has no %s", key);
    return read_positive(out, block, key, 0, err);
}

static int read_rope(struct sf_rope *out, const struct sf_json *text, struct sf_err *err)
{
    const struct sf_json *block = sf_json_get(text, "rope_parameters");
    double length;
    if (is_null(block))
        block = sf_json_get(text, "rope_scaling");
    if (!is_null(block) && sf_json_type(block) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "the rope block is %s, not an object",
                       sf_json_type_name(sf_json_type(block)));
    int code = read_positive(&out->theta, text, "rope_theta", DEFAULT_THETA, err);
    if (code == SF_OK) /* transformers 5 keeps theta inside the block */
        code = read_positive(&out->theta, block, "rope_theta", out->theta, err);
    if (code == SF_OK)
        code = read_rope_kind(&out->kind, block, err);
    if (code != SF_OK || out->kind == SF_ROPE_PLAIN)
        return code;
    code = need_positive(&out->factor, block, "factor", err);
    if (code == SF_OK)
        code = need_positive(&out->low_freq_factor, block, "low_freq_factor", err);
    if (code == SF_OK)
        code = need_positive(&out->high_freq_factor, block, "high_freq_factor", err);
    if (code == SF_OK)
        code = need_positive(&length, block, "original_max_position_embeddings", err);
    if (code == SF_OK && (length != floor(length) || length > LARGEST_SIZE))
        return sf_fail(err, SF_EFORMAT, "original_max_position_embeddings is %.9g", length);
    if (code == SF_OK)
        out->original_max_positions = (int64_t)length;
    return code;
}

/* ---- layers ---- */

/* The list under `key`, NULL in *list where it is missing, null or (with empty_is_missing) empty.
 */
static int read_list(const struct sf_json **list, const struct sf_json *text, const char *key,
                     bool empty_is_missing, struct sf_err *err)
{
    *list = sf_json_get(text, key);
    if (is_null(*list)) {
        *list = NULL;
        return SF_OK;
    }
    if (sf_json_type(*list) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "%s is not an array", key);
    if (empty_is_missing && !sf_json_first(*list))
        *list = NULL;
    return SF_OK;
}

static int check_length(const struct sf_json *list, const char *key, int64_t layers,
                        struct sf_err *err)
{
    if (sf_json_count(list) == layers)
        return SF_OK;
    return sf_fail(err, SF_EFORMAT, "%s has %lld entries for %lld layers", key,
                   (long long)sf_json_count(list), (long long)layers);
}

/* Entry 1 means that the layer *uses* RoPE: the name reads inverted. */
static int read_rope_layers(struct sf_model_spec *s, const struct sf_json *text, struct sf_err *err)
{
    static const char key[] = "no_rope_layers";
    const struct sf_json *list;
    int64_t interval, uses;
    int code = read_list(&list, text, key, true, err);
    if (code == SF_OK)
        code =
            read_size(&interval, text, "no_rope_layer_interval", 1, DEFAULT_NO_ROPE_INTERVAL, err);
    if (code != SF_OK)
        return code;
    if (!list) {
        for (int64_t l = 0; l < s->layers; l++)
            s->layer[l].rope = (l + 1) % interval != 0;
        return SF_OK;
    }
    code = check_length(list, key, s->layers, err);
    int64_t l = 0;
    for (const struct sf_json *v = sf_json_first(list); v && code == SF_OK; v = sf_json_next(v)) {
        code = sf_json_as_int(&uses, v, "an entry of no_rope_layers", err);
        if (code == SF_OK)
            s->layer[l++].rope = uses != 0;
    }
    return code;
}

static int read_layer_types(struct sf_model_spec *s, const struct sf_json *text, struct sf_err *err)
{
    static const char key[] = "layer_types";
    const struct sf_json *list;
    int code = read_list(&list, text, key, true, err);
    if (code != SF_OK)
        return code;
    if (!list) {
        for (int64_t l = 0; l < s->layers; l++)
            s->layer[l].chunked = s->layer[l].rope;
        return SF_OK;
    }
    code = check_length(list, key, s->layers, err);
    int64_t l = 0;
    for (const struct sf_json *v = sf_json_first(list); v && code == SF_OK; v = sf_json_next(v)) {
        const char *name;
        code = sf_json_as_string(&name, v, "an entry of layer_types", err);
        if (code != SF_OK)
            return code;
        s->layer[l].chunked = strcmp(name, "chunked_attention") == 0;
        if (!s->layer[l].chunked && strcmp(name, "full_attention") != 0)
            return sf_fail(err, SF_EUNSUPPORTED, "layer_types[%lld] is \"%s\"", (long long)l, name);
        l++;
    }
    return code;
}

/* Missing: every interleave_moe_layer_step-th layer. An explicit empty list: no layer at all. */
static int read_moe_layers(struct sf_model_spec *s, const struct sf_json *text, struct sf_err *err)
{
    const struct sf_json *list;
    int64_t step, layer;
    int code = read_list(&list, text, "moe_layers", false, err);
    if (code == SF_OK)
        code = read_size(&step, text, "interleave_moe_layer_step", 1, 1, err);
    if (code != SF_OK)
        return code;
    for (int64_t l = 0; l < s->layers; l++)
        s->layer[l].moe = !list && (l + 1) % step == 0;
    for (const struct sf_json *v = sf_json_first(list); v; v = sf_json_next(v)) {
        code = sf_json_as_int(&layer, v, "an entry of moe_layers", err);
        if (code != SF_OK)
            return code;
        if (layer < 0 || layer >= s->layers)
            return sf_fail(err, SF_EFORMAT, "moe_layers names layer %lld of %lld", (long long)layer,
                           (long long)s->layers);
        s->layer[layer].moe = true;
    }
    return SF_OK;
}

static int read_layers(struct sf_model_spec *s, struct sf_arena *arena, const struct sf_json *text,
                       struct sf_err *err)
{
    s->layer = sf_arena_array(arena, (uint64_t)s->layers, sizeof *s->layer);
    if (!s->layer)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld layers", (long long)s->layers);
    int code = read_rope_layers(s, text, err);
    if (code == SF_OK)
        code = read_layer_types(s, text, err);
    if (code == SF_OK)
        code = read_moe_layers(s, text, err);
    return code;
}

/* ---- the rest ---- */

static int read_numerics(struct sf_model_spec *s, const struct sf_json *text, struct sf_err *err)
{
    int code = read_positive(&s->norm_epsilon, text, "rms_norm_eps", 1e-5, err);
    if (code == SF_OK)
        code = read_flag(&s->qk_norm, text, "use_qk_norm", true, err);
    if (code == SF_OK)
        code = read_flag(&s->temperature, text, "attn_temperature_tuning", true, err);
    if (code == SF_OK)
        code = read_positive(&s->temperature_floor, text, "floor_scale", 8192, err);
    if (code == SF_OK)
        code = read_number(&s->temperature_scale, text, "attn_scale", 0.1, err);
    if (code == SF_OK)
        code = refuse_flag(text, "attention_bias", err);
    if (code == SF_OK)
        code = refuse_flag(text, "tie_word_embeddings", err);
    return code;
}

static int read_dtype(enum sf_dtype *out, const struct sf_json *root, const struct sf_json *text,
                      struct sf_err *err)
{
    static const struct {
        const char *name;
        enum sf_dtype dtype;
    } names[] = {{"bfloat16", SF_BF16}, {"float16", SF_F16}, {"float32", SF_F32}};
    const struct sf_json *places[] = {sf_json_get(root, "dtype"), sf_json_get(root, "torch_dtype"),
                                      sf_json_get(text, "dtype"), sf_json_get(text, "torch_dtype")};
    const char *name;
    *out = SF_DTYPE_NONE;
    for (int i = 0; i < 4; i++) {
        if (is_null(places[i]))
            continue;
        int code = sf_json_as_string(&name, places[i], "dtype", err);
        if (code != SF_OK)
            return code;
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
            if (strcmp(name, names[k].name) == 0)
                *out = names[k].dtype;
        return *out ? SF_OK : sf_fail(err, SF_EUNSUPPORTED, "unknown dtype \"%s\"", name);
    }
    return SF_OK;
}

static int read_token(int64_t *out, const struct sf_json *text, const char *key, struct sf_err *err)
{
    const struct sf_json *value = sf_json_get(text, key);
    *out = -1;
    return is_null(value) ? SF_OK : sf_json_as_int(out, value, key, err);
}

/* Keys on model_type: text fine-tunes are known to carry other architectures' names. */
static int read_identity(struct sf_model_spec *s, struct sf_arena *arena,
                         const struct sf_json *root, const struct sf_json **text,
                         struct sf_err *err)
{
    const char *type, *architecture;
    int code = sf_json_as_string(&type, sf_json_get(root, "model_type"), "model_type", err);
    if (code != SF_OK)
        return code;
    s->multimodal = strcmp(type, "llama4") == 0;
    if (!s->multimodal && strcmp(type, "llama4_text") != 0)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "model_type is \"%s\", only llama4 and llama4_text are known", type);
    *text = s->multimodal ? sf_json_get(root, "text_config") : root;
    if (!*text || sf_json_type(*text) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "text_config is missing or not an object");
    architecture = s->multimodal ? "Llama4ForConditionalGeneration" : "Llama4ForCausalLM";
    const struct sf_json *first = sf_json_first(sf_json_get(root, "architectures"));
    if (first && (code = sf_json_as_string(&architecture, first, "architectures[0]", err)) != SF_OK)
        return code;
    s->family = "llama4";
    s->architecture = sf_arena_strdup(arena, architecture);
    if (!s->architecture)
        return sf_fail(err, SF_ENOMEM, "no memory for a name");
    return SF_OK;
}

static int read_spec(struct sf_model_spec *s, struct sf_arena *arena, const struct sf_json *root,
                     struct sf_err *err)
{
    const struct sf_json *text = NULL;
    int code = read_identity(s, arena, root, &text, err);
    if (code == SF_OK)
        code = refuse_flag(root, "tie_word_embeddings", err);
    if (code == SF_OK)
        code = read_sizes(s, text, err);
    if (code == SF_OK)
        code = check_sizes(s, err);
    if (code == SF_OK)
        code = check_activation(text, err);
    if (code == SF_OK)
        code = read_numerics(s, text, err);
    if (code == SF_OK)
        code = read_rope(&s->rope, text, err);
    if (code == SF_OK)
        code = read_layers(s, arena, text, err);
    if (code == SF_OK)
        code = read_dtype(&s->dtype, root, text, err);
    if (code == SF_OK)
        code = read_token(&s->bos_token, text, "bos_token_id", err);
    if (code == SF_OK)
        code = read_token(&s->pad_token, text, "pad_token_id", err);
    return code;
}

int sf_hf_config_parse(struct sf_model_spec *out, struct sf_arena *arena, const char *text,
                       uint64_t bytes, struct sf_err *err)
{
    struct sf_json *root;
    struct sf_model_spec spec = {0};
    int code = sf_json_parse(&root, text, bytes, err);
    if (code != SF_OK)
        return code;
    if (sf_json_type(root) != SF_JSON_OBJECT)
        code = sf_fail(err, SF_EFORMAT, "the config is %s, not an object",
                       sf_json_type_name(sf_json_type(root)));
    else
        code = read_spec(&spec, arena, root, err);
    sf_json_free(root);
    if (code == SF_OK)
        *out = spec;
    return code;
}
