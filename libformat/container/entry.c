#include "libformat/container/entry.h"

#include <stdio.h>
#include <string.h>

static const char *const encoding_names[] = {"raw", "nf4"};
static const char *const plane_names[SF_PLANE_COUNT] = {"codes",  "scale",    "scale2",
                                                        "offset", "codebook", "map"};
static const char *const kind_names[] = {"expert",    "dense",  "head",
                                         "embedding", "unused", "shared"};

const char *sf_encoding_name(enum sf_encoding encoding)
{
    return (unsigned)encoding < sizeof encoding_names / sizeof *encoding_names
               ? encoding_names[encoding]
               : "?";
}

const char *sf_plane_name(enum sf_plane_kind kind)
{
    return (unsigned)kind < SF_PLANE_COUNT ? plane_names[kind] : "?";
}

const char *sf_extent_kind_name(enum sf_extent_kind kind)
{
    return (unsigned)kind < SF_EXTENT_KIND_COUNT ? kind_names[kind] : "?";
}

bool sf_extent_kind_from_name(enum sf_extent_kind *out, const char *name)
{
    for (int i = 0; i < SF_EXTENT_KIND_COUNT; i++) {
        if (strcmp(kind_names[i], name) == 0) {
            *out = (enum sf_extent_kind)i;
            return true;
        }
    }
    return false;
}

const char *sf_extent_format(char *text, const struct sf_extent *extent)
{
    const char *kind = sf_extent_kind_name(extent->kind);
    if (extent->expert >= 0)
        snprintf(text, SF_EXTENT_TEXT, "layer %d expert %d", extent->layer, extent->expert);
    else if (extent->layer >= 0)
        snprintf(text, SF_EXTENT_TEXT, "layer %d %s", extent->layer, kind);
    else
        snprintf(text, SF_EXTENT_TEXT, "%s", kind);
    return text;
}

/* A plane of `count` elements in one row. */
static struct sf_plane flat_plane(enum sf_dtype dtype, int64_t count)
{
    return (struct sf_plane){.dtype = dtype,
                             .shape = {.rank = 1, .dim = {count}},
                             .bytes = (uint64_t)count * sf_dtype_bytes(dtype)};
}

static int64_t divide_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static int plan_raw(struct sf_plane *plane, const struct sf_entry *entry, struct sf_err *err)
{
    if (entry->block != 0 || entry->nested_block != 0 || entry->block_axis != -1)
        return sf_fail(err, SF_EFORMAT,
                       "raw elements, but block %d, nested block %d, block axis %d", entry->block,
                       entry->nested_block, entry->block_axis);
    plane[SF_PLANE_CODES] = (struct sf_plane){.dtype = entry->dtype, .shape = entry->shape};
    if (!sf_shape_bytes(&plane[SF_PLANE_CODES].bytes, &entry->shape, entry->dtype))
        return sf_fail(err, SF_EFORMAT, "its size in bytes does not fit 64 bits");
    return SF_OK;
}

static int plan_nf4(struct sf_plane *plane, const struct sf_entry *entry, int64_t count,
                    struct sf_err *err)
{
    if (entry->block <= 0 || (entry->block & (entry->block - 1)) || entry->nested_block < 0)
        return sf_fail(err, SF_EFORMAT, "nf4 with block %d, nested block %d", entry->block,
                       entry->nested_block);
    if (entry->block_axis < -1 || entry->block_axis >= entry->shape.rank)
        return sf_fail(err, SF_EFORMAT, "block axis %d of a tensor of rank %d", entry->block_axis,
                       entry->shape.rank);
    if (entry->block_axis >= 0 && entry->shape.dim[entry->block_axis] % entry->block)
        return sf_fail(err, SF_EFORMAT, "blocks of %d do not divide axis %d of length %lld",
                       entry->block, entry->block_axis,
                       (long long)entry->shape.dim[entry->block_axis]);
    int64_t blocks = divide_up(count, entry->block);
    plane[SF_PLANE_CODES] = flat_plane(SF_U8, divide_up(count, 2));
    plane[SF_PLANE_CODEBOOK] = flat_plane(SF_F32, 16);
    plane[SF_PLANE_SCALE] = flat_plane(entry->nested_block ? SF_U8 : SF_F32, blocks);
    if (entry->nested_block) {
        plane[SF_PLANE_SCALE2] = flat_plane(SF_F32, divide_up(blocks, entry->nested_block));
        plane[SF_PLANE_OFFSET] = flat_plane(SF_F32, 1);
        plane[SF_PLANE_MAP] = flat_plane(SF_F32, 256);
    }
    return SF_OK;
}

int sf_entry_plan(struct sf_plane plane[SF_PLANE_COUNT], const struct sf_entry *entry,
                  struct sf_err *err)
{
    int64_t count;
    char shape[SF_SHAPE_TEXT];
    memset(plane, 0, SF_PLANE_COUNT * sizeof *plane);
    if (entry->shape.rank < 0 || entry->shape.rank > SF_MAX_RANK)
        return sf_fail(err, SF_EFORMAT, "rank %d is not within 0..%d", entry->shape.rank,
                       SF_MAX_RANK);
    /* 2^59 elements leave room for every size below to be computed without wrapping. */
    if (!sf_shape_count(&count, &entry->shape) || count < 1 || count > (int64_t)1 << 59)
        return sf_fail(err, SF_EFORMAT, "shape %s has no usable number of elements",
                       sf_shape_format(shape, &entry->shape));
    if (sf_dtype_bytes(entry->dtype) == 0)
        return sf_fail(err, SF_EUNSUPPORTED, "element type %d is not known", (int)entry->dtype);
    switch (entry->encoding) {
    case SF_ENCODING_RAW:
        return plan_raw(plane, entry, err);
    case SF_ENCODING_NF4:
        return plan_nf4(plane, entry, count, err);
    }
    return sf_fail(err, SF_EUNSUPPORTED, "encoding %d is not known", (int)entry->encoding);
}
