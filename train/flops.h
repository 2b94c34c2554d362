/* flops.h -- the floating point operations that a model's step needs, whoever computes them.
 *
 * Counted from shapes, 2 for a multiplication and its addition: products with frozen weights forward
 * and backward (the gradient of their inputs, none of weights), LoRA's three passes, attention over
 * the pairs that see each other. What is computed again to save memory does not count, nor do norms
 * and other passes over memory. The formula: spec/metrics.md. */
#ifndef SCOUT_TRAIN_FLOPS_H
#define SCOUT_TRAIN_FLOPS_H

#include "train/lora.h"
#include "train/step.h"

double sft_training_flops(const struct sf_model_spec *spec, const struct sft_lora *lora,
                          const struct sft_batch *batch);

#endif
