/* adamw_8bit.h -- AdamW whose moments take a byte each, as bitsandbytes keeps them.
 *
 * Both moments go in blocks of 256: a code for each number, and the block's largest magnitude, its
 * scale. A code stands for map[code] * scale; m's map is signed, v's is not (adamw_maps.h). A number is
 * stored as the nearest entry, in the middle between two as the one of even index; a block of
 * zeros as code 0. The sign of m is kept: where the nearest entry's differs, its neighbour on m's
 * side is taken. All in float32, g = clip * grad, t counted from 1:
 *     v = beta2 v + (1 - beta2) g^2;   m = beta1 m + (1 - beta1) g
 *     p = p - lr * root / (1 - beta1^t) * m / (sqrt(v) + root * epsilon),  root = sqrt(1 - beta2^t)
 *     p = p * (1 - lr * weight_decay)      behind the update, where adamw.h has it before
 * p takes the moments before they are stored. A gradient that is no number leaves p and makes both
 * moments 0. Codes and scales of zeros are where a run starts.
 *
 * bitsandbytes' own kernel divides and takes powers by approximations; here both are rounded, so
 * that its codes may differ by one where a number lies between two. */
#ifndef SCOUT_KERNELS_ADAMW_8BIT_H
#define SCOUT_KERNELS_ADAMW_8BIT_H

#include "kernels/adamw.h"

enum { SK_ADAMW_BLOCK = 256 };

struct sk_adamw_8bit {
    float *parameter;                   /* [count], in place */
    uint8_t *m, *v;                     /* [count] codes, in place */
    float *m_scale, *v_scale;           /* [count / 256, upwards], in place */
    const float *grad;                  /* [count] */
    const float *clip;                  /* [1] */
    const struct sk_adamw_hyper *hyper; /* [1] */
    int64_t count;
    double beta1, beta2, epsilon, weight_decay;
};

static inline int64_t sk_adamw_blocks(int64_t count)
{
    return (count + SK_ADAMW_BLOCK - 1) / SK_ADAMW_BLOCK;
}

#endif
