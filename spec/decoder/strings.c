#include "spec/decoder/strings.h"

#include <string.h>

// Bytes of the UTF-8 character at p (1 .. 4), or 0 if it is none: overlong, a surrogate, cut off.
static u32 utf8_length(const u8 *p, u64 left)
{
    static const u32 LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    const u32 n = p[0] < 0x80       ? 1
                  : p[0] >> 5 == 6  ? 2
                  : p[0] >> 4 == 14 ? 3
                  : p[0] >> 3 == 30 ? 4
                                    : 0;

    if (n < 2)
        return n;
    if (n > left)
        return 0;
    u32 c = p[0] & (0x7Fu >> n);
    for (u32 i = 1; i < n; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        c = c << 6 | (p[i] & 0x3F);
    }
    return c < LEAST[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF) ? 0 : n;
}

struct strings read_strings(const u8 *p, u32 size, const char *where)
{
    if (size == 0 || size % 8 != 0 || p[0] != 0 || p[size - 1] != 0)
        refuse("%s: the strings are not a multiple of 8 or do not begin and end with NUL", where);
    for (u32 i = 0, n = 0; i < size; i += n) {
        if ((p[i] > 0 && p[i] < 32) || p[i] == 127)
            refuse("%s: the strings hold a control character", where);
        n = utf8_length(p + i, size - i);
        if (n == 0)
            refuse("%s: the strings are not UTF-8", where);
    }
    return (struct strings){(const char *)p, size};
}

const char *get_string(struct strings strings, const u8 *field, const char *where)
{
    const u32 offset = get_u32(field);

    if (offset >= strings.size || (offset > 0 && strings.bytes[offset - 1] != 0))
        refuse("%s: %u is not the start of a string", where, offset);
    if (strlen(strings.bytes + offset) > 4096)
        refuse("%s: a string is longer than 4096 bytes", where);
    return strings.bytes + offset;
}

void check_zero_u32(const u8 *field, const char *where, u32 i)
{
    if (get_u32(field) != 0)
        refuse("%s %u: reserved bytes are not zero", where, i);
}

// A name that may be shown anywhere: printable ASCII but the backslash, other bytes as \xNN (C 10).
void print_name(FILE *out, const char *name)
{
    for (const u8 *p = (const u8 *)name; *p != 0; p++)
        if (*p >= 32 && *p < 127 && *p != '\\')
            (void)fputc(*p, out);
        else
            (void)fprintf(out, "\\x%02x", *p);
}
