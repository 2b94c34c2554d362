#include "libformat/container/container_index.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/codec/frame.h"
#include "libformat/container/string_table.h"

/* The tables of the section, each a run of fixed-size records. */
struct index_table {
    const unsigned char *data;
    int64_t count;
};

enum { LABELS_MAX = 256 }; /* a label is compared with every other */

struct index_reader {
    struct container_index *out;
    uint64_t payload_bytes, payload_offset;
    uint64_t extent_align, chunk_bytes;
    struct index_table parts, extents, tensors, planes, shapes, labels, names;
    struct string_view strings;
    struct sf_shape *shape;
    struct sf_plane *plane;
    int32_t *plane_extent;
    bool *plane_used;
    uint64_t unused_label; /* the label "unused"; UINT64_MAX if there is none */
};

static const char *at_row(const char *what, int64_t row, char text[64])
{
    snprintf(text, 64, "%s %lld", what, (long long)row);
    return text;
}

static int must_be_zero(uint32_t value, const char *what, int64_t row, struct sf_err *err)
{
    return value == 0 ? SF_OK
                      : sf_fail(err, SF_EFORMAT, "%s %lld: a field that must be zero holds %u",
                                what, (long long)row, value);
}

/* ---- tables ---- */

static bool next_table(struct index_table *table, const unsigned char *data, uint64_t *at,
                       uint32_t count, uint64_t record_bytes)
{
    *table = (struct index_table){.data = data + *at, .count = count};
    uint64_t bytes; /* 2^32 records of at most 88 bytes: the sums stay below 2^42 */
    return sf_mul(&bytes, count, record_bytes) && sf_add(at, *at, bytes);
}

static int find_tables(struct index_reader *r, const unsigned char *data, uint64_t bytes,
                       struct sf_err *err)
{
    if (bytes < INDEX_HEAD_BYTES)
        return sf_fail(err, SF_EFORMAT, "%llu bytes, its head alone has %d",
                       (unsigned long long)bytes, INDEX_HEAD_BYTES);
    uint32_t tensors = sf_get_u32(data + INDEX_TENSORS);
    uint64_t string_bytes = sf_get_u32(data + INDEX_STRING_BYTES), need = INDEX_HEAD_BYTES;
    /* Sizes first: no pointer is formed before the sum is known to be the section's size. */
    static const struct {
        int count_at;
        uint64_t record;
    } rows[] = {{INDEX_PARTS, PART_BYTES},     {INDEX_EXTENTS, EXTENT_BYTES},
                {INDEX_TENSORS, TENSOR_BYTES}, {INDEX_PLANES, PLANE_BYTES},
                {INDEX_SHAPES, SHAPE_BYTES},   {INDEX_LABELS, LABEL_BYTES},
                {INDEX_TENSORS, NAME_BYTES}};
    struct index_table *tables[] = {&r->parts,  &r->extents, &r->tensors, &r->planes,
                                    &r->shapes, &r->labels,  &r->names};
    for (int i = 0; i < 7; i++)
        need += (uint64_t)sf_get_u32(data + rows[i].count_at) * rows[i].record;
    need += string_bytes;
    if (need != bytes)
        return sf_fail(err, SF_EFORMAT, "its counts need %llu bytes, the section has %llu",
                       (unsigned long long)need, (unsigned long long)bytes);
    uint64_t at = INDEX_HEAD_BYTES;
    for (int i = 0; i < 7; i++)
        next_table(tables[i], data, &at, sf_get_u32(data + rows[i].count_at), rows[i].record);
    r->strings = (struct string_view){.data = (const char *)data + at, .bytes = string_bytes};
    if (tensors == 0 || tensors > INT32_MAX / 2 || r->extents.count > INT32_MAX / 2)
        return sf_fail(err, SF_EFORMAT, "%u tensors in %lld extents", tensors,
                       (long long)r->extents.count);
    return must_be_zero(sf_get_u32(data + INDEX_ZERO), "head", 0, err);
}

