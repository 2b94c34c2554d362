/* rmsnorm.h -- residual add and RMSNorm in one pass.
 *
 *     s = x + delta                        (s = x where delta is NULL)
 *     rstd = (mean(s^2) + epsilon)^(-1/2)
 *     y = s * rstd * weight
 * backward, g = dy * weight, n = s * rstd:
 *     ds = rstd * (g - n * mean(g * n)) + residual
 * where `residual` is the gradient that reaches s past the norm; ds is that of x and of delta. */
#ifndef SCOUT_KERNELS_RMSNORM_H
#define SCOUT_KERNELS_RMSNORM_H

#include "kernels/activation.h"
#include "kernels/matrix.h"

struct sk_rmsnorm_forward {
    sk_act *y;                      /* [rows, cols] */
    sk_act *sum;                    /* [rows, cols] s; optional where delta is NULL */
    float *rstd;                    /* [rows] */
    const sk_act *x;                /* [rows, cols] */
    const sk_act *delta;            /* [rows, cols], optional */
    const struct sk_matrix *weight; /* [1, cols] */
    int64_t rows, cols;
    float epsilon;
};

struct sk_rmsnorm_backward {
    sk_act *ds;                     /* [rows, cols]; may be `residual` itself (in place) */
    const sk_act *dy;               /* [rows, cols] */
    const sk_act *sum;              /* [rows, cols] s of the forward */
    const float *rstd;              /* [rows] */
    const sk_act *residual;         /* [rows, cols], optional */
    const struct sk_matrix *weight; /* [1, cols] */
    int64_t rows, cols;
};

#endif
