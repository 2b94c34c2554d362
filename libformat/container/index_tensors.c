#include "libformat/container/index_reader.h"

#include <math.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/frame.h"

/* ---- shapes and planes ---- */

int index_read_shapes(struct index_reader *r, struct sf_err *err)
{
    for (int64_t i = 0; i < r->shapes.count; i++) {
        const unsigned char *at = r->shapes.data + i * SHAPE_BYTES;
        struct sf_shape *shape = &r->shape[i];
        uint64_t rank = sf_get_u64(at + SHAPE_RANK);
        if (rank > SF_MAX_RANK)
            return sf_fail(err, SF_EFORMAT, "shape %lld: rank %llu, at most %d is allowed",
                           (long long)i, (unsigned long long)rank, SF_MAX_RANK);
        shape->rank = (int32_t)rank;
        for (uint64_t d = 0; d < SF_MAX_RANK; d++) {
            uint64_t dim = sf_get_u64(at + SHAPE_DIMS + 8 * d);
            if (d < rank ? dim == 0 || dim > INT64_MAX : dim != 0)
                return sf_fail(err, SF_EFORMAT, "shape %lld: dimension %llu is %llu", (long long)i,
                               (unsigned long long)d, (unsigned long long)dim);
            shape->dim[d] = (int64_t)dim;
        }
    }
    return SF_OK;
}

/* What the table says of a plane; its shape stays one of the table of shapes. */
struct plane_row {
    uint32_t kind, shape;
    enum sf_dtype dtype;
    uint64_t address, bytes;
};

static struct plane_row plane_row(const struct index_reader *r, uint64_t i)
{
    const unsigned char *at = r->planes.data + i * PLANE_BYTES;
    return (struct plane_row){.kind = sf_get_u16(at + PLANE_KIND),
                              .shape = sf_get_u32(at + PLANE_SHAPE),
                              .dtype = (enum sf_dtype)sf_get_u16(at + PLANE_DTYPE),
                              .address = sf_get_u64(at + PLANE_ADDRESS),
                              .bytes = sf_get_u64(at + PLANE_SIZE)};
}

static int check_plane(const struct index_reader *r, const struct plane_row *plane, int64_t i,
                       struct sf_err *err)
{
    uint64_t bytes;
    if (plane->kind >= SF_PLANE_COUNT || sf_dtype_bytes(plane->dtype) == 0)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "plane %lld: kind %u with element type %u is not known", (long long)i,
                       plane->kind, (unsigned)plane->dtype);
    if (plane->shape >= r->shapes.count)
        return sf_fail(err, SF_EFORMAT, "plane %lld: shape %u of %lld", (long long)i, plane->shape,
                       (long long)r->shapes.count);
    const struct sf_shape *shape = &r->shape[plane->shape];
    if (!sf_shape_bytes(&bytes, shape, plane->dtype) || bytes != plane->bytes) {
        char text[SF_SHAPE_TEXT];
        return sf_fail(err, SF_EFORMAT, "plane %lld: %llu bytes do not hold %s of %s", (long long)i,
                       (unsigned long long)plane->bytes, sf_shape_format(text, shape),
                       sf_dtype_name(plane->dtype));
    }
    return SF_OK;
}

/* Planes stand in order of address. Inside an extent they follow each other on multiples of 256,
 * from its first byte on; none crosses its end, and no extent is without one. */
int index_read_planes(struct index_reader *r, struct sf_err *err)
{
    const struct sf_extent *extent = r->out->extent;
    int64_t e = -1;
    uint64_t next = 0, end = 0; /* where the next plane of this extent must be; the extent's end */
    for (int64_t i = 0; i < r->planes.count; i++) {
        struct plane_row plane = plane_row(r, (uint64_t)i);
        int code = check_plane(r, &plane, i, err);
        if (code != SF_OK)
            return code;
        if (e + 1 < r->extents.count && plane.address >= extent[e + 1].address) {
            e++;
            next = extent[e].address;
            end = next + extent[e].bytes;
        }
        if (plane.address != next)
            return sf_fail(err, SF_EFORMAT, "plane %lld: at address %llu, expected at %llu",
                           (long long)i, (unsigned long long)plane.address,
                           (unsigned long long)next);
        if (plane.bytes > end - next)
            return sf_fail(err, SF_EFORMAT,
                           "plane %lld: %llu bytes at %llu cross the end of extent %lld at %llu",
                           (long long)i, (unsigned long long)plane.bytes, (unsigned long long)next,
                           (long long)e, (unsigned long long)end);
        next += (plane.bytes + LAYOUT_TENSOR_ALIGN - 1) & ~(uint64_t)(LAYOUT_TENSOR_ALIGN - 1);
        r->plane_extent[i] = (int32_t)e;
    }
    if (e + 1 != r->extents.count)
        return sf_fail(err, SF_EFORMAT, "extent %lld holds no plane", (long long)e + 1);
    return SF_OK;
}

