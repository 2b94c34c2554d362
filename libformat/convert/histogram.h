/* histogram.h -- how often each code of an NF4 tensor occurs, and how its scales are distributed.
 * Reads the whole tensor through a map; pure otherwise; any number of threads. */
#ifndef SCOUT_LIBFORMAT_CONVERT_HISTOGRAM_H
#define SCOUT_LIBFORMAT_CONVERT_HISTOGRAM_H

#include "libformat/container/container_map.h"

enum { SF_HISTOGRAM_CODES = 16, SF_HISTOGRAM_BINS = 40 };

struct sf_histogram {
    int64_t codes[SF_HISTOGRAM_CODES];
    float value[SF_HISTOGRAM_CODES];    /* of the file's codebook */
    int64_t scales[SF_HISTOGRAM_BINS];  /* equal bins from least to greatest */
    double least_scale, greatest_scale; /* least is 0 where no scale is negative */
};

/* SF_EUNSUPPORTED: not NF4 with blocks of 64 along the flattened matrix. */
int sf_entry_histogram(struct sf_histogram *out, const struct sf_map *map,
                       const struct sf_entry *entry, struct sf_err *err);

#endif
