#include "libformat/convert/importance.h"

#include <string.h>

#include "libformat/base/arena.h"
#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/hf/safetensors.h"

struct vector {
    const char *name;
    struct sf_shape shape;
    const float *weight;
    bool used;
};

struct sf_importance {
    struct sf_arena arena;
    const char *path;
    struct sf_hash128 hash;
    int64_t count;
    struct vector *vector;
};

static float number_at(const struct sf_tensor *t, int64_t i)
{
    const unsigned char *p = t->data;
    return t->dtype == SF_BF16  ? sf_f32_from_bf16(sf_get_u16(p + 2 * i))
           : t->dtype == SF_F16 ? sf_f32_from_f16(sf_get_u16(p + 2 * i))
                                : sf_get_f32(p + 4 * i);
}

static int read_vector(struct vector *out, struct sf_arena *arena, const struct sf_named_tensor *t,
                       struct sf_err *err)
{
    enum sf_dtype dtype = t->tensor.dtype;
    int64_t count = 0;
    float most = 0, *weight;
    if (dtype != SF_F32 && dtype != SF_BF16 && dtype != SF_F16)
        return sf_fail(err, SF_EUNSUPPORTED, "%s: %s; importance is f32, bf16 or f16", t->name,
                       sf_dtype_name(dtype));
    if (!sf_shape_count(&count, &t->tensor.shape) ||
        !(weight = sf_arena_array(arena, (uint64_t)count, sizeof *weight)) ||
        !(out->name = sf_arena_strdup(arena, t->name)))
        return sf_fail(err, SF_ENOMEM, "%s: no memory for %lld numbers", t->name, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        weight[i] = number_at(&t->tensor, i);
        most = weight[i] > most ? weight[i] : most;
        if (!(weight[i] >= 0 && weight[i] <= 3.4e38f))
            return sf_fail(err, SF_ENUMERIC,
                           "%s: element %lld is %g; importance is finite and not "
                           "negative",
                           t->name, (long long)i, (double)weight[i]);
    }
    if (most == 0)
        return sf_fail(err, SF_ENUMERIC, "%s: all %lld numbers are 0", t->name, (long long)count);
    out->shape = t->tensor.shape;
    out->weight = weight;
    return SF_OK;
}

/* The header (names, types, shapes) and the numbers. */
static int hash_all(struct sf_importance *im, const struct sf_safetensors *file, struct sf_err *err)
{
    struct sf_hasher *h;
    uint64_t head_bytes;
    int code = sf_hasher_open(&h, err);
    if (code != SF_OK)
        return code;
    const void *head = sf_safetensors_head(&head_bytes, file);
    sf_hasher_add(h, head, head_bytes);
    for (int64_t i = 0; i < sf_safetensors_count(file); i++) {
        const struct sf_tensor *t = &sf_safetensors_at(file, i)->tensor;
        sf_hasher_add(h, t->data, t->bytes);
    }
    im->hash = sf_hasher_digest(h);
    sf_hasher_close(h);
    return SF_OK;
}

static int read_all(struct sf_importance *im, const struct sf_safetensors *file, struct sf_err *err)
{
    int code = SF_OK;
    im->vector =
        sf_arena_array(&im->arena, (uint64_t)sf_safetensors_count(file), sizeof *im->vector);
    if (!im->vector)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld vectors",
                       (long long)sf_safetensors_count(file));
    for (int64_t i = 0; i < sf_safetensors_count(file) && code == SF_OK; i++)
        code = read_vector(&im->vector[im->count++], &im->arena, sf_safetensors_at(file, i), err);
    return code == SF_OK ? hash_all(im, file, err) : code;
}

int sf_importance_open(struct sf_importance **out, const char *path, struct sf_err *err)
{
    void *block;
    struct sf_safetensors *file = NULL;
    *out = NULL;
    int code = sf_alloc_for(&block, sizeof **out, path, err);
    if (code != SF_OK)
        return code;
    struct sf_importance *im = *out = block;
    memset(im, 0, sizeof *im);
    im->path = sf_arena_strdup(&im->arena, path);
    code = im->path ? sf_safetensors_open(&file, path, err)
                    : sf_fail(err, SF_ENOMEM, "no memory for a name");
    if (code == SF_OK && (code = read_all(im, file, err)) != SF_OK)
        sf_err_prefix(err, "%s", path);
    sf_safetensors_close(file);
    if (code != SF_OK) {
        sf_importance_close(im);
        *out = NULL;
    }
    return code;
}

void sf_importance_close(struct sf_importance *importance)
{
    if (!importance)
        return;
    sf_arena_free(&importance->arena);
    sf_free(importance);
}

struct sf_hash128 sf_importance_hash(const struct sf_importance *importance)
{
    return importance->hash;
}

static struct vector *vector_named(const struct sf_importance *im, const char *name)
{
    for (int64_t i = 0; i < im->count; i++)
        if (strcmp(im->vector[i].name, name) == 0)
            return &im->vector[i];
    return NULL;
}

int sf_importance_find(const float **out, struct sf_importance *importance,
                       const struct sf_entry *entry, int64_t experts, struct sf_err *err)
{
    struct vector *v = vector_named(importance, entry->name);
    bool stacked = !v && sf_part_is_expert(entry->role.part);
    int64_t in = entry->shape.dim[1];
    char text[SF_SHAPE_TEXT];
    *out = NULL;
    v = v ? v : vector_named(importance, entry->source_name);
    if (!v)
        return SF_OK;
    v->used = true;
    *out = v->weight;
    if (v->shape.rank == 1 && v->shape.dim[0] == in)
        return SF_OK;
    if (!stacked || v->shape.rank != 2 || v->shape.dim[0] != experts || v->shape.dim[1] != in)
        return sf_fail(err, SF_EFORMAT, "%s: %s: shape %s, but %s has %lld input channels%s",
                       importance->path, v->name, sf_shape_format(text, &v->shape), entry->name,
                       (long long)in, stacked ? " in each expert" : "");
    *out += entry->role.expert * in;
    return SF_OK;
}

int sf_importance_check_used(struct sf_importance *importance, struct sf_err *err)
{
    const char *unused = NULL;
    for (int64_t i = 0; i < importance->count; i++) {
        unused = unused || importance->vector[i].used ? unused : importance->vector[i].name;
        importance->vector[i].used = false;
    }
    return unused ? sf_fail(err, SF_EINVAL, "%s: %s: no matrix of this checkpoint that becomes NF4",
                            importance->path, unused)
                  : SF_OK;
}
