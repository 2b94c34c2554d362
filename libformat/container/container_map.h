/* container_map.h -- read a finished container through one memory map.
 *
 * Open once; list tensors, extents and carried files; find by role or name; borrow bytes until
 * close. Open checks the header, the index and every number in them; the payload is checked by
 * container_check. Any number of threads may read one map. On disk: spec/container.md. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_CONTAINER_MAP_H
#define SCOUT_LIBFORMAT_CONTAINER_CONTAINER_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/container/entry.h"

struct sf_map; /* owns the mapping */

/* Maps `path` and checks header, index and the metadata directory. Of a container in several files
 * `path` is the first; the others lie beside it (set_name.h) and are checked to be of the same one.
 * SF_ENOENT: no such file. SF_EFORMAT: the bytes make no container. SF_EUNSUPPORTED: a newer major
 * version or an unknown incompatible feature. SF_EDAMAGED: a section's hash does not match. */
int sf_map_open(struct sf_map **out, const char *path, struct sf_err *err);
/* For a look at a large file: the same, but checksums and metadata are hashed only as far as that
 * and the index together stay within SF_GLANCE_BYTES; info tells what was left. Their structure is
 * checked all the same, and a carried file's own hash when it is read. */
enum { SF_GLANCE_BYTES = 2 << 20 };
int sf_map_open_glance(struct sf_map **out, const char *path, struct sf_err *err);
void sf_map_close(struct sf_map *map); /* NULL is welcome */

/* SF_EIO when the file has become shorter since, or a part of it could not be read: what was read
 * through this map is not to be believed (base/map_guard.h). Ask before results go anywhere. */
int sf_map_check(const struct sf_map *map, struct sf_err *err);
const char *sf_map_path(const struct sf_map *map);
struct sf_container_info {
    uint32_t version_major, version_minor;
    uint64_t file_bytes, payload_bytes; /* of all files */
    int64_t container_files;            /* 1, or as many as it was split into */
    uint64_t payload_offset;            /* where the payload begins in each file that has some */
    uint32_t extent_align, chunk_bytes;
    int64_t tensors, extents, files;
    unsigned char identity[16]; /* hash over uncompressed content: equal models, equal identity */
    bool checksums_unread, metadata_unread; /* by a glance: their hashes were not compared */
};
const struct sf_container_info *sf_map_info(const struct sf_map *map);
const struct sf_summary *sf_map_summary(const struct sf_map *map);

/* Tensors sorted by (layer, part, expert, name). */
const struct sf_entry *sf_map_tensor(const struct sf_map *map, int64_t index);
/* NULL if there is none. UNUSED parts are found by name only. */
const struct sf_entry *sf_map_find(const struct sf_map *map, struct sf_role role);
const struct sf_entry *sf_map_find_name(const struct sf_map *map, const char *name);

/* Extents in order of address. */
const struct sf_extent *sf_map_extent(const struct sf_map *map, int64_t index);

/* payload[address .. address + bytes): a range inside one extent, as given out by planes and
 * extents. */
const void *sf_map_bytes(const struct sf_map *map, uint64_t address);

/* These bytes of the payload will be read soon: a hint to the system, cut to what one file has. */
void sf_map_prefetch(const struct sf_map *map, uint64_t address, uint64_t bytes);
/* The same for any range: copied to `out`. */
void sf_map_copy(void *out, const struct sf_map *map, uint64_t address, uint64_t bytes);
/* Where it lies on disk: returns the file's path (the map's), sets the offset in it. */
const char *sf_map_place(uint64_t *offset, const struct sf_map *map, uint64_t address);

/* A carried file ("config.json", "tokenizer.json", ...), inflated into `arena` with a NUL behind
 * it. SF_ENOENT: the container has no such file. */
int sf_map_read_file(char **out, uint64_t *bytes, const struct sf_map *map, const char *name,
                     struct sf_arena *arena, struct sf_err *err);
const char *sf_map_file_name(const struct sf_map *map, int64_t index, uint64_t *bytes);

#endif
