/* leftovers.h -- temporary files whose process is gone.
 * sf_out_open (file.h) writes to NAME.partial-<number>. Its process holds a lock on that file until it
 * ends, however it ends: what nobody holds was left by a process that was killed. On a file system
 * without locks nothing is told apart, and nothing removed. Threads: any. */
#ifndef SCOUT_LIBFORMAT_BASE_LEFTOVERS_H
#define SCOUT_LIBFORMAT_BASE_LEFTOVERS_H

#include <stdbool.h>

/* Holds the temporary file behind `fd` until it is closed. False: another process is just removing it. */
bool sf_leftover_hold(int fd);
/* Removes what killed processes left of `path`. What cannot be looked at or removed stays. */
void sf_leftovers_remove(const char *path);

#endif
