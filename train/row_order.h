/* row_order.h -- in which order an epoch takes the rows of a dataset.
 *
 * A shuffle is a function of (rows, seed, epoch) alone: the same on any machine, and any epoch's
 * without those before it. */
#ifndef SCOUT_TRAIN_ROW_ORDER_H
#define SCOUT_TRAIN_ROW_ORDER_H

#include <stdint.h>

/* order[0..rows) = 0, 1, 2, ... */
void sft_row_order_plain(int64_t *order, int64_t rows);
/* A shuffle of those: Fisher-Yates, every order equally likely as far as 64-bit words go. */
void sft_row_order_shuffle(int64_t *order, int64_t rows, uint64_t seed, uint64_t epoch);

#endif
