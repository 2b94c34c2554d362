/* linear.h -- y = x W^T + scale * (x A^T) B^T: a frozen matrix with an optional LoRA beside it, for
 * one matrix or for a group of them (routed experts).
 *
 * Grouped: rows are sorted by group; rows offsets[g] .. offsets[g+1] are multiplied with w[g] (and
 * A, B of that group). offsets NULL means one group that holds all rows. Groups without rows cost
 * nothing and get zero gradients. W is expanded a tile at a time, never whole. Without W (w NULL) y and
 * dx are what LoRA makes alone: where another op has the frozen part.
 *
 *     t = x A^T                                   [rows, rank], kept for the backward
 *     dx  = dy W + scale * (dy B) A
 *     db += scale * dy^T t         da += scale * (dy B)^T x      (gradients always accumulate)
 * With dropout A has x' = factors * x (dropout.h) in the place of x, and (dy B) A goes to dx through
 * the same factors.
 * Weights [out, in], A [rank, in], B [out, rank]: PEFT's shapes. Row strides are in elements. */
#ifndef SCOUT_KERNELS_LINEAR_H
#define SCOUT_KERNELS_LINEAR_H

#include <stdbool.h>

#include "kernels/activation.h"
#include "kernels/dropout.h"
#include "kernels/matrix.h"

struct sk_linear_forward {
    sk_act *y;                   /* [rows, out], row stride y_stride */
    sk_act *t;                   /* [rows, rank]; optional: NULL where there is no LoRA */
    const sk_act *x;             /* [rows, in] */
    const struct sk_matrix *w;   /* [groups] matrices of one shape [out, in]; optional */
    const float *a;              /* [groups][rank, in], a_stride apart; optional */
    const float *b;              /* [groups][out, rank], b_stride apart; optional */
    const int32_t *offsets;      /* [groups + 1], offsets[groups] = rows; optional */
    const int32_t *host_offsets; /* the same in host memory, see route.h; NULL on the CPU */
    void *workspace;
    int64_t rows, in, out, groups, rank;
    int64_t y_stride, a_stride, b_stride;
    float scale;
    const struct sk_dropout *dropout; /* of A's input, one group only; NULL: none */
    uint32_t site;                    /* which LoRA this is, for dropout */
    int64_t first_row;                /* x begins at this row of what dropout counts */
};

struct sk_linear_backward {
    sk_act *dx;       /* [rows, in]; optional: not wanted */
    float *da;        /* [groups][rank, in], accumulated; optional where there is no LoRA */
    float *db;        /* [groups][out, rank], accumulated */
    const sk_act *dy; /* [rows, out], row stride y_stride */
    const sk_act *x;  /* [rows, in] */
    const sk_act *t;  /* [rows, rank] of the forward */
    const struct sk_matrix *w;   /* [groups]; optional */
    const float *a, *b;          /* optional */
    const int32_t *offsets;      /* optional */
    const int32_t *host_offsets; /* NULL on the CPU */
    void *workspace;
    int64_t rows, in, out, groups, rank;
    int64_t y_stride, a_stride, b_stride;
    float scale;
    bool accumulate_dx;               /* dx += instead of dx = */
    const struct sk_dropout *dropout; /* as in the forward */
    uint32_t site;
    int64_t first_row;
};

#endif
