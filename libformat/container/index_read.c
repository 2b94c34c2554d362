#include "libformat/container/index_reader.h"

#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"

enum { LABELS_MAX = 256 }; /* a label is compared with every other */

int index_must_be_zero(uint32_t value, const char *what, int64_t row, struct sf_err *err)
{
    return value == 0 ? SF_OK
                      : sf_fail(err, SF_EFORMAT, "%s %lld: a field that must be zero holds %u",
                                what, (long long)row, value);
}

/* ---- tables ---- */

enum { TABLES = 7 };
static const struct {
    int count_at;    /* where the head counts its records */
    uint64_t record; /* bytes; at most 2^32 records of 88 bytes: sums stay below 2^42 */
} table_form[TABLES] = {{INDEX_PARTS, PART_BYTES},     {INDEX_EXTENTS, EXTENT_BYTES},
                        {INDEX_TENSORS, TENSOR_BYTES}, {INDEX_PLANES, PLANE_BYTES},
                        {INDEX_SHAPES, SHAPE_BYTES},   {INDEX_LABELS, LABEL_BYTES},
                        {INDEX_TENSORS, NAME_BYTES}};

/* Sizes first: no pointer is formed before their sum is known to be the section's size. */
static int check_counts(const unsigned char *data, uint64_t bytes, struct sf_err *err)
{
    if (bytes < INDEX_HEAD_BYTES)
        return sf_fail(err, SF_EFORMAT, "%llu bytes, its head alone has %d",
                       (unsigned long long)bytes, INDEX_HEAD_BYTES);
    uint64_t need = INDEX_HEAD_BYTES + (uint64_t)sf_get_u32(data + INDEX_STRING_BYTES);
    for (int i = 0; i < TABLES; i++)
        need += sf_get_u32(data + table_form[i].count_at) * table_form[i].record;
    if (need != bytes)
        return sf_fail(err, SF_EFORMAT, "its counts need %llu bytes, the section has %llu",
                       (unsigned long long)need, (unsigned long long)bytes);
    uint32_t tensors = sf_get_u32(data + INDEX_TENSORS), extents = sf_get_u32(data + INDEX_EXTENTS);
    if (tensors == 0 || tensors > INT32_MAX / 2 || extents > INT32_MAX / 2)
        return sf_fail(err, SF_EFORMAT, "%u tensors in %u extents", tensors, extents);
    return index_must_be_zero(sf_get_u32(data + INDEX_ZERO), "head", 0, err);
}

static void find_tables(struct index_reader *r, const unsigned char *data)
{
    struct index_table *tables[TABLES] = {&r->parts,  &r->extents, &r->tensors, &r->planes,
                                          &r->shapes, &r->labels,  &r->names};
    uint64_t at = INDEX_HEAD_BYTES;
    for (int i = 0; i < TABLES; i++) {
        uint32_t count = sf_get_u32(data + table_form[i].count_at);
        *tables[i] = (struct index_table){.data = data + at, .count = count};
        at += count * table_form[i].record;
    }
    r->strings = (struct string_view){.data = (const char *)data + at,
                                      .bytes = sf_get_u32(data + INDEX_STRING_BYTES)};
}

static int allocate(struct index_reader *r, struct sf_arena *arena, struct sf_err *err)
{
    struct container_index *out = r->out;
    out->entry = sf_arena_array(arena, (uint64_t)r->tensors.count, sizeof *out->entry);
    out->extent = sf_arena_array(arena, (uint64_t)r->extents.count, sizeof *out->extent);
    out->label = sf_arena_array(arena, (uint64_t)r->tensors.count, sizeof *out->label);
    out->part = sf_arena_array(arena, (uint64_t)r->parts.count, sizeof *out->part);
    r->shape = sf_arena_array(arena, (uint64_t)r->shapes.count, sizeof *r->shape);
    r->plane_extent = sf_arena_array(arena, (uint64_t)r->planes.count, sizeof *r->plane_extent);
    r->plane_used = sf_arena_array(arena, (uint64_t)r->planes.count, sizeof *r->plane_used);
    if (!out->entry || !out->extent || !out->label || !out->part || !r->shape || !r->plane_extent ||
        !r->plane_used)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %lld tensors and %lld planes",
                       (long long)r->tensors.count, (long long)r->planes.count);
    sf_will_write(out->entry, (uint64_t)r->tensors.count * sizeof *out->entry);
    return SF_OK;
}

