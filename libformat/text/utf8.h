/* utf8.h -- one code point at a time, for text that is known to be valid UTF-8. */
#ifndef SCOUT_LIBFORMAT_TEXT_UTF8_H
#define SCOUT_LIBFORMAT_TEXT_UTF8_H

#include <stdint.h>

/* Bytes of the character that starts with `lead`. */
static inline int sf_utf8_bytes(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* The code point at `p`; *p moves behind it. */
static inline uint32_t sf_utf8_next(const unsigned char **p)
{
    const unsigned char *s = *p;
    int n = sf_utf8_bytes(s[0]);
    *p = s + n;
    switch (n) {
    case 1:
        return s[0];
    case 2:
        return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    case 3:
        return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    default:
        return (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
    }
}

#endif
