/* pack.h -- gives buffers with lifetimes their places in one block.
 *
 * Two buffers may share bytes only when no node needs both. Finding the smallest block is NP-hard;
 * this is greedy best fit, run over a few fixed orders (by size, by size times lifetime, by birth),
 * each tried again a few times with the buffer that sticks out on top placed first; the smallest
 * result is taken, or the first within 0.4 % of the bound. Deterministic. Offsets and the block are
 * multiples of SFT_BLOCK_ALIGN. What is alive at the fullest node is the lower bound that the
 * result is held against (sft_tape.live_bytes). */
#ifndef SCOUT_TRAIN_PLAN_PACK_H
#define SCOUT_TRAIN_PLAN_PACK_H

#include "train/plan/tape.h"

struct sft_interval {
    uint64_t bytes;       /* rounded up to SFT_BLOCK_ALIGN by the packer */
    int32_t birth, death; /* both included */
    uint64_t offset;      /* the result */
};

/* Sets every offset and *block_bytes. `enough`, unless 0, is what there is room for: the first block
 * that is no larger is taken; when no packing can be (the bound is above it), *block_bytes is the
 * bound and no offset is set. SF_ENOMEM; SF_EINVAL when sizes overflow. */
int sft_pack(uint64_t *block_bytes, struct sft_interval *interval, int32_t count, uint64_t enough,
             struct sf_arena *scratch, struct sf_err *err);
/* The most bytes alive at once, and the first node where that is so; 0 and -1 without intervals. */
int sft_pack_bound(uint64_t *bytes, int32_t *peak, const struct sft_interval *interval,
                   int32_t count, struct sf_arena *scratch, struct sf_err *err);
/* Packs the step block of a tape whose lifetimes are known. */
int sft_pack_tape(struct sft_tape *tape, struct sf_err *err);

#endif
