#include "libformat/base/utf8_check.h"

#include <string.h>

static int length_of_lead(unsigned char c)
{
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c < 0xe0)
        return 2;
    if (c >= 0xe0 && c < 0xf0)
        return 3;
    return c >= 0xf0 && c < 0xf5 ? 4 : 0;
}

/* The second byte tells overlong forms, surrogates and values beyond U+10FFFF. */
static bool second_fits(unsigned char lead, unsigned char second)
{
    switch (lead) {
    case 0xe0:
        return second >= 0xa0;
    case 0xed:
        return second < 0xa0;
    case 0xf0:
        return second >= 0x90;
    case 0xf4:
        return second < 0x90;
    default:
        return true;
    }
}

int sf_utf8_length(const char *text, uint64_t bytes)
{
    const unsigned char *s = (const unsigned char *)text;
    int n = bytes ? length_of_lead(s[0]) : 0;
    if ((uint64_t)n > bytes)
        return 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n > 2 && !second_fits(s[0], s[1]) ? 0 : n;
}

bool sf_utf8_valid(const char *text, uint64_t bytes, uint64_t *bad_offset)
{
    for (uint64_t i = 0; i < bytes;) {
        uint64_t eight; /* nearly all text is ASCII */
        if (bytes - i >= sizeof eight) {
            memcpy(&eight, text + i, sizeof eight);
            if (!(eight & 0x8080808080808080u)) {
                i += sizeof eight;
                continue;
            }
        }
        int n = sf_utf8_length(text + i, bytes - i);
        if (n == 0) {
            if (bad_offset)
                *bad_offset = i;
            return false;
        }
        i += (uint64_t)n;
    }
    return true;
}
