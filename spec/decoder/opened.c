#define _POSIX_C_SOURCE 200809L

#include "spec/decoder/opened.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "spec/decoder/fields.h"
#include "spec/decoder/index.h"
#include "spec/decoder/metadata.h"
#include "spec/decoder/parts.h"
#include "spec/decoder/sections.h"

struct opened g;

void map_file(void)
{
    const int fd = open(g_path, O_RDONLY);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) != 0)
        refuse("cannot be opened");
    if (!S_ISREG(status.st_mode))
        refuse("is not a regular file");
    g.size = (u64)status.st_size;
    if (g.size == 0)
        refuse("is empty");
    void *memory = mmap(NULL, (size_t)g.size, PROT_READ, MAP_PRIVATE, fd, 0);
    (void)close(fd);
    if (memory == MAP_FAILED)
        refuse("cannot be mapped");
    g.bytes = memory;
}

// Identity (C 8)

static void add_u64(XXH3_state_t *state, u64 value)
{
    u8 bytes[8];

    put_u64(bytes, value);
    (void)XXH3_128bits_update(state, bytes, sizeof bytes);
}

static void check_identity(void)
{
    XXH3_state_t *state = XXH3_createState();
    const u64 skipped = 32 + 32 * (u64)g.part_count; // the head and the part table
    const u64 x = g.index.size - skipped;

    if (state == NULL)
        refuse("no memory");
    (void)XXH3_128bits_reset(state);
    add_u64(state, x);
    add_u64(state, g.checksums.size);
    add_u64(state, g.file_count);
    (void)XXH3_128bits_update(state, g.index.bytes + skipped, (size_t)x);
    (void)XXH3_128bits_update(state, g.checksums.bytes, (size_t)g.checksums.size);
    for (u32 i = 0; i < g.file_count; i++) {
        const struct carried *f = &g.files[i];

        (void)XXH3_128bits_update(state, f->name, strlen(f->name) + 1);
        add_u64(state, f->bytes);
        (void)XXH3_128bits_update(state, f->hash, 16);
    }
    if (!hash_is(g.bytes + 64, XXH3_128bits_digest(state)))
        refuse("header: the identity is not that of the content");
    (void)XXH3_freeState(state);
}

void open_container(void) // C 2, order of checks
{
    map_file();
    read_header_page();
    if (g.file_of_set > 1)
        refuse("is file %u of %u: the first is the one to name", g.file_of_set, g.files_of_set);
    read_index();
    read_metadata();
    check_identity();
    open_parts();
}
