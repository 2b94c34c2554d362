/* route.h -- Llama 4's top-1 router, and the way of tokens to their experts and back.
 *
 *     logits = x Wr^T + lora;  e = index of the largest, the lowest on a tie;  s = sigmoid(logits[e])
 *     u[slot] = s * x        rows sorted by expert, in token order inside one
 * A NaN among the logits is SF_ENUMERIC, naming the row. The score multiplies the expert's *input*.
 * backward, with du the gradient of u:
 *     ds = <du[slot], x>,  dz = ds * s * (1 - s),  dx += s * du[slot] + dz * Wr[e];  other logits have none
 * host_offsets is filled behind the caller's back where ops run on a device: whoever reads it waits
 * first (cuda_ctx.h).
 * combine:  y = shared + routed[slot];  its backward moves dy to the sorted order. */
#ifndef SCOUT_KERNELS_ROUTE_H
#define SCOUT_KERNELS_ROUTE_H

#include "kernels/activation.h"
#include "kernels/matrix.h"

struct sk_route_forward {
    sk_act *u;                      /* [rows, hidden], sorted by expert */
    float *logits;                  /* [rows, experts] */
    float *score;                   /* [rows] */
    int32_t *expert;                /* [rows] */
    int32_t *slot;                  /* [rows]: where the token went */
    int32_t *offsets;               /* [experts + 1]: first sorted row of each expert */
    int32_t *host_offsets;          /* the same where a host plans with them; optional */
    const sk_act *x;                /* [rows, hidden] */
    const struct sk_matrix *router; /* [experts, hidden] */
    const sk_act *lora;             /* [rows, experts], added to the logits; optional */
    void *workspace;
    int64_t rows, hidden, experts;
};

struct sk_route_backward {
    sk_act *dx;       /* [rows, hidden], accumulated; optional */
    sk_act *dz;       /* [rows, experts], the logits' gradients; optional */
    const sk_act *du; /* [rows, hidden], sorted */
    const sk_act *x;
    const float *score;
    const int32_t *expert, *slot;
    const struct sk_matrix *router;
    int64_t rows, hidden, experts;
};

struct sk_combine_forward {
    sk_act *y;            /* [rows, hidden] */
    const sk_act *shared; /* [rows, hidden] */
    const sk_act *routed; /* [rows, hidden], sorted */
    const int32_t *slot;  /* [rows] */
    int64_t rows, hidden;
};

struct sk_combine_backward {
    sk_act *d_routed; /* [rows, hidden], sorted */
    const sk_act *dy; /* [rows, hidden] */
    const int32_t *slot;
    int64_t rows, hidden;
};

#endif
