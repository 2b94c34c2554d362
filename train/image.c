#include "train/image.h"

#include <string.h>

#include "libformat/base/arena.h"
#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/codec/nf4.h"

struct sft_image {
    struct sf_arena arena;
    int64_t layers;
    struct sk_matrix **matrix; /* [(layers + 1) * SF_PART_COUNT]; row 0 is outside the layers */
};

static struct sk_matrix **slot_of(const struct sft_image *image, struct sf_role role)
{
    return &image->matrix[(role.layer + 1) * SF_PART_COUNT + role.part];
}

const struct sk_matrix *sft_image_matrices(const struct sft_image *image, struct sf_role role)
{
    return *slot_of(image, role);
}

/* A vector is a matrix of one row. */
static struct sf_shape matrix_shape(const struct sf_model_spec *spec, enum sf_part part)
{
    struct sf_shape shape = sf_spec_shape(spec, part);
    return shape.rank == 1 ? (struct sf_shape){2, {1, shape.dim[0]}} : shape;
}

static int fill_role(struct sk_matrix *out, const struct sf_model_spec *spec, struct sf_role role,
                     sft_image_view_fn *view, void *context, struct sf_err *err)
{
    char text[SF_ROLE_TEXT], have[SF_SHAPE_TEXT], want[SF_SHAPE_TEXT];
    int code = view(out, context, role, err);
    if (code)
        return sf_err_prefix(err, "%s", sf_role_format(text, role));
    struct sf_shape shape = matrix_shape(spec, role.part);
    struct sf_shape found = {2, {out->rows, out->cols}};
    if (sf_shape_equal(&shape, &found))
        return SF_OK;
    return sf_fail(err, SF_EFORMAT, "%s: shape %s, but the model's config says %s",
                   sf_role_format(text, role), sf_shape_format(have, &found),
                   sf_shape_format(want, &shape));
}

static int fill_part(struct sft_image *image, const struct sf_model_spec *spec, struct sf_role role,
                     sft_image_view_fn *view, void *context, struct sf_err *err)
{
    bool expert = sf_part_is_expert(role.part);
    int64_t count = expert ? spec->experts : 1;
    struct sk_matrix *matrix = sf_arena_array(&image->arena, (uint64_t)count, sizeof *matrix);
    if (!matrix)
        return sf_fail(err, SF_ENOMEM, "no memory for the views of %lld weights", (long long)count);
    *slot_of(image, role) = matrix;
    for (int64_t e = 0; e < count; e++) {
        if (expert)
            role.expert = (int32_t)e;
        int code = fill_role(&matrix[e], spec, role, view, context, err);
        if (code)
            return code;
    }
    return SF_OK;
}

static int fill_all(struct sft_image *image, const struct sf_model_spec *spec,
                    sft_image_view_fn *view, void *context, struct sf_err *err)
{
    for (int32_t layer = -1; layer < spec->layers; layer++) {
        for (int part = 0; part < SF_PART_UNUSED; part++) {
            struct sf_role role = {(enum sf_part)part, layer, -1};
            if (!sf_spec_has(spec, role.part, layer))
                continue;
            int code = fill_part(image, spec, role, view, context, err);
            if (code)
                return code;
        }
    }
    return SF_OK;
}

int sft_image_open_views(struct sft_image **out, const struct sf_model_spec *spec,
                         sft_image_view_fn *view, void *context, struct sf_err *err)
{
    void *memory;
    *out = NULL;
    int code = sf_alloc_for(&memory, sizeof(struct sft_image), "the weights' views", err);
    if (code)
        return code;
    struct sft_image *image = memory;
    image->layers = spec->layers;
    image->matrix = sf_arena_array(&image->arena, (uint64_t)(spec->layers + 1) * SF_PART_COUNT,
                                   sizeof *image->matrix);
    code = image->matrix ? fill_all(image, spec, view, context, err)
                         : sf_fail(err, SF_ENOMEM, "no memory for the weights' views");
    if (code)
        sft_image_close(image);
    else
        *out = image;
    return code;
}

void sft_image_close(struct sft_image *image)
{
    if (!image)
        return;
    sf_arena_free(&image->arena);
    sf_free(image);
}

/* ---- views over a container ---- */

struct container { /* context of container_view */
    const struct sf_map *map;
    sft_image_at_fn *at;
    void *context;
};

static const void *in_the_map(void *context, struct sf_role role, uint64_t address)
{
    const struct container *c = context;
    (void)role;
    return sf_map_bytes(c->map, address);
}

