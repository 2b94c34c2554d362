#include "libformat/text/byte_alphabet.h"

#include <stdbool.h>

static bool is_plain(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
           (byte >= 0xae && byte <= 0xff);
}

/* The bytes that are not plain, in order: 00-20, 7f-a0, ad. */
static uint32_t shifted(uint32_t byte)
{
    return 0x100 + (byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7f + 0x21 : 0x43);
}

int sf_byte_to_char(char out[2], unsigned char byte)
{
    uint32_t c = is_plain(byte) ? byte : shifted(byte);
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    return 2;
}

int sf_char_to_byte(uint32_t c)
{
    if (c < 0x100)
        return is_plain(c) ? (int)c : -1;
    if (c < 0x121)
        return (int)(c - 0x100);
    if (c < 0x143)
        return (int)(c - 0x121 + 0x7f);
    return c == 0x143 ? 0xad : -1;
}
