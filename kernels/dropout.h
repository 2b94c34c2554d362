/* dropout.h -- which numbers of a LoRA's input are dropped, as a function of where and when.
 *
 *     x'[i] = 0 with the given probability, else x[i] / (1 - probability)
 * (inverted dropout, what PEFT's lora_dropout is in training). Chance is philox.h's, so that a
 * backward, a forward that is made again, another back end and a run that goes on drop the same. */
#ifndef SCOUT_KERNELS_DROPOUT_H
#define SCOUT_KERNELS_DROPOUT_H

#include "kernels/philox.h"

struct sk_dropout {    /* host memory, looked at when an op is run */
    float probability; /* [0, 1) */
    uint64_t key;      /* of the run */
    uint32_t number;   /* of the micro-batch in the run */
};

/* The factors of elements 4 * quad to 4 * quad + 3 of x, seen as one row; `site`: which LoRA. */
static inline SK_BOTH void sk_dropout_factors(float factor[4], struct sk_dropout d, uint32_t site,
                                              uint64_t quad)
{
    uint32_t word[4];
    float kept = 1 / (1 - d.probability);
    /* The highest bit: streams of their own, beside those of A's start and of the rows' order. */
    uint64_t stream = (uint64_t)1 << 63 | (uint64_t)(d.number & 0x7fffffffu) << 32 | site;
    sk_philox(word, d.key, stream, quad);
    for (int i = 0; i < 4; i++)
        factor[i] = sk_philox_uniform(word[i]) < d.probability ? 0 : kept;
}

#endif