/* ---- tensors ---- */

static bool is_shared(int kind)
{
    return kind == SF_PLANE_CODEBOOK || kind == SF_PLANE_MAP;
}

/* The planes that the tensor's encoding demands, and no others: `want` is what it demands in this
 * slot (NULL: there is no such kind), and becomes the plane once its place is known. */
static int link_plane(struct index_reader *r, struct sf_plane *want, int32_t extent, int slot,
                      uint32_t id, struct sf_err *err)
{
    const char *kind = want ? sf_plane_name((enum sf_plane_kind)slot) : "?";
    bool present = id != UINT32_MAX, wanted = want && want->dtype != SF_DTYPE_NONE;
    if (present != wanted)
        return sf_fail(err, SF_EFORMAT, "plane %s is %s, its encoding says otherwise", kind,
                       present ? "there" : "missing");
    if (!present)
        return SF_OK;
    if (id >= r->planes.count)
        return sf_fail(err, SF_EFORMAT, "plane %s is number %u of %lld", kind, id,
                       (long long)r->planes.count);
    struct plane_row plane = plane_row(r, id);
    const struct sf_shape *shape = &r->shape[plane.shape]; /* checked by index_read_planes */
    char a[SF_SHAPE_TEXT], b[SF_SHAPE_TEXT];
    if (plane.kind != (uint32_t)slot)
        return sf_fail(err, SF_EFORMAT, "plane %s: number %u is of another kind", kind, id);
    if (plane.dtype != want->dtype || !sf_shape_equal(shape, &want->shape))
        return sf_fail(err, SF_EFORMAT, "plane %s is %s %s, its encoding needs %s %s", kind,
                       sf_dtype_name(plane.dtype), sf_shape_format(a, shape),
                       sf_dtype_name(want->dtype), sf_shape_format(b, &want->shape));
    if (!is_shared(slot) && (r->plane_used[id] || r->plane_extent[id] != extent))
        return sf_fail(err, SF_EFORMAT, "plane %s: number %u %s", kind, id,
                       r->plane_used[id] ? "belongs to another tensor too"
                                         : "is not in the tensor's extent");
    r->plane_used[id] = true;
    want->address = plane.address;
    want->bytes = plane.bytes;
    return SF_OK;
}

static int link_planes(struct index_reader *r, struct sf_entry *entry, const unsigned char *at,
                       struct sf_err *err)
{
    int code = sf_entry_plan(entry->plane, entry, err);
    for (int slot = 0; code == SF_OK && slot < TENSOR_PLANE_SLOTS; slot++)
        code = link_plane(r, slot < SF_PLANE_COUNT ? &entry->plane[slot] : NULL, entry->extent,
                          slot, sf_get_u32(at + TENSOR_PLANES + 4 * slot), err);
    return code;
}

static int read_tensor_fields(struct index_reader *r, struct sf_entry *entry,
                              const unsigned char *at, struct sf_err *err)
{
    uint32_t shape = sf_get_u32(at + TENSOR_SHAPE), extent = sf_get_u32(at + TENSOR_EXTENT);
    uint32_t block = sf_get_u32(at + TENSOR_BLOCK), nested = sf_get_u32(at + TENSOR_NESTED_BLOCK);
    uint64_t error_bits = sf_get_u64(at + TENSOR_ERROR);
    if (shape >= r->shapes.count || extent >= r->extents.count)
        return sf_fail(err, SF_EFORMAT, "shape %u of %lld, extent %u of %lld", shape,
                       (long long)r->shapes.count, extent, (long long)r->extents.count);
    if (block > INT32_MAX || nested > INT32_MAX)
        return sf_fail(err, SF_EFORMAT, "block %u, nested block %u", block, nested);
    entry->shape = r->shape[shape];
    entry->extent = (int32_t)extent;
    entry->encoding = (enum sf_encoding)sf_get_u16(at + TENSOR_ENCODING);
    entry->dtype = (enum sf_dtype)sf_get_u16(at + TENSOR_DTYPE);
    entry->block = (int32_t)block;
    entry->nested_block = (int32_t)nested;
    entry->block_axis = (int32_t)sf_get_u32(at + TENSOR_BLOCK_AXIS);
    memcpy(&entry->relative_rms_error, &error_bits, sizeof error_bits);
    if (!(entry->relative_rms_error >= 0) || isinf(entry->relative_rms_error))
        return sf_fail(err, SF_EFORMAT, "its relative error is not a finite number of at least 0");
    entry->worst_block_error = sf_get_f32(at + TENSOR_WORST_BLOCK);
    if (!(entry->worst_block_error >= 0) || isinf(entry->worst_block_error))
        return sf_fail(err, SF_EFORMAT,
                       "its worst block's error is not a finite number of at least 0");
    return SF_OK;
}

