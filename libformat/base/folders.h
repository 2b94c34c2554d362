/* folders.h -- folders: what is in one, and one that takes another's place.
 *
 * Messages name the path. Threads: any. */
#ifndef SCOUT_LIBFORMAT_BASE_FOLDERS_H
#define SCOUT_LIBFORMAT_BASE_FOLDERS_H

#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"

/* Names in the folder but "." and "..", sorted by byte, in `arena`. SF_ENOENT: no such folder. */
int sf_folder_list(const char *const **out, int64_t *count, struct sf_arena *arena,
                   const char *path, struct sf_err *err);
/* Renames file or folder and makes the new name survive a power failure. A folder that is in the
 * way is an error unless it is empty. */
int sf_folder_rename(const char *from, const char *to, struct sf_err *err);
/* Removes the files in `path`, then `path`. A folder in it stays, and `path` with it: SF_EIO. What is
 * not there is no error. */
int sf_folder_remove(const char *path, struct sf_err *err);
/* Bytes that may still be written to the disk of `path`, which is there. */
int sf_folder_free_bytes(uint64_t *out, const char *path, struct sf_err *err);

#endif