static int allocate(struct index_reader *r, struct sf_arena *arena, struct sf_err *err)
{
    struct container_index *out = r->out;
    out->entry = sf_arena_array(arena, (uint64_t)r->tensors.count, sizeof *out->entry);
    out->extent = sf_arena_array(arena, (uint64_t)r->extents.count, sizeof *out->extent);
    out->label = sf_arena_array(arena, (uint64_t)r->tensors.count, sizeof *out->label);
    r->shape = sf_arena_array(arena, (uint64_t)r->shapes.count, sizeof *r->shape);
    r->plane = sf_arena_array(arena, (uint64_t)r->planes.count, sizeof *r->plane);
    r->plane_extent = sf_arena_array(arena, (uint64_t)r->planes.count, sizeof *r->plane_extent);
    r->plane_used = sf_arena_array(arena, (uint64_t)r->planes.count, sizeof *r->plane_used);
    if (!out->entry || !out->extent || !out->label || !r->shape || !r->plane || !r->plane_extent ||
        !r->plane_used)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %lld tensors and %lld planes",
                       (long long)r->tensors.count, (long long)r->planes.count);
    return SF_OK;
}

/* Version 1.0 has one part: this file. */
static int read_parts(const struct index_reader *r, struct sf_err *err)
{
    if (r->parts.count != 1)
        return sf_fail(err, SF_EUNSUPPORTED, "%lld parts, this program reads one",
                       (long long)r->parts.count);
    const unsigned char *part = r->parts.data;
    if (sf_get_u64(part + PART_ADDRESS) != 0 || sf_get_u64(part + PART_SIZE) != r->payload_bytes ||
        sf_get_u64(part + PART_OFFSET) != r->payload_offset || sf_get_u32(part + PART_FILE) != 0)
        return sf_fail(err, SF_EFORMAT, "part 0 does not describe the payload of this file");
    return must_be_zero(sf_get_u32(part + PART_ZERO), "part", 0, err);
}

static int read_labels(struct index_reader *r, struct sf_err *err)
{
    const char *seen[LABELS_MAX];
    if (r->labels.count > LABELS_MAX)
        return sf_fail(err, SF_EFORMAT, "%lld labels, at most %d are allowed",
                       (long long)r->labels.count, LABELS_MAX);
    for (int i = 0; i < SF_PART_COUNT; i++)
        r->out->label_of_part[i] = -1;
    r->unused_label = UINT64_MAX;
    for (int64_t i = 0; i < r->labels.count; i++) {
        const unsigned char *at = r->labels.data + i * LABEL_BYTES;
        char row[64];
        int code =
            string_view_get(&seen[i], &r->strings, sf_get_u32(at), at_row("label", i, row), err);
        if (code == SF_OK)
            code = must_be_zero(sf_get_u32(at + 4), "label", i, err);
        if (code != SF_OK)
            return code;
        for (int64_t j = 0; j < i; j++)
            if (strcmp(seen[i], seen[j]) == 0)
                return sf_fail(err, SF_EFORMAT, "label %lld: \"%s\" stands twice", (long long)i,
                               seen[i]);
        enum sf_part part;
        if (sf_part_from_name(&part, seen[i])) {
            r->out->label_of_part[part] = i;
            if (part == SF_PART_UNUSED)
                r->unused_label = (uint64_t)i;
        }
    }
    return SF_OK;
}

/* ---- extents ---- */

static int read_extent(struct index_reader *r, int64_t i, struct sf_err *err)
{
    const unsigned char *at = r->extents.data + i * EXTENT_BYTES;
    struct sf_extent *e = &r->out->extent[i];
    const char *kind;
    char row[64];
    int code = string_view_get(&kind, &r->strings, sf_get_u32(at + EXTENT_KIND),
                               at_row("extent", i, row), err);
    if (code != SF_OK)
        return code;
    /* A kind is a hint. What we do not know is loaded and checked like dense layers. */
    if (!sf_extent_kind_from_name(&e->kind, kind))
        e->kind = SF_EXTENT_DENSE;
    e->layer = (int32_t)sf_get_u32(at + EXTENT_LAYER);
    e->expert = (int32_t)sf_get_u32(at + EXTENT_EXPERT);
    e->address = sf_get_u64(at + EXTENT_ADDRESS);
    e->bytes = sf_get_u64(at + EXTENT_SIZE);
    e->stride = sf_get_u64(at + EXTENT_STRIDE);
    e->first_chunk = sf_get_u64(at + EXTENT_FIRST_CHUNK);
    if (sf_get_u32(at + EXTENT_STORAGE) != 0)
        return sf_fail(err, SF_EUNSUPPORTED, "extent %lld: storage %u is not known", (long long)i,
                       sf_get_u32(at + EXTENT_STORAGE));
    if (e->layer < -1 || e->expert < -1 ||
        (e->kind == SF_EXTENT_EXPERT && (e->layer < 0 || e->expert < 0)))
        return sf_fail(err, SF_EFORMAT, "extent %lld: %s of layer %d, expert %d", (long long)i,
                       kind, e->layer, e->expert);
    if (e->bytes == 0 || e->bytes % r->extent_align != 0)
        return sf_fail(err, SF_EFORMAT, "extent %lld: %llu bytes, not a multiple of %llu",
                       (long long)i, (unsigned long long)e->bytes,
                       (unsigned long long)r->extent_align);
    return SF_OK;
}

