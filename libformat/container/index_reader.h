/* index_reader.h -- what is known while an index section is read, and the steps of reading it.
 * Private to index_read.c and index_tensors.c. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_INDEX_READER_H
#define SCOUT_LIBFORMAT_CONTAINER_INDEX_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/container/container_index.h"
#include "libformat/container/string_table.h"

/* The tables of the section, each a run of fixed-size records. */
struct index_table {
    const unsigned char *data;
    int64_t count;
};

struct index_reader {
    struct container_index *out;
    const struct header_page *header;
    uint64_t payload_bytes; /* of all files */
    uint64_t extent_align, chunk_bytes;
    struct index_table parts, extents, tensors, planes, shapes, labels, names;
    struct string_view strings;
    struct sf_shape *shape;
    int32_t *plane_extent;
    bool *plane_used;
    uint64_t unused_label; /* the label "unused"; UINT64_MAX if there is none */
};

int index_must_be_zero(uint32_t value, const char *what, int64_t row, struct sf_err *err);

/* Each reads and checks one table, in this order; those before are then known to be right. */
int index_read_shapes(struct index_reader *r, struct sf_err *err);
int index_read_planes(struct index_reader *r, struct sf_err *err);
int index_read_tensors(struct index_reader *r, struct sf_err *err);
int index_read_names(struct index_reader *r, struct sf_err *err);

#endif
