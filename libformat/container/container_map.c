#include "libformat/container/container_map.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/map_guard.h"
#include "libformat/base/mem.h"
#include "libformat/container/container_index.h"
#include "libformat/container/container_inside.h"
#include "libformat/container/container_metadata.h"
#include "libformat/container/layout.h"
#include "libformat/container/set_name.h"

/* Payload addresses [address, address + bytes). */
struct map_part {
    uint64_t address, bytes;
    const unsigned char *data;
    const char *path;
    struct sf_mapping file; /* of a set; else empty: it is the map's own */
};

struct sf_map {
    struct sf_arena arena;
    const char *path;
    struct sf_mapping file;
    struct header_page header;
    struct container_index index;
    struct container_metadata metadata;
    struct map_part *part; /* by address */
    int64_t parts;
    struct sf_container_info info;
    uint64_t unread; /* bit of each section type that a glance leaves */
};

static bool is_unread(const struct sf_map *map, uint32_t type)
{
    return type < 64 && map->unread >> type & 1;
}

/* One request each for what a look needs; the kernel's own reading ahead may be megabytes. */
static void prefetch(const struct sf_map *map)
{
    static const uint32_t types[] = {SECTION_INDEX, SECTION_METADATA, SECTION_CHECKSUMS};
    enum { DIRECTORY_BYTES = 64 << 10 }; /* the metadata's frames lie behind its directory */
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const struct header_section *s = header_find(&map->header, types[i]);
        uint64_t bytes = s->bytes;
        if (is_unread(map, types[i]) && bytes > DIRECTORY_BYTES)
            bytes = types[i] == SECTION_METADATA ? DIRECTORY_BYTES : 0;
        sf_mapping_prefetch(&map->file, s->offset, bytes);
    }
}

/* What is not needed for a look and would be more than a look. The index is: views are made of it. */
static void leave_large(struct sf_map *map)
{
    static const uint32_t types[] = {SECTION_METADATA, SECTION_CHECKSUMS, SECTION_SHA256,
                                     SECTION_SIGNATURE};
    uint64_t bytes = HEADER_BYTES + header_find(&map->header, SECTION_INDEX)->bytes;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const struct header_section *s = header_find(&map->header, types[i]);
        if (!s)
            continue;
        if (s->bytes > SF_GLANCE_BYTES || bytes + s->bytes > SF_GLANCE_BYTES)
            map->unread |= (uint64_t)1 << s->type;
        else
            bytes += s->bytes;
    }
}

enum { HASH_TEXT = 33 };

static const char *identity_format(char text[HASH_TEXT], struct sf_hash128 hash)
{
    snprintf(text, HASH_TEXT, "%016llx%016llx", (unsigned long long)hash.high,
             (unsigned long long)hash.low);
    return text;
}

/* Every section but the payload, whose chunks have checksums of their own; unknown ones too. */
static int check_hashes(const struct sf_map *map, struct sf_err *err)
{
    for (int i = 0; i < map->header.sections; i++) {
        const struct header_section *s = &map->header.section[i];
        if (s->type == SECTION_PAYLOAD || is_unread(map, s->type))
            continue;
        struct sf_hash128 got = sf_hash128(map->file.data + s->offset, s->bytes);
        char name[32];
        if (got.low != s->hash.low || got.high != s->hash.high)
            return sf_fail(err, SF_EDAMAGED,
                           "%s: hash mismatch: stored %016llx%016llx, computed %016llx%016llx",
                           section_format(name, s->type), (unsigned long long)s->hash.high,
                           (unsigned long long)s->hash.low, (unsigned long long)got.high,
                           (unsigned long long)got.low);
    }
    return SF_OK;
}

static int check_identity(const struct sf_map *map, struct sf_err *err)
{
    const struct header_section *index = header_find(&map->header, SECTION_INDEX);
    const struct header_section *checksums = header_find(&map->header, SECTION_CHECKSUMS);
    struct sf_hash128 got, want = map->header.identity;
    if (checksums->bytes / 8 != map->index.chunks)
        return sf_fail(err, SF_EFORMAT, "checksums: %llu bytes, %llu chunks need 8 each",
                       (unsigned long long)checksums->bytes, (unsigned long long)map->index.chunks);
    if (map->unread)
        return SF_OK; /* it is a hash over all of them */
    int code = container_identity(&got, map->file.data + index->offset, index->bytes,
                                  map->file.data + checksums->offset, checksums->bytes,
                                  &map->metadata, err);
    if (code == SF_OK && (got.low != want.low || got.high != want.high))
        code = sf_fail(err, SF_EFORMAT, "header: the identity is not that of the content");
    return code;
}

