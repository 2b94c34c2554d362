/* out_files.h -- the file that a container is written to, or the files of a split one, by payload
 * address. The first is the one with index and metadata; see container_write.h for the names.
 * Private to libformat/container. Threads: puts of ranges that do not overlap may run at once. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_OUT_FILES_H
#define SCOUT_LIBFORMAT_CONTAINER_OUT_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/file.h"
#include "libformat/container/container_layout.h"

struct out_files {
    struct sf_arena arena;
    const struct sf_layout *layout;
    const char *path; /* of the whole */
    struct sf_out **out;
    int64_t files;
    bool resumable;
};

/* Both reserve all of the payload; end with one of the last three. */
int out_files_open(struct out_files *files, const char *path, const struct sf_layout *layout,
                   struct sf_err *err);
/* *standing: bytes of payload that were there, from address 0 on. */
int out_files_resume(struct out_files *files, uint64_t *standing, const char *path,
                     const struct sf_layout *layout, struct sf_err *err);

/* A range inside one extent. */
int out_files_put(const struct out_files *files, uint64_t address, const void *data, uint64_t bytes,
                  struct sf_err *err);
/* Not payload: at an offset of file 1, 2, ... */
int out_files_write(const struct out_files *files, int64_t file, uint64_t offset, const void *data,
                    uint64_t bytes, struct sf_err *err);
int out_files_sync(const struct out_files *files, struct sf_err *err);

/* fsync and rename, the first file last. */
int out_files_commit(struct out_files *files, struct sf_err *err);
void out_files_keep(struct out_files *files);
void out_files_abort(struct out_files *files);

#endif
