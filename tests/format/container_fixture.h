/* container_fixture.h -- a small container that has everything: nested and plain NF4, raw tensors
 * of several types and ranks, experts of unequal size, an unused tensor of several chunks, carried
 * files, a source shard. Made through the public writer; the container suites read, patch and
 * damage it. */
#ifndef SCOUT_TESTS_FORMAT_CONTAINER_FIXTURE_H
#define SCOUT_TESTS_FORMAT_CONTAINER_FIXTURE_H

#include "libformat/container/container_write.h"
#include "tests/support/support.h"

/* The layout, finished. Lives in `arena`. */
struct sf_layout *fixture_layout(struct sf_arena *arena);
/* An extent's bytes: random planes (the same for the same tensor, always), zero padding. */
unsigned char *fixture_extent(struct sf_arena *arena, struct sf_layout *layout, int64_t extent);
/* The carried files and the summary. */
void fixture_add_files(struct sf_writer *writer);
extern const struct sf_summary fixture_summary;
/* All of it, written to `path`. */
void fixture_write(const char *path);
/* The same in as many files as can be (set_name.h says which); how many. */
int64_t fixture_write_set(const char *path);

/* A whole file in memory, to be patched and written back. */
struct patch {
    unsigned char *data; /* malloc */
    uint64_t bytes;
};
struct patch patch_load(const char *path);
struct patch patch_copy(const struct patch *from);
void patch_save(const struct patch *patch, const char *path);
void patch_free(struct patch *patch);
/* Where the section of this type begins, and how long it is. */
unsigned char *patch_section(const struct patch *patch, uint32_t type, uint64_t *bytes);
/* A record of the index; row counts bytes for the strings. */
enum patch_table {
    ROW_PART,
    ROW_EXTENT,
    ROW_TENSOR,
    ROW_PLANE,
    ROW_SHAPE,
    ROW_LABEL,
    ROW_NAME,
    ROW_STRING
};
unsigned char *patch_row(const struct patch *patch, enum patch_table table, int64_t row);
/* Makes section hashes, identity and header hash right again, so that only the patch is wrong. */
void patch_repair(struct patch *patch);
/* Only the header's own hash. */
void patch_repair_header(struct patch *patch);

#endif
