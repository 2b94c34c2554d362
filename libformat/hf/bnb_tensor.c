#include "libformat/hf/bnb_tensor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/json.h"

static const char NF4_STATE[] = ".quant_state.bitsandbytes__nf4";
static const char FP4_STATE[] = ".quant_state.bitsandbytes__fp4";
enum { NAME_ROOM = 4096, LARGEST_STATE = 65536 };

static const struct sf_tensor *find(const struct sf_hf_index *index, const char *name,
                                    const char *suffix)
{
    char text[NAME_ROOM];
    int n = snprintf(text, sizeof text, "%s%s", name, suffix);
    return n > 0 && n < NAME_ROOM ? sf_hf_index_find(index, text) : NULL;
}

bool sf_bnb_is_quantized(const struct sf_hf_index *index, const char *name)
{
    return find(index, name, NF4_STATE) || find(index, name, FP4_STATE);
}

const char *sf_bnb_weight_name(struct sf_arena *arena, const char *name)
{
    const char *end = strstr(name, ".quant_state.");
    if (!end)
        end = strrchr(name, '.');
    return sf_arena_strndup(arena, name, end ? (uint64_t)(end - name) : strlen(name));
}

/* ---- the JSON text ---- */

static int read_dtype(struct sf_bnb_tensor *t, const char *text, const char *key,
                      struct sf_err *err)
{
    if (strcmp(text, "bfloat16") == 0)
        t->dtype = SF_BF16;
    else if (strcmp(text, "float16") == 0)
        t->dtype = SF_F16;
    else if (strcmp(text, "float32") == 0)
        t->dtype = SF_F32;
    else
        return sf_fail(err, SF_EUNSUPPORTED, "%s \"%s\"", key, text);
    return SF_OK;
}

static int read_shape(struct sf_bnb_tensor *t, const struct sf_json *value, struct sf_err *err)
{
    if (sf_json_type(value) != SF_JSON_ARRAY || sf_json_count(value) != 2)
        return sf_fail(err, SF_EUNSUPPORTED, "shape is not that of a matrix");
    t->shape.rank = 2;
    const struct sf_json *item = sf_json_first(value);
    for (int i = 0; i < 2; i++, item = sf_json_next(item)) {
        int code = sf_json_as_int(&t->shape.dim[i], item, "shape", err);
        if (code != SF_OK)
            return code;
        if (t->shape.dim[i] < 1 || t->shape.dim[i] > INT32_MAX)
            return sf_fail(err, SF_EFORMAT, "shape holds %lld", (long long)t->shape.dim[i]);
    }
    return SF_OK;
}

static int must_be_text(const struct sf_json *value, const char *key, const char *want,
                        struct sf_err *err)
{
    const char *text;
    int code = sf_json_as_string(&text, value, key, err);
    if (code == SF_OK && strcmp(text, want) != 0)
        code = sf_fail(err, SF_EUNSUPPORTED, "%s \"%s\"; only \"%s\" can be taken over", key, text,
                       want);
    return code;
}

static int must_be_int(const struct sf_json *value, const char *key, int64_t want,
                       struct sf_err *err)
{
    int64_t number;
    int code = sf_json_as_int(&number, value, key, err);
    if (code == SF_OK && number != want)
        code = sf_fail(err, SF_EUNSUPPORTED, "%s %lld; only %lld can be taken over", key,
                       (long long)number, (long long)want);
    return code;
}

static int read_offset(struct sf_bnb_tensor *t, const struct sf_json *value, struct sf_err *err)
{
    double offset;
    int code = sf_json_as_double(&offset, value, "nested_offset", err);
    t->offset = code == SF_OK ? (float)offset : 0;
    if (code == SF_OK && !isfinite(t->offset))
        code = sf_fail(err, SF_ENUMERIC, "nested_offset is beyond float32");
    return code;
}

/* Bits of `seen`: which keys there were. */
enum { TYPE = 1, BLOCK = 2, DTYPE = 4, SHAPE = 8, NEST = 16, NEST_DTYPE = 32, OFFSET = 64 };

