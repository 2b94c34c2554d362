/* halves.h -- bfloat16 and float16 to and from float32, scalar, exact, round to nearest even.
 * Also included by .cu files: nothing but inline functions over integers. */
#ifndef SCOUT_LIBFORMAT_CODEC_HALVES_H
#define SCOUT_LIBFORMAT_CODEC_HALVES_H

#include <stdint.h>
#include <string.h>

static inline float sf_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t sf_bits_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float sf_f32_from_bf16(uint16_t h)
{
    return sf_f32_from_bits((uint32_t)h << 16);
}

/* NaN keeps its sign and becomes quiet. */
static inline uint16_t sf_bf16_from_f32(float value)
{
    uint32_t bits = sf_bits_from_f32(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static inline float sf_round_bf16(float value)
{
    return sf_f32_from_bf16(sf_bf16_from_f32(value));
}

static inline float sf_f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1f,
             mantissa = h & 0x3ffu;
    if (exponent == 0x1f)
        return sf_f32_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) { /* subnormal or zero: mantissa * 2^-24, exact in float32 */
        float magnitude = (float)mantissa * 0x1p-24f;
        return sf_f32_from_bits(sign | sf_bits_from_f32(magnitude));
    }
    return sf_f32_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

#endif
