#include "libformat/convert/base_copy.h"

#include <string.h>

#include "libformat/convert/entry_decode.h"
#include "libformat/convert/names.h"

enum { AT_ONCE = 4096 }; /* elements */

/* The base's weight, wherever it is. */
struct own {
    const struct sf_shape *shape;
    const struct sf_tensor *tensor; /* of a checkpoint, or NULL: */
    const struct sf_map *map;
    const struct sf_entry *entry;
};

static int read_tensor(float *out, const struct sf_tensor *t, int64_t first, int64_t count,
                       struct sf_err *err)
{
    const char *data = t->data;
    return sf_floats_read(out, data + first * (int64_t)sf_dtype_bytes(t->dtype), t->dtype, count,
                          err);
}

static int read_own(float *out, const struct own *own, int64_t first, int64_t count,
                    struct sf_err *err)
{
    return own->tensor ? read_tensor(out, own->tensor, first, count, err)
                       : sf_entry_decode(out, own->map, own->entry, first, count, err);
}

static int compare(const struct own *own, const struct sf_adapter_copy *copy, struct sf_err *err)
{
    float x[AT_ONCE], y[AT_ONCE];
    int64_t count = 0, n;
    bool same = own->shape && sf_shape_equal(own->shape, &copy->tensor->shape) &&
                sf_shape_count(&count, own->shape);
    for (int64_t first = 0; same && first < count; first += n) {
        n = count - first < AT_ONCE ? count - first : AT_ONCE;
        int code = read_own(x, own, first, n, err);
        if (!code)
            code = read_tensor(y, copy->tensor, first, n, err);
        if (code)
            return sf_err_prefix(err, "%s", copy->key);
        same = memcmp(x, y, (size_t)n * sizeof *x) == 0;
    }
    return same ? SF_OK
                : sf_fail(err, SF_EUNSUPPORTED,
                          "%s: the adapter's file holds a whole weight that is not the base's",
                          copy->key);
}

static int check_checkpoint(const void *context, const struct sf_adapter_copy *copy,
                            struct sf_err *err)
{
    const struct sf_hf_index *index = context;
    struct own own = {0};
    for (int64_t i = 0; i < sf_hf_index_count(index) && !own.tensor; i++) {
        const struct sf_named_tensor *t = sf_hf_index_at(index, i, NULL);
        struct sf_name name = sf_name_parse(t->name);
        if (name.kind == SF_NAME_WEIGHT && name.part == copy->part)
            own = (struct own){.shape = &t->tensor.shape, .tensor = &t->tensor};
    }
    return compare(&own, copy, err);
}

static int check_container(const void *context, const struct sf_adapter_copy *copy,
                           struct sf_err *err)
{
    const struct sf_map *map = context;
    const struct sf_entry *entry = sf_map_find(map, (struct sf_role){copy->part, -1, -1});
    if (entry && entry->encoding != SF_ENCODING_RAW)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s: PEFT put a copy of the base's weight into the file, and %s holds that "
                       "weight in 4 bits: they cannot be compared",
                       copy->key, sf_map_path(map));
    struct own own = {.shape = entry ? &entry->shape : NULL, .map = map, .entry = entry};
    return compare(&own, copy, err);
}

struct sf_adapter_base sf_base_in_checkpoint(const struct sf_hf_index *index)
{
    return (struct sf_adapter_base){check_checkpoint, index};
}

struct sf_adapter_base sf_base_in_container(const struct sf_map *map)
{
    return (struct sf_adapter_base){check_container, map};
}
