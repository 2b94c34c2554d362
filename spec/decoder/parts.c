#include "spec/decoder/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec/decoder/opened.h"
#include "spec/decoder/sections.h"

static void read_part(u32 i, const u8 *p) // C 5.1
{
    struct part *part = &g.parts[i];

    part->address = get_u64(p);
    part->size = get_u64(p + 8);
    if (part->address != g.payload_size)
        refuse("index: part %u does not begin where the one before ends", i);
    if (part->size == 0 || part->size % g.extent_alignment != 0 ||
        part->size > UINT64_MAX - g.payload_size)
        refuse("index: part %u has a size that is not aligned or too large", i);
    if (get_u64(p + 16) != HEADER_BYTES || get_u32(p + 24) != (g.files_of_set > 0 ? i + 2 : 0))
        refuse("index: part %u is not at its place", i);
    if (g.files_of_set == 0 && part->size != g.payload.size)
        refuse("index: the part is not the payload of this file");
    if (get_u32(p + 28) != 0)
        refuse("index: part %u: a field that must be zero is not", i);
    g.payload_size += part->size;
}

void read_parts(const u8 *p)
{
    g.parts = allocate(g.part_count * sizeof *g.parts);
    for (u32 i = 0; i < g.part_count; i++)
        read_part(i, p + (u64)32 * i);
}

// Everything about one file is in `g`: that of the first is put aside meanwhile.
static void open_part(u32 i)
{
    const struct opened first = g;
    const char *const first_path = g_path;
    const size_t length = strlen(first_path);
    char tail[64];
    char *path = allocate(length + sizeof tail);

    (void)snprintf(tail, sizeof tail, "-00001-of-%05u.scout", first.files_of_set);
    if (length <= strlen(tail) || strcmp(first_path + length - strlen(tail), tail) != 0)
        refuse("is the first of %u files, but its name does not end in %s", first.files_of_set,
               tail);
    (void)snprintf(tail, sizeof tail, "-%05u-of-%05u.scout", i + 2, first.files_of_set);
    (void)snprintf(path, length + sizeof tail, "%.*s%s", (int)(length - strlen(tail)), first_path,
                   tail);
    g = (struct opened){0};
    g_path = path;
    map_file();
    read_header_page();
    if (g.file_of_set != i + 2 || g.files_of_set != first.files_of_set)
        refuse("is file %u of %u, not file %u of %u", g.file_of_set, g.files_of_set, i + 2,
               first.files_of_set);
    if (memcmp(g.bytes + 64, first.bytes + 64, 16) != 0)
        refuse("belongs to another container: its identity is another");
    if (g.payload.size != first.parts[i].size || g.bytes[56] != first.bytes[56] ||
        g.bytes[57] != first.bytes[57])
        refuse("has another size, alignment or chunk size than the first file says");
    first.parts[i].bytes = g.payload.bytes;
    g = first;
    g_path = first_path;
    free(path);
}

void open_parts(void)
{
    if (g.files_of_set == 0)
        g.parts[0].bytes = g.payload.bytes;
    for (u32 i = 0; g.files_of_set > 0 && i < g.part_count; i++)
        open_part(i);
}

const u8 *payload_at(u64 address)
{
    u32 i = 0;

    while (address - g.parts[i].address >= g.parts[i].size)
        i++;
    return g.parts[i].bytes + (address - g.parts[i].address);
}
