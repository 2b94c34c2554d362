/* hf_index.h -- a Hugging Face checkpoint folder as one list of tensors, whatever its shards.
 *
 * Takes model.safetensors, or the shards that model.safetensors.index.json names (each name must be
 * a plain file name; every tensor of the index must be in its shard, every tensor of a shard in the
 * index). Owns the maps of all shards; views borrow from it. Reading is thread-safe after open. */
#ifndef SCOUT_LIBFORMAT_HF_HF_INDEX_H
#define SCOUT_LIBFORMAT_HF_HF_INDEX_H

#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/hf/arrival.h"
#include "libformat/hf/safetensors.h"

struct sf_hf_index;

struct sf_hf_shard {
    const char *name; /* file name without directory */
    uint64_t bytes;
    int64_t modified_ns; /* 0 for one that is only remembered or expected */
    const struct sf_safetensors *file;
    bool expected;   /* never seen: of its tensors only the names are known */
    const char *why; /* what sf_arrivals_look said of it; NULL if it was not asked */
};

/* A shard that was seen before and may be gone: see sf_safetensors_open_remembered. */
struct sf_hf_memory {
    const char *name;
    const void *head;
    uint64_t head_bytes, file_bytes;
    int64_t modified_ns;
};

struct sf_hf_open {
    /* Of shards that are not there the memory serves. */
    const struct sf_hf_memory *memory;
    int64_t memories;
    /* Which shards count as there; NULL: all that have their final name. One that is as it was
     * remembered counts without being asked for. */
    struct sf_arrivals *arrivals;
    /* Shards that are neither there nor remembered are expected, not an error. */
    bool expect;
};

int sf_hf_index_open(struct sf_hf_index **out, const char *directory, struct sf_err *err);
/* SF_EINVAL when `arrivals` does not take a shard that is needed now for whole. */
int sf_hf_index_open_with(struct sf_hf_index **out, const char *directory,
                          const struct sf_hf_open *options, struct sf_err *err);
/* Gives every tensor of expected shards what `guess` says it will be (dtype and shape; it leaves
 * those alone that it cannot tell), and addresses, which must not be touched. */
int sf_hf_index_suppose(struct sf_hf_index *index,
                        int (*guess)(void *context, struct sf_tensor *tensor, const char *name,
                                     struct sf_err *err),
                        void *context, struct sf_err *err);
/* See sf_safetensors_forget. */
int sf_hf_index_forget(const struct sf_hf_index *index, int64_t shard, struct sf_err *err);
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
