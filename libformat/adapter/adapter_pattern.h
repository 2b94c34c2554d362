/* adapter_pattern.h -- the keys of PEFT's rank_pattern and alpha_pattern: regular expressions for
 * the end of a module's path.
 *
 * PEFT asks re.match("(.*\.)?(KEY)$", path) and takes the first key, in the order of the file, that
 * matches. Python's syntax and PCRE2's are one for all that names of modules need. Pure; any number of threads. */
#ifndef SCOUT_LIBFORMAT_ADAPTER_ADAPTER_PATTERN_H
#define SCOUT_LIBFORMAT_ADAPTER_ADAPTER_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"

struct sf_adapter_pattern { /* one entry of such a dict */
    const char *key;
    double value;
};

/* SF_EFORMAT: `key` is no regular expression, or one that takes for ever. */
int sf_adapter_pattern_match(bool *out, const char *key, const char *path, struct sf_err *err);

/* *out: the value of the first that matches, else `otherwise`. */
int sf_adapter_pattern_find(double *out, const struct sf_adapter_pattern *pattern, int64_t patterns,
                            const char *path, double otherwise, struct sf_err *err);

#endif
