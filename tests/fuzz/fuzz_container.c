/* Edits to the header, index, checksums and metadata of a good container, with all hashes made
 * right again: opening refuses with a sentence, or everything that the index promises can be read.
 * An input is a list of edits of 6 bytes: section, operation, position (u32). The good container is
 * the file that SCOUT_FUZZ_CONTAINER names (make_container makes it); fuzz_container_set does the same
 * to a container of several files. */
#include <fcntl.h>
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
#include "libformat/container/set_name.h"
#include "tests/fuzz/folder.h"

#ifdef FUZZ_SET
#define GOOD_CONTAINER "SCOUT_FUZZ_CONTAINER_SET"
#else
#define GOOD_CONTAINER "SCOUT_FUZZ_CONTAINER"
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { EDIT_BYTES = 6, MOST_FILES = 32, PAGE = 4096 };

static volatile unsigned char sink;

/* Ranges lie in one mapping: when the first and the last byte can be read, so can all. */
static void touch(const void *from, uint64_t bytes)
{
    const unsigned char *p = from;
    if (bytes)
        sink ^= p[0] ^ p[bytes - 1];
}

static void read_tensors(const struct sf_map *map)
{
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++) {
        const struct sf_entry *e = sf_map_tensor(map, i);
        char text[SF_SHAPE_TEXT];
        sf_shape_format(text, &e->shape);
        touch(e->name, strlen(e->name));
        touch(e->source_name, strlen(e->source_name));
        if (sf_map_find_name(map, e->name) != e)
            abort();
        for (int k = 0; k < SF_PLANE_COUNT; k++)
            if (e->plane[k].dtype != SF_DTYPE_NONE)
                touch(sf_map_bytes(map, e->plane[k].address), e->plane[k].bytes);
        sf_map_find(map, e->role);
    }
}

static void read_files(const struct sf_map *map)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    for (int64_t i = 0; i < sf_map_info(map)->files; i++) {
        char *text;
        uint64_t bytes;
        if (sf_map_read_file(&text, &bytes, map, sf_map_file_name(map, i, &bytes), &arena, &err) ==
            SF_OK)
            touch(text, bytes);
    }
    sf_arena_free(&arena);
}

static void read_rest(const struct sf_map *map, bool check)
{
    struct sf_err err = {0};
    for (int64_t i = 0; i < sf_map_info(map)->extents; i++) {
        const struct sf_extent *x = sf_map_extent(map, i);
        touch(sf_map_bytes(map, x->address), x->bytes);
    }
    const struct sf_summary *s = sf_map_summary(map);
    for (int64_t i = 0; i < s->shard_count; i++)
        touch(s->shard[i].name, strlen(s->shard[i].name));
    int64_t damaged;
    if (check)
        sf_check_run(&damaged, map, &(struct sf_check_options){.threads = 1}, &err);
}

/* What looks without reading, and what starts from the wrong file of a set. */
static void glance(const char *path)
{
    struct sf_err err = {0};
    struct sf_map *map;
    unsigned char copy[64];
    uint64_t offset;
    if (sf_map_open_glance(&map, path, &err) != SF_OK) {
        if (!err.message[0])
            abort();
        return;
    }
    uint64_t payload = sf_map_info(map)->payload_bytes;
    if (payload >= sizeof copy) {
        sf_map_copy(copy, map, payload - sizeof copy, sizeof copy);
        sf_map_prefetch(map, payload - 1, UINT64_MAX);
        touch(sf_map_place(&offset, map, payload - 1), 1);
    }
    sf_map_close(map);
}

/* A file of the container: as it should be, and mapped as the readers will find it. */
struct copy {
    unsigned char *good, *live;
    uint64_t bytes;
    struct header_page header; /* of the good one */
    char path[256];
};

static struct copy file[MOST_FILES];
static int files;

static unsigned char *section_of(const struct copy *copy, uint32_t type, uint64_t *bytes)
{
    const struct header_section *s = header_find(&copy->header, type);
    *bytes = s->bytes;
    return copy->live + s->offset;
}

static void must(bool good, const char *why)
{
    if (good)
        return;
    fprintf(stderr, "%s: %s\n", GOOD_CONTAINER, why);
    exit(1);
}

