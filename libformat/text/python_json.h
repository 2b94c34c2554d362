/* python_json.h -- JSON as Python's json.dumps(value, ensure_ascii=False) writes it, which is what
 * `tojson` in a chat template gives under transformers.
 *
 * Numbers were read as doubles (base/json.h): a whole one below 2^53 is written without a point, so
 * 1.0 becomes 1, which Python would keep. Others are the shortest that reads back, as Python's repr. */
#ifndef SCOUT_LIBFORMAT_TEXT_PYTHON_JSON_H
#define SCOUT_LIBFORMAT_TEXT_PYTHON_JSON_H

#include "libformat/base/json.h"
#include "libformat/text/text_buffer.h"

/* indent 0: one line, ", " and ": " between; else so many spaces a level. SF_EFORMAT: an object has
 * one key twice. */
int sf_python_json(struct sf_text *out, const struct sf_json *value, int indent,
                   struct sf_err *err);

#endif
