/* export.h -- a container becomes a Hugging Face folder again.
 *
 * hf-bf16: every tensor under its source's name and shape; routed experts fused and [in, out] again;
 * NF4 weights as the bf16 numbers that they decode to. What was kept unquantized comes out byte for
 * byte. hf-bnb4: quantized matrices as bitsandbytes stores them, experts one by one ([out, in], the
 * layout transformers takes for quantized checkpoints); nothing is decoded. Experts that came as a
 * stack go as one.
 * An adapter may be merged: bf16(decoded + scale * B A), one rounding (delta.h).
 * The folder gets shards with an index, config.json (what transformers 5 refuses in it put right),
 * and every other carried file as it was. Memory: a few tiles a thread. The folder must not hold a
 * checkpoint already; the index is written last. */
#ifndef SCOUT_LIBFORMAT_CONVERT_EXPORT_H
#define SCOUT_LIBFORMAT_CONVERT_EXPORT_H

#include "libformat/adapter/adapter_source.h"
#include "libformat/container/container_map.h"

enum sf_export_format { SF_EXPORT_BF16, SF_EXPORT_BNB4 };

struct sf_export_options {
    enum sf_export_format format;
    int threads;
    uint64_t shard_bytes; /* a shard takes tensors until the next would pass this */
    /* From the calling thread: bytes written of all; false stops (SF_EINTERRUPTED). May be NULL. */
    bool (*on_progress)(void *context, uint64_t done, uint64_t total);
    void *context;
    /* NULL, or what is added to the decoded weights before they are rounded to bf16: BF16 only. */
    const struct sf_adapter *adapter;
    /* NULL, or where `adapter` (sf_adapter_about) has its numbers: those that a shard needs are read
     * when it is written. */
    const struct sf_adapter_source *source;
};

int sf_export_run(const struct sf_map *map, const char *directory,
                  const struct sf_export_options *options, struct sf_err *err);

#endif
