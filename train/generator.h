/* generator.h -- one text, token by token: what the model says comes next, with keys and values kept.
 *
 * Feed tokens, get the logits behind the last one; choose (sampler.h), feed that, and so on. Two tapes,
 * of one row and of many, share a step block and the cache; many tokens at once go through the wide one.
 * Life: open, allocate, feed; what was fed can be taken back. Threads: one caller at a time. */
#ifndef SCOUT_TRAIN_GENERATOR_H
#define SCOUT_TRAIN_GENERATOR_H

#include "train/image.h"
#include "train/lora.h"

struct sft_generator_config {
    const struct sf_model_spec *spec;
    const struct sft_lora *lora; /* NULL: the bare model; allocated before the first feed */
    const struct sk_ops *ops;
    struct sk_ctx *ctx;
    int64_t room; /* tokens of the longest text, at least 1 */
    int64_t rows; /* tokens that go through at once, at least 1 */
};

struct sft_generator;

/* Emits and packs; `config` is copied, what it points to outlives the generator. */
int sft_generator_open(struct sft_generator **out, const struct sft_generator_config *config,
                       struct sf_err *err);
void sft_generator_close(struct sft_generator *generator); /* NULL is welcome */
/* Of step block and cache, and of the cache alone. */
uint64_t sft_generator_bytes(const struct sft_generator *generator);
uint64_t sft_generator_cache_bytes(const struct sft_generator *generator);
/* The blocks, to run over the weights of `image`, which outlives the generator. */
int sft_generator_allocate(struct sft_generator *generator, const struct sft_image *image,
                           struct sf_err *err);

/* Appends `count` (at least 1) tokens to the text; logits [vocabulary] are those of what follows.
 * SF_EINVAL: an id outside the vocabulary, or more tokens than there is room for; nothing was fed. */
int sft_generator_feed(float *logits, struct sft_generator *generator, const int32_t *ids,
                       int64_t count, struct sf_err *err);
int64_t sft_generator_count(const struct sft_generator *generator); /* tokens fed */
/* The text ends behind its first `count` tokens again. */
void sft_generator_rewind(struct sft_generator *generator, int64_t count);

#endif
