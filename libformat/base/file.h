/* file.h -- the one door to files: whole reads and writes, read-only maps, atomic replacement.
 *
 * All calls retry EINTR and short transfers; a message names the path. Threads: sf_file_read_at and
 * sf_out_write_at may run at once on one handle for ranges that do not overlap. */
#ifndef SCOUT_LIBFORMAT_BASE_FILE_H
#define SCOUT_LIBFORMAT_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"

/* ---- reading ---- */

struct sf_mapping {            /* a whole regular file, mapped read-only */
    const unsigned char *data; /* NULL when the file is empty */
    uint64_t bytes;
};
/* SF_EFORMAT when `path` is not a regular file (directory, FIFO, device). End with sf_unmap. */
int sf_map_file(struct sf_mapping *out, const char *path, struct sf_err *err);
void sf_unmap(struct sf_mapping *mapping); /* an empty mapping is welcome */
/* Tells the kernel that this range will not be used again soon; pages are dropped, bytes stay. */
void sf_mapping_release(const struct sf_mapping *mapping, uint64_t offset, uint64_t bytes);
/* Asks the kernel to read this range ahead, whole pages around it. */
void sf_mapping_prefetch(const struct sf_mapping *mapping, uint64_t offset, uint64_t bytes);
/* Tells the kernel that little of the file will be read, here and there: only what is touched or
 * prefetched. */
void sf_mapping_sparse(const struct sf_mapping *mapping);
/* Addresses for a file that is not there (any more): no memory behind them, touching them ends the
 * process. End with sf_unmap. */
int sf_mapping_reserve(struct sf_mapping *out, uint64_t bytes, struct sf_err *err);

/* Turns the mapping into one that sf_mapping_reserve would have made, at the same addresses: the file
 * is let go of. No other thread may be reading it. */
int sf_mapping_vacate(const struct sf_mapping *mapping, struct sf_err *err);

/* Hands all bytes of a file that may be changing meanwhile to `take`, in order, some MiB at a time.
 * Ends early with what `take` returns unless that is SF_OK. */
int sf_file_scan(const char *path,
                 int (*take)(void *context, const void *data, uint64_t bytes, struct sf_err *err),
                 void *context, struct sf_err *err);

/* The whole file as bytes with a NUL behind them, in `arena`; refuses more than `limit` bytes.
 * *bytes may be NULL. */
int sf_read_file(char **out, uint64_t *bytes, struct sf_arena *arena, const char *path,
                 uint64_t limit, struct sf_err *err);

struct sf_file_stat {
    uint64_t bytes;
    int64_t modified_ns; /* since 1970 */
    bool is_directory;
    bool is_regular;
};
int sf_file_stat(struct sf_file_stat *out, const char *path, struct sf_err *err);
/* False only if nothing stands there: what cannot be looked at is not passed over. */
bool sf_file_exists(const char *path);

/* ---- writing: temporary name beside the target, fsync, rename = commit ---- */

struct sf_out;
/* Creates `path` + ".partial-<pid>" (or, if that exists, ".partial-<pid>.1" and so on). SF_EINVAL
 * when something that is no regular file stands at `path`: a device is not replaced. What killed
 * processes left of such files is removed (leftovers.h). Nothing stands
 * at `path` before sf_out_commit; what stood there before stays until then. */
int sf_out_open(struct sf_out **out, const char *path, struct sf_err *err);
int sf_out_reserve(struct sf_out *out, uint64_t bytes, struct sf_err *err); /* SF_ENOSPC early */
int sf_out_write_at(struct sf_out *out, const void *data, uint64_t bytes, uint64_t offset,
                    struct sf_err *err);
int sf_out_append(struct sf_out *out, const void *data, uint64_t bytes, struct sf_err *err);
int sf_out_read_at(struct sf_out *out, void *data, uint64_t bytes, uint64_t offset,
                   struct sf_err *err);
/* Works in `path` + ".partial" and goes on with what stands there: *bytes of it, 0 if nothing
 * did. Only one process at a time may do so: the caller holds a lock (append_file.h). */
int sf_out_resume(struct sf_out **out, uint64_t *bytes, const char *path, struct sf_err *err);
int sf_out_truncate(struct sf_out *out, uint64_t bytes, struct sf_err *err);
/* Commit puts the file at `path` instead. */
int sf_out_rename_to(struct sf_out *out, const char *path, struct sf_err *err);
/* What has been written survives a power failure. */
int sf_out_sync(struct sf_out *out, struct sf_err *err);
/* Ends the handle; the file ".partial" stays for sf_out_resume. NULL is welcome. */
void sf_out_keep(struct sf_out *out);
/* fsync, rename over `path`, fsync of the directory; the handle is gone afterwards either way.
 * On failure the temporary file goes too, unless it can be resumed. */
int sf_out_commit(struct sf_out *out, struct sf_err *err);
/* Removes the temporary file and the handle. NULL is welcome. */
void sf_out_abort(struct sf_out *out);
/* open + append + commit. */
int sf_write_file(const char *path, const void *data, uint64_t bytes, struct sf_err *err);

/* Where a symbolic link leads in the end, in `arena`; *out is NULL when `path` is no link. */
int sf_link_target(char **out, struct sf_arena *arena, const char *path, struct sf_err *err);
int sf_remove_file(const char *path, struct sf_err *err);
int sf_rename_file(const char *from, const char *to, struct sf_err *err);

/* Makes the directory entry of `path` survive a power failure. */
int sf_sync_directory_of(const char *path, struct sf_err *err);
/* Creates the directory and its parents where missing; SF_EACCES when it cannot be written to. */
int sf_make_directory(const char *path, struct sf_err *err);

/* "dir/name" in `arena`; NULL when there is no memory. */
char *sf_path_join(struct sf_arena *arena, const char *dir, const char *name);
/* The part behind the last '/', borrowed from `path`. */
const char *sf_path_base(const char *path);

#endif
