/* splitter.h -- cuts text into pre-tokens: the matches of a split pattern and the gaps between
 * them.
 *
 * A splitter is read by any number of threads, each with its own scratch. PCRE2 matches; the
 * characters are ours (pattern.h). */
#ifndef SCOUT_LIBFORMAT_TEXT_SPLITTER_H
#define SCOUT_LIBFORMAT_TEXT_SPLITTER_H

#include <stdint.h>

#include "libformat/base/err.h"

struct sf_splitter;
/* SF_EUNSUPPORTED: the pattern uses what pattern.h does not take, or can match nothing at all. */
int sf_splitter_open(struct sf_splitter **out, const char *pattern, struct sf_err *err);
void sf_splitter_close(struct sf_splitter *splitter); /* NULL is welcome */

struct sf_splitter_scratch;
int sf_splitter_scratch_open(struct sf_splitter_scratch **out, struct sf_err *err);
void sf_splitter_scratch_close(struct sf_splitter_scratch *scratch); /* NULL is welcome */

/* Called for every pre-token, in order; they cover the text without gap. */
typedef int sf_piece_fn(void *context, const char *piece, uint64_t bytes, struct sf_err *err);

/* text is valid UTF-8. Stops at the first error of `piece`. */
int sf_splitter_run(const struct sf_splitter *splitter, const char *text, uint64_t bytes,
                    struct sf_splitter_scratch *scratch, sf_piece_fn *piece, void *context,
                    struct sf_err *err);

#endif