static int read_member(struct sf_bnb_tensor *t, int *seen, const struct sf_json *m,
                       struct sf_err *err)
{
    const char *key = sf_json_key(m), *text;
    int code;
    if (strcmp(key, "quant_type") == 0)
        return *seen |= TYPE, must_be_text(m, key, "nf4", err);
    if (strcmp(key, "blocksize") == 0)
        return *seen |= BLOCK, must_be_int(m, key, SF_BNB_BLOCK, err);
    if (strcmp(key, "nested_blocksize") == 0)
        return *seen |= NEST, must_be_int(m, key, SF_BNB_NEST, err);
    if (strcmp(key, "nested_dtype") == 0)
        return *seen |= NEST_DTYPE, must_be_text(m, key, "float32", err);
    if (strcmp(key, "nested_offset") == 0)
        return *seen |= OFFSET, read_offset(t, m, err);
    if (strcmp(key, "shape") == 0)
        return *seen |= SHAPE, read_shape(t, m, err);
    if (strcmp(key, "dtype") != 0)
        return sf_fail(err, SF_EUNSUPPORTED, "key \"%s\" is not known", key);
    *seen |= DTYPE;
    code = sf_json_as_string(&text, m, key, err);
    return code == SF_OK ? read_dtype(t, text, key, err) : code;
}

static int read_state(struct sf_bnb_tensor *t, const struct sf_tensor *state, struct sf_err *err)
{
    enum { PLAIN = TYPE | BLOCK | DTYPE | SHAPE, NESTED = PLAIN | NEST | NEST_DTYPE | OFFSET };
    struct sf_json *root;
    int seen = 0;
    if (state->dtype != SF_U8 || state->bytes > LARGEST_STATE)
        return sf_fail(err, SF_EFORMAT, "is not a text of at most %d bytes", LARGEST_STATE);
    int code = sf_json_parse(&root, state->data, state->bytes, err);
    if (code != SF_OK)
        return code;
    if (sf_json_type(root) != SF_JSON_OBJECT)
        code = sf_fail(err, SF_EFORMAT, "is not a JSON object");
    if (code == SF_OK)
        code = sf_json_check_unique(root, err);
    for (const struct sf_json *m = code == SF_OK ? sf_json_first(root) : NULL; m && code == SF_OK;
         m = sf_json_next(m))
        code = read_member(t, &seen, m, err);
    sf_json_free(root);
    if (code == SF_OK && seen != PLAIN && seen != NESTED)
        code = sf_fail(err, SF_EFORMAT, "is not the state of a matrix: keys are missing");
    t->nested = seen == NESTED;
    return code;
}

/* ---- the tensors ---- */

static int must_hold(const struct sf_tensor *t, enum sf_dtype dtype, int64_t count,
                     const char *what, struct sf_err *err)
{
    uint64_t bytes = (uint64_t)count * sf_dtype_bytes(dtype);
    if (!t)
        return sf_fail(err, SF_EFORMAT, "%s is missing", what);
    if (t->dtype != dtype || t->bytes != bytes)
        return sf_fail(err, SF_EFORMAT, "%s: %s of %llu bytes, the shape asks for %s of %llu", what,
                       sf_dtype_name(t->dtype), (unsigned long long)t->bytes, sf_dtype_name(dtype),
                       (unsigned long long)bytes);
    return SF_OK;
}

static int check_finite(const struct sf_tensor *t, const char *what, struct sf_err *err)
{
    const unsigned char *p = t->data;
    for (uint64_t i = 0; i < t->bytes / 4; i++)
        if (!isfinite(sf_get_f32(p + 4 * i)))
            return sf_fail(err, SF_ENUMERIC, "%s: element %llu is NaN or Inf", what,
                           (unsigned long long)i);
    return SF_OK;
}

static int read_floats(float *out, const struct sf_tensor *t, int64_t count, const char *what,
                       struct sf_err *err)
{
    int code = must_hold(t, SF_F32, count, what, err);
    if (code == SF_OK)
        code = check_finite(t, what, err);
    for (int64_t i = 0; i < count && code == SF_OK; i++)
        out[i] = sf_get_f32((const unsigned char *)t->data + 4 * i);
    return code;
}