/* All experts of a layer: one run, ascending, one stride; layers ascend from run to run. */
static int check_stride(const struct sf_extent *extent, int64_t i, int32_t *layer,
                        struct sf_err *err)
{
    const struct sf_extent *e = &extent[i], *before = i > 0 ? &extent[i - 1] : NULL;
    uint64_t want = e->kind == SF_EXTENT_EXPERT ? e->bytes : 0;
    if (e->stride != want)
        return sf_fail(err, SF_EFORMAT, "extent %lld: stride %llu, not %llu", (long long)i,
                       (unsigned long long)e->stride, (unsigned long long)want);
    if (e->kind != SF_EXTENT_EXPERT)
        return SF_OK;
    bool runs_on = before && before->kind == SF_EXTENT_EXPERT && before->layer == e->layer;
    if (runs_on && (before->bytes != e->bytes || before->expert >= e->expert))
        return sf_fail(err, SF_EFORMAT,
                       "extent %lld: layer %d has expert %d of %llu bytes after expert %d of %llu",
                       (long long)i, e->layer, e->expert, (unsigned long long)e->bytes,
                       before->expert, (unsigned long long)before->bytes);
    if (!runs_on && e->layer <= *layer)
        return sf_fail(err, SF_EFORMAT, "extent %lld: experts of layer %d after those of layer %d",
                       (long long)i, e->layer, *layer);
    *layer = e->layer;
    return SF_OK;
}

/* Extents tile the payload: each begins where the one before ends, chunks are numbered through. */
static int read_extents(struct index_reader *r, struct sf_err *err)
{
    uint64_t address = 0, chunk = 0;
    int32_t expert_layer = -1;
    for (int64_t i = 0; i < r->extents.count; i++) {
        int code = read_extent(r, i, err);
        if (code != SF_OK)
            return code;
        struct sf_extent *e = &r->out->extent[i];
        if (e->address != address || e->bytes > r->payload_bytes - address)
            return sf_fail(
                err, SF_EFORMAT, "extent %lld: %llu bytes at %llu, where %llu of %llu are taken",
                (long long)i, (unsigned long long)e->bytes, (unsigned long long)e->address,
                (unsigned long long)address, (unsigned long long)r->payload_bytes);
        if (e->first_chunk != chunk)
            return sf_fail(err, SF_EFORMAT, "extent %lld: first chunk %llu, not %llu", (long long)i,
                           (unsigned long long)e->first_chunk, (unsigned long long)chunk);
        if ((code = check_stride(r->out->extent, i, &expert_layer, err)) != SF_OK)
            return code;
        e->chunks = e->bytes / r->chunk_bytes + (e->bytes % r->chunk_bytes != 0);
        address += e->bytes;
        chunk += e->chunks;
    }
    if (address != r->payload_bytes)
        return sf_fail(err, SF_EFORMAT, "extents cover %llu of %llu payload bytes",
                       (unsigned long long)address, (unsigned long long)r->payload_bytes);
    r->out->chunks = chunk;
    return SF_OK;
}

/* ---- shapes and planes ---- */

static int read_shapes(struct index_reader *r, struct sf_err *err)
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