static int read_sections(struct sf_map *map, struct sf_err *err)
{
    const struct header_section *index = header_find(&map->header, SECTION_INDEX);
    const struct header_section *metadata = header_find(&map->header, SECTION_METADATA);
    int code = check_hashes(map, err);
    if (code != SF_OK)
        return code;
    code = index_decode(&map->index, &map->arena, map->file.data + index->offset, index->bytes,
                        &map->header, err);
    if (code != SF_OK)
        return sf_err_prefix(err, "index");
    code = metadata_decode(&map->metadata, &map->arena, map->file.data + metadata->offset,
                           metadata->bytes, err);
    if (code != SF_OK)
        return sf_err_prefix(err, "metadata");
    return check_identity(map, err);
}

/* ---- other files of a set ---- */

static int check_part(const struct sf_map *map, const struct map_part *part, uint32_t file,
                      struct sf_err *err)
{
    const struct header_page *first = &map->header;
    struct header_page h;
    char have[HASH_TEXT], want[HASH_TEXT];
    int code = header_decode(&h, part->file.data, part->file.bytes, err);
    if (code != SF_OK)
        return code;
    if (h.files == 0)
        return sf_fail(err, SF_EFORMAT, "a container of its own, not file %u of %u", file,
                       first->files);
    if (h.identity.low != first->identity.low || h.identity.high != first->identity.high)
        return sf_fail(err, SF_EFORMAT, "of another container: its identity is %s, not %s",
                       identity_format(have, h.identity), identity_format(want, first->identity));
    if (h.file != file || h.files != first->files)
        return sf_fail(err, SF_EFORMAT, "file %u of %u, not file %u of %u", h.file, h.files, file,
                       first->files);
    if (header_payload(&h).bytes != part->bytes || h.extent_log2 != first->extent_log2 ||
        h.chunk_log2 != first->chunk_log2)
        return sf_fail(err, SF_EFORMAT, "holds %llu bytes of payload, the first file says %llu",
                       (unsigned long long)header_payload(&h).bytes,
                       (unsigned long long)part->bytes);
    return SF_OK;
}

static int open_part(struct sf_map *map, struct map_part *part, uint32_t file, bool glance,
                     struct sf_err *err)
{
    part->path = sf_set_sibling(&map->arena, map->path, file, map->header.files);
    if (!part->path)
        return sf_fail(err, SF_EINVAL,
                       "the first file of %u, so its name must end in -00001-of-%05u.scout",
                       map->header.files, map->header.files);
    int code = sf_map_file(&part->file, part->path, err);
    if (code != SF_OK)
        return sf_err_prefix(err, "file %u of %u", file, map->header.files);
    if (glance)
        sf_mapping_sparse(&part->file);
    code = check_part(map, part, file, err);
    if (code != SF_OK)
        sf_err_prefix(err, "%s", part->path);
    int there = sf_mapping_check(&part->file, part->path, err);
    part->data = part->file.data + HEADER_BYTES;
    return there == SF_OK ? code : there;
}

static int open_parts(struct sf_map *map, bool glance, struct sf_err *err)
{
    int code = SF_OK;
    map->part = sf_arena_array(&map->arena, (uint64_t)map->index.parts, sizeof *map->part);
    if (!map->part)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %lld parts", (long long)map->index.parts);
    for (int64_t i = 0; i < map->index.parts && code == SF_OK; i++) {
        struct map_part *part = &map->part[map->parts++];
        part->address = map->index.part[i].address;
        part->bytes = map->index.part[i].bytes;
        part->path = map->path;
        part->data = map->file.data + HEADER_BYTES;
        if (map->header.files)
            code = open_part(map, part, (uint32_t)i + 2, glance, err);
    }
    return code;
}

/* Not the first: that one says where everything is. */
static int check_first(const struct sf_map *map, struct sf_err *err)
{
    const struct header_page *h = &map->header;
    if (h->file < 2)
        return SF_OK;
    return sf_fail(err, SF_EINVAL,
                   "file %u of %u: give the first, which ends in -00001-of-%05u.scout", h->file,
                   h->files, h->files);
}

