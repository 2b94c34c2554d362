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

#include "kernels/matrix.h"

struct sk_rmsnorm_forward {
    float *y;                       /* [rows, cols] */
    float *sum;                     /* [rows, cols] s; optional where delta is NULL */
    float *rstd;                    /* [rows] */
    const float *x;                 /* [rows, cols] */
    const float *delta;             /* [rows, cols], optional */
    const struct sk_matrix *weight; /* [1, cols] */
    int64_t rows, cols;
    float epsilon;
};

struct sk_rmsnorm_backward {
    float *ds;                      /* [rows, cols]; may be `residual` itself (in place) */
    const float *dy;                /* [rows, cols] */
    const float *sum;               /* [rows, cols] s of the forward */
    const float *rstd;              /* [rows] */
    const float *residual;          /* [rows, cols], optional */
    const struct sk_matrix *weight; /* [1, cols] */
    int64_t rows, cols;
};

#endif