static int read_plane(struct index_reader *r, int64_t i, struct sf_err *err)
{
    const unsigned char *at = r->planes.data + i * PLANE_BYTES;
    struct sf_plane *plane = &r->plane[i];
    uint32_t shape = sf_get_u32(at + PLANE_SHAPE);
    uint64_t bytes;
    plane->dtype = (enum sf_dtype)sf_get_u16(at + PLANE_DTYPE);
    plane->address = sf_get_u64(at + PLANE_ADDRESS);
    plane->bytes = sf_get_u64(at + PLANE_SIZE);
    if (sf_get_u16(at + PLANE_KIND) >= SF_PLANE_COUNT || sf_dtype_bytes(plane->dtype) == 0)
        return sf_fail(err, SF_EUNSUPPORTED,
                       "plane %lld: kind %u with element type %u is not known", (long long)i,
                       sf_get_u16(at + PLANE_KIND), sf_get_u16(at + PLANE_DTYPE));
    if (shape >= r->shapes.count)
        return sf_fail(err, SF_EFORMAT, "plane %lld: shape %u of %lld", (long long)i, shape,
                       (long long)r->shapes.count);
    plane->shape = r->shape[shape];
    if (!sf_shape_bytes(&bytes, &plane->shape, plane->dtype) || bytes != plane->bytes) {
        char text[SF_SHAPE_TEXT];
        return sf_fail(err, SF_EFORMAT, "plane %lld: %llu bytes do not hold %s of %s", (long long)i,
                       (unsigned long long)plane->bytes, sf_shape_format(text, &plane->shape),
                       sf_dtype_name(plane->dtype));
    }
    return SF_OK;
}

/* Planes stand in order of address. Inside an extent they follow each other on multiples of 256,
 * from its first byte on; none crosses its end, and no extent is without one. */
static int place_planes(struct index_reader *r, struct sf_err *err)
{
    const struct sf_extent *extent = r->out->extent;
    int64_t e = -1;
    uint64_t next = 0, end = 0; /* where the next plane of this extent must be; the extent's end */
    for (int64_t i = 0; i < r->planes.count; i++) {
        const struct sf_plane *plane = &r->plane[i];
        if (e + 1 < r->extents.count && plane->address >= extent[e + 1].address) {
            e++;
            next = extent[e].address;
            end = next + extent[e].bytes;
        }
        if (plane->address != next)
            return sf_fail(err, SF_EFORMAT, "plane %lld: at address %llu, expected at %llu",
                           (long long)i, (unsigned long long)plane->address,
                           (unsigned long long)next);
        if (plane->bytes > end - next)
            return sf_fail(err, SF_EFORMAT,
                           "plane %lld: %llu bytes at %llu cross the end of extent %lld at %llu",
                           (long long)i, (unsigned long long)plane->bytes, (unsigned long long)next,
                           (long long)e, (unsigned long long)end);
        next += (plane->bytes + LAYOUT_TENSOR_ALIGN - 1) & ~(uint64_t)(LAYOUT_TENSOR_ALIGN - 1);
        r->plane_extent[i] = (int32_t)e;
    }
    if (e + 1 != r->extents.count)
        return sf_fail(err, SF_EFORMAT, "extent %lld holds no plane", (long long)e + 1);
    return SF_OK;
}

static int read_planes(struct index_reader *r, struct sf_err *err)
{
    for (int64_t i = 0; i < r->planes.count; i++) {
        int code = read_plane(r, i, err);
        if (code != SF_OK)
            return code;
    }
    return place_planes(r, err);
}

/* ---- tensors ---- */

static bool is_shared(int kind)
{
    return kind == SF_PLANE_CODEBOOK || kind == SF_PLANE_MAP;
}

/* The planes that the tensor's encoding demands, and no others. */
static int link_plane(struct index_reader *r, struct sf_entry *entry, int slot, uint32_t id,
                      const struct sf_plane *want, struct sf_err *err)
{
    bool present = id != UINT32_MAX, wanted = slot < SF_PLANE_COUNT && want->dtype != SF_DTYPE_NONE;
    if (present != wanted)
        return sf_fail(err, SF_EFORMAT, "plane %s is %s, its encoding says otherwise",
                       slot < SF_PLANE_COUNT ? sf_plane_name((enum sf_plane_kind)slot) : "?",
                       present ? "there" : "missing");
    if (!present)
        return SF_OK;
    const char *kind = sf_plane_name((enum sf_plane_kind)slot);
    if (id >= r->planes.count)
        return sf_fail(err, SF_EFORMAT, "plane %s is number %u of %lld", kind, id,
                       (long long)r->planes.count);
    const struct sf_plane *plane = &r->plane[id];
    char a[SF_SHAPE_TEXT], b[SF_SHAPE_TEXT];
    if (sf_get_u16(r->planes.data + (uint64_t)id * PLANE_BYTES + PLANE_KIND) != slot)
        return sf_fail(err, SF_EFORMAT, "plane %s: number %u is of another kind", kind, id);
    if (plane->dtype != want->dtype || !sf_shape_equal(&plane->shape, &want->shape))
        return sf_fail(err, SF_EFORMAT, "plane %s is %s %s, its encoding needs %s %s", kind,
                       sf_dtype_name(plane->dtype), sf_shape_format(a, &plane->shape),
                       sf_dtype_name(want->dtype), sf_shape_format(b, &want->shape));
    if (!is_shared(slot) && (r->plane_used[id] || r->plane_extent[id] != entry->extent))
        return sf_fail(err, SF_EFORMAT, "plane %s: number %u %s", kind, id,
                       r->plane_used[id] ? "belongs to another tensor too"
                                         : "is not in the tensor's extent");
    r->plane_used[id] = true;
    entry->plane[slot] = *plane;
    return SF_OK;
}

