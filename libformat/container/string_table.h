/* string_table.h -- the strings of an index or a metadata section: NUL-terminated UTF-8, one behind
 * the other, each stored once. A string is named by its byte offset; offset 0 is "". Private to
 * libformat/container. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_STRING_TABLE_H
#define SCOUT_LIBFORMAT_CONTAINER_STRING_TABLE_H

#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"

/* SF_EINVAL unless `text` may stand in a table: UTF-8, no control characters, not too long. `what`
 * names it in the message. */
int string_check(const char *text, const char *what, struct sf_err *err);

/* ---- writing ---- */

struct string_table {
    struct sf_arena *arena;
    char *data;
    uint64_t bytes, room;
    uint32_t *slot; /* open addressing: offset + 1, 0 = free */
    uint64_t slots, used;
};

int string_table_begin(struct string_table *table, struct sf_arena *arena, struct sf_err *err);
/* The offset of `text`, added if it is new. */
int string_table_add(uint32_t *offset, struct string_table *table, const char *text,
                     struct sf_err *err);
/* Pads with zeros to a multiple of 8. */
int string_table_end(struct string_table *table, struct sf_err *err);

/* ---- reading ---- */

struct string_view {
    const char *data; /* borrowed from the mapping */
    uint64_t bytes;
};
/* Starts and ends with NUL, UTF-8, no control characters, a multiple of 8 bytes. */
int string_view_check(const struct string_view *view, struct sf_err *err);
/* SF_EFORMAT unless `offset` is the start of a string of at most LAYOUT_NAME_MAX bytes. The error
 * names `what` and, if it is not negative, `row`. */
int string_view_get(const char **out, const struct string_view *view, uint32_t offset,
                    const char *what, int64_t row, struct sf_err *err);

#endif
