/* code_points.h -- up to 64 sets of code points, painted side by side.
 *
 * `member[c]` has bit i set when code point c is in set i: so code points with equal words are
 * those that no set tells apart. */
#ifndef SCOUT_LIBFORMAT_TEXT_CODE_POINTS_H
#define SCOUT_LIBFORMAT_TEXT_CODE_POINTS_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/text/unicode_table.h"

enum { SF_POINT_SETS = 64 };

/* Adds first..last to the sets of `bits`. */
void sf_points_add(uint64_t *member, uint64_t bits, uint32_t first, uint32_t last);
/* Adds all code points whose category is in `categories` (bit = number in unicode_table.h), or all
 * others when `negated`. */
void sf_points_add_categories(uint64_t *member, uint64_t bits, uint32_t categories, bool negated);
/* Adds Unicode's White_Space (\s), or all others when `negated`. */
void sf_points_add_space(uint64_t *member, uint64_t bits, bool negated);
void sf_points_invert(uint64_t *member, uint64_t bits);

/* The categories of "Lu" or "L" as bits; 0 for a name that is none. */
uint32_t sf_points_categories(const char *name, uint64_t bytes);

#endif
