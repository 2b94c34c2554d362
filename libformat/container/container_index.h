/* container_index.h -- the index section: from a layout to bytes, and from hostile bytes to
 * entries. Private to libformat/container. On disk: layout.h and spec/container.md. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_CONTAINER_INDEX_H
#define SCOUT_LIBFORMAT_CONTAINER_CONTAINER_INDEX_H

#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/container/container_layout.h"
#include "libformat/container/header_page.h"

/* The section's bytes in `arena`; a multiple of 8. */
int index_encode(unsigned char **out, uint64_t *bytes, struct sf_arena *arena,
                 const struct sf_layout *layout, uint64_t payload_offset, struct sf_err *err);

/* Bytes of the index that differ between equal models in different files: head and part table. */
uint64_t index_placing_bytes(const unsigned char *data);

struct index_part {
    uint64_t address, bytes; /* payload; it begins behind the header page of its file */
};

struct container_index {
    struct index_part *part; /* by address: all of it, or files 2, 3, ... of a set */
    int64_t parts;
    uint64_t payload_bytes;
    struct sf_entry *entry; /* index order */
    int64_t entries;
    struct sf_extent *extent; /* address order */
    int64_t extents;
    uint64_t chunks;
    uint32_t *label;                      /* [entries] the file's number for the part's name */
    int64_t label_of_part[SF_PART_COUNT]; /* that number, -1: the file has no such label */
    const unsigned char *names;           /* the name table, in the mapping */
};

/* Decodes data[0..bytes) into `arena`; strings stay borrowed from `data`. Every number is checked
 * against the section, the header and the others. */
int index_decode(struct container_index *out, struct sf_arena *arena, const unsigned char *data,
                 uint64_t bytes, const struct header_page *header, struct sf_err *err);

#endif
