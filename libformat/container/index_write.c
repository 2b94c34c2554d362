#include "libformat/container/container_index.h"

#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/codec/frame.h"
#include "libformat/container/string_table.h"

struct placed_plane {
    struct sf_plane plane;
    int kind;
    int64_t tensor; /* position in the index; -1 - n: book n, shared */
};

struct index_writer {
    const struct sf_layout *layout;
    struct sf_arena *arena;
    uint64_t payload_offset;
    struct string_table strings;
    struct placed_plane *plane; /* by address */
    int64_t planes;
    const struct sf_shape **shape; /* each once, in order of first use */
    int64_t shapes;
    uint32_t *plane_id; /* [entries][SF_PLANE_COUNT] */
    uint32_t *book_id;  /* [books] */
    uint32_t kind_name[SF_EXTENT_KIND_COUNT], label_name[SF_PART_COUNT];
    uint32_t *name, *source_name; /* [entries] */
    unsigned char *data;          /* the section, filled table by table */
    uint64_t at;
};

static const struct sf_entry *entry_at(const struct index_writer *w, int64_t i)
{
    return &w->layout->entry[w->layout->order[i]];
}

static int no_memory(struct sf_err *err)
{
    return sf_fail(err, SF_ENOMEM, "cannot allocate the index");
}

/* Strings enter in a fixed order: kinds, labels, then each tensor's two. */
static int collect_strings(struct index_writer *w, struct sf_err *err)
{
    int code = string_table_begin(&w->strings, w->arena, err);
    for (int i = 0; code == SF_OK && i < SF_EXTENT_KIND_COUNT; i++)
        code = string_table_add(&w->kind_name[i], &w->strings, sf_extent_kind_name(i), err);
    for (int i = 0; code == SF_OK && i < SF_PART_COUNT; i++)
        code = string_table_add(&w->label_name[i], &w->strings, sf_part_name(i), err);
    for (int64_t i = 0; code == SF_OK && i < w->layout->entries; i++) {
        code = string_table_add(&w->name[i], &w->strings, entry_at(w, i)->name, err);
        if (code == SF_OK)
            code =
                string_table_add(&w->source_name[i], &w->strings, entry_at(w, i)->source_name, err);
    }
    return code == SF_OK ? string_table_end(&w->strings, err) : code;
}

static int compare_address(const void *a, const void *b)
{
    uint64_t x = ((const struct placed_plane *)a)->plane.address;
    uint64_t y = ((const struct placed_plane *)b)->plane.address;
    return x < y ? -1 : x > y;
}

static void add_plane(struct index_writer *w, const struct sf_plane *plane, int kind,
                      int64_t tensor)
{
    if (plane->dtype != SF_DTYPE_NONE)
        w->plane[w->planes++] =
            (struct placed_plane){.plane = *plane, .kind = kind, .tensor = tensor};
}

static void collect_planes(struct index_writer *w)
{
    for (int64_t i = 0; i < w->layout->entries; i++)
        for (int kind = 0; kind < SF_PLANE_CODEBOOK; kind++)
            add_plane(w, &entry_at(w, i)->plane[kind], kind, i);
    for (int64_t b = 0; b < w->layout->books; b++)
        add_plane(w, &w->layout->book[b].plane, (int)w->layout->book[b].kind, -1 - b);
    qsort(w->plane, (size_t)w->planes, sizeof *w->plane, compare_address);

    for (int64_t p = 0; p < w->planes; p++) {
        int64_t tensor = w->plane[p].tensor;
        if (tensor < 0)
            w->book_id[-1 - tensor] = (uint32_t)p;
        else
            w->plane_id[tensor * SF_PLANE_COUNT + w->plane[p].kind] = (uint32_t)p;
    }
    for (int64_t i = 0; i < w->layout->entries; i++) {
        const struct entry_books *books = &w->layout->books_of[w->layout->order[i]];
        uint32_t *id = &w->plane_id[i * SF_PLANE_COUNT];
        for (int kind = 0; kind < SF_PLANE_CODEBOOK; kind++)
            if (entry_at(w, i)->plane[kind].dtype == SF_DTYPE_NONE)
                id[kind] = UINT32_MAX;
        id[SF_PLANE_CODEBOOK] = books->codebook < 0 ? UINT32_MAX : w->book_id[books->codebook];
        id[SF_PLANE_MAP] = books->map < 0 ? UINT32_MAX : w->book_id[books->map];
    }
}

/* A model has a few dozen shapes, whatever the number of its tensors: a linear search will do. */
static uint32_t shape_id(struct index_writer *w, const struct sf_shape *shape)
{
    for (int64_t i = 0; i < w->shapes; i++)
        if (sf_shape_equal(w->shape[i], shape))
            return (uint32_t)i;
    w->shape[w->shapes] = shape;
    return (uint32_t)w->shapes++;
}

static void collect_shapes(struct index_writer *w)
{
    for (int64_t i = 0; i < w->layout->entries; i++)
        shape_id(w, &entry_at(w, i)->shape);
    for (int64_t p = 0; p < w->planes; p++)
        shape_id(w, &w->plane[p].plane.shape);
}

