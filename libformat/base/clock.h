/* clock.h -- seconds of a clock that only goes forward, for rates and time left; never stored. And
 * the time of day, for logs. */
#ifndef SCOUT_LIBFORMAT_BASE_CLOCK_H
#define SCOUT_LIBFORMAT_BASE_CLOCK_H

double sf_clock_seconds(void);
/* Seconds since 1970, by a clock that people set. */
double sf_clock_unix(void);

#endif
