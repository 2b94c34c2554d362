/* bytes.h -- little-endian numbers in byte arrays, whatever the machine's own order and alignment.
 */
#ifndef SCOUT_LIBFORMAT_BASE_BYTES_H
#define SCOUT_LIBFORMAT_BASE_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t sf_get_u16(const void *p)
{
    const unsigned char *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t sf_get_u32(const void *p)
{
    const unsigned char *b = p;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t sf_get_u64(const void *p)
{
    const unsigned char *b = p;
    return sf_get_u32(b) | (uint64_t)sf_get_u32(b + 4) << 32;
}

static inline float sf_get_f32(const void *p)
{
    uint32_t bits = sf_get_u32(p);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void sf_put_u16(void *p, uint16_t v)
{
    unsigned char *b = p;
    b[0] = (unsigned char)v;
    b[1] = (unsigned char)(v >> 8);
}

static inline void sf_put_u32(void *p, uint32_t v)
{
    unsigned char *b = p;
    for (int i = 0; i < 4; i++)
        b[i] = (unsigned char)(v >> 8 * i);
}

static inline void sf_put_u64(void *p, uint64_t v)
{
    sf_put_u32(p, (uint32_t)v);
    sf_put_u32((unsigned char *)p + 4, (uint32_t)(v >> 32));
}

static inline void sf_put_f32(void *p, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    sf_put_u32(p, bits);
}

#endif
