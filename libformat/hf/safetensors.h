/* safetensors.h -- read one .safetensors file through a memory map; write one in a single pass.
 *
 * The map is opened once; views borrow from it until close. Reading is thread-safe after open.
 * Every rule of the format is checked at open: header length and limit (100,000,000 bytes), JSON,
 * unique names, known dtypes, shape times element size equal to the range, ranges in bounds without
 * overlap or hole, the file ending at the last tensor. A Git-LFS pointer is recognised and named.
 */
#ifndef SCOUT_LIBFORMAT_HF_SAFETENSORS_H
#define SCOUT_LIBFORMAT_HF_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/tensor/tensor.h"

struct sf_safetensors;

struct sf_named_tensor {
    const char *name;
    struct sf_tensor tensor;
};

/* The caller owns *out and ends it with sf_safetensors_close. */
int sf_safetensors_open(struct sf_safetensors **out, const char *path, struct sf_err *err);
void sf_safetensors_close(struct sf_safetensors *file); /* NULL is welcome */
/* A file that is gone, known by its first head_bytes bytes (length and header, which
 * sf_safetensors_head gave while it was there) and its size: all as above, but the tensors' bytes
 * must not be touched. `head` is copied. */
int sf_safetensors_open_remembered(struct sf_safetensors **out, const char *path, const void *head,
                                   uint64_t head_bytes, uint64_t file_bytes, struct sf_err *err);
/* A file that nobody has seen: `count` tensors of which only the names are known (dtype NONE, no
 * bytes); they are copied. Not there, and its head is empty. */
int sf_safetensors_open_expected(struct sf_safetensors **out, const char *path,
                                 const char *const *names, int64_t count, struct sf_err *err);
/* Lets go of a file that is there, so that deleting it frees its space: from now on it is only
 * remembered. No other thread may be reading it. */
int sf_safetensors_forget(struct sf_safetensors *file, struct sf_err *err);
/* SF_EIO when the file has become shorter since, or a part of it could not be read: what was read
 * of its tensors is not to be believed (base/map_guard.h). Ask before results go anywhere. */
int sf_safetensors_check(const struct sf_safetensors *file, struct sf_err *err);
bool sf_safetensors_is_there(const struct sf_safetensors *file);
const void *sf_safetensors_head(uint64_t *head_bytes, const struct sf_safetensors *file);
const char *sf_safetensors_path(const struct sf_safetensors *file);
uint64_t sf_safetensors_bytes(const struct sf_safetensors *file); /* of the file */
int64_t sf_safetensors_count(const struct sf_safetensors *file);
/* In order of their bytes in the file; index 0..count-1. */
const struct sf_named_tensor *sf_safetensors_at(const struct sf_safetensors *file, int64_t index);
/* NULL if there is none. Logarithmic. */
const struct sf_tensor *sf_safetensors_find(const struct sf_safetensors *file, const char *name);
/* Lets go of the pages of a tensor that will not be read again. */
void sf_safetensors_release(const struct sf_safetensors *file, const struct sf_tensor *tensor);
/* The same range in the other direction: it will be read soon. A tensor here is any range of one. */
void sf_safetensors_prefetch(const struct sf_safetensors *file, const struct sf_tensor *tensor);

/* What stands in front of the data of these tensors (data pointers are not looked at): length and
 * header, in `arena`. For writers that stream. */
int sf_safetensors_header(char **out, uint64_t *bytes, struct sf_arena *arena,
                          const struct sf_named_tensor *tensors, int64_t count, struct sf_err *err);

/* Writes tensors in the order given, with {"format": "pt"} as metadata; temporary name, fsync,
 * rename. The same input gives the same bytes. */
int sf_safetensors_write(const char *path, const struct sf_named_tensor *tensors, int64_t count,
                         struct sf_err *err);

#endif
