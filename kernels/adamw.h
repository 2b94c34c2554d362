/* adamw.h -- gradient norm with clipping, AdamW, and zeroing, over flat float32 parameter blocks.
 *
 * grad_norm: norm = sqrt(sum g^2) (float64 sums over fixed chunks, in order);
 *            clip = min(1, max_norm / (norm + 1e-6)), as torch's clip_grad_norm_;
 *                   1 where max_norm <= 0
 * adamw, as torch.optim.AdamW, g = clip * grad, t counted from 1:
 *     p = p * (1 - lr * weight_decay)
 *     m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
 *     p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon) */
#ifndef SCOUT_KERNELS_ADAMW_H
#define SCOUT_KERNELS_ADAMW_H

#include <stdint.h>

struct sk_grad_norm {
    float *norm;       /* [1] */
    float *clip;       /* [1] */
    const float *grad; /* [count] */
    void *workspace;
    int64_t count;
    float max_norm;
};

struct sk_adamw_hyper { /* what changes from step to step */
    double learning_rate;
    int64_t step; /* from 1 */
};

struct sk_adamw {
    float *parameter, *m, *v;           /* [count], in place */
    const float *grad;                  /* [count] */
    const float *clip;                  /* [1] */
    const struct sk_adamw_hyper *hyper; /* [1] */
    int64_t count;
    double beta1, beta2, epsilon, weight_decay;
};

struct sk_fill_zero {
    void *data;
    int64_t bytes;
};

#endif
