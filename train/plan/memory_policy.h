/* memory_policy.h -- which activations are kept for the backward: labels on buffers, nothing else.
 *
 * A policy says, for each kind of activation, in how many layers (the first ones) it is forgotten
 * and made again. It runs between emitting and finishing a tape and changes classes from STEP to
 * RECOMPUTE. The mechanism that acts on the label is recompute.h's; the model has no branch for it.
 *
 * Kinds differ in what a byte saves cost: what one pass over memory makes (norms, SwiGLU, the way to
 * the experts) is nearly free; a product of a matrix is not; the routed experts' products also need
 * 16 matrices expanded again. sft_policy_step walks from keeping all to keeping nothing in that
 * order. */
#ifndef SCOUT_TRAIN_PLAN_MEMORY_POLICY_H
#define SCOUT_TRAIN_PLAN_MEMORY_POLICY_H

#include "train/plan/tape.h"

struct sft_policy {
    int32_t again[SFT_ACTIVATION_KINDS]; /* layers 0 .. again[kind] - 1 make this kind again */
    bool offload; /* the residual stream waits on the host (offload.h): copies beside the ops */
};

enum sft_recompute {
    SFT_RECOMPUTE_NONE,      /* keep every activation that the backward reads */
    SFT_RECOMPUTE_SELECTIVE, /* make again what no product is needed for */
    SFT_RECOMPUTE_FULL,      /* keep each layer's input and small state; make the rest again */
    SFT_RECOMPUTE_AUTO       /* as little as the memory allows: the caller's to resolve */
};

const char *sft_recompute_name(enum sft_recompute recompute); /* "none", "selective", ... */
bool sft_recompute_from_name(enum sft_recompute *out, const char *name);
/* AUTO as NONE. */
struct sft_policy sft_policy_of(enum sft_recompute recompute, int64_t layers);
/* Steps there are from keeping all (0) to keeping nothing (the last), for so many layers; `device`:
 * offload is among them, behind what is nearly free. */
int64_t sft_policy_steps(int64_t layers, bool device);
struct sft_policy sft_policy_step(int64_t step, int64_t layers, bool device);
void sft_policy_apply(struct sft_tape *tape, struct sft_policy policy);

#endif