static void fill_info(struct sf_map *map)
{
    uint64_t bytes = map->header.file_bytes;
    for (int64_t i = 0; i < map->parts; i++)
        bytes += map->part[i].file.bytes;
    map->info =
        (struct sf_container_info){.version_major = map->header.major,
                                   .version_minor = map->header.minor,
                                   .file_bytes = bytes,
                                   .payload_bytes = map->index.payload_bytes,
                                   .container_files = map->header.files ? map->header.files : 1,
                                   .payload_offset = HEADER_BYTES,
                                   .extent_align = (uint32_t)1 << map->header.extent_log2,
                                   .chunk_bytes = (uint32_t)1 << map->header.chunk_log2,
                                   .tensors = map->index.entries,
                                   .extents = map->index.extents,
                                   .files = map->metadata.files,
                                   .checksums_unread = is_unread(map, SECTION_CHECKSUMS),
                                   .metadata_unread = is_unread(map, SECTION_METADATA)};
    hash128_put(map->info.identity, map->header.identity);
}

static int open_map(struct sf_map **out, const char *path, bool glance, struct sf_err *err)
{
    struct sf_map *map = sf_alloc(sizeof *map);
    if (!map)
        return sf_fail(err, SF_ENOMEM, "%s: cannot allocate a map", path);
    int code = sf_map_file(&map->file, path, err); /* names the path itself */
    if (code != SF_OK) {
        sf_map_close(map);
        return code;
    }
    if (glance)
        sf_mapping_sparse(&map->file);
    map->path = sf_arena_strdup(&map->arena, path);
    code = map->path ? header_decode(&map->header, map->file.data, map->file.bytes, err)
                     : sf_fail(err, SF_ENOMEM, "cannot allocate its name");
    if (code == SF_OK)
        code = check_first(map, err);
    if (code == SF_OK && glance) {
        leave_large(map);
        prefetch(map);
    }
    if (code == SF_OK)
        code = read_sections(map, err);
    if (code == SF_OK)
        code = open_parts(map, glance, err);
    if (code != SF_OK)
        sf_err_prefix(err, "%s", path);
    int there = sf_map_check(map, err); /* why it looks malformed, if so */
    if (there != SF_OK)
        code = there;
    if (code != SF_OK) {
        sf_map_close(map);
        return code;
    }
    fill_info(map);
    *out = map;
    return SF_OK;
}

int sf_map_open(struct sf_map **out, const char *path, struct sf_err *err)
{
    return open_map(out, path, false, err);
}

int sf_map_open_glance(struct sf_map **out, const char *path, struct sf_err *err)
{
    return open_map(out, path, true, err);
}

void sf_map_close(struct sf_map *map)
{
    if (!map)
        return;
    for (int64_t i = 0; i < map->parts; i++)
        sf_unmap(&map->part[i].file);
    sf_unmap(&map->file);
    sf_arena_free(&map->arena);
    sf_free(map);
}

int sf_map_check(const struct sf_map *map, struct sf_err *err)
{
    int code = sf_mapping_check(&map->file, map->path ? map->path : "container", err);
    for (int64_t i = 0; i < map->parts && code == SF_OK; i++)
        if (map->part[i].file.data)
            code = sf_mapping_check(&map->part[i].file, map->part[i].path, err);
    return code;
}

const char *sf_map_path(const struct sf_map *map)
{
    return map->path;
}

const struct sf_container_info *sf_map_info(const struct sf_map *map)
{
    return &map->info;
}

const struct sf_summary *sf_map_summary(const struct sf_map *map)
{
    return &map->metadata.summary;
}

const struct sf_entry *sf_map_tensor(const struct sf_map *map, int64_t index)
{
    assert(index >= 0 && index < map->index.entries);
    return &map->index.entry[index];
}

const struct sf_extent *sf_map_extent(const struct sf_map *map, int64_t index)
{
    assert(index >= 0 && index < map->index.extents);
    return &map->index.extent[index];
}

/* <0, 0, >0: where tensor i stands relative to the role, whose part has this label. */
static int64_t compare_role(const struct container_index *index, int64_t i, struct sf_role role,
                            int64_t label)
{
    const struct sf_role *have = &index->entry[i].role;
    if (have->layer != role.layer)
        return (int64_t)have->layer - role.layer;
    if ((int64_t)index->label[i] != label)
        return (int64_t)index->label[i] - label;
    return (int64_t)have->expert - role.expert;
}

