/* map_guard.h -- a mapped file that shrinks, or that its disk no longer gives, is an error and not
 * the end of the process.
 *
 * Touching a mapped page that is not there any more raises SIGBUS. With the guard installed such a
 * page, and all behind it in that mapping, read as zero from then on, and the mapping is marked:
 * whoever reads through a mapping asks sf_mapping_check() before it believes what it read, or lets
 * anything of it out. No thread is interrupted, so any thread and any library may do the reading.
 * Why so: spec/notes/0009-files-that-shrink.md.
 *
 * Files changed in place, or replaced by others of the same size, are not noticed here; payload
 * checksums notice them when they are checked. */
#ifndef SCOUT_LIBFORMAT_BASE_MAP_GUARD_H
#define SCOUT_LIBFORMAT_BASE_MAP_GUARD_H

#include "libformat/base/err.h"
#include "libformat/base/file.h"

/* Takes over SIGBUS for pages of sf_map_file; all others go to who had it before. For programs to
 * call once, early; libraries leave signals alone. */
void sf_map_guard_install(void);

/* SF_EIO when `mapping` (of sf_map_file) was hit, or its file is shorter now than it was then. */
int sf_mapping_check(const struct sf_mapping *mapping, const char *name, struct sf_err *err);

/* For file.c. `fd` goes to the guard, which closes it. */
int sf_map_guard_add(const struct sf_mapping *mapping, int fd, struct sf_err *err);
void sf_map_guard_remove(const struct sf_mapping *mapping); /* one that was not added is welcome */

#endif