/* ---- tables, in file order ---- */

static unsigned char *take(struct index_writer *w, uint64_t bytes)
{
    unsigned char *at = w->data + w->at;
    w->at += bytes;
    return at;
}

static int64_t part_count(const struct sf_layout *layout)
{
    return layout->parts ? layout->parts : 1;
}

static void write_head(struct index_writer *w)
{
    unsigned char *head = take(w, INDEX_HEAD_BYTES);
    sf_put_u32(head + INDEX_PARTS, (uint32_t)part_count(w->layout));
    sf_put_u32(head + INDEX_EXTENTS, (uint32_t)w->layout->extents);
    sf_put_u32(head + INDEX_TENSORS, (uint32_t)w->layout->entries);
    sf_put_u32(head + INDEX_PLANES, (uint32_t)w->planes);
    sf_put_u32(head + INDEX_SHAPES, (uint32_t)w->shapes);
    sf_put_u32(head + INDEX_LABELS, SF_PART_COUNT);
    sf_put_u32(head + INDEX_STRING_BYTES, (uint32_t)w->strings.bytes);
}

static void write_parts(struct index_writer *w)
{
    const struct layout_part whole = {.bytes = w->layout->payload_bytes};
    for (int64_t i = 0; i < part_count(w->layout); i++) {
        const struct layout_part *p = w->layout->parts ? &w->layout->part[i] : &whole;
        unsigned char *at = take(w, PART_BYTES);
        sf_put_u64(at + PART_ADDRESS, p->address);
        sf_put_u64(at + PART_SIZE, p->bytes);
        sf_put_u64(at + PART_OFFSET, w->payload_offset);
        sf_put_u32(at + PART_FILE, w->layout->parts ? (uint32_t)i + 2 : 0);
    }
}

static void write_extents(struct index_writer *w)
{
    for (int64_t i = 0; i < w->layout->extents; i++) {
        const struct sf_extent *extent = &w->layout->extent[i];
        unsigned char *at = take(w, EXTENT_BYTES);
        sf_put_u32(at + EXTENT_KIND, w->kind_name[extent->kind]);
        sf_put_u32(at + EXTENT_LAYER, (uint32_t)extent->layer);
        sf_put_u32(at + EXTENT_EXPERT, (uint32_t)extent->expert);
        sf_put_u64(at + EXTENT_ADDRESS, extent->address);
        sf_put_u64(at + EXTENT_SIZE, extent->bytes);
        sf_put_u64(at + EXTENT_STRIDE, extent->stride);
        sf_put_u64(at + EXTENT_FIRST_CHUNK, extent->first_chunk);
    }
}

static void write_tensors(struct index_writer *w)
{
    for (int64_t i = 0; i < w->layout->entries; i++) {
        const struct sf_entry *entry = entry_at(w, i);
        unsigned char *at = take(w, TENSOR_BYTES);
        uint64_t error_bits;
        memcpy(&error_bits, &entry->relative_rms_error, sizeof error_bits);
        sf_put_u32(at + TENSOR_NAME, w->name[i]);
        sf_put_u32(at + TENSOR_SOURCE, w->source_name[i]);
        sf_put_u32(at + TENSOR_LABEL, (uint32_t)entry->role.part);
        sf_put_u32(at + TENSOR_LAYER, (uint32_t)entry->role.layer);
        sf_put_u32(at + TENSOR_EXPERT, (uint32_t)entry->role.expert);
        sf_put_u32(at + TENSOR_EXTENT, (uint32_t)entry->extent);
        sf_put_u32(at + TENSOR_SHAPE, shape_id(w, &entry->shape));
        sf_put_u16(at + TENSOR_ENCODING, (uint16_t)entry->encoding);
        sf_put_u16(at + TENSOR_DTYPE, (uint16_t)entry->dtype);
        sf_put_u32(at + TENSOR_BLOCK, (uint32_t)entry->block);
        sf_put_u32(at + TENSOR_NESTED_BLOCK, (uint32_t)entry->nested_block);
        sf_put_u32(at + TENSOR_BLOCK_AXIS, (uint32_t)entry->block_axis);
        sf_put_f32(at + TENSOR_WORST_BLOCK, entry->worst_block_error);
        sf_put_u64(at + TENSOR_ERROR, error_bits);
        for (int slot = 0; slot < TENSOR_PLANE_SLOTS; slot++)
            sf_put_u32(at + TENSOR_PLANES + 4 * slot,
                       slot < SF_PLANE_COUNT ? w->plane_id[i * SF_PLANE_COUNT + slot] : UINT32_MAX);
    }
}

