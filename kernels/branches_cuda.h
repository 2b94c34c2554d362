/* branches_cuda.h -- a few streams side by side, for parts of an op that do not depend on each other.
 *
 * The products of routed experts are small: alone, each leaves part of the device idle at its end, and
 * expanding the next expert's weights waits for the product before. On branches one expert's weights
 * are expanded while another's are multiplied. What runs on a branch, and in which order, is fixed, so
 * results do not change. Fork makes every branch wait for the stream, join the stream for every
 * branch. SK_BRANCHES of them (rooms_cuda.h). Private to the CUDA fillings. */
#ifndef SCOUT_KERNELS_BRANCHES_CUDA_H
#define SCOUT_KERNELS_BRANCHES_CUDA_H

#include "kernels/cuda_private.h"

int sk_branches_start(struct sk_cuda *cuda, struct sf_err *err);
void sk_branches_stop(struct sk_cuda *cuda);

int sk_branches_fork(struct sk_ctx *ctx, struct sf_err *err);
/* The context that runs on branch n, 0 <= n < SK_BRANCHES; between fork and join. */
struct sk_ctx *sk_branch(struct sk_ctx *ctx, int n);
int sk_branches_join(struct sk_ctx *ctx, struct sf_err *err);

#endif