static bool is_there(const struct sf_hf_index *index, const struct sf_tensor *t)
{
    return sf_safetensors_is_there(sf_hf_index_shard(index, sf_hf_index_shard_of(t))->file);
}

static int find_all(struct sf_bnb_tensor *t, const struct sf_hf_index *index, const char *name,
                    struct sf_err *err)
{
    static const char *const suffixes[SF_BNB_SIDES] = {NF4_STATE, ".absmax", ".quant_map",
                                                       ".nested_absmax", ".nested_quant_map"};
    t->codes = sf_hf_index_find(index, name);
    if (find(index, name, FP4_STATE))
        return sf_fail(err, SF_EUNSUPPORTED, "bitsandbytes' FP4; only NF4 can be taken over");
    if (!t->codes)
        return sf_fail(err, SF_EFORMAT, "its codes are missing");
    bool there = is_there(index, t->codes);
    for (int i = 0; i < SF_BNB_SIDES; i++) {
        const struct sf_tensor *side = find(index, name, suffixes[i]);
        if (!side)
            continue;
        t->side[t->sides++] = side;
        there = there && is_there(index, side);
    }
    return there ? SF_OK
                 : sf_fail(err, SF_EUNSUPPORTED,
                           "a quantized checkpoint must be there as a whole, and a shard is not");
}

static int check_nested(struct sf_bnb_tensor *t, const struct sf_hf_index *index, const char *name,
                        int64_t blocks, struct sf_err *err)
{
    int64_t groups = (blocks + SF_BNB_NEST - 1) / SF_BNB_NEST;
    const struct sf_tensor *nested = find(index, name, ".nested_absmax");
    int code = must_hold(t->absmax, SF_U8, blocks, "absmax", err);
    if (code == SF_OK)
        code = must_hold(nested, SF_F32, groups, "nested_absmax", err);
    if (code == SF_OK)
        code = check_finite(nested, "nested_absmax", err);
    if (code == SF_OK)
        code = read_floats(t->map, find(index, name, ".nested_quant_map"), 256, "nested_quant_map",
                           err);
    t->nested_absmax = nested;
    return code;
}

static int check_tensors(struct sf_bnb_tensor *t, const struct sf_hf_index *index, const char *name,
                         struct sf_err *err)
{
    int64_t count = t->shape.dim[0] * t->shape.dim[1]; /* each below 2^31 */
    int64_t blocks = (count + SF_BNB_BLOCK - 1) / SF_BNB_BLOCK;
    uint64_t bytes = (uint64_t)(count + 1) / 2;
    char shape[SF_SHAPE_TEXT];
    if (t->codes->bytes != bytes)
        return sf_fail(err, SF_EFORMAT, "%llu bytes of codes, its shape %s asks for %llu",
                       (unsigned long long)t->codes->bytes, sf_shape_format(shape, &t->shape),
                       (unsigned long long)bytes);
    t->absmax = find(index, name, ".absmax");
    int code = read_floats(t->codebook, find(index, name, ".quant_map"), 16, "quant_map", err);
    if (code == SF_OK && t->nested)
        return check_nested(t, index, name, blocks, err);
    if (code == SF_OK &&
        (find(index, name, ".nested_absmax") || find(index, name, ".nested_quant_map")))
        code = sf_fail(err, SF_EFORMAT, "nested scales, but its state does not speak of them");
    if (code == SF_OK)
        code = must_hold(t->absmax, SF_F32, blocks, "absmax", err);
    return code == SF_OK ? check_finite(t->absmax, "absmax", err) : code;
}

int sf_bnb_tensor_read(struct sf_bnb_tensor *out, const struct sf_hf_index *index, const char *name,
                       struct sf_err *err)
{
    *out = (struct sf_bnb_tensor){0};
    int code = find_all(out, index, name, err);
    if (code == SF_OK && (code = read_state(out, out->side[0], err)) != SF_OK)
        return sf_err_prefix(err, "%s%s", name, NF4_STATE);
    if (code == SF_OK)
        code = check_tensors(out, index, name, err);
    return code == SF_OK ? code : sf_err_prefix(err, "%s", name);
}
