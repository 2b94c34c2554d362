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

/* A codebook or map that the writer stores once for all tensors that use it. */
struct shared_book {
    enum sf_plane_kind kind; /* CODEBOOK or MAP */
    struct sf_plane plane;
    float value[256]; /* as many as the plane holds */
};

struct entry_books {
    int64_t codebook, map; /* numbers of books; -1: the tensor has none */
};

/* Payload of one file of several: whole extents. */
struct layout_part {
    uint64_t address, bytes;
};

struct sf_layout {
    struct sf_arena *arena;
    bool finished;
    struct sf_entry *entry; /* call order */
    int64_t entries, entry_room;
    struct entry_books *books_of; /* [entry_room] */
    struct sf_extent *extent;
    struct entry_range *range; /* [extents] */
    int64_t extents, extent_room;
    int64_t shared;           /* the codebooks' extent, -1 if no tensor needs one */
    struct shared_book *book; /* by address: in order of first use */
    int64_t books, book_room;
    int64_t *order; /* [entries]: by layer, part, expert, name */
    uint64_t payload_bytes, chunks;
    struct layout_part *part; /* by address; the files behind the first */
    int64_t parts;            /* 0: all is in one file */
    uint64_t part_most;       /* bytes of a file, 0: not limited */
};

/* <0, 0, >0: the order of the index. */
int sf_entry_compare(const struct sf_entry *a, const struct sf_entry *b);

#endif
