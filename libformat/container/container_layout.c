#include "libformat/container/container_layout.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/mem.h"
#include "libformat/codec/nf4_tables.h"
#include "libformat/container/layout.h"
#include "libformat/container/set_name.h"
#include "libformat/container/string_table.h"

static const uint64_t EXTENT_ALIGN = (uint64_t)1 << LAYOUT_EXTENT_LOG2;
static const uint64_t CHUNK = (uint64_t)1 << LAYOUT_CHUNK_LOG2;

struct sf_layout *sf_layout_begin(struct sf_arena *arena)
{
    struct sf_layout *layout = sf_arena_alloc(arena, sizeof *layout);
    if (layout) {
        layout->arena = arena;
        layout->shared = -1;
    }
    return layout;
}

/* Room for one more element of `size` bytes in *array. */
static int make_room(void **array, int64_t *room, int64_t count, uint64_t size,
                     struct sf_arena *arena, struct sf_err *err)
{
    if (count < *room)
        return SF_OK;
    int64_t more = *room ? 2 * *room : 64;
    void *grown = sf_arena_array(arena, (uint64_t)more, size);
    if (!grown)
        return sf_fail(err, SF_ENOMEM, "cannot allocate a layout of %lld entries", (long long)more);
    if (count)
        memcpy(grown, *array, (uint64_t)count * size);
    *array = grown;
    *room = more;
    return SF_OK;
}

static int add_extent(struct sf_layout *layout, struct sf_extent extent, struct sf_err *err)
{
    int64_t room = layout->extent_room;
    void *range = layout->range, *array = layout->extent;
    int code = make_room(&range, &room, layout->extents, sizeof *layout->range, layout->arena, err);
    if (code == SF_OK)
        code = make_room(&array, &layout->extent_room, layout->extents, sizeof extent,
                         layout->arena, err);
    if (code != SF_OK)
        return code;
    layout->range = range;
    layout->extent = array;
    layout->range[layout->extents] = (struct entry_range){.first = layout->entries};
    layout->extent[layout->extents++] = extent;
    return SF_OK;
}

int sf_layout_extent(struct sf_layout *layout, enum sf_extent_kind kind, int32_t layer,
                     int32_t expert, struct sf_err *err)
{
    assert(!layout->finished);
    if (kind == SF_EXTENT_SHARED || (unsigned)kind >= SF_EXTENT_KIND_COUNT)
        return sf_fail(err, SF_EINVAL, "extent kind %d is not the caller's to add", (int)kind);
    if (layer < -1 || expert < -1 || (kind == SF_EXTENT_EXPERT) != (layer >= 0 && expert >= 0))
        return sf_fail(err, SF_EINVAL, "a %s extent cannot have layer %d, expert %d",
                       sf_extent_kind_name(kind), layer, expert);
    if (layout->extents >= INT32_MAX - 2)
        return sf_fail(err, SF_EINVAL, "too many extents");
    struct sf_extent extent = {.kind = kind, .layer = layer, .expert = expert};
    int code = add_extent(layout, extent, err);
    return code == SF_OK ? (int)(layout->extents - 1) : code;
}

static int check_tensor(const struct sf_entry *entry, struct sf_err *err)
{
    if (!entry->name || !entry->name[0])
        return sf_fail(err, SF_EINVAL, "a tensor without a name");
    int code = string_check(entry->name, "name", err);
    if (code == SF_OK && entry->source_name)
        code = string_check(entry->source_name, "source name", err);
    if (code == SF_OK && ((unsigned)entry->role.part >= SF_PART_COUNT || entry->role.layer < -1 ||
                          entry->role.expert < -1))
        code = sf_fail(err, SF_EINVAL, "role {%d, %d, %d}", (int)entry->role.part,
                       entry->role.layer, entry->role.expert);
    return code;
}

/* The number of a book with these values, stored before or now. */
static int use_book(int64_t *out, struct sf_layout *layout, enum sf_plane_kind kind,
                    const struct sf_plane *plane, const float *value, struct sf_err *err)
{
    void *array = layout->book;
    for (*out = 0; *out < layout->books; ++*out)
        if (layout->book[*out].kind == kind &&
            memcmp(layout->book[*out].value, value, plane->bytes) == 0)
            return SF_OK;
    int code = make_room(&array, &layout->book_room, layout->books, sizeof *layout->book,
                         layout->arena, err);
    if (code != SF_OK)
        return code;
    layout->book = array;
    struct shared_book *book = &layout->book[layout->books++];
    *book = (struct shared_book){.kind = kind, .plane = *plane};
    memcpy(book->value, value, plane->bytes);
    return SF_OK;
}

