/* tape_run.h -- runs a node of a finished tape: its buffers become addresses in the blocks of a run.
 *
 * Threads: one caller at a time for one set of places. */
#ifndef SCOUT_TRAIN_TAPE_RUN_H
#define SCOUT_TRAIN_TAPE_RUN_H

#include "train/image.h"
#include "train/plan/tape.h"

struct sft_places { /* where the blocks of each class are; borrowed. NULL where a tape has none */
    const struct sft_image *image;
    void *step, *host, *adapter, *cache;
};

/* The address of an operand; NULL for none. */
void *sft_place_of(const struct sft_places *places, const struct sft_tape *tape,
                   struct sft_ref ref);
/* Messages name the op and its first output. */
int sft_node_run(const struct sft_places *places, const struct sft_tape *tape,
                 const struct sft_node *node, const struct sk_ops *ops, struct sk_ctx *ctx,
                 struct sf_err *err);

#endif
