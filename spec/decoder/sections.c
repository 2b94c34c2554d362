#include "spec/decoder/sections.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "spec/decoder/fields.h"
#include "spec/decoder/opened.h"

static void refuse_lfs_pointer(void)
{
    static const char START[] = "version https://git-lfs";

    if (g.size >= sizeof START - 1 && memcmp(g.bytes, START, sizeof START - 1) == 0)
        refuse("is a Git-LFS pointer, not the file itself");
}

static void check_magic(void)
{
    static const u8 MAGIC[8] = {0x89, 'S', 'C', 'O', 'U', 'T', 0x0D, 0x0A};

    refuse_lfs_pointer();
    if (g.size < HEADER_BYTES)
        refuse("has %llu bytes, which is less than a header", (unsigned long long)g.size);
    if (all_zero(g.bytes, HEADER_BYTES))
        refuse("was never finished: its header is all zeros");
    if (memcmp(g.bytes, MAGIC, sizeof MAGIC) != 0)
        refuse("has not the magic of a .scout file");
}

static void check_header_hash(void)
{
    u8 page[HEADER_BYTES];

    memcpy(page, g.bytes, HEADER_BYTES);
    memset(page + 32, 0, 16);
    if (!hash_is(g.bytes + 32, XXH3_128bits(page, HEADER_BYTES)))
        refuse("the header is damaged: its hash does not match");
}

static void check_header_fields(void)
{
    const u8 *h = g.bytes;

    if (get_u32(h + 8) != 1)
        refuse("has major version %u, and only 1 is known", get_u32(h + 8));
    if (get_u64(h + 16) >> 1 != 0)
        refuse("header: incompatible features 0x%llx are not known",
               (unsigned long long)get_u64(h + 16));
    if (get_u64(h + 48) != g.size)
        refuse("header: the size is given as %llu, but the file has %llu bytes",
               (unsigned long long)get_u64(h + 48), (unsigned long long)g.size);
    if (h[56] < 12 || h[56] > 30 || h[57] < 12 || h[57] > 30)
        refuse("header: extent alignment or chunk size is not within 2^12 .. 2^30");
    g.extent_alignment = (u64)1 << h[56];
    g.chunk_bytes = (u64)1 << h[57];
    g.file_of_set = get_u32(h + 80);
    g.files_of_set = get_u32(h + 84);
    const bool in_set = (get_u64(h + 16) & 1) != 0;
    if (in_set ? g.file_of_set < 1 || g.file_of_set > g.files_of_set || g.files_of_set < 2
               : g.file_of_set != 0 || g.files_of_set != 0)
        refuse("header: file %u of %u cannot be", g.file_of_set, g.files_of_set);
    g.section_count = get_u32(h + 60);
    const u32 least = g.file_of_set == 0 ? 4 : g.file_of_set == 1 ? 3 : 1;
    if (g.section_count < least || g.section_count > (g.file_of_set > 1 ? 1 : MAX_SECTIONS))
        refuse("header: %u sections are too few or too many", g.section_count);
    const u32 end = 128 + 40 * g.section_count;
    if (!all_zero(h + 58, 2) || !all_zero(h + 88, 40) || !all_zero(h + end, HEADER_BYTES - end))
        refuse("header: reserved bytes are not zero");
}

static struct section find_section(u32 type, const char *name)
{
    for (u32 i = 0; i < g.section_count; i++)
        if (g.sections[i].type == type)
            return g.sections[i];
    refuse("header: the section %s is missing", name);
}

static bool has_payload(void)
{
    for (u32 i = 0; i < g.section_count; i++)
        if (g.sections[i].type == PAYLOAD)
            return true;
    return false;
}

static void read_section_row(u32 i, u64 expected_offset)
{
    const u8 *row = g.bytes + 128 + (u64)40 * i;
    struct section *s = &g.sections[i];

    s->type = get_u32(row);
    s->offset = get_u64(row + 8);
    s->size = get_u64(row + 16);
    if (get_u32(row + 4) != 0)
        refuse("header: reserved bytes of section %u are not zero", i);
    for (u32 k = 0; k < i; k++)
        if (g.sections[k].type == s->type)
            refuse("header: section type %u occurs twice", s->type);
    if (s->offset != expected_offset)
        refuse("header: section %u does not begin where the one before ends", i);
    if (s->size == 0 || s->size % 8 != 0 || s->size > g.size - s->offset)
        refuse("header: section %u is empty, not a multiple of 8, or past the end", i);
    if (s->type == PAYLOAD && !all_zero(row + 24, 16))
        refuse("header: the payload has a hash, which must be zero");
    s->bytes = g.bytes + s->offset;
}

static void read_section_table(void)
{
    u64 end = HEADER_BYTES;

    for (u32 i = 0; i < g.section_count; i++) {
        read_section_row(i, end);
        end += g.sections[i].size;
    }
    if (end != g.size)
        refuse("header: the last section does not end where the file ends");
    if (g.file_of_set == 1 && has_payload())
        refuse("header: the first file of a set has a payload");
    if (g.file_of_set != 1 && g.sections[0].type != PAYLOAD)
        refuse("header: the first section is not the payload");
    if (g.file_of_set != 1)
        g.payload = find_section(PAYLOAD, "payload");
    if (g.file_of_set > 1)
        return;
    g.checksums = find_section(CHECKSUMS, "checksums");
    g.index = find_section(INDEX, "index");
    g.metadata = find_section(METADATA, "metadata");
}

const char *section_name(u32 type)
{
    static const char *const NAMES[] = {"?", "payload", "checksums", "index", "metadata"};
    static char other[32];

    if (type >= PAYLOAD && type <= METADATA)
        return NAMES[type];
    (void)snprintf(other, sizeof other, "section %u", type);
    return other;
}

static void check_section_hashes(void)
{
    for (u32 i = 0; i < g.section_count; i++) {
        const struct section *s = &g.sections[i];
        const u8 *stored = g.bytes + 128 + (u64)40 * i + 24;

        if (s->type != PAYLOAD && !hash_is(stored, XXH3_128bits(s->bytes, (size_t)s->size)))
            refuse("%s is damaged: its hash does not match", section_name(s->type));
    }
}

void read_header_page(void)
{
    check_magic();
    check_header_hash();
    check_header_fields();
    read_section_table();
    check_section_hashes();
}
