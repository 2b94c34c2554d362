/* Edits to the header, index, checksums and metadata of a good container, with all hashes made
 * right again: opening refuses with a sentence, or everything that the index promises can be read.
 * An input is a list of edits of 6 bytes: section, operation, position (u32). The good container is
 * the file that SCOUT_FUZZ_CONTAINER names (make_container makes it). */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/container/container_check.h"
#include "libformat/container/container_index.h"
#include "libformat/container/container_map.h"
#include "libformat/container/container_metadata.h"
#include "libformat/container/header_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

static void read_bytes(const void *from, uint64_t bytes)
{
    const unsigned char *p = from;
    for (uint64_t i = 0; i < bytes; i += 61)
        sink ^= p[i];
    if (bytes)
        sink ^= p[bytes - 1];
}

static void read_tensors(const struct sf_map *map)
{
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++) {
        const struct sf_entry *e = sf_map_tensor(map, i);
        char text[SF_SHAPE_TEXT];
        sf_shape_format(text, &e->shape);
        read_bytes(e->name, strlen(e->name));
        read_bytes(e->source_name, strlen(e->source_name));
        if (sf_map_find_name(map, e->name) != e)
            abort();
        for (int k = 0; k < SF_PLANE_COUNT; k++)
            if (e->plane[k].dtype != SF_DTYPE_NONE)
                read_bytes(sf_map_bytes(map, e->plane[k].address), e->plane[k].bytes);
        sf_map_find(map, e->role);
    }
}

static void read_rest(const struct sf_map *map)
{
    struct sf_err err = {0};
    const struct sf_container_info *info = sf_map_info(map);
    for (int64_t i = 0; i < info->extents; i++) {
        const struct sf_extent *x = sf_map_extent(map, i);
        read_bytes(sf_map_bytes(map, x->address), x->bytes);
    }
    struct sf_arena arena = {0};
    for (int64_t i = 0; i < info->files; i++) {
        char *text;
        uint64_t bytes;
        if (sf_map_read_file(&text, &bytes, map, sf_map_file_name(map, i, &bytes), &arena, &err) ==
            SF_OK)
            read_bytes(text, bytes);
    }
    sf_arena_free(&arena);
    const struct sf_summary *s = sf_map_summary(map);
    for (int64_t i = 0; i < s->shard_count; i++)
        read_bytes(s->shard[i].name, strlen(s->shard[i].name));
    int64_t damaged;
    sf_check_run(&damaged, map, &(struct sf_check_options){.threads = 1}, &err);
}

struct copy {
    unsigned char *data;
    uint64_t bytes;
};

static struct copy good;
static struct header_page good_header; /* where the sections of the good container lie */

static unsigned char *section_of(const struct copy *copy, uint32_t type, uint64_t *bytes)
{
    const struct header_section *s = header_find(&good_header, type);
    *bytes = s->bytes;
    return copy->data + s->offset;
}

static void load_good(void)
{
    struct sf_err err = {0};
    struct sf_mapping map;
    if (sf_map_file(&map, getenv("SCOUT_FUZZ_CONTAINER"), &err) != SF_OK ||
        header_decode(&good_header, map.data, map.bytes, &err) != SF_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    good = (struct copy){malloc(map.bytes), map.bytes};
    memcpy(good.data, map.data, map.bytes);
    sf_unmap(&map);
}

static void put_identity(const struct copy *copy)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct container_metadata metadata;
    struct sf_hash128 identity;
    uint64_t index_bytes, checksum_bytes, metadata_bytes;
    const unsigned char *index = section_of(copy, SECTION_INDEX, &index_bytes);
    const unsigned char *checksums = section_of(copy, SECTION_CHECKSUMS, &checksum_bytes);
    const unsigned char *meta = section_of(copy, SECTION_METADATA, &metadata_bytes);
    if (index_placing_bytes(index) <= index_bytes &&
        metadata_decode(&metadata, &arena, meta, metadata_bytes, &err) == SF_OK &&
        container_identity(&identity, index, index_bytes, checksums, checksum_bytes, &metadata,
                           &err) == SF_OK)
        hash128_put(copy->data + HEADER_IDENTITY, identity);
    sf_arena_free(&arena);
}

/* Only the edits are wrong afterwards. */
static void repair(const struct copy *copy)
{
    for (int i = 0; i < good_header.sections; i++) {
        const struct header_section *s = &good_header.section[i];
        unsigned char *row = copy->data + HEADER_TABLE + i * SECTION_BYTES;
        if (s->type != SECTION_PAYLOAD)
            hash128_put(row + SECTION_HASH, sf_hash128(copy->data + s->offset, s->bytes));
    }
    put_identity(copy);
    memset(copy->data + HEADER_HASH, 0, 16);
    hash128_put(copy->data + HEADER_HASH, sf_hash128(copy->data, HEADER_BYTES));
}

static unsigned long long opened, past_hashes;

static void tell(void)
{
    fprintf(stderr, "past the hashes: %llu of %llu\n", past_hashes, opened);
}

static void open_and_read(const struct copy *copy)
{
    struct sf_err err = {0};
    struct sf_map *map;
    char path[64];
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, copy->data, copy->bytes) != (ssize_t)copy->bytes)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int code = sf_map_open(&map, path, &err);
    opened++;
    past_hashes += code != SF_EDAMAGED && !strstr(err.message, "identity");
    if (code == SF_OK) {
        read_tensors(map);
        read_rest(map);
        sf_map_close(map);
    } else if (!err.message[0]) {
        abort();
    }
    close(fd);
}

static void edit(const struct copy *copy, const uint8_t *step)
{
    static const uint32_t sections[] = {SECTION_INDEX, SECTION_METADATA, SECTION_CHECKSUMS};
    uint64_t bytes = HEADER_TABLE + 6 * SECTION_BYTES;
    unsigned char *at = copy->data;
    if (step[0] % 4)
        at = section_of(copy, sections[step[0] % 4 - 1], &bytes);
    uint64_t place = sf_get_u32(step + 2) % bytes;
    if (step[1] < 64) /* a field: the next multiple of four, changed by a little */
        sf_put_u32(at + place / 4 * 4, sf_get_u32(at + place / 4 * 4) + step[1] - 32);
    else
        at[place] = step[1] < 72 ? at[place] ^ (unsigned char)(1 << step[1] % 8) : step[1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!good.data) {
        load_good();
        atexit(tell);
    }
    struct copy copy = {malloc(good.bytes), good.bytes};
    memcpy(copy.data, good.data, good.bytes);
    for (size_t i = 0; i + 6 <= size; i += 6)
        edit(&copy, data + i);
    repair(&copy);
    open_and_read(&copy);
    free(copy.data);
    return 0;
}