/* Where the plane lies for those who compute with it. */
static int place(const void **out, const struct container *c, const struct sf_entry *entry,
                 struct sf_role role, enum sf_plane_kind plane, struct sf_err *err)
{
    *out = c->at(c->context, role, entry->plane[plane].address);
    return *out ? SF_OK
                : sf_fail(err, SF_EUNSUPPORTED, "%s does not lie with the weights that are loaded",
                          entry->name);
}

static int raw_view(struct sk_matrix *out, const struct container *c, const struct sf_entry *entry,
                    struct sf_role role, struct sf_err *err)
{
    const struct sf_plane *plane = &entry->plane[SF_PLANE_CODES];
    switch (plane->dtype) {
    case SF_F32:
        out->format = SK_FORMAT_F32;
        break;
    case SF_BF16:
        out->format = SK_FORMAT_BF16;
        break;
    case SF_F16:
        out->format = SK_FORMAT_F16;
        break;
    default:
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s holds %s; weights are computed with as f32, bf16, "
                       "f16 or NF4",
                       entry->name, sf_dtype_name(plane->dtype));
    }
    return place(&out->data, c, entry, role, SF_PLANE_CODES, err);
}

/* Blocks along the flattened matrix; along its rows is the same where rows hold whole blocks. */
static bool blocks_are_flat(const struct sf_entry *entry)
{
    int32_t last = entry->shape.rank - 1;
    return entry->block_axis < 0 ||
           (entry->block_axis == last && entry->shape.dim[last] % SF_NF4_BLOCK == 0);
}

static int nf4_view(struct sk_matrix *out, const struct container *c, const struct sf_entry *entry,
                    struct sf_role role, struct sf_err *err)
{
    const struct sf_plane *plane = entry->plane;
    bool nested = plane[SF_PLANE_SCALE].dtype == SF_U8;
    if (entry->block != SF_NF4_BLOCK || (nested && entry->nested_block != SF_NF4_NEST) ||
        !blocks_are_flat(entry))
        return sf_fail(err, SF_EUNSUPPORTED,
                       "%s: NF4 in blocks of %d (nested %d) along axis %d; kernels read blocks of "
                       "%d (nested %d) along the flattened matrix",
                       entry->name, entry->block, entry->nested_block, entry->block_axis,
                       SF_NF4_BLOCK, SF_NF4_NEST);
    out->format = nested ? SK_FORMAT_NF4_NESTED : SK_FORMAT_NF4;
    const void *codebook, *scale2, *nested_map;
    int code = place(&out->data, c, entry, role, SF_PLANE_CODES, err);
    if (!code)
        code = place(&out->scale, c, entry, role, SF_PLANE_SCALE, err);
    if (!code)
        code = place(&codebook, c, entry, role, SF_PLANE_CODEBOOK, err);
    if (code)
        return code;
    out->codebook = codebook;
    if (!nested)
        return SF_OK;
    code = place(&scale2, c, entry, role, SF_PLANE_SCALE2, err);
    if (!code)
        code = place(&nested_map, c, entry, role, SF_PLANE_MAP, err);
    if (code)
        return code;
    out->scale2 = scale2;
    out->map = nested_map;
    out->offset = sf_get_f32(sf_map_bytes(c->map, plane[SF_PLANE_OFFSET].address));
    return SF_OK;
}

static int container_view(struct sk_matrix *out, void *context, struct sf_role role,
                          struct sf_err *err)
{
    const struct container *c = context;
    const struct sf_entry *entry = sf_map_find(c->map, role);
    if (!entry)
        return sf_fail(err, SF_ENOENT, "the container has no such tensor");
    const struct sf_shape *shape = &entry->shape;
    if (shape->rank != 1 && shape->rank != 2)
        return sf_fail(err, SF_EFORMAT, "%s has %d dimensions, weights have 1 or 2", entry->name,
                       shape->rank);
    *out = (struct sk_matrix){.rows = shape->rank == 2 ? shape->dim[0] : 1,
                              .cols = shape->dim[shape->rank - 1]};
    if (entry->encoding == SF_ENCODING_NF4)
        return nf4_view(out, c, entry, role, err);
    return raw_view(out, c, entry, role, err);
}

int sft_image_open_at(struct sft_image **out, const struct sf_map *map,
                      const struct sf_model_spec *spec, sft_image_at_fn *at, void *context,
                      struct sf_err *err)
{
    struct container container = {map, at, context};
    int code = sft_image_open_views(out, spec, container_view, &container, err);
    return code ? sf_err_prefix(err, "%s", sf_map_path(map)) : code;
}

int sft_image_open(struct sft_image **out, const struct sf_map *map,
                   const struct sf_model_spec *spec, struct sf_err *err)
{
    struct container container = {.map = map};
    return sft_image_open_at(out, map, spec, in_the_map, &container, err);
}
