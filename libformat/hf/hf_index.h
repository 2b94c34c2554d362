/* hf_index.h -- a Hugging Face checkpoint folder as one list of tensors, whatever its shards.
 *
 * Takes model.safetensors, or the shards that model.safetensors.index.json names (each name must be
 * a plain file name; every tensor of the index must be in its shard, every tensor of a shard in the
 * index). Owns the maps of all shards; views borrow from it. Reading is thread-safe after open. */
#ifndef SCOUT_LIBFORMAT_HF_HF_INDEX_H
#define SCOUT_LIBFORMAT_HF_HF_INDEX_H

#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/hf/safetensors.h"

struct sf_hf_index;

struct sf_hf_shard {
    const char *name; /* file name without directory */
    uint64_t bytes;
    int64_t modified_ns; /* 0 for one that is only remembered */
    const struct sf_safetensors *file;
};

/* A shard that was seen before and may be gone: see sf_safetensors_open_remembered. */
struct sf_hf_memory {
    const char *name;
    const void *head;
    uint64_t head_bytes, file_bytes;
};

int sf_hf_index_open(struct sf_hf_index **out, const char *directory, struct sf_err *err);
/* The same when some shards are only remembered: those that are there are read, of those that are
 * not the memory serves. */
int sf_hf_index_open_remembering(struct sf_hf_index **out, const char *directory,
                                 const struct sf_hf_memory *memory, int64_t memories,
                                 struct sf_err *err);
void sf_hf_index_close(struct sf_hf_index *index);
int64_t sf_hf_index_shard_count(const struct sf_hf_index *index);
const struct sf_hf_shard *sf_hf_index_shard(const struct sf_hf_index *index, int64_t shard);
int64_t sf_hf_index_count(const struct sf_hf_index *index);
/* Tensors sorted by name; *shard (may be NULL) tells where it lies. */
const struct sf_named_tensor *sf_hf_index_at(const struct sf_hf_index *index, int64_t i,
                                             int64_t *shard);
/* The shard of a tensor that sf_hf_index_at or _find gave. */
int64_t sf_hf_index_shard_of(const struct sf_tensor *tensor);
const struct sf_tensor *sf_hf_index_find(const struct sf_hf_index *index, const char *name);

#endif
