/* put.h -- small numbers as text, for lines by the thousand: a format string each would be most of
 * the work. Each function writes at `at`, ends with NUL, and returns where that stands, as stpcpy
 * does; the caller has room. Threads: pure functions. */
#ifndef SCOUT_LIBFORMAT_BASE_PUT_H
#define SCOUT_LIBFORMAT_BASE_PUT_H

#include <stdint.h>
#include <string.h>

enum { SF_DECIMAL_TEXT = 21 }; /* the longest number and its NUL */

static inline char *sf_put_decimal(char *at, int64_t number)
{
    char digits[SF_DECIMAL_TEXT], *first = digits + sizeof digits;
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    *--first = 0;
    do
        *--first = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        *at++ = '-';
    size_t length = (size_t)(digits + sizeof digits - 1 - first);
    memcpy(at, first, length + 1);
    return at + length;
}

#endif
