/* swiglu.h -- h = silu(gate) * up, silu(g) = g * sigmoid(g).
 * backward, s = sigmoid(g): dup = dh * g * s;  dgate = dh * up * s * (1 + g * (1 - s)).
 * gate and up may be halves of one [rows, 2 * width] buffer: `stride` is their row stride. */
#ifndef SCOUT_KERNELS_SWIGLU_H
#define SCOUT_KERNELS_SWIGLU_H

#include <stdint.h>

struct sk_swiglu_forward {
    float *h; /* [rows, width] */
    const float *gate, *up;
    int64_t rows, width, stride;
};

struct sk_swiglu_backward {
    float *d_gate, *d_up; /* row stride `stride`; may be gate and up themselves (in place) */
    const float *dh;      /* [rows, width] */
    const float *gate, *up;
    int64_t rows, width, stride;
};

#endif