static void load_file(struct copy *copy, const char *path)
{
    struct sf_err err = {0};
    struct sf_mapping map;
    const char *slash = strrchr(path, '/');
    snprintf(copy->path, sizeof copy->path, "%s", fuzz_path(slash ? slash + 1 : path));
    must(sf_map_file(&map, path, &err) == SF_OK, err.message);
    must(header_decode(&copy->header, map.data, map.bytes, &err) == SF_OK, err.message);
    must(sf_write_file(copy->path, map.data, map.bytes, &err) == SF_OK, err.message);
    copy->good = malloc(map.bytes);
    copy->bytes = map.bytes;
    must(copy->good, "no memory");
    memcpy(copy->good, map.data, map.bytes);
    sf_unmap(&map);
    int fd = open(copy->path, O_RDWR);
    copy->live = mmap(NULL, copy->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(fd >= 0 && copy->live != MAP_FAILED, "cannot be mapped");
    close(fd);
}

static void load_good(void)
{
    struct sf_arena arena = {0};
    const char *path = getenv(GOOD_CONTAINER);
    must(path, "is not set");
    load_file(&file[0], path);
    files = file[0].header.files ? (int)file[0].header.files : 1;
    must(files <= MOST_FILES, "too many files");
    for (int i = 1; i < files; i++)
        load_file(&file[i], sf_set_sibling(&arena, path, (uint32_t)i + 1, (uint32_t)files));
    sf_arena_free(&arena);
}

/* All but the payload, which no edit touches. */
static void restore(const struct copy *copy)
{
    memcpy(copy->live, copy->good, PAGE);
    for (int i = 0; i < copy->header.sections; i++) {
        const struct header_section *s = &copy->header.section[i];
        if (s->type != SECTION_PAYLOAD)
            memcpy(copy->live + s->offset, copy->good + s->offset, s->bytes);
    }
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
        for (int i = 0; i < files; i++)
            hash128_put(file[i].live + HEADER_IDENTITY, identity);
    sf_arena_free(&arena);
}

/* Only the edits are wrong afterwards. */
static void repair(void)
{
    const struct copy *first = &file[0];
    for (int i = 0; i < first->header.sections; i++) {
        const struct header_section *s = &first->header.section[i];
        unsigned char *row = first->live + HEADER_TABLE + i * SECTION_BYTES;
        if (s->type != SECTION_PAYLOAD)
            hash128_put(row + SECTION_HASH, sf_hash128(first->live + s->offset, s->bytes));
    }
    put_identity(first);
    for (int i = 0; i < files; i++) {
        memset(file[i].live + HEADER_HASH, 0, 16);
        hash128_put(file[i].live + HEADER_HASH, sf_hash128(file[i].live, HEADER_BYTES));
    }
}

/* How often what was read lay behind every hash; said at the end, for tests/fuzz/run. */
static uint64_t runs, past;

static void say_past(void)
{
    fprintf(stderr, "past the hashes: %llu of %llu\n", (unsigned long long)past,
            (unsigned long long)runs);
}

static bool is_past(const char *refusal)
{
    return strstr(refusal, "index: ") || strstr(refusal, "metadata: ") ||
                   strstr(refusal, "checksums: ")
               ? !strstr(refusal, "hash mismatch")
               : strstr(refusal, "identity") != NULL;
}

static void open_and_read(bool check)
{
    struct sf_err err = {0};
    struct sf_map *map;
    runs++;
    if (sf_map_open(&map, file[0].path, &err) == SF_OK) {
        past++;
        read_tensors(map);
        read_files(map);
        read_rest(map, check);
        sf_map_close(map);
    } else if (!err.message[0]) {
        abort();
    } else {
        past += is_past(err.message);
    }
}

static void edit(const uint8_t *step)
{
    static const uint32_t sections[] = {SECTION_INDEX, SECTION_METADATA, SECTION_CHECKSUMS,
                                        SECTION_INDEX};
    static const uint64_t special[] = {0,         1,          4096,       UINT32_MAX,
                                       INT64_MAX, UINT64_MAX, 1ull << 32, 1ull << 63};
    uint64_t bytes = HEADER_TABLE + 6 * SECTION_BYTES;
    unsigned char *at = file[step[0] / 16 % files].live;
    if (step[0] % 16) /* the header is small, and what is wrong with it ends the reading */
        at = section_of(&file[0], sections[step[0] % 4], &bytes);
    uint64_t place = sf_get_u32(step + 2) % (bytes - 8);
    if (step[1] < 64) /* a field: the next multiple of four, changed by a little */
        sf_put_u32(at + place / 4 * 4, sf_get_u32(at + place / 4 * 4) + step[1] - 32);
    else if (step[1] < 80)
        sf_put_u64(at + place / 4 * 4, special[step[1] % 8]);
    else
        at[place] = step[1] < 96 ? at[place] ^ (unsigned char)(1 << step[1] % 8) : step[1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!files) {
        load_good();
        atexit(say_past);
    }
    for (size_t i = 0; i + EDIT_BYTES <= size; i += EDIT_BYTES)
        edit(data + i);
    repair();
    open_and_read(size % 16 == 0);
    if (size % 4 == 0)
        glance(file[size / 4 % files].path);
    for (int i = 0; i < files; i++)
        restore(&file[i]);
    return 0;
}
