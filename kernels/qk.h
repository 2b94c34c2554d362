/* qk.h -- after-care of queries and keys, in place: rotation, norm, temperature.
 *
 * rope:        pairs (2j, 2j+1) of each head are turned by position * inv_freq[j] (float32 angle)
 * norm:        then v * (mean(v^2) + epsilon)^(-1/2) over each head, no weight (q and k)
 * temperature: q * (1 + temperature_scale * ln(1 + floor((position + 1) / temperature_floor)))
 * Each is applied only where its flag is set; Llama 4 has rope (+ norm) or temperature.
 * backward is in place on dq and dk; where norm is set it needs the forward's outputs and rstd,
 * which are optional otherwise. norm with temperature has no backward: SF_EUNSUPPORTED. CUDA takes
 * heads of an even number of elements only. */
#ifndef SCOUT_KERNELS_QK_H
#define SCOUT_KERNELS_QK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/activation.h"

struct sk_qk_shape {
    int64_t rows, heads, kv_heads, head_size;
    bool rope, norm, temperature;
    float epsilon, temperature_floor, temperature_scale;
};

struct sk_qk_forward {
    sk_act *q;                /* [rows, heads, head_size], in place */
    sk_act *k;                /* [rows, kv_heads, head_size], in place */
    float *q_rstd;            /* [rows, heads], written where norm is set */
    float *k_rstd;            /* [rows, kv_heads] */
    const int32_t *positions; /* [rows], position in the document */
    const float *inv_freq;    /* [head_size / 2] */
    struct sk_qk_shape shape;
};

struct sk_qk_backward {
    sk_act *dq;          /* [rows, heads, head_size], in place */
    sk_act *dk;          /* [rows, kv_heads, head_size], in place */
    const sk_act *q, *k; /* the forward's outputs */
    const float *q_rstd, *k_rstd;
    const int32_t *positions;
    const float *inv_freq;
    struct sk_qk_shape shape;
};

#endif
