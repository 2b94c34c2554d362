/* synth.h -- a synthetic Llama 4 checkpoint of any geometry: which shard holds which tensor, and
 * seeded weights that look like weights.
 *
 * Every 16-bit weight is a function of (seed, tensor, position), so shards can be made one at a
 * time, in any order, on any number of threads, and come out the same. */
#ifndef SCOUT_TESTS_BENCH_SYNTH_H
#define SCOUT_TESTS_BENCH_SYNTH_H

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/hf/safetensors.h"

struct synth_geometry {
    int64_t layers, hidden, heads, kv_heads, head_size, width, experts, vocabulary;
    uint64_t seed;
};

/* One shard: a list of bf16 tensors without data. */
struct synth_shard {
    char name[48]; /* "model-00007-of-00049.safetensors" */
    struct sf_named_tensor *tensor;
    int64_t tensors;
    uint64_t data_bytes;
};

/* Layer l is shard l; embedding, final norm and head are the last. In `arena`; NULL without memory
 * or when a size overflows. */
struct synth_shard *synth_shards(int64_t *count, struct sf_arena *arena,
                                 const struct synth_geometry *geometry);

/* weights[0..count) of the tensor `name`, from element `first`: normal with a standard deviation of
 * 0.02, one in 256 drawn eight times wider; norms are 1. */
void synth_fill(uint16_t *weights, const char *name, int64_t first, int64_t count, uint64_t seed);

/* config.json and model.safetensors.index.json, written into `directory`. */
int synth_write_config(const char *directory, const struct synth_geometry *geometry,
                       struct sf_err *err);
int synth_write_index(const char *directory, const struct synth_shard *shards, int64_t count,
                      struct sf_err *err);
/* One shard, generated on `threads` threads, by temporary name and rename. */
int synth_write_shard(const char *directory, const struct synth_shard *shard, uint64_t seed,
                      int threads, struct sf_err *err);

/* The same with a hole for data: for a plan made from names and shapes. */
int synth_write_hollow_shard(const char *directory, const struct synth_shard *shard,
                             struct sf_err *err);

#endif
