/* swiglu.h -- h = silu(gate) * up, silu(g) = g * sigmoid(g).
 * backward, s = sigmoid(g): dup = dh * g * s;  dgate = dh * up * s * (1 + g * (1 - s)).
 * gate and up may be halves of one [rows, 2 * width] buffer: `stride` is their row stride. */
#ifndef SCOUT_KERNELS_SWIGLU_H
#define SCOUT_KERNELS_SWIGLU_H

#include "kernels/activation.h"

struct sk_swiglu_forward {
    sk_act *h; /* [rows, width] */
    const sk_act *gate, *up;
    int64_t rows, width, stride;
};

struct sk_swiglu_backward {
    sk_act *d_gate, *d_up; /* row stride `stride`; may be gate and up themselves (in place) */
    const sk_act *dh;      /* [rows, width] */
    const sk_act *gate, *up;
    int64_t rows, width, stride;
};

#endif
