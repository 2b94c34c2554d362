/* container_write.h -- lay out a container, then fill it in any order, then commit.
 *
 * Two steps. (1) A layout: the caller lists extents and the tensors in each; sf_layout_* gives
 * every plane its address before any byte exists. (2) A writer: whole extents, or runs of whole
 * chunks of one, are handed over in any order from any thread; each is hashed and written where it
 * belongs. Commit writes checksums, index, metadata and, last, the header; fsyncs; renames: of
 * several files the first last, without which the others are nothing. A
 * writer that is aborted, or a process that dies, leaves nothing at the target path. Same input,
 * same bytes. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_CONTAINER_WRITE_H
#define SCOUT_LIBFORMAT_CONTAINER_CONTAINER_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/container/entry.h"

/* ---- layout ---- */

struct sf_layout; /* owned by the caller; lives in the arena it was begun with */

struct sf_layout *sf_layout_begin(struct sf_arena *arena);
/* Starts the next extent (file order = call order). Returns its index, or a negative SF_E*. */
int sf_layout_extent(struct sf_layout *layout, enum sf_extent_kind kind, int32_t layer,
                     int32_t expert, struct sf_err *err);
/* Adds a tensor to the last extent: fills entry->plane[], ->extent from encoding, dtype and shape
 * (nested NF4 when nested_block is set). Codebooks are shared: they live in an extent of their own
 * that the layout makes. The entry is copied; *index is its number for sf_layout_entry. */
int sf_layout_tensor(int64_t *index, struct sf_layout *layout, const struct sf_entry *entry,
                     struct sf_err *err);
/* The same for NF4 that others quantized: it decodes with these numbers instead of the usual ones.
 * They are copied; equal ones are stored once. */
int sf_layout_tensor_with(int64_t *index, struct sf_layout *layout, const struct sf_entry *entry,
                          const float codebook[16], const float map[256], struct sf_err *err);
/* Ends the layout: addresses and sizes are final. */
int sf_layout_finish(struct sf_layout *layout, struct sf_err *err);
/* After finish: several files of at most `most` bytes each instead of one. The first holds no
 * extents but all else (set_name.h), the others as many as fit, in order. SF_EINVAL, with the least
 * that would do, where an extent does not fit. */
int sf_layout_split(struct sf_layout *layout, uint64_t most, struct sf_err *err);
int64_t sf_layout_files(const struct sf_layout *layout);      /* 1, or at least 2 after a split */
uint64_t sf_layout_part_most(const struct sf_layout *layout); /* 0: not split */
/* Of file 2 or more, counted from 1. */
uint64_t sf_layout_file_bytes(const struct sf_layout *layout, int64_t file);
/* Of the first file of a split container with `carried` bytes of files in it: about, and no less. */
int sf_layout_first_bytes(uint64_t *out, const struct sf_layout *layout, uint64_t carried,
                          struct sf_err *err);
/* After finish. Entries in call order; extents in address order. */
int64_t sf_layout_entry_count(const struct sf_layout *layout);
struct sf_entry *sf_layout_entry(struct sf_layout *layout,
                                 int64_t index); /* error may be set later */
int64_t sf_layout_extent_count(const struct sf_layout *layout);
const struct sf_extent *sf_layout_extent_at(const struct sf_layout *layout, int64_t index);
/* Entries of one extent: *first and *count index a list in call order. */
void sf_layout_extent_entries(int64_t *first, int64_t *count, const struct sf_layout *layout,
                              int64_t extent);
uint64_t sf_layout_payload_bytes(const struct sf_layout *layout);
uint32_t sf_layout_chunk_bytes(const struct sf_layout *layout);

/* ---- writer ---- */

struct sf_writer;

int sf_writer_open(struct sf_writer **out, const char *path, struct sf_layout *layout,
                   struct sf_err *err);
/* A writer whose work outlives the process: it fills `path` + ".partial" (and, for the payload of a
 * split layout, `path` + ".part-00002.partial" and so on) and, if that stands there, goes on with it:
 * the first *standing bytes of payload were there. The caller holds a lock and keeps a record of what
 * was put and synced. A commit that fails leaves the files. */
int sf_writer_resume(struct sf_writer **out, uint64_t *standing, const char *path,
                     struct sf_layout *layout, struct sf_err *err);
/* Takes back what a commit that was cut short has renamed, for sf_writer_resume. Only for a caller
 * who knows that there was one. */
int sf_writer_take_back(const char *path, const struct sf_layout *layout, struct sf_err *err);
/* Removes what was kept for sf_writer_resume. */
int sf_writer_forget(const char *path, struct sf_err *err);
/* Writes data[0..bytes) at `offset` in the extent: offset is a multiple of the chunk size, bytes
 * too unless the range ends the extent. Padding inside the range must be zero. Thread-safe for
 * ranges that do not overlap. The extent of the shared codebooks is the writer's own business. */
int sf_writer_put(struct sf_writer *writer, int64_t extent, uint64_t offset, const void *data,
                  uint64_t bytes, struct sf_err *err);
/* The checksums of a range that was put: u64, little-endian, one per chunk; borrowed. */
const unsigned char *sf_writer_checksums(uint64_t *chunks, const struct sf_writer *writer,
                                         int64_t extent, uint64_t offset, uint64_t bytes);
/* Counts a range as put, by the checksums it had when it was. */
int sf_writer_restore(struct sf_writer *writer, int64_t extent, uint64_t offset, uint64_t bytes,
                      const unsigned char *checksums, struct sf_err *err);
/* Everything put before this call survives a power failure. */
int sf_writer_sync(struct sf_writer *writer, struct sf_err *err);
/* Carries a file in the metadata, bytes as they are. The data must live until commit. */
int sf_writer_add_file(struct sf_writer *writer, const char *name, const void *data, uint64_t bytes,
                       struct sf_err *err);
/* SF_EINVAL if any chunk was never put. The writer is gone afterwards either way. */
int sf_writer_commit(struct sf_writer *writer, const struct sf_summary *summary,
                     struct sf_err *err);
void sf_writer_abort(struct sf_writer *writer); /* NULL is welcome */
/* Ends a resumable writer; its file stays for sf_writer_resume. NULL is welcome. */
void sf_writer_keep(struct sf_writer *writer);

#endif
