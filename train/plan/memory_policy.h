/* memory_policy.h -- which activations are kept for the backward: labels on buffers, nothing else.
 *
 * A policy runs between emitting and finishing a tape and changes classes from STEP to RECOMPUTE.
 * The mechanism that acts on the label is recompute.h's; the model has no branch for it. */
#ifndef SCOUT_TRAIN_PLAN_MEMORY_POLICY_H
#define SCOUT_TRAIN_PLAN_MEMORY_POLICY_H

#include "train/plan/tape.h"

enum sft_policy {
    SFT_POLICY_NONE,  /* keep every activation that the backward reads */
    SFT_POLICY_LAYERS /* keep each layer's input and small state; make the rest again */
};

const char *sft_policy_name(enum sft_policy policy); /* "none", "layers" */
bool sft_policy_from_name(enum sft_policy *out, const char *name);
void sft_policy_apply(struct sft_tape *tape, enum sft_policy policy);

#endif
