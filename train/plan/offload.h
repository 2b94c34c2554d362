/* offload.h -- keeps buffers in host memory between forward and backward.
 *
 * A buffer that a policy marked (struct sft_buffer, `offload`) and that both halves of the tape touch
 * is sent to host memory behind its last use in the forward and fetched, into a buffer of its own,
 * one marked buffer ahead of its first use in the backward. Copies run beside the ops: a copy is
 * begun at one mark and ended at the next, so at most two are under way, and device memory holds two
 * or three of the marked buffers instead of all. The last two of the forward stay where they are: the
 * backward wants them at once. Values do not change, so gradients are the same to the bit. */
#ifndef SCOUT_TRAIN_PLAN_OFFLOAD_H
#define SCOUT_TRAIN_PLAN_OFFLOAD_H

#include "train/plan/tape.h"

/* Rewrites a tape whose nodes are final but for workspaces. Sets tape->failed without memory. */
void sft_offload(struct sft_tape *tape);

#endif
