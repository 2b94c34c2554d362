/* route.h -- Llama 4's top-1 router, and the way of tokens to their experts and back.
 *
 *     logits = x Wr^T;  e = index of the largest, the lowest on a tie;  s = sigmoid(logits[e])
 *     u[slot] = s * x        rows sorted by expert, in token order inside one
 * A NaN among the logits is SF_ENUMERIC, naming the row. The score multiplies the expert's *input*.
 * backward, with du the gradient of u:
 *     ds = <du[slot], x>,  dz = ds * s * (1 - s),  dx += s * du[slot] + dz * Wr[e]
 * combine:  y = shared + routed[slot];  its backward moves dy to the sorted order. */
#ifndef SCOUT_KERNELS_ROUTE_H
#define SCOUT_KERNELS_ROUTE_H

#include "kernels/matrix.h"

struct sk_route_forward {
    float *u;                       /* [rows, hidden], sorted by expert */
    float *logits;                  /* [rows, experts] */
    float *score;                   /* [rows] */
    int32_t *expert;                /* [rows] */
    int32_t *slot;                  /* [rows]: where the token went */
    int32_t *offsets;               /* [experts + 1]: first sorted row of each expert */
    const float *x;                 /* [rows, hidden] */
    const struct sk_matrix *router; /* [experts, hidden] */
    int64_t rows, hidden, experts;
};

struct sk_route_backward {
    float *dx;       /* [rows, hidden], accumulated */
    const float *du; /* [rows, hidden], sorted */
    const float *x, *score;
    const int32_t *expert, *slot;
    const struct sk_matrix *router;
    int64_t rows, hidden, experts;
};

struct sk_combine_forward {
    float *y;            /* [rows, hidden] */
    const float *shared; /* [rows, hidden] */
    const float *routed; /* [rows, hidden], sorted */
    const int32_t *slot; /* [rows] */
    int64_t rows, hidden;
};

struct sk_combine_backward {
    float *d_routed; /* [rows, hidden], sorted */
    const float *dy; /* [rows, hidden] */
    const int32_t *slot;
    int64_t rows, hidden;
};

#endif
