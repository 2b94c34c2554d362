/* container_check.h -- compare a container's bytes with its checksums and name what is damaged.
 *
 * Chunks are checked in parallel; every damaged chunk is reported, in order of address, with the
 * tensors whose planes overlap it (or "padding"). Read-only; any number of checks at once. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_CONTAINER_CHECK_H
#define SCOUT_LIBFORMAT_CONTAINER_CONTAINER_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/container/container_map.h"

struct sf_damage {
    int64_t extent;
    const struct sf_extent *where;       /* that extent; borrowed from the map */
    uint64_t chunk;                      /* number in the whole file */
    uint64_t address, bytes;             /* payload range of the chunk */
    const struct sf_entry *const *entry; /* tensors that overlap it, in index order; borrowed
                                            during the call */
    int64_t entries;                     /* 0: padding only */
};

enum {
    SF_CHECK_RESIDENT = 1 << SF_EXTENT_EXPERT | 1 << SF_EXTENT_DENSE | 1 << SF_EXTENT_HEAD |
                        1 << SF_EXTENT_SHARED,                      /* what goes to the device */
    SF_CHECK_TRAINED = SF_CHECK_RESIDENT | 1 << SF_EXTENT_EMBEDDING /* what training touches */
};

struct sf_check_options {
    int threads;    /* 0: all processors */
    uint32_t kinds; /* SF_CHECK_*, or 1u << SF_EXTENT_* of the extents to check; 0: all */
    /* Hashes of chunks as they were found elsewhere (in VRAM), by chunk number: compared with the
     * checksums instead of hashing the mapping. NULL: hash the mapping. */
    const uint64_t *found;
    /* Called for each damaged chunk, from the calling thread, in order; may be NULL. */
    void (*on_damage)(void *context, const struct sf_damage *damage);
    /* Called now and then with bytes done and bytes in all; may be NULL. */
    void (*on_progress)(void *context, uint64_t done, uint64_t total);
    void *context;
};

/* SF_OK: all chunks match, *damaged 0. SF_EDAMAGED: the message names the first damaged chunk and
 * *damaged is how many there are. `options` NULL: all processors, everything, no callbacks. */
int sf_check_run(int64_t *damaged, const struct sf_map *map, const struct sf_check_options *options,
                 struct sf_err *err);
/* "chunk 17 (payload 1114112..1179648): layer 0 expert 3 gate, layer 0 expert 3 up" into text; what
 * training does not use goes by its name, zeros between tensors are "padding of <extent>". */
enum { SF_DAMAGE_TEXT = 512 };
const char *sf_damage_format(char *text, const struct sf_damage *damage);

#endif
