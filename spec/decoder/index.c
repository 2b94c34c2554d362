#include "spec/decoder/index.h"

#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#include "spec/decoder/fields.h"
#include "spec/decoder/opened.h"
#include "spec/decoder/parts.h"
#include "spec/decoder/strings.h"
#include "spec/decoder/tensors.h"

// C 5.2
static void read_extent(u32 i, const u8 *p, struct strings strings, u64 address, u64 first_chunk)
{
    struct extent *e = &g.extents[i];

    e->kind = get_string(strings, p, "index: kind of an extent");
    e->layer = get_i32(p + 4);
    e->expert = get_i32(p + 8);
    e->address = get_u64(p + 16);
    e->size = get_u64(p + 24);
    e->first_chunk = get_u64(p + 40);
    e->chunks = e->size / g.chunk_bytes + (e->size % g.chunk_bytes != 0);
    const bool is_expert = strcmp(e->kind, "expert") == 0;
    const i32 least = is_expert ? 0 : -1;
    if (e->layer < least || e->expert < least)
        refuse("index: extent %u: layer or expert is too low", i);
    if (get_u32(p + 12) != 0)
        refuse("index: extent %u: storage %u is not known", i, get_u32(p + 12));
    if (e->address != address)
        refuse("index: extent %u does not begin where the one before ends", i);
    if (e->size == 0 || e->size % g.extent_alignment != 0 || e->size > g.payload_size - address)
        refuse("index: extent %u: its size is not aligned or past the payload", i);
    if (get_u64(p + 32) != (is_expert ? e->size : 0))
        refuse("index: extent %u: wrong stride", i);
    if (e->first_chunk != first_chunk)
        refuse("index: extent %u: wrong number of its first chunk", i);
}

// C 5.2: experts of a layer stand together, ascending, with one size; layers ascend.
static void check_expert_runs(void)
{
    const struct extent *last = NULL;

    for (u32 i = 0; i < g.extent_count; i++) {
        const struct extent *e = &g.extents[i];

        if (strcmp(e->kind, "expert") != 0)
            continue;
        const bool run_goes_on = i > 0 && last == e - 1 && last->layer == e->layer;
        if (run_goes_on && (e->expert <= last->expert || e->size != last->size))
            refuse("index: extent %u: experts of a layer do not ascend or differ in size", i);
        if (!run_goes_on && last != NULL && e->layer <= last->layer)
            refuse("index: extent %u: layers of experts do not ascend", i);
        last = e;
    }
}

// C 5.1: a part ends where an extent ends.
static void check_ends_of_parts(void)
{
    u32 i = 0;

    for (u32 k = 0; k < g.part_count; k++) {
        const u64 end = g.parts[k].address + g.parts[k].size;

        while (i < g.extent_count && g.extents[i].address + g.extents[i].size < end)
            i++;
        if (i == g.extent_count || g.extents[i].address + g.extents[i].size != end)
            refuse("index: part %u ends within extent %u", k, i);
    }
}

static void read_extents(const u8 *p, struct strings strings)
{
    u64 address = 0;

    g.extents = allocate(g.extent_count * sizeof *g.extents);
    for (u32 i = 0; i < g.extent_count; i++) {
        read_extent(i, p + (u64)48 * i, strings, address, g.chunk_count);
        address += g.extents[i].size;
        g.chunk_count += g.extents[i].chunks;
    }
    if (address != g.payload_size)
        refuse("index: the extents do not tile the payload");
    check_expert_runs();
    check_ends_of_parts();
    if (g.checksums.size / 8 != g.chunk_count) // C 4
        refuse("checksums: there are not 8 bytes for each chunk");
}

