/* utf8_check.h -- is this text UTF-8? By the standard: no surrogates, no overlong forms, no value
 * above U+10FFFF. Pure functions. */
#ifndef SCOUT_LIBFORMAT_BASE_UTF8_CHECK_H
#define SCOUT_LIBFORMAT_BASE_UTF8_CHECK_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes (1..4) of the well-formed sequence that text[0..bytes) starts with; 0 if there is none. */
int sf_utf8_length(const char *text, uint64_t bytes);

/* Valid UTF-8 throughout? Else *bad_offset (may be NULL) is the first bad byte. */
bool sf_utf8_valid(const char *text, uint64_t bytes, uint64_t *bad_offset);

#endif
