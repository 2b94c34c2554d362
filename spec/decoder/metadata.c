#include "spec/decoder/metadata.h"

#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "spec/decoder/fields.h"
#include "spec/decoder/strings.h"

static void read_summary(const u8 *m, struct strings strings)
{
    for (u32 at = 12; at <= 28; at += 4)
        (void)get_string(strings, m + at, "metadata: summary");
    for (u32 at = 32; at <= 72; at += 8)
        if (get_u64(m + at) >> 63 != 0)
            refuse("metadata: the count at %u is 2^63 or more", at);
    if (get_u64(m + 88) != 0)
        refuse("metadata: reserved bytes are not zero");
}

static void read_shards(const u8 *p, u32 count, struct strings strings)
{
    for (u32 i = 0; i < count; i++, p += 32) {
        (void)get_string(strings, p, "metadata: name of a shard");
        check_zero_u32(p + 4, "metadata: shard", i);
    }
}

static u64 read_carried(u32 i, const u8 *p, struct strings strings, u64 frame_offset)
{
    struct carried *f = &g.files[i];

    f->name = get_string(strings, p, "metadata: name of a file");
    f->frame_offset = get_u64(p + 8);
    f->frame_bytes = get_u64(p + 16);
    f->bytes = get_u64(p + 24);
    f->hash = p + 32;
    check_zero_u32(p + 4, "metadata: file", i);
    if (f->name[0] == '\0' || (i > 0 && strcmp(f->name, g.files[i - 1].name) <= 0))
        refuse("metadata: file %u has no name or is out of order", i);
    if (f->frame_offset != frame_offset)
        refuse("metadata: frame %u does not begin where the one before ends", i);
    if (f->frame_bytes > g.metadata.size - frame_offset)
        refuse("metadata: frame %u is past the end of the section", i);
    if (f->bytes > (u64)1 << 28)
        refuse("metadata: file %u is larger than 2^28 bytes", i);
    return frame_offset + f->frame_bytes;
}

void read_metadata(void)
{
    const u8 *m = g.metadata.bytes;

    if (g.metadata.size < 96)
        refuse("metadata: too short for its summary");
    g.file_count = get_u32(m);
    const u32 shards = get_u32(m + 4), string_bytes = get_u32(m + 8);
    const u64 files_at = 96 + 32 * (u64)shards;
    const u64 strings_at = files_at + 48 * (u64)g.file_count;
    if (strings_at + string_bytes > g.metadata.size)
        refuse("metadata: its counts do not fit");
    const struct strings strings = read_strings(m + strings_at, string_bytes, "metadata");
    read_summary(m, strings);
    read_shards(m + 96, shards, strings);
    g.files = allocate(g.file_count * sizeof *g.files);
    u64 end = strings_at + string_bytes;
    for (u32 i = 0; i < g.file_count; i++)
        end = read_carried(i, m + files_at + (u64)48 * i, strings, end);
    if (g.metadata.size - end > 7 || !all_zero(m + end, g.metadata.size - end))
        refuse("metadata: what follows the frames is not padding");
}

// One zstd frame with its content size, no dictionary (C 7, RFC 8878 section 3.1.1.1)
u8 *inflate_file(const struct carried *f)
{
    const u8 *frame = g.metadata.bytes + f->frame_offset;
    const size_t frame_bytes = (size_t)f->frame_bytes;

    if (frame_bytes < 5 || get_u32(frame) != 0xFD2FB528)
        refuse("metadata: the frame of file %s is not zstd", f->name);
    if ((frame[4] & 3) != 0)
        refuse("metadata: the frame of file %s needs a dictionary", f->name);
    if (ZSTD_findFrameCompressedSize(frame, frame_bytes) != frame_bytes)
        refuse("metadata: file %s is not exactly one frame", f->name);
    if (ZSTD_getFrameContentSize(frame, frame_bytes) != f->bytes)
        refuse("metadata: the frame of file %s has another content size", f->name);
    u8 *bytes = allocate(f->bytes);
    if (ZSTD_decompress(bytes, (size_t)f->bytes, frame, frame_bytes) != f->bytes)
        refuse("metadata: file %s does not inflate", f->name);
    if (!hash_is(f->hash, XXH3_128bits(bytes, (size_t)f->bytes)))
        refuse("metadata: file %s is damaged: its hash does not match", f->name);
    return bytes;
}
