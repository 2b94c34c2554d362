/* pattern.h -- a split pattern, rewritten over a small alphabet.
 *
 * Regex engines disagree on what \p{Lu} or \s or a case-insensitive `s` hold, since each carries
 * its own Unicode version. Here none is asked: every character or class of the pattern becomes a
 * set of code points from our own table; code points that no set of the pattern tells apart become
 * one *symbol* of a byte; the pattern is rewritten over symbols, and text is mapped to symbols
 * before it is matched. What is left for the engine is counting and choosing, where engines agree.
 *
 * Taken: literals, [classes] with ranges, \p{..} \P{..} of general categories, \s \S \d \D, \r \n
 * \t \f \v, escaped punctuation, groups ( (?: (?i: (?= (?!, alternatives, ? * + {n} {n,} {n,m} with
 * ? or
 * + behind ? * +. Case-insensitive: ASCII letters, as Unicode folds them. Anything else is refused.
 */
#ifndef SCOUT_LIBFORMAT_TEXT_PATTERN_H
#define SCOUT_LIBFORMAT_TEXT_PATTERN_H

#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"

struct sf_pattern {
    char *regex;     /* over symbols, ASCII, NUL-terminated; lives in the caller's arena */
    uint8_t *symbol; /* [0x110000], by code point; ditto */
};

int sf_pattern_rewrite(struct sf_pattern *out, const char *pattern, struct sf_arena *arena,
                       struct sf_err *err);

#endif
