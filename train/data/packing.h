/* packing.h -- short rows of a dataset put together into rows of up to `capacity` tokens.
 *
 * Best fit, longest first: each row, as a document, goes to the fullest pack that still has room for
 * it, or begins one. Documents stay apart: attention, positions and chunks begin again with each, so
 * that a document's loss is what it is unpacked. Nothing is cut. Packs, and documents in them, stand
 * in the order of the rows they came from; the result follows from the lengths alone.
 * Tokens stay where they are. Threads: one at a time. */
#ifndef SCOUT_TRAIN_DATA_PACKING_H
#define SCOUT_TRAIN_DATA_PACKING_H

#include "train/data/dataset.h"

/* Replaces the rows of `data`, which has not been packed. On error it is as it was.
 * SF_EINVAL: a row is longer than `capacity`. */
int sft_packing_apply(struct sft_dataset *data, int64_t capacity, struct sf_err *err);

/* Tokens by what the packs could hold: 1 is full. */
double sft_packing_efficiency(const struct sft_dataset *data, int64_t capacity);

#endif
