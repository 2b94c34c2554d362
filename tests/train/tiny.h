/* tiny.h -- a small random Llama 4 for tests: every kind of layer, weights in memory.
 *
 * Layers: 0 RoPE, chunked, experts; 1 NoPE, experts; 2 RoPE, chunked, dense. 3 NoPE, dense. */
#ifndef SCOUT_TESTS_TRAIN_TINY_H
#define SCOUT_TESTS_TRAIN_TINY_H

#include "kernels/ops.h"
#include "libformat/base/arena.h"
#include "train/data/dataset.h"
#include "train/image.h"
#include "train/lora.h"
#include "train/step.h"

struct tiny {
    struct sf_arena arena;
    struct sf_model_spec spec;
    struct sft_image *image;
    struct sft_lora lora;
    struct sk_ctx ctx;
};

/* The spec alone, of the given size; layers alternate as above when `dense`, else all have experts.
 */
void tiny_spec(struct sf_model_spec *out, struct sf_arena *arena, int64_t layers, bool dense);
/* Scout's own sizes. */
void scout_spec(struct sf_model_spec *out, struct sf_arena *arena);
/* Model, random bf16 weights, LoRA of rank 4 on all eight target names with random A and B. */
void tiny_open(struct tiny *t, int threads);
/* On the routed experts and the router as well. */
void tiny_open_all(struct tiny *t, int threads);
void tiny_close(struct tiny *t);
/* All names of linear modules, lm_head last. */
extern const char *const tiny_targets[8];
extern const char *const tiny_parameters[3];
/* A batch of documents of the given lengths with random ids; about a tenth of the targets ignored.
 */
void tiny_batch(struct sft_batch *out, struct tiny *t, const int64_t *length, int64_t documents,
                uint64_t seed);
/* Rows of lengths 3, 4, 5, ... with tokens of their own, some targets ignored; written to `name` in
 * the scratch folder and read from there. */
void tiny_rows(struct sft_dataset *out, struct tiny *t, const char *name, int rows, uint64_t seed);

#endif