static void read_shapes(const u8 *p) // C 5.5
{
    g.shapes = allocate(g.shape_count * sizeof *g.shapes);
    for (u32 i = 0; i < g.shape_count; i++, p += 72) {
        struct shape *s = &g.shapes[i];

        s->rank = get_u64(p);
        s->elements = 1;
        if (s->rank > MAX_RANK)
            refuse("index: shape %u: rank above 8", i);
        for (u32 k = 0; k < MAX_RANK; k++) {
            s->dims[k] = get_u64(p + 8 + 8 * k);
            if (k < s->rank ? s->dims[k] == 0 || s->dims[k] >> 63 != 0 : s->dims[k] != 0)
                refuse("index: shape %u: dimension %u is out of range", i, k);
            if (k < s->rank)
                s->elements = multiply(s->elements, s->dims[k]);
        }
    }
}

static void read_labels(const u8 *p, struct strings strings) // C 5.6
{
    g.labels = allocate(g.label_count * sizeof *g.labels);
    for (u32 i = 0; i < g.label_count; i++, p += 8) {
        g.labels[i] = get_string(strings, p, "index: label");
        check_zero_u32(p + 4, "index: label", i);
        for (u32 k = 0; k < i; k++)
            if (strcmp(g.labels[k], g.labels[i]) == 0)
                refuse("index: label %u occurs twice", i);
    }
}

static void read_names(const u8 *p) // C 5.7
{
    g.names = allocate(g.tensor_count * sizeof *g.names);
    for (u32 i = 0; i < g.tensor_count; i++, p += 16) {
        struct name *n = &g.names[i];

        n->hash = get_u64(p);
        n->tensor = get_u32(p + 8);
        check_zero_u32(p + 12, "index: name", i);
        if (i > 0 && n->hash <= g.names[i - 1].hash)
            refuse("index: name %u is out of order or occurs twice", i);
        if (n->tensor >= g.tensor_count)
            refuse("index: name %u: there is no tensor %u", i, n->tensor);
        const char *name = g.tensors[n->tensor].name;
        if (n->hash != XXH3_64bits_withSeed(name, strlen(name), 0))
            refuse("index: name %u is not the hash of its tensor's name", i);
    }
}

void read_index(void)
{
    const u8 *head = g.index.bytes;

    if (g.index.size < 32)
        refuse("index: too short for its head");
    g.part_count = get_u32(head);
    g.extent_count = get_u32(head + 4);
    g.tensor_count = get_u32(head + 8);
    g.plane_count = get_u32(head + 12);
    g.shape_count = get_u32(head + 16);
    g.label_count = get_u32(head + 20);
    const u32 string_bytes = get_u32(head + 24);
    check_zero_u32(head + 28, "index: head", 0);
    if (g.part_count != (g.files_of_set > 0 ? g.files_of_set - 1 : 1))
        refuse("index: %u parts in a set of %u files", g.part_count, g.files_of_set);
    if (g.label_count > 256)
        refuse("index: %u labels, more than 256", g.label_count);
    if (g.tensor_count == 0 || g.tensor_count >> 30 != 0 || g.extent_count >> 30 != 0)
        refuse("index: %u tensors in %u extents", g.tensor_count, g.extent_count);

    const u64 parts = 32;
    const u64 extents = parts + 32 * (u64)g.part_count;
    const u64 tensors = extents + 48 * (u64)g.extent_count;
    const u64 planes = tensors + 88 * (u64)g.tensor_count;
    const u64 shapes = planes + 24 * (u64)g.plane_count;
    const u64 labels = shapes + 72 * (u64)g.shape_count;
    const u64 names = labels + 8 * (u64)g.label_count;
    const u64 strings_at = names + 16 * (u64)g.tensor_count;
    if (strings_at + string_bytes != g.index.size)
        refuse("index: its counts do not add up to its size");

    const struct strings strings = read_strings(head + strings_at, string_bytes, "index");
    read_parts(head + parts);
    read_extents(head + extents, strings);
    read_shapes(head + shapes);
    read_labels(head + labels, strings);
    read_planes(head + planes);
    read_tensors(head + tensors, strings);
    read_names(head + names);
}
