/* clock.h -- seconds of a clock that only goes forward, for rates and time left; never stored. */
#ifndef SCOUT_LIBFORMAT_BASE_CLOCK_H
#define SCOUT_LIBFORMAT_BASE_CLOCK_H

#include <time.h>

static inline double sf_clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
