/* append_file.h -- a file that only grows, held by one process at a time.
 *
 * For journals: what was added and synced survives the process and the machine. Whoever opens it
 * holds it (a lock that ends with the process) until close or remove; another opener is told so.
 * Not thread-safe. */
#ifndef SCOUT_LIBFORMAT_BASE_APPEND_FILE_H
#define SCOUT_LIBFORMAT_BASE_APPEND_FILE_H

#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"

struct sf_append_file;

/* Creates the file if it is missing. SF_EACCES when another process holds it. */
int sf_append_file_open(struct sf_append_file **out, const char *path, struct sf_err *err);
uint64_t sf_append_file_bytes(const struct sf_append_file *file);
/* All bytes, in `arena`; refuses more than `limit`. */
int sf_append_file_read(unsigned char **out, struct sf_append_file *file, struct sf_arena *arena,
                        uint64_t limit, struct sf_err *err);
/* Forgets what lies behind the first `bytes` bytes. */
int sf_append_file_cut(struct sf_append_file *file, uint64_t bytes, struct sf_err *err);
/* When it fails (a full disk), the part that went in is taken out again. */
int sf_append_file_add(struct sf_append_file *file, const void *data, uint64_t bytes,
                       struct sf_err *err);
/* What was added survives a power failure. */
int sf_append_file_sync(struct sf_append_file *file, struct sf_err *err);
/* Ends the handle and the lock; NULL is welcome. */
void sf_append_file_close(struct sf_append_file *file);
/* Removes the file first. */
void sf_append_file_remove(struct sf_append_file *file);

#endif
