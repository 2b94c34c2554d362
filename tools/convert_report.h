/* convert_report.h -- what a conversion will write, and how near to its source it came.
 *
 * Errors are those of the weights as they will be decoded: rounded to bf16. NaN and Inf are an error
 * of the conversion, so a report never speaks of any. */
#ifndef SCOUT_TOOLS_CONVERT_REPORT_H
#define SCOUT_TOOLS_CONVERT_REPORT_H

#include "libformat/convert/convert.h"

struct report_facts {
    const char *source, *container, *model_id, *converter, *options;
    int64_t container_files; /* `container` is the first of them */
    uint64_t container_bytes, payload_bytes;
    uint64_t kept_bytes; /* of the payload, done by an earlier run */
    int64_t threads;
    double seconds;
};

/* A dry run: every tensor, then totals. */
void report_plan(const struct sf_convert_plan *plan);
/* One line for each part of the model, or for every tensor; the total; time and rate. */
int report_print(const struct sf_convert_plan *plan, const struct report_facts *facts,
                 bool every_tensor, struct sf_err *err);
/* All of it as JSON (spec/convert-report.md). */
int report_write(const char *path, const struct sf_convert_plan *plan,
                 const struct report_facts *facts, struct sf_err *err);

#endif