static void write_planes_and_shapes(struct index_writer *w)
{
    for (int64_t p = 0; p < w->planes; p++) {
        const struct sf_plane *plane = &w->plane[p].plane;
        unsigned char *at = take(w, PLANE_BYTES);
        sf_put_u16(at + PLANE_KIND, (uint16_t)w->plane[p].kind);
        sf_put_u16(at + PLANE_DTYPE, (uint16_t)plane->dtype);
        sf_put_u32(at + PLANE_SHAPE, shape_id(w, &plane->shape));
        sf_put_u64(at + PLANE_ADDRESS, plane->address);
        sf_put_u64(at + PLANE_SIZE, plane->bytes);
    }
    for (int64_t i = 0; i < w->shapes; i++) {
        unsigned char *at = take(w, SHAPE_BYTES);
        sf_put_u64(at + SHAPE_RANK, (uint64_t)w->shape[i]->rank);
        for (int d = 0; d < w->shape[i]->rank; d++)
            sf_put_u64(at + SHAPE_DIMS + 8 * d, (uint64_t)w->shape[i]->dim[d]);
    }
    for (int i = 0; i < SF_PART_COUNT; i++)
        sf_put_u32(take(w, LABEL_BYTES), w->label_name[i]);
}

struct hashed_name {
    uint64_t hash;
    int64_t tensor;
};

static int compare_hash(const void *a, const void *b)
{
    uint64_t x = ((const struct hashed_name *)a)->hash, y = ((const struct hashed_name *)b)->hash;
    return x < y ? -1 : x > y;
}

/* Strictly ascending hashes: that no name stands twice can then be seen in one pass. Two different
 * names with one 64-bit hash are refused here; for a million names the chance is 3e-8. */
static int write_names(struct index_writer *w, struct sf_err *err)
{
    int64_t count = w->layout->entries;
    struct hashed_name *list = sf_arena_array(w->arena, (uint64_t)count, sizeof *list);
    if (!list)
        return no_memory(err);
    for (int64_t i = 0; i < count; i++) {
        const char *name = entry_at(w, i)->name;
        list[i] = (struct hashed_name){.hash = sf_hash64(name, strlen(name), 0), .tensor = i};
    }
    qsort(list, (size_t)count, sizeof *list, compare_hash);
    for (int64_t i = 0; i < count; i++) {
        if (i > 0 && list[i].hash == list[i - 1].hash) {
            const char *a = entry_at(w, list[i - 1].tensor)->name;
            const char *b = entry_at(w, list[i].tensor)->name;
            return strcmp(a, b) == 0
                       ? sf_fail(err, SF_EINVAL, "two tensors are named %s", a)
                       : sf_fail(err, SF_EINVAL, "%s and %s have the same hash", a, b);
        }
        unsigned char *at = take(w, NAME_BYTES);
        sf_put_u64(at + NAME_HASH, list[i].hash);
        sf_put_u32(at + NAME_TENSOR, (uint32_t)list[i].tensor);
    }
    memcpy(take(w, w->strings.bytes), w->strings.data, w->strings.bytes);
    return SF_OK;
}

static int allocate(struct index_writer *w, struct sf_err *err)
{
    uint64_t entries = (uint64_t)w->layout->entries,
             planes = entries * SF_PLANE_COUNT; /* books included */
    w->name = sf_arena_array(w->arena, entries, sizeof *w->name);
    w->source_name = sf_arena_array(w->arena, entries, sizeof *w->source_name);
    w->plane = sf_arena_array(w->arena, planes, sizeof *w->plane);
    w->plane_id = sf_arena_array(w->arena, planes, sizeof *w->plane_id);
    w->book_id = sf_arena_array(w->arena, (uint64_t)w->layout->books, sizeof *w->book_id);
    w->shape = sf_arena_array(w->arena, planes + entries, sizeof *w->shape);
    if (!w->name || !w->source_name || !w->plane || !w->plane_id || !w->book_id || !w->shape)
        return no_memory(err);
    return SF_OK;
}

int index_encode(unsigned char **out, uint64_t *bytes, struct sf_arena *arena,
                 const struct sf_layout *layout, uint64_t payload_offset, struct sf_err *err)
{
    struct index_writer w = {.layout = layout, .arena = arena, .payload_offset = payload_offset};
    int code = allocate(&w, err);
    if (code == SF_OK)
        code = collect_strings(&w, err);
    if (code != SF_OK)
        return code;
    collect_planes(&w);
    collect_shapes(&w);
    *bytes = INDEX_HEAD_BYTES + (uint64_t)part_count(layout) * PART_BYTES +
             (uint64_t)layout->extents * EXTENT_BYTES +
             (uint64_t)layout->entries * (TENSOR_BYTES + NAME_BYTES) +
             (uint64_t)w.planes * PLANE_BYTES + (uint64_t)w.shapes * SHAPE_BYTES +
             SF_PART_COUNT * LABEL_BYTES + w.strings.bytes;
    *out = w.data = sf_arena_alloc(arena, *bytes);
    if (!w.data)
        return no_memory(err);
    write_head(&w);
    write_parts(&w);
    write_extents(&w);
    write_tensors(&w);
    write_planes_and_shapes(&w);
    return write_names(&w, err);
}

uint64_t index_placing_bytes(const unsigned char *data)
{
    return INDEX_HEAD_BYTES + (uint64_t)sf_get_u32(data + INDEX_PARTS) * PART_BYTES;
}
