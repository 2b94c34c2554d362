/* report_data.h -- what the page of scout-inspect report shows, as one JSON object.
 *
 * Its reader is report/report.js, made with it: lists are lists of lists to keep 2,900 tensors small.
 * The same container gives the same text: no path, time or thread count is in it. */
#ifndef SCOUT_TOOLS_REPORT_DATA_H
#define SCOUT_TOOLS_REPORT_DATA_H

#include "libformat/base/json.h"
#include "tools/inspect_verbs.h"

struct report_damage {
    uint64_t chunk, offset, bytes; /* offset: in the file */
    const char *file, *text;
};

enum { REPORT_DAMAGE_MOST = 200, REPORT_HISTOGRAMS_MOST = 24, REPORT_CARDS_MOST = 8 };

struct report {
    struct inspect *in;
    bool checked;
    int64_t damaged; /* chunks */
    struct report_damage damage[REPORT_DAMAGE_MOST];
    int64_t damages;  /* listed */
    bool *bad_tensor; /* [tensors] a chunk of its is damaged */
    bool *bad_extent; /* [extents] likewise */
    const struct sf_entry *histogram[REPORT_HISTOGRAMS_MOST];
    int64_t histograms;
    bool chosen; /* the histograms are those of --name */
};

/* The object's text in the arena of `in`; safe inside a <script> element. */
int report_data_write(char **text, struct report *report, struct sf_err *err);

#endif
