#include "libformat/adapter/adapter_file.h"

#include <math.h>
#include <string.h>

#include "libformat/adapter/adapter_config.h"
#include "libformat/adapter/adapter_names.h"
#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/hf/safetensors.h"

enum { CONFIG_LIMIT = 4 << 20 };

/* ---- reading ---- */

struct reader {
    struct sf_adapter *out;
    struct sf_arena *arena;
    const struct sf_model_spec *spec;
    int64_t room;  /* of out->module */
    bool prefixed; /* out->prefix is known */
};

static float from_f16(uint16_t h)
{
    int exponent = (h >> 10) & 0x1f;
    float mantissa = (float)(h & 0x3ff), value;
    if (exponent == 0x1f)
        value = mantissa != 0 ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexpf(mantissa, -24);
    else
        value = ldexpf(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -value : value;
}

static float element(const struct sf_tensor *t, int64_t i)
{
    const unsigned char *data = t->data;
    if (t->dtype == SF_F32)
        return sf_get_f32(data + 4 * i);
    uint16_t half = sf_get_u16(data + 2 * i);
    if (t->dtype == SF_F16)
        return from_f16(half);
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The tensor as float32 in the arena. */
static int convert(const float **out, struct sf_arena *arena, const struct sf_tensor *t,
                   struct sf_err *err)
{
    int64_t count;
    if (t->dtype != SF_F32 && t->dtype != SF_F16 && t->dtype != SF_BF16)
        return sf_fail(err, SF_EUNSUPPORTED, "dtype %s; adapters are f32, f16 or bf16",
                       sf_dtype_name(t->dtype));
    if (!sf_shape_count(&count, &t->shape))
        return sf_fail(err, SF_EFORMAT, "a shape that does not fit");
    float *to = sf_arena_array(arena, (uint64_t)count + 1, sizeof *to);
    if (!to)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld numbers", (long long)count);
    for (int64_t i = 0; i < count; i++) {
        to[i] = element(t, i);
        if (!isfinite(to[i]))
            return sf_fail(err, SF_ENUMERIC, "element %lld is not a finite number", (long long)i);
    }
    *out = to;
    return SF_OK;
}

/* The module of `role`, added when it is new. */
static struct sf_adapter_module *module_of(struct reader *r, struct sf_role role)
{
    struct sf_adapter *a = r->out;
    struct sf_shape shape = sf_spec_shape(r->spec, role.part);
    double root = a->rslora ? sqrt((double)a->rank) : (double)a->rank;
    for (int64_t i = 0; i < a->modules; i++)
        if (a->module[i].role.part == role.part && a->module[i].role.layer == role.layer)
            return &a->module[i];
    a->module[a->modules] = (struct sf_adapter_module){.role = role,
                                                       .rank = a->rank,
                                                       .out = shape.dim[0],
                                                       .in = shape.dim[1],
                                                       .scale = a->alpha / root};
    return &a->module[a->modules++];
}

static int check_shape(const struct sf_adapter_module *m, char which, const struct sf_shape *shape,
                       struct sf_err *err)
{
    char got[SF_SHAPE_TEXT], wanted[SF_SHAPE_TEXT];
    struct sf_shape a = {2, {m->rank, m->in}}, b = {2, {m->out, m->rank}};
    const struct sf_shape *want = which == 'A' ? &a : &b;
    if (sf_shape_equal(shape, want))
        return SF_OK;
    return sf_fail(err, SF_EFORMAT, "shape %s, this model and r %lld want %s",
                   sf_shape_format(got, shape), (long long)m->rank, sf_shape_format(wanted, want));
}

static int read_tensor(struct reader *r, const struct sf_named_tensor *t, struct sf_err *err)
{
    enum sf_adapter_prefix prefix;
    struct sf_role role;
    char which;
    if (!adapter_key_parse(&prefix, &role, &which, t->name))
        return sf_fail(err, SF_EUNSUPPORTED, "no key of a LoRA on a linear module of Llama 4");
    if (r->prefixed && prefix != r->out->prefix)
        return sf_fail(err, SF_EFORMAT, "two key prefixes in one adapter");
    if (!sf_spec_has(r->spec, role.part, role.layer))
        return sf_fail(err, SF_EFORMAT, "this model of %lld layers has no such module",
                       (long long)r->spec->layers);
    r->out->prefix = prefix;
    r->prefixed = true;
    struct sf_adapter_module *m = module_of(r, role);
    int code = check_shape(m, which, &t->tensor.shape, err);
    return code ? code : convert(which == 'A' ? &m->a : &m->b, r->arena, &t->tensor, err);
}

/* By layer, then part: the order of everything that lists modules. Few, nearly sorted. */
static void sort_modules(struct sf_adapter *a)
{
    for (int64_t i = 1; i < a->modules; i++) {
        struct sf_adapter_module m = a->module[i];
        int64_t j = i;
        for (; j > 0; j--) {
            struct sf_role before = a->module[j - 1].role;
            if (before.layer < m.role.layer ||
                (before.layer == m.role.layer && before.part < m.role.part))
                break;
            a->module[j] = a->module[j - 1];
        }
        a->module[j] = m;
    }
}

static int check_complete(const struct sf_adapter *a, struct sf_err *err)
{
    char text[SF_ROLE_TEXT];
    if (a->modules == 0)
        return sf_fail(err, SF_EFORMAT, "holds no tensors");
    for (int64_t i = 0; i < a->modules; i++)
        if (!a->module[i].a || !a->module[i].b)
            return sf_fail(err, SF_EFORMAT, "%s has lora_%c but no lora_%c",
                           sf_role_format(text, a->module[i].role), a->module[i].a ? 'A' : 'B',
                           a->module[i].a ? 'B' : 'A');
    return SF_OK;
}

static int read_tensors(struct reader *r, const char *path, struct sf_err *err)
{
    struct sf_safetensors *file;
    int code = sf_safetensors_open(&file, path, err);
    if (code)
        return code;
    int64_t count = sf_safetensors_count(file);
    r->out->module = sf_arena_array(r->arena, (uint64_t)count + 1, sizeof *r->out->module);
    if (!r->out->module)
        code = sf_fail(err, SF_ENOMEM, "no memory for a list of %lld tensors", (long long)count);
    for (int64_t i = 0; !code && i < count; i++) {
        const struct sf_named_tensor *t = sf_safetensors_at(file, i);
        code = read_tensor(r, t, err);
        if (code)
            sf_err_prefix(err, "%s", t->name);
    }
    if (!code) {
        sort_modules(r->out);
        code = check_complete(r->out, err);
    }
    sf_safetensors_close(file);
    return code ? sf_err_prefix(err, "%s", path) : SF_OK;
}

int sf_adapter_read(struct sf_adapter *out, struct sf_arena *arena, const char *directory,
                    const struct sf_model_spec *spec, struct sf_err *err)
{
    struct reader r = {.out = out, .arena = arena, .spec = spec};
    char *config = sf_path_join(arena, directory, "adapter_config.json"), *text;
    char *tensors = sf_path_join(arena, directory, "adapter_model.safetensors");
    uint64_t bytes;
    if (!config || !tensors)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = sf_read_file(&text, &bytes, arena, config, CONFIG_LIMIT, err);
    if (code)
        return code;
    code = adapter_config_read(out, arena, text, bytes, err);
    if (code)
        return sf_err_prefix(err, "%s", config);
    return read_tensors(&r, tensors, err);
}

/* ---- writing ---- */

static int check_modules(const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                         struct sf_err *err)
{
    char text[SF_ROLE_TEXT];
    if (adapter->modules == 0)
        return sf_fail(err, SF_EINVAL, "an adapter without modules");
    for (int64_t i = 0; i < adapter->modules; i++) {
        const struct sf_adapter_module *m = &adapter->module[i];
        if (!adapter_path_in_layer(m->role.part) || !sf_spec_has(spec, m->role.part, m->role.layer))
            return sf_fail(err, SF_EINVAL, "%s is no linear module of this model",
                           sf_role_format(text, m->role));
        if (m->rank != adapter->rank)
            return sf_fail(err, SF_EINVAL, "%s has rank %lld, the adapter %lld",
                           sf_role_format(text, m->role), (long long)m->rank,
                           (long long)adapter->rank);
    }
    return SF_OK;
}

static int list_tensors(struct sf_named_tensor **out, struct sf_arena *arena,
                        const struct sf_adapter *adapter, struct sf_err *err)
{
    struct sf_named_tensor *list =
        sf_arena_array(arena, 2 * (uint64_t)adapter->modules, sizeof *list);
    *out = list;
    for (int64_t i = 0; list && i < 2 * adapter->modules; i++) {
        const struct sf_adapter_module *m = &adapter->module[i / 2];
        char which = i % 2 ? 'B' : 'A';
        struct sf_tensor *t = &list[i].tensor;
        list[i].name = sf_adapter_key(arena, adapter->prefix, m->role, which);
        t->dtype = SF_F32;
        t->shape = which == 'A' ? (struct sf_shape){2, {m->rank, m->in}}
                                : (struct sf_shape){2, {m->out, m->rank}};
        t->data = which == 'A' ? m->a : m->b;
        if (!list[i].name || !sf_shape_bytes(&t->bytes, &t->shape, t->dtype))
            return sf_fail(err, SF_ENOMEM, "no memory for a tensor's name");
    }
    return list ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a list of tensors");
}

static int write_both(const char *directory, struct sf_arena *arena,
                      const struct sf_adapter *adapter, const struct sf_model_spec *spec,
                      struct sf_err *err)
{
    char *config = sf_path_join(arena, directory, "adapter_config.json"), *text;
    char *tensors = sf_path_join(arena, directory, "adapter_model.safetensors");
    struct sf_named_tensor *list;
    uint64_t bytes;
    if (!config || !tensors)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = check_modules(adapter, spec, err);
    if (!code)
        code = adapter_config_write(&text, &bytes, arena, adapter, spec, err);
    if (!code)
        code = list_tensors(&list, arena, adapter, err);
    if (!code)
        code = sf_make_directory(directory, err);
    if (!code)
        code = sf_safetensors_write(tensors, list, 2 * adapter->modules, err);
    return code ? code : sf_write_file(config, text, bytes, err);
}

int sf_adapter_write(const char *directory, const struct sf_adapter *adapter,
                     const struct sf_model_spec *spec, struct sf_err *err)
{
    struct sf_arena arena = {0};
    int code = write_both(directory, &arena, adapter, spec, err);
    sf_arena_free(&arena);
    return code;
}
