/* text_buffer.h -- text that grows, to be used again and again. `= {0}` is ready; sf_text_free ends it.
 * A call that finds no memory says so and leaves the text as it was. */
#ifndef SCOUT_LIBFORMAT_TEXT_TEXT_BUFFER_H
#define SCOUT_LIBFORMAT_TEXT_TEXT_BUFFER_H

#include <stdint.h>

#include "libformat/base/err.h"

struct sf_text {
    char *at; /* a NUL behind the bytes; NULL while nothing was ever added */
    uint64_t bytes, capacity;
};

int sf_text_add(struct sf_text *text, const char *more, uint64_t bytes, struct sf_err *err);
int sf_text_add_string(struct sf_text *text, const char *more, struct sf_err *err);
void sf_text_free(struct sf_text *text);

#endif