/* Row i of the table: what lies in this file, or in file i + 2 of a set. */
static int read_part(struct index_reader *r, int64_t i, struct sf_err *err)
{
    const unsigned char *at = r->parts.data + i * PART_BYTES;
    struct index_part *p = &r->out->part[i];
    uint32_t file = sf_get_u32(at + PART_FILE), files = r->header->files;
    *p = (struct index_part){sf_get_u64(at + PART_ADDRESS), sf_get_u64(at + PART_SIZE)};
    if (file != (files ? (uint32_t)i + 2 : 0) || sf_get_u64(at + PART_OFFSET) != HEADER_BYTES)
        return sf_fail(err, SF_EFORMAT, "part %lld: at %llu of file %u", (long long)i,
                       (unsigned long long)sf_get_u64(at + PART_OFFSET), file);
    if (p->address != r->payload_bytes || p->bytes == 0 || p->bytes % r->extent_align != 0 ||
        !sf_add(&r->payload_bytes, r->payload_bytes, p->bytes))
        return sf_fail(err, SF_EFORMAT, "part %lld: %llu bytes at address %llu", (long long)i,
                       (unsigned long long)p->bytes, (unsigned long long)p->address);
    if (!files && p->bytes != header_payload(r->header).bytes)
        return sf_fail(err, SF_EFORMAT, "part 0 does not describe the payload of this file");
    return index_must_be_zero(sf_get_u32(at + PART_ZERO), "part", i, err);
}

static int read_parts(struct index_reader *r, struct sf_err *err)
{
    int64_t want = r->header->files ? (int64_t)r->header->files - 1 : 1;
    int code = SF_OK;
    if (r->parts.count != want)
        return sf_fail(err, SF_EFORMAT, "%lld parts, not %lld", (long long)r->parts.count,
                       (long long)want);
    for (int64_t i = 0; i < want && code == SF_OK; i++)
        code = read_part(r, i, err);
    return code;
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
        int code = string_view_get(&seen[i], &r->strings, sf_get_u32(at), "label", i, err);
        if (code == SF_OK)
            code = index_must_be_zero(sf_get_u32(at + 4), "label", i, err);
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
    int code = string_view_get(&kind, &r->strings, sf_get_u32(at + EXTENT_KIND), "extent", i, err);
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

/* Files of a set are cut between extents. `part`: the first that does not end before extent e. */
static int check_parts(const struct index_reader *r, int64_t *part, const struct sf_extent *e,
                       int64_t i, struct sf_err *err)
{
    const struct index_part *p = &r->out->part[*part];
    uint64_t end = e->address + e->bytes, part_end = p->address + p->bytes;
    if (end > part_end)
        return sf_fail(err, SF_EFORMAT, "extent %lld: reaches over the end of part %lld",
                       (long long)i, (long long)*part);
    *part += end == part_end;
    return SF_OK;
}

/* Extents tile the payload: each begins where the one before ends, chunks are numbered through. */
static int read_extents(struct index_reader *r, struct sf_err *err)
{
    uint64_t address = 0, chunk = 0;
    int64_t part = 0;
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
        if ((code = check_parts(r, &part, e, i, err)) != SF_OK)
            return code;
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
    r->out->payload_bytes = address;
    return SF_OK;
}

/* ---- all of it ---- */

int index_decode(struct container_index *out, struct sf_arena *arena, const unsigned char *data,
                 uint64_t bytes, const struct header_page *header, struct sf_err *err)
{
    struct index_reader r = {.out = out,
                             .header = header,
                             .extent_align = (uint64_t)1 << header->extent_log2,
                             .chunk_bytes = (uint64_t)1 << header->chunk_log2};
    int (*const steps[])(struct index_reader *, struct sf_err *) = {
        read_parts,        read_labels,        read_extents,    index_read_shapes,
        index_read_planes, index_read_tensors, index_read_names};
    int code = check_counts(data, bytes, err);
    if (code != SF_OK)
        return code;
    find_tables(&r, data);
    out->parts = r.parts.count;
    out->entries = r.tensors.count;
    out->extents = r.extents.count;
    out->names = r.names.data;
    code = allocate(&r, arena, err);
    if (code == SF_OK)
        code = string_view_check(&r.strings, err);
    for (size_t i = 0; code == SF_OK && i < sizeof steps / sizeof *steps; i++)
        code = steps[i](&r, err);
    return code;
}