static int use_books(struct sf_layout *layout, int64_t index, const float *codebook,
                     const float *map, struct sf_err *err)
{
    const struct sf_plane *plane = layout->entry[index].plane;
    struct entry_books *books = &layout->books_of[index];
    int code = SF_OK;
    *books = (struct entry_books){-1, -1};
    if (plane[SF_PLANE_CODEBOOK].dtype != SF_DTYPE_NONE)
        code = use_book(&books->codebook, layout, SF_PLANE_CODEBOOK, &plane[SF_PLANE_CODEBOOK],
                        codebook, err);
    if (code == SF_OK && plane[SF_PLANE_MAP].dtype != SF_DTYPE_NONE)
        code = use_book(&books->map, layout, SF_PLANE_MAP, &plane[SF_PLANE_MAP], map, err);
    return code;
}

static int make_entry_room(struct sf_layout *layout, struct sf_err *err)
{
    int64_t room = layout->entry_room;
    void *entry = layout->entry, *books = layout->books_of;
    int code =
        make_room(&books, &room, layout->entries, sizeof *layout->books_of, layout->arena, err);
    if (code == SF_OK)
        code = make_room(&entry, &layout->entry_room, layout->entries, sizeof *layout->entry,
                         layout->arena, err);
    layout->books_of = books;
    layout->entry = entry;
    return code;
}

int sf_layout_tensor(int64_t *index, struct sf_layout *layout, const struct sf_entry *entry,
                     struct sf_err *err)
{
    return sf_layout_tensor_with(index, layout, entry, sf_nf4_code_value, sf_nf4_scale_map, err);
}

int sf_layout_tensor_with(int64_t *index, struct sf_layout *layout, const struct sf_entry *entry,
                          const float codebook[16], const float map[256], struct sf_err *err)
{
    assert(!layout->finished);
    if (layout->extents == 0)
        return sf_fail(err, SF_EINVAL, "%s: a tensor before the first extent", entry->name);
    int code = check_tensor(entry, err);
    if (code != SF_OK)
        return code;
    if ((code = make_entry_room(layout, err)) != SF_OK)
        return code;
    struct sf_entry *copy = &layout->entry[layout->entries];
    *copy = *entry;
    copy->extent = (int32_t)(layout->extents - 1);
    copy->name = sf_arena_strdup(layout->arena, entry->name);
    copy->source_name =
        sf_arena_strdup(layout->arena, entry->source_name ? entry->source_name : "");
    if (!copy->name || !copy->source_name)
        return sf_fail(err, SF_ENOMEM, "%s: cannot allocate its names", entry->name);
    if ((code = sf_entry_plan(copy->plane, copy, err)) != SF_OK) {
        sf_err_prefix(err, "%s", entry->name);
        return code;
    }
    if ((code = use_books(layout, layout->entries, codebook, map, err)) != SF_OK)
        return code;
    *index = layout->entries++;
    layout->range[layout->extents - 1].count++;
    return SF_OK;
}

/* ---- finish ---- */

/* Planes by kind first, tensors in call order inside: the codes of gate, up (or q, k, v) then form
 * one matrix, and so do their scales. Addresses are relative to the extent for now. */
static int place_planes(struct sf_layout *layout, int64_t extent, struct sf_err *err)
{
    const struct entry_range *range = &layout->range[extent];
    uint64_t at = 0;
    for (int kind = 0; kind < SF_PLANE_CODEBOOK; kind++) {
        for (int64_t i = 0; i < range->count; i++) {
            struct sf_plane *plane = &layout->entry[range->first + i].plane[kind];
            if (plane->dtype == SF_DTYPE_NONE)
                continue;
            plane->address = at;
            if (!sf_add(&at, at, plane->bytes) || !sf_align_up(&at, at, LAYOUT_TENSOR_ALIGN))
                return sf_fail(err, SF_EINVAL, "%s: the extent outgrows 64 bits",
                               layout->entry[range->first + i].name);
        }
    }
    if (at == 0)
        return sf_fail(err, SF_EINVAL, "extent %lld holds no tensor", (long long)extent);
    if (!sf_align_up(&layout->extent[extent].bytes, at, EXTENT_ALIGN))
        return sf_fail(err, SF_EINVAL, "extent %lld outgrows 64 bits", (long long)extent);
    return SF_OK;
}

/* The run of expert extents of one layer that begins at `first`: its end and its longest extent. */
static int expert_run(int64_t *end, uint64_t *stride, const struct sf_layout *layout, int64_t first,
                      struct sf_err *err)
{
    const struct sf_extent *extent = layout->extent;
    *stride = 0;
    for (*end = first; *end < layout->extents && extent[*end].kind == SF_EXTENT_EXPERT &&
                       extent[*end].layer == extent[first].layer;
         ++*end) {
        if (*end > first && extent[*end].expert <= extent[*end - 1].expert)
            return sf_fail(err, SF_EINVAL, "layer %d: expert %d comes after expert %d",
                           extent[first].layer, extent[*end].expert, extent[*end - 1].expert);
        if (extent[*end].bytes > *stride)
            *stride = extent[*end].bytes;
    }
    return SF_OK;
}

