/* head_lora_cuda.h -- LoRA beside the output head, a chunk of head_loss_cuda.cu's rows at a time.
 *
 * d logits come unscaled, in bfloat16, and gradient_scale is known to the device alone: it goes into the
 * two small operands that stand beside d logits in a product, u and t. Private to the CUDA fillings. */
#ifndef SCOUT_KERNELS_HEAD_LORA_CUDA_H
#define SCOUT_KERNELS_HEAD_LORA_CUDA_H

#include "kernels/ops.h"
#include "kernels/rooms_cuda.h"

struct sk_head_chunk {
    struct sk_ctx *ctx;
    const struct sk_head_loss *a; /* with LoRA */
    const struct sk_head_loss_room *r;
    const sk_half *x;     /* [rows, hidden] of the chunk */
    const int32_t *index; /* [rows]: where each stands among all; NULL: from `first` on, in order */
    int64_t first, rows;
};

/* Once for all chunks: A and B as bfloat16. */
int sk_head_lora_begin(struct sk_ctx *ctx, const struct sk_head_loss *a,
                       const struct sk_head_loss_room *r, struct sf_err *err);
/* z[rows, vocabulary] = scale * t B^T: the head's own product adds to it. */
int sk_head_lora_logits(const struct sk_head_chunk *c, float *z, struct sf_err *err);
/* da, db; where dx is wanted, r->dx += what LoRA gives to it, unscaled as what is there.
 * dz: [rows, vocabulary], rows 2 * vocabulary apart. */
int sk_head_lora_gradients(const struct sk_head_chunk *c, const sk_half *dz, struct sf_err *err);

#endif
