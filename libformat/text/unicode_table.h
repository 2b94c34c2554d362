/* unicode_table.h -- the general category of every code point, as Hugging Face's `tokenizers` knows
 * it. Generated (make_unicode_table.py), so that no other library's Unicode version has a say. */
#ifndef SCOUT_LIBFORMAT_TEXT_UNICODE_TABLE_H
#define SCOUT_LIBFORMAT_TEXT_UNICODE_TABLE_H

#include <stdint.h>

enum { SF_UNICODE_CATEGORIES = 29, SF_UNICODE_END = 0x110000 };

extern const char sf_unicode_category_names[SF_UNICODE_CATEGORIES][3]; /* "Lu", "Ll", ... */

/* Runs in order: first code point << 8 | category; a run ends where the next begins. */
extern const uint32_t sf_unicode_run[];
extern const int32_t sf_unicode_runs;

#endif
