/* run_report.h -- report.html of a run's output folder: what metrics.jsonl says, as a page that loads
 * nothing. Made anew at each save. */
#ifndef SCOUT_TOOLS_RUN_REPORT_H
#define SCOUT_TOOLS_RUN_REPORT_H

#include "train/trainer.h"

struct run_report {
    const char *directory; /* of the run */
    const char *model;     /* id of the base model */
    const struct sft_facts *run, *place;
    int64_t steps; /* of the whole run */
    bool stopping; /* the run is about to end before its last step */
    bool ended;    /* early, as it was asked to */
};

/* Rows that are many become means of neighbours: the page stays below about a megabyte. */
int run_report_write(const struct run_report *report, const struct sft_run_state *state,
                     struct sf_err *err);

#endif
