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
    const struct sf_safetensors *file;
};

int sf_hf_index_open(struct sf_hf_index **out, const char *directory, struct sf_err *err);
void sf_hf_index_close(struct sf_hf_index *index);
int64_t sf_hf_index_shard_count(const struct sf_hf_index *index);
const struct sf_hf_shard *sf_hf_index_shard(const struct sf_hf_index *index, int64_t shard);
int64_t sf_hf_index_count(const struct sf_hf_index *index);
/* Tensors sorted by name; *shard (may be NULL) tells where it lies. */
const struct sf_named_tensor *sf_hf_index_at(const struct sf_hf_index *index, int64_t i,
                                             int64_t *shard);
const struct sf_tensor *sf_hf_index_find(const struct sf_hf_index *index, const char *name);

#endif
