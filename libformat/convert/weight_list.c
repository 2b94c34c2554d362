#include "libformat/convert/weight_list.h"

#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/convert/entry_decode.h"
#include "libformat/convert/packed_source.h"
#include "libformat/hf/hf_config.h"

enum { STEP = 1 << 18, STEP_ROWS = 64 };

/* ---- order ---- */

int sf_weight_compare(const struct sf_weight *a, const struct sf_weight *b)
{
    const struct sf_role x = a->role, y = b->role;
    if (x.layer != y.layer)
        return x.layer < y.layer ? -1 : 1;
    if (x.part != y.part)
        return x.part < y.part ? -1 : 1;
    if (x.expert != y.expert)
        return x.expert < y.expert ? -1 : 1;
    return x.part == SF_PART_UNUSED ? strcmp(a->name, b->name) : 0;
}

static int compare(const void *a, const void *b)
{
    return sf_weight_compare(a, b);
}

const struct sf_weight *sf_weight_list_find(const struct sf_weight_list *list,
                                            const struct sf_weight *like)
{
    if (list->count == 0)
        return NULL;
    return bsearch(like, list->weight, (size_t)list->count, sizeof *list->weight, compare);
}

static int allocate(struct sf_weight_list *list, int64_t count, struct sf_err *err)
{
    list->weight = sf_arena_array(&list->arena, (uint64_t)count + 1, sizeof *list->weight);
    list->count = count;
    return list->weight
               ? SF_OK
               : sf_fail(err, SF_ENOMEM, "no memory for a list of %lld weights", (long long)count);
}

static void sort(struct sf_weight_list *list)
{
    if (list->count > 0)
        qsort(list->weight, (size_t)list->count, sizeof *list->weight, compare);
}

static struct sf_weight weight_of(const struct sf_entry *e)
{
    return (struct sf_weight){.name = e->name,
                              .source_name = e->source_name,
                              .role = e->role,
                              .shape = e->shape,
                              .dtype = e->dtype,
                              .entry = e};
}

/* ---- opening ---- */

int sf_weight_list_from_map(struct sf_weight_list *out, const struct sf_map *map,
                            struct sf_err *err)
{
    *out = (struct sf_weight_list){.map = map, .path = sf_map_path(map)};
    int code = allocate(out, sf_map_info(map)->tensors, err);
    for (int64_t i = 0; i < out->count && code == SF_OK; i++)
        out->weight[i] = weight_of(sf_map_tensor(map, i));
    if (code == SF_OK)
        sort(out);
    else
        sf_weight_list_close(out);
    return code;
}

static int read_spec(struct sf_weight_list *list, const char *directory, struct sf_err *err)
{
    enum { LARGEST_CONFIG = 16 << 20 };
    char *text, *path = sf_path_join(&list->arena, directory, "config.json");
    uint64_t bytes;
    if (!path)
        return sf_fail(err, SF_ENOMEM, "no memory for file names");
    int code = sf_read_file(&text, &bytes, &list->arena, path, LARGEST_CONFIG, err);
    if (code != SF_OK)
        return code;
    code = sf_hf_config_parse(&list->spec, &list->arena, text, bytes, err);
    return code == SF_OK ? code : sf_err_prefix(err, "%s", path);
}

static int read_folder(struct sf_weight_list *list, const char *directory, struct sf_err *err)
{
    struct sf_policy policy = {0};
    int code = read_spec(list, directory, err);
    if (code == SF_OK)
        code = sf_hf_index_open(&list->index, directory, err);
    if (code != SF_OK)
        return code;
    code = sf_convert_plan_build(&list->plan, &list->spec, list->index, &policy, true, err);
    if (code != SF_OK)
        return sf_err_prefix(err, "%s", directory);
    code = allocate(list, list->plan.rows, err);
    for (int64_t i = 0; i < list->count && code == SF_OK; i++) {
        list->weight[i] = weight_of(list->plan.row[i].entry);
        list->weight[i].source = list->plan.row[i].source;
    }
    if (code == SF_OK)
        sort(list);
    return code;
}

int sf_weight_list_from_folder(struct sf_weight_list *out, const char *directory,
                               struct sf_err *err)
{
    *out = (struct sf_weight_list){.path = directory};
    int code = read_folder(out, directory, err);
    if (code != SF_OK)
        sf_weight_list_close(out);
    return code;
}

void sf_weight_list_close(struct sf_weight_list *list)
{
    sf_convert_plan_free(&list->plan);
    sf_hf_index_close(list->index);
    sf_arena_free(&list->arena);
    *list = (struct sf_weight_list){0};
}

/* ---- reading ---- */

int64_t sf_weight_step(const struct sf_weight *weight)
{
    return weight->source.transposed ? STEP_ROWS * weight->shape.dim[1] : STEP;
}

/* Row i of the source holds a run of the columns that become our rows. */
static int read_turned(float *out, const struct sf_weight *w, int64_t first, int64_t count,
                       struct sf_err *err)
{
    const struct sf_source *s = &w->source;
    int64_t in = w->shape.dim[1], row = first / in, rows = count / in;
    const unsigned char *data = s->tensor->data;
    uint64_t size = sf_dtype_bytes(w->dtype);
    float line[STEP_ROWS];
    int code = SF_OK;
    for (int64_t i = 0; i < in && code == SF_OK; i++) {
        uint64_t at = (uint64_t)(s->first + i * s->row_stride + row) * size;
        code = sf_floats_read(line, data + at, w->dtype, rows, err);
        for (int64_t o = 0; o < rows; o++)
            out[o * in + i] = line[o];
    }
    return code;
}

int sf_weight_read(float *out, const struct sf_weight_list *list, const struct sf_weight *weight,
                   int64_t first, int64_t count, struct sf_err *err)
{
    if (list->map)
        return sf_entry_decode(out, list->map, weight->entry, first, count, err);
    int code = SF_OK;
    if (weight->source.packed) {
        struct sf_nf4_planes planes = sf_packed_planes(&weight->source, &weight->shape);
        sf_nf4_planes_decode(out, &planes, first, count);
    } else if (weight->source.transposed) {
        code = read_turned(out, weight, first, count, err);
    } else {
        const unsigned char *data = weight->source.tensor->data;
        uint64_t at = (uint64_t)(weight->source.first + first) * sf_dtype_bytes(weight->dtype);
        code = sf_floats_read(out, data + at, weight->dtype, count, err);
    }
    return code == SF_OK ? code : sf_err_prefix(err, "%s", weight->name);
}
