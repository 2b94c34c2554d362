/* recompute.h -- makes RECOMPUTE buffers again in the backward, just before they are first wanted.
 *
 * For a backward node that touches a RECOMPUTE buffer, the forward nodes that wrote it are emitted
 * once more, into a fresh buffer, after those that wrote their own RECOMPUTE inputs, and so on down
 * to buffers that were kept. Each forward node runs at most once again, in forward order along
 * every chain, over the same inputs: ops are deterministic, so the gradients are the same to the
 * bit. Outputs of such a node that were kept go to scratch. */
#ifndef SCOUT_TRAIN_PLAN_RECOMPUTE_H
#define SCOUT_TRAIN_PLAN_RECOMPUTE_H

#include "train/plan/tape.h"

/* Rewrites the tape behind its turn. SF_EINVAL when a kept input of a node that must run again has
 * changed since (a policy that cannot work); sets tape->failed when memory runs out. */
int sft_recompute(struct sft_tape *tape, struct sf_err *err);

#endif
