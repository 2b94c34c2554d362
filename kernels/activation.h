/* activation.h -- the element of an activation.
 *
 * float32 under the CPU table, which alone may index through this type. Under CUDA the same operands
 * point to bfloat16 (struct sk_ops, `activation`): its kernels cast them. Operands that are float32
 * whatever the back end (norms' rstd, router logits, LoRA's A and B, ...) say float. */
#ifndef SCOUT_KERNELS_ACTIVATION_H
#define SCOUT_KERNELS_ACTIVATION_H

#include <stdint.h>

typedef float sk_act;

#endif
