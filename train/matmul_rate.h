/* matmul_rate.h -- what a back end multiplies at best: the ceiling that a step's rate is held against.
 *
 * Timed before weights are loaded, with the op that a step multiplies with (linear_forward, a frozen
 * matrix in the back end's own element, no adapter), on a shape large enough to be no one's bad case;
 * about 50 ms. What it allocates is given back before it returns. */
#ifndef SCOUT_TRAIN_MATMUL_RATE_H
#define SCOUT_TRAIN_MATMUL_RATE_H

#include "kernels/ops.h"

/* Floating point operations (2 for a multiplication and its addition) a second. */
int sft_matmul_rate(double *flops, const struct sk_ops *ops, struct sk_ctx *ctx,
                    struct sf_err *err);

#endif