static int link_planes(struct index_reader *r, struct sf_entry *entry, const unsigned char *at,
                       struct sf_err *err)
{
    struct sf_plane want[SF_PLANE_COUNT];
    int code = sf_entry_plan(want, entry, err);
    for (int slot = 0; code == SF_OK && slot < TENSOR_PLANE_SLOTS; slot++)
        code = link_plane(r, entry, slot, sf_get_u32(at + TENSOR_PLANES + 4 * slot),
                          slot < SF_PLANE_COUNT ? &want[slot] : NULL, err);
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
    if (sf_get_u32(at + TENSOR_ZERO) != 0)
        return sf_fail(err, SF_EFORMAT, "a field that must be zero holds %u",
                       sf_get_u32(at + TENSOR_ZERO));
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
    char row[64];
    at_row("tensor", i, row);
    int code = string_view_get(&entry->name, &r->strings, sf_get_u32(at + TENSOR_NAME), row, err);
    if (code == SF_OK)
        code = string_view_get(&entry->source_name, &r->strings, sf_get_u32(at + TENSOR_SOURCE),
                               row, err);
    if (code != SF_OK)
        return code;
    if (!entry->name[0])
        return sf_fail(err, SF_EFORMAT, "%s has no name", row);
    code = read_tensor_fields(r, entry, at, err);
    if (code == SF_OK)
        code = read_role(r, entry, i, at, err);
    if (code == SF_OK)
        code = link_planes(r, entry, at, err);
    if (code == SF_OK && i > 0 && compare_order(r, i - 1, i) >= 0)
        code = sf_fail(err, SF_EFORMAT, "stands out of order, or its role is that of %s too",
                       r->out->entry[i - 1].name);
    if (code != SF_OK)
        sf_err_prefix(err, "%s (%s)", row, entry->name);
    return code;
}

static int read_tensors(struct index_reader *r, struct sf_err *err)
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
static int read_names(struct index_reader *r, struct sf_err *err)
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
        int code = must_be_zero(sf_get_u32(at + NAME_ZERO), "name", i, err);
        if (code != SF_OK)
            return code;
        before = hash;
    }
    return SF_OK;
}

int index_decode(struct container_index *out, struct sf_arena *arena, const unsigned char *data,
                 uint64_t bytes, const struct header_page *header, struct sf_err *err)
{
    const struct header_section *payload = header_find(header, SECTION_PAYLOAD);
    struct index_reader r = {.out = out,
                             .payload_bytes = payload->bytes,
                             .payload_offset = payload->offset,
                             .extent_align = (uint64_t)1 << header->extent_log2,
                             .chunk_bytes = (uint64_t)1 << header->chunk_log2};
    int code = find_tables(&r, data, bytes, err);
    out->entries = r.tensors.count;
    out->extents = r.extents.count;
    out->names = r.names.data;
    if (code == SF_OK)
        code = allocate(&r, arena, err);
    if (code == SF_OK)
        code = string_view_check(&r.strings, err);
    int (*const steps[])(struct index_reader *, struct sf_err *) = {
        read_labels, read_extents, read_shapes, read_planes, read_tensors, read_names};
    if (code == SF_OK)
        code = read_parts(&r, err);
    for (size_t i = 0; code == SF_OK && i < sizeof steps / sizeof *steps; i++)
        code = steps[i](&r, err);
    return code;
}
