#include "libformat/text/code_points.h"

#include <string.h>

void sf_points_add(uint64_t *member, uint64_t bits, uint32_t first, uint32_t last)
{
    for (uint32_t c = first; c <= last && c < SF_UNICODE_END; c++)
        member[c] |= bits;
}

void sf_points_add_categories(uint64_t *member, uint64_t bits, uint32_t categories, bool negated)
{
    for (int32_t i = 0; i < sf_unicode_runs; i++) {
        uint32_t first = sf_unicode_run[i] >> 8;
        uint32_t end = i + 1 < sf_unicode_runs ? sf_unicode_run[i + 1] >> 8 : SF_UNICODE_END;
        bool in = categories >> (sf_unicode_run[i] & 0xff) & 1;
        if (in != negated)
            sf_points_add(member, bits, first, end - 1);
    }
}

void sf_points_add_space(uint64_t *member, uint64_t bits, bool negated)
{
    static const uint32_t space[][2] = {
        {0x09, 0x0d},     {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680},
        {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};
    uint32_t behind = 0; /* first code point behind the range before */
    for (size_t i = 0; i < sizeof space / sizeof space[0]; i++) {
        if (!negated)
            sf_points_add(member, bits, space[i][0], space[i][1]);
        else if (space[i][0] > behind)
            sf_points_add(member, bits, behind, space[i][0] - 1);
        behind = space[i][1] + 1;
    }
    if (negated)
        sf_points_add(member, bits, behind, SF_UNICODE_END - 1);
}

void sf_points_invert(uint64_t *member, uint64_t bits)
{
    for (uint32_t c = 0; c < SF_UNICODE_END; c++)
        member[c] ^= bits;
}

uint32_t sf_points_categories(const char *name, uint64_t bytes)
{
    uint32_t found = 0;
    if (bytes != 1 && bytes != 2)
        return 0;
    for (int i = 0; i < SF_UNICODE_CATEGORIES; i++)
        if (memcmp(sf_unicode_category_names[i], name, bytes) == 0)
            found |= 1u << i;
    return found;
}
