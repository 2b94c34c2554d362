/* container_layout.h -- the inside of struct sf_layout, for the writer. The calls are those of
 * container_write.h. Private to libformat/container. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_CONTAINER_LAYOUT_H
#define SCOUT_LIBFORMAT_CONTAINER_CONTAINER_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/container/container_write.h"

struct entry_range {
    int64_t first, count; /* entries of one extent, in call order */
};

struct sf_layout {
    struct sf_arena *arena;
    bool finished;
    struct sf_entry *entry; /* call order */
    int64_t entries, entry_room;
    struct sf_extent *extent;
    struct entry_range *range; /* [extents] */
    int64_t extents, extent_room;
    int64_t shared; /* the codebooks' extent, -1 if no tensor needs one */
    struct sf_plane codebook, map;
    int64_t *order; /* [entries]: by layer, part, expert, name */
    uint64_t payload_bytes, chunks;
};

/* <0, 0, >0: the order of the index. */
int sf_entry_compare(const struct sf_entry *a, const struct sf_entry *b);

#endif
