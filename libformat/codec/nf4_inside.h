/* nf4_inside.h -- scalar pieces that several files of NF4 share; for libformat/codec. */
#ifndef SCOUT_LIBFORMAT_CODEC_NF4_INSIDE_H
#define SCOUT_LIBFORMAT_CODEC_NF4_INSIDE_H

#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"

/* bitsandbytes is built with subnormals flushed to zero. Done on bits, so that neither the
 * compiler's nor the processor's floating-point mode can change the outcome. */
static inline float sf_nf4_flush(float x)
{
    uint32_t bits = sf_bits_from_f32(x);
    return sf_f32_from_bits((bits & 0x7f800000u) ? bits : bits & 0x80000000u);
}

/* What the 16 codes mean in a block of this scale. */
static inline void sf_nf4_values(float value[16], const float codebook[16], float absmax)
{
    for (int c = 0; c < 16; c++)
        value[c] = sf_round_bf16(sf_nf4_flush(codebook[c] * absmax));
}

/* The sum of a[i] * b[i] over a block, in the order that nf4.h defines. */
static inline float sf_nf4_sum_products(const float a[SF_NF4_BLOCK], const float b[SF_NF4_BLOCK])
{
    float lane[16];
    for (int j = 0; j < 16; j++)
        lane[j] = a[j] * b[j];
    for (int i = 16; i < SF_NF4_BLOCK; i += 16)
        for (int j = 0; j < 16; j++)
            lane[j] += a[i + j] * b[i + j];
    for (int half = 8; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

#endif