/* A label that this program does not know makes a tensor that is found by its name only. */
static int read_role(struct index_reader *r, struct sf_entry *entry, int64_t i,
                     const unsigned char *at, struct sf_err *err)
{
    uint32_t label = sf_get_u32(at + TENSOR_LABEL);
    if (label >= r->labels.count)
        return sf_fail(err, SF_EFORMAT, "label %u of %lld", label, (long long)r->labels.count);
    r->out->label[i] = label;
    entry->role = (struct sf_role){.part = SF_PART_UNUSED,
                                   .layer = (int32_t)sf_get_u32(at + TENSOR_LAYER),
                                   .expert = (int32_t)sf_get_u32(at + TENSOR_EXPERT)};
    for (int part = 0; part < SF_PART_COUNT; part++)
        if (r->out->label_of_part[part] == (int64_t)label)
            entry->role.part = (enum sf_part)part;
    if (entry->role.layer < -1 || entry->role.expert < -1)
        return sf_fail(err, SF_EFORMAT, "layer %d, expert %d", entry->role.layer,
                       entry->role.expert);
    return SF_OK;
}

static int64_t compare_order(const struct index_reader *r, int64_t a, int64_t b)
{
    const struct sf_entry *x = &r->out->entry[a], *y = &r->out->entry[b];
    if (x->role.layer != y->role.layer)
        return (int64_t)x->role.layer - y->role.layer;
    if (r->out->label[a] != r->out->label[b])
        return (int64_t)r->out->label[a] - r->out->label[b];
    if (x->role.expert != y->role.expert)
        return (int64_t)x->role.expert - y->role.expert;
    return r->out->label[a] == r->unused_label ? strcmp(x->name, y->name) : 0;
}

static int read_tensor(struct index_reader *r, int64_t i, struct sf_err *err)
{
    const unsigned char *at = r->tensors.data + i * TENSOR_BYTES;
    struct sf_entry *entry = &r->out->entry[i];
    int code =
        string_view_get(&entry->name, &r->strings, sf_get_u32(at + TENSOR_NAME), "tensor", i, err);
    if (code == SF_OK)
        code = string_view_get(&entry->source_name, &r->strings, sf_get_u32(at + TENSOR_SOURCE),
                               "tensor", i, err);
    if (code != SF_OK)
        return code;
    if (!entry->name[0])
        return sf_fail(err, SF_EFORMAT, "tensor %lld has no name", (long long)i);
    code = read_tensor_fields(r, entry, at, err);
    if (code == SF_OK)
        code = read_role(r, entry, i, at, err);
    if (code == SF_OK)
        code = link_planes(r, entry, at, err);
    if (code == SF_OK && i > 0 && compare_order(r, i - 1, i) >= 0)
        code = sf_fail(err, SF_EFORMAT, "stands out of order, or its role is that of %s too",
                       r->out->entry[i - 1].name);
    if (code != SF_OK)
        sf_err_prefix(err, "tensor %lld (%s)", (long long)i, entry->name);
    return code;
}

int index_read_tensors(struct index_reader *r, struct sf_err *err)
{
    for (int64_t i = 0; i < r->tensors.count; i++) {
        int code = read_tensor(r, i, err);
        if (code != SF_OK)
            return code;
    }
    for (int64_t i = 0; i < r->planes.count; i++)
        if (!r->plane_used[i])
            return sf_fail(err, SF_EFORMAT, "plane %lld belongs to no tensor", (long long)i);
    return SF_OK;
}

/* Strictly ascending hashes, each that of its tensor's name: so every tensor stands here once, and
 * no name stands twice. */
int index_read_names(struct index_reader *r, struct sf_err *err)
{
    uint64_t before = 0;
    for (int64_t i = 0; i < r->names.count; i++) {
        const unsigned char *at = r->names.data + i * NAME_BYTES;
        uint64_t hash = sf_get_u64(at + NAME_HASH);
        uint32_t tensor = sf_get_u32(at + NAME_TENSOR);
        if (tensor >= r->tensors.count)
            return sf_fail(err, SF_EFORMAT, "name %lld: tensor %u of %lld", (long long)i, tensor,
                           (long long)r->tensors.count);
        const char *name = r->out->entry[tensor].name;
        if ((i > 0 && hash <= before) || hash != sf_hash64(name, strlen(name), 0))
            return sf_fail(err, SF_EFORMAT, "name %lld: wrong hash or order for %s", (long long)i,
                           name);
        int code = index_must_be_zero(sf_get_u32(at + NAME_ZERO), "name", i, err);
        if (code != SF_OK)
            return code;
        before = hash;
    }
    return SF_OK;
}
