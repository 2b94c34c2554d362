/* sampler.h -- chooses the next token from logits: temperature, then top-k, then top-p, as
 * transformers orders them; then by chance.
 *
 * Chance is a function of seed and number (philox.h): the same figures give the same text.
 * top_p keeps the most likely tokens whose predecessors sum up to less than top_p: at least one.
 * Equal logits are ordered by id. Threads: one sampler, one caller. */
#ifndef SCOUT_TRAIN_SAMPLER_H
#define SCOUT_TRAIN_SAMPLER_H

#include <stdint.h>

#include "libformat/base/err.h"

struct sft_sampling {
    double temperature; /* 0: always the most likely token; the rest is not looked at */
    double top_p;       /* above 0; 1: all */
    int64_t top_k;      /* 0: all */
    uint64_t seed;
};

struct sft_sampler;

/* SF_EINVAL names the figure that makes no sense. */
int sft_sampler_open(struct sft_sampler **out, struct sft_sampling sampling, int64_t vocabulary,
                     struct sf_err *err);
void sft_sampler_close(struct sft_sampler *sampler); /* NULL is welcome */

/* `number`: of the choice, from 0. SF_ENUMERIC: a logit is NaN, or none is finite. */
int sft_sampler_choose(int32_t *out, struct sft_sampler *sampler, const float *logits,
                       int64_t number, struct sf_err *err);

#endif
