/* prune.h -- leave out what nobody reads.
 *
 * The model emits its whole backward; what is not needed falls away here, from the last node to the
 * first: a node stays if it writes the adapter, a KEPT buffer, or something a later node reads. An
 * optional output that nobody reads becomes NULL, so a linear layer below which nothing is trained
 * computes no dx. A buffer counts as read by all nodes behind its first read (a write never ends
 * that), which is exact for the model's tapes and safe for any. */
#ifndef SCOUT_TRAIN_PLAN_PRUNE_H
#define SCOUT_TRAIN_PLAN_PRUNE_H

#include "train/plan/tape.h"

/* Sets tape->failed when memory runs out. */
void sft_prune(struct sft_tape *tape);

#endif