const struct sf_entry *sf_map_find(const struct sf_map *map, struct sf_role role)
{
    if ((unsigned)role.part >= SF_PART_COUNT || role.part == SF_PART_UNUSED)
        return NULL;
    int64_t label = map->index.label_of_part[role.part];
    int64_t low = 0, high = label < 0 ? 0 : map->index.entries;
    while (low < high) {
        int64_t mid = low + (high - low) / 2, order = compare_role(&map->index, mid, role, label);
        if (order == 0)
            return &map->index.entry[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

const struct sf_entry *sf_map_find_name(const struct sf_map *map, const char *name)
{
    uint64_t hash = sf_hash64(name, strlen(name), 0);
    int64_t low = 0, high = map->index.entries;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        const unsigned char *at = map->index.names + mid * NAME_BYTES;
        uint64_t have = sf_get_u64(at + NAME_HASH);
        if (have == hash) {
            const struct sf_entry *entry = &map->index.entry[sf_get_u32(at + NAME_TENSOR)];
            return strcmp(entry->name, name) == 0 ? entry : NULL;
        }
        if (have < hash)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static const struct map_part *part_of(const struct sf_map *map, uint64_t address)
{
    int64_t low = 0, high = map->parts - 1;
    assert(address < map->info.payload_bytes);
    while (low < high) {
        int64_t mid = low + (high - low + 1) / 2;
        if (map->part[mid].address <= address)
            low = mid;
        else
            high = mid - 1;
    }
    return &map->part[low];
}

const void *sf_map_bytes(const struct sf_map *map, uint64_t address)
{
    const struct map_part *part = part_of(map, address);
    return part->data + (address - part->address);
}

void sf_map_prefetch(const struct sf_map *map, uint64_t address, uint64_t bytes)
{
    if (address >= map->index.payload_bytes)
        return;
    const struct map_part *part = part_of(map, address);
    const struct sf_mapping *file = part->file.data ? &part->file : &map->file;
    uint64_t at = address - part->address, left = part->bytes - at;
    sf_mapping_prefetch(file, (uint64_t)(part->data - file->data) + at,
                        bytes < left ? bytes : left);
}

void sf_map_copy(void *out, const struct sf_map *map, uint64_t address, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes;) {
        const struct map_part *part = part_of(map, address + done);
        uint64_t at = address + done - part->address, n = part->bytes - at;
        n = n < bytes - done ? n : bytes - done;
        memcpy((unsigned char *)out + done, part->data + at, n);
        done += n;
    }
}

const char *sf_map_place(uint64_t *offset, const struct sf_map *map, uint64_t address)
{
    const struct map_part *part = part_of(map, address);
    *offset = HEADER_BYTES + (address - part->address);
    return part->path;
}

int sf_map_read_file(char **out, uint64_t *bytes, const struct sf_map *map, const char *name,
                     struct sf_arena *arena, struct sf_err *err)
{
    const struct carried_file *file = metadata_find(&map->metadata, name);
    if (!file)
        return sf_fail(err, SF_ENOENT, "%s: carries no %s", map->path, name);
    void *data;
    int code = sf_frame_decompress(&data, arena, file->data, file->frame_bytes, file->bytes, err);
    if (code != SF_OK) {
        sf_err_prefix(err, "%s: metadata: %s", map->path, name);
        return code;
    }
    struct sf_hash128 got = sf_hash128(data, file->bytes);
    if (got.low != file->hash.low || got.high != file->hash.high)
        return sf_fail(err, SF_EDAMAGED, "%s: metadata: %s: hash mismatch after inflating",
                       map->path, name);
    *out = data;
    if (bytes)
        *bytes = file->bytes;
    return SF_OK;
}

const char *sf_map_file_name(const struct sf_map *map, int64_t index, uint64_t *bytes)
{
    assert(index >= 0 && index < map->metadata.files);
    if (bytes)
        *bytes = map->metadata.file[index].bytes;
    return map->metadata.file[index].name;
}

uint64_t map_checksum(const struct sf_map *map, uint64_t chunk)
{
    const struct header_section *s = header_find(&map->header, SECTION_CHECKSUMS);
    assert(chunk < map->index.chunks);
    return sf_get_u64(map->file.data + s->offset + 8 * chunk);
}
