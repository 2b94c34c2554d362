/* words.h -- a table from token strings to ids. Strings are borrowed and must outlive the table.
 * Filled once, then read by any number of threads. `= {0}` is an empty table. */
#ifndef SCOUT_LIBFORMAT_TEXT_WORDS_H
#define SCOUT_LIBFORMAT_TEXT_WORDS_H

#include <stdint.h>

#include "libformat/base/err.h"

struct sf_word {
    const char *text;
    uint32_t bytes;
    int32_t id;
};

struct sf_words {
    struct sf_word *slot; /* text NULL: free */
    uint64_t mask;        /* slots - 1 */
};

/* Room for `count` strings. */
int sf_words_init(struct sf_words *words, int64_t count, struct sf_err *err);
void sf_words_free(struct sf_words *words);
/* SF_EFORMAT when the string stands in the table already. */
int sf_words_add(struct sf_words *words, const char *text, uint32_t bytes, int32_t id,
                 struct sf_err *err);
/* The id, or -1. */
int32_t sf_words_find(const struct sf_words *words, const char *text, uint64_t bytes);

/* The hash behind it (FNV-1a, finished), for other tables over short byte strings. */
uint64_t sf_words_hash(const void *data, uint64_t bytes);

#endif
