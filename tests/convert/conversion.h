/* conversion.h -- one whole conversion through the library, for suites that need a container. */
#ifndef SCOUT_TESTS_CONVERT_CONVERSION_H
#define SCOUT_TESTS_CONVERT_CONVERSION_H

#include "libformat/container/container_map.h"
#include "libformat/convert/policy.h"

/* A conversion from start to end; the caller's err shows why it failed. */
struct conversion {
    const char *source, *config; /* folders below the source tree; config NULL: the same */
    const char *output;          /* absolute */
    const char *keep[2];
    int keep_count, threads;
    bool keep_unknown;
    enum sf_scale_choice scale;
    const char *importance; /* a file; NULL: none */
    bool requantize;
    bool delete_source;       /* each shard when it is done */
    const char *options_text; /* NULL: "" */
    uint64_t wave_bytes;      /* 0: the usual */
    /* NULL, or what to do with each piece of progress; false stops. */
    bool (*on_progress)(void *context, uint64_t done, uint64_t total);
};

int convert(const struct conversion *c, struct sf_err *err);
/* convert, then open; asserts that both work. */
struct sf_map *converted(struct conversion c);

#endif
