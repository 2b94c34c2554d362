/* watch.h -- which names appear in a folder by being renamed into it.
 *
 * A downloader that renames says "this is whole" by it; one that writes under the final name says
 * nothing. Seen from the open on, on Linux and on local file systems; elsewhere nothing is ever
 * seen. Not thread-safe. */
#ifndef SCOUT_LIBFORMAT_BASE_WATCH_H
#define SCOUT_LIBFORMAT_BASE_WATCH_H

#include <stdbool.h>

#include "libformat/base/err.h"

struct sf_watch;

/* The caller ends *out with sf_watch_close. Where the system cannot watch, *out sees nothing. */
int sf_watch_open(struct sf_watch **out, const char *directory, struct sf_err *err);
/* Waits until something happens in the folder, at most `seconds`; a signal ends it, too. */
void sf_watch_wait(struct sf_watch *watch, double seconds);
/* Was it renamed into the folder since the open, and not written to afterwards? */
bool sf_watch_saw(struct sf_watch *watch, const char *name);
void sf_watch_close(struct sf_watch *watch); /* NULL is welcome */

#endif