/* One stride per layer: its expert extents stand together, in order of expert, equally long. */
static int equalize_experts(struct sf_layout *layout, struct sf_err *err)
{
    int32_t layer = -1; /* of the run before; layers ascend */
    for (int64_t i = 0, end; i < layout->extents; i = end) {
        uint64_t stride;
        int code = expert_run(&end, &stride, layout, i, err);
        if (code != SF_OK)
            return code;
        if (end == i) {
            end++; /* no expert */
            continue;
        }
        if (layout->extent[i].layer <= layer)
            return sf_fail(err, SF_EINVAL, "layer %d: its experts do not stand together",
                           layout->extent[i].layer);
        layer = layout->extent[i].layer;
        for (int64_t e = i; e < end; e++)
            layout->extent[e].bytes = layout->extent[e].stride = stride;
    }
    return SF_OK;
}

/* Books lie one behind the other; their addresses are relative to the extent for now. */
static int add_shared(struct sf_layout *layout, struct sf_err *err)
{
    struct sf_extent extent = {.kind = SF_EXTENT_SHARED, .layer = -1, .expert = -1};
    if (layout->books == 0)
        return SF_OK;
    for (int64_t i = 0; i < layout->books; i++) {
        layout->book[i].plane.address = extent.bytes;
        sf_align_up(&extent.bytes, extent.bytes + layout->book[i].plane.bytes, LAYOUT_TENSOR_ALIGN);
    }
    sf_align_up(&extent.bytes, extent.bytes, EXTENT_ALIGN);
    layout->shared = layout->extents;
    return add_extent(layout, extent, err);
}

static int place_extents(struct sf_layout *layout, struct sf_err *err)
{
    for (int64_t i = 0; i < layout->extents; i++) {
        struct sf_extent *extent = &layout->extent[i];
        extent->address = layout->payload_bytes;
        extent->first_chunk = layout->chunks;
        extent->chunks = (extent->bytes + CHUNK - 1) / CHUNK;
        layout->chunks += extent->chunks;
        if (!sf_add(&layout->payload_bytes, layout->payload_bytes, extent->bytes) ||
            layout->payload_bytes > INT64_MAX / 2)
            return sf_fail(err, SF_EINVAL, "the payload outgrows 2^62 bytes");
    }
    for (int64_t i = 0; i < layout->books; i++)
        layout->book[i].plane.address += layout->extent[layout->shared].address;
    return SF_OK;
}

static void place_entries(struct sf_layout *layout)
{
    for (int64_t i = 0; i < layout->entries; i++) {
        struct sf_entry *entry = &layout->entry[i];
        for (int kind = 0; kind < SF_PLANE_COUNT; kind++) {
            if (entry->plane[kind].dtype == SF_DTYPE_NONE)
                continue;
            if (kind == SF_PLANE_CODEBOOK)
                entry->plane[kind] = layout->book[layout->books_of[i].codebook].plane;
            else if (kind == SF_PLANE_MAP)
                entry->plane[kind] = layout->book[layout->books_of[i].map].plane;
            else
                entry->plane[kind].address += layout->extent[entry->extent].address;
        }
    }
}

int sf_entry_compare(const struct sf_entry *a, const struct sf_entry *b)
{
    if (a->role.layer != b->role.layer)
        return a->role.layer < b->role.layer ? -1 : 1;
    if (a->role.part != b->role.part)
        return a->role.part < b->role.part ? -1 : 1;
    if (a->role.expert != b->role.expert)
        return a->role.expert < b->role.expert ? -1 : 1;
    return a->role.part == SF_PART_UNUSED ? strcmp(a->name, b->name) : 0;
}

static int compare_pointers(const void *a, const void *b)
{
    const struct sf_entry *const *x = a, *const *y = b;
    return sf_entry_compare(*x, *y);
}

static int sort_entries(struct sf_layout *layout, struct sf_err *err)
{
    uint64_t count = (uint64_t)layout->entries;
    const struct sf_entry **sorted = sf_arena_array(layout->arena, count, sizeof *sorted);
    layout->order = sf_arena_array(layout->arena, count, sizeof *layout->order);
    if (!sorted || !layout->order)
        return sf_fail(err, SF_ENOMEM, "cannot allocate the order of %llu tensors",
                       (unsigned long long)count);
    for (uint64_t i = 0; i < count; i++)
        sorted[i] = &layout->entry[i];
    qsort(sorted, count, sizeof *sorted, compare_pointers);
    for (uint64_t i = 0; i < count; i++) {
        layout->order[i] = sorted[i] - layout->entry;
        char role[SF_ROLE_TEXT];
        if (i > 0 && sf_entry_compare(sorted[i - 1], sorted[i]) == 0)
            return sf_fail(err, SF_EINVAL, "%s and %s are both %s", sorted[i - 1]->name,
                           sorted[i]->name, sf_role_format(role, sorted[i]->role));
    }
    return SF_OK;
}

