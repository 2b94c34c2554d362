/* clock.h -- seconds of a clock that only goes forward, for rates and time left; never stored. */
#ifndef SCOUT_LIBFORMAT_BASE_CLOCK_H
#define SCOUT_LIBFORMAT_BASE_CLOCK_H

double sf_clock_seconds(void);

#endif
