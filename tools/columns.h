/* columns.h -- a table of text: cells in, aligned lines out.
 *
 * In a pipe every column is shown in full. On a terminal of some width the stretchy column is cut
 * at its front (the end of a tensor's name tells more), and columns that matter less are left out.
 * Cells are escaped: control characters and marks that turn text around show as \x1b or \u202e. */
#ifndef SCOUT_TOOLS_COLUMNS_H
#define SCOUT_TOOLS_COLUMNS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"

enum { COLUMNS_MOST = 12 };

struct column {
    const char *title;
    bool right;    /* numbers */
    bool stretchy; /* at most one: may be cut down to 16 characters */
    int rank;      /* 0: always shown; else left out when there is no room, highest first */
};

struct columns_cell {
    const char *text;
    int bytes, width; /* width: characters */
};

struct columns {
    struct sf_arena *arena;
    struct column column[COLUMNS_MOST];
    int count;
    struct columns_cell *cell; /* row by row */
    int64_t cells, capacity;
    bool failed; /* out of memory; columns_print says so */
};

void columns_begin(struct columns *c, struct sf_arena *arena, const struct column *column,
                   int count);
/* Room for so many lines more; without it, it is made as lines come. */
void columns_expect(struct columns *c, int64_t lines);
/* The next cell, left to right, line by line. */
void columns_cell(struct columns *c, const char *fmt, ...) SF_PRINTF(2, 3);
/* The same of a text that outlives the table: copied only where it must be escaped. */
void columns_kept(struct columns *c, const char *text);
/* A fraction of at least 0 as "9.190 %". */
void columns_percent(struct columns *c, double fraction);
/* Prints titles and lines, each behind `indent` spaces. `width` 0: as wide as it takes. */
int columns_print(const struct columns *c, FILE *out, int indent, int width, struct sf_err *err);

/* Characters of the terminal that `out` is (COLUMNS in the environment wins); 0: it is none. */
int columns_terminal_width(FILE *out);

/* "1,234,567", and an escaped copy; NULL when there is no memory. */
const char *columns_number(struct sf_arena *arena, uint64_t number);
const char *columns_escape(struct sf_arena *arena, const char *text);

#endif