int sf_layout_finish(struct sf_layout *layout, struct sf_err *err)
{
    assert(!layout->finished);
    int code = layout->entries ? SF_OK : sf_fail(err, SF_EINVAL, "a container without tensors");
    for (int64_t i = 0; code == SF_OK && i < layout->extents; i++)
        code = place_planes(layout, i, err);
    if (code == SF_OK)
        code = equalize_experts(layout, err);
    if (code == SF_OK)
        code = add_shared(layout, err);
    if (code == SF_OK)
        code = place_extents(layout, err);
    if (code != SF_OK)
        return code;
    place_entries(layout);
    code = sort_entries(layout, err);
    layout->finished = code == SF_OK;
    return code;
}

/* ---- parts ---- */

static int check_largest(const struct sf_layout *layout, uint64_t most, struct sf_err *err)
{
    const struct sf_extent *largest = &layout->extent[0];
    char text[SF_EXTENT_TEXT];
    for (int64_t i = 1; i < layout->extents; i++)
        if (layout->extent[i].bytes > largest->bytes)
            largest = &layout->extent[i];
    if (most >= HEADER_BYTES && largest->bytes <= most - HEADER_BYTES)
        return SF_OK;
    return sf_fail(err, SF_EINVAL,
                   "parts of at most %llu bytes: %s is never split and needs a file of %llu",
                   (unsigned long long)most, sf_extent_format(text, largest),
                   (unsigned long long)(largest->bytes + HEADER_BYTES));
}

int sf_layout_split(struct sf_layout *layout, uint64_t most, struct sf_err *err)
{
    assert(layout->finished && layout->parts == 0);
    int code = check_largest(layout, most, err);
    if (code != SF_OK)
        return code;
    layout->part = sf_arena_array(layout->arena, (uint64_t)layout->extents, sizeof *layout->part);
    if (!layout->part)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld parts", (long long)layout->extents);
    for (int64_t i = 0; i < layout->extents; i++) {
        const struct sf_extent *e = &layout->extent[i];
        struct layout_part *last = layout->parts ? &layout->part[layout->parts - 1] : NULL;
        if (!last || e->bytes > most - HEADER_BYTES - last->bytes)
            *(last = &layout->part[layout->parts++]) = (struct layout_part){.address = e->address};
        last->bytes += e->bytes;
    }
    if (layout->parts >= SF_FILES_MAX)
        return sf_fail(err, SF_EINVAL, "parts of at most %llu bytes would be %lld, more than %d",
                       (unsigned long long)most, (long long)layout->parts + 1, SF_FILES_MAX);
    layout->part_most = most;
    return SF_OK;
}

int64_t sf_layout_files(const struct sf_layout *layout)
{
    return layout->parts + 1;
}

uint64_t sf_layout_part_most(const struct sf_layout *layout)
{
    return layout->part_most;
}

uint64_t sf_layout_file_bytes(const struct sf_layout *layout, int64_t file)
{
    assert(file >= 2 && file <= layout->parts + 1);
    return HEADER_BYTES + layout->part[file - 2].bytes;
}

/* ---- what it says ---- */

int64_t sf_layout_entry_count(const struct sf_layout *layout)
{
    return layout->entries;
}

struct sf_entry *sf_layout_entry(struct sf_layout *layout, int64_t index)
{
    assert(index >= 0 && index < layout->entries);
    return &layout->entry[index];
}

int64_t sf_layout_extent_count(const struct sf_layout *layout)
{
    return layout->extents;
}

const struct sf_extent *sf_layout_extent_at(const struct sf_layout *layout, int64_t index)
{
    assert(index >= 0 && index < layout->extents);
    return &layout->extent[index];
}

void sf_layout_extent_entries(int64_t *first, int64_t *count, const struct sf_layout *layout,
                              int64_t extent)
{
    assert(extent >= 0 && extent < layout->extents);
    *first = layout->range[extent].first;
    *count = layout->range[extent].count;
}

uint64_t sf_layout_payload_bytes(const struct sf_layout *layout)
{
    return layout->payload_bytes;
}

uint32_t sf_layout_chunk_bytes(const struct sf_layout *layout)
{
    (void)layout;
    return (uint32_t)CHUNK;
}
