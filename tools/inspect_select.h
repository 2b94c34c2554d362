/* inspect_select.h -- which tensors a verb is about, and in which order: by name, layer, expert,
 * encoding. A choice that leaves nothing is an error, not an empty table. */
#ifndef SCOUT_TOOLS_INSPECT_SELECT_H
#define SCOUT_TOOLS_INSPECT_SELECT_H

#include "tools/inspect.h"

/* As on the command line; NULL: any. */
struct inspect_filter {
    const char *name;     /* shell pattern; '*' also matches '.' */
    const char *layer;    /* "7" or "0-3" */
    const char *expert;   /* likewise */
    const char *encoding; /* "nf4", "bf16", ... as the column "as" shows it */
    const char *sort;     /* address (NULL: this), name, size, error or role; size and error:
                             largest first */
};

struct inspect_selection {
    const struct sf_entry **entry; /* in the arena of `in` */
    int64_t count;
};

int inspect_select(struct inspect_selection *out, struct inspect *in,
                   const struct inspect_filter *filter, struct sf_err *err);
/* Names compared so that "layers.9." stands before "layers.10.". */
int inspect_compare_names(const char *a, const char *b);

#endif
