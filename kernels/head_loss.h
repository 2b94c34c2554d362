/* head_loss.h -- the output head and cross entropy, fused: logits exist a chunk of rows at a time.
 *
 *     z = x W^T;  token_loss = logsumexp(z) - z[target];  loss = sum of token_loss
 *     dz = gradient_scale * (softmax(z) - onehot(target));  dx = dz W
 * and with LoRA beside the head, as linear.h has it:
 *     z += scale * (x A^T) B^T
 *     u = scale * dz B;  dx += u A;  db += scale * dz^T (x A^T);  da += u^T x
 * Where the target is SK_IGNORE_INDEX, token_loss and dx are 0. A chunk of rows without a target
 * costs nothing, unless logits are wanted. A chunk expands the head once, with dx twice. */
#ifndef SCOUT_KERNELS_HEAD_LOSS_H
#define SCOUT_KERNELS_HEAD_LOSS_H

#include "kernels/activation.h"
#include "kernels/dropout.h"
#include "kernels/matrix.h"

enum { SK_IGNORE_INDEX = -100 };

struct sk_head_loss {
    sk_act *dx;        /* [rows, hidden]; optional: loss only */
    float *logits;     /* [rows, vocabulary], float32; optional: for probes */
    float *da, *db;    /* [rank, hidden], [vocabulary, rank], accumulated; NULL: loss only, and then
                       with LoRA no dx either */
    float *token_loss; /* [rows], 0 where ignored */
    double *loss;      /* [1], the sum, float64 in row order */
    const sk_act *x;   /* [rows, hidden], behind the final norm */
    const struct sk_matrix *head; /* [vocabulary, hidden] */
    const float *a, *b;           /* [rank, hidden], [vocabulary, rank]; optional: no LoRA */
    const int32_t *targets; /* [rows], the *next* token; SK_IGNORE_INDEX or 0 <= t < vocabulary */
    const int32_t *host_targets; /* the same in host memory; optional: a device that is given them
                                    leaves out rows without a target. The CPU does not look */
    const float *gradient_scale; /* [1]: 1 / number of targets of the optimizer step */
    void *workspace;
    int64_t rows, hidden, vocabulary, rank;
    float scale;
    const struct sk_dropout *dropout; /* of A's input; NULL: none */
    uint32_t site;                    /* which LoRA this is, for dropout */
};

#endif
