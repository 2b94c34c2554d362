/* tokenizer_file.h -- tokenizer.json read into what encoding and decoding need. */
#ifndef SCOUT_LIBFORMAT_TEXT_TOKENIZER_FILE_H
#define SCOUT_LIBFORMAT_TEXT_TOKENIZER_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/base/json.h"
#include "libformat/text/added_tokens.h"
#include "libformat/text/bpe.h"
#include "libformat/text/splitter.h"

struct sf_tokenizer {
    struct sf_arena arena;
    struct sf_bpe bpe;
    struct sf_added_tokens added;
    struct sf_splitter *splitter; /* NULL: a text is one pre-token */
    struct sf_ids before, after;  /* what the post-processor puts around the text */
    const char **text;            /* [ids] as written, NULL: no such token */
    bool *special;                /* [ids] */
    int64_t ids;
};

/* Fills a zeroed tokenizer; on failure the caller closes it all the same. */
int sf_tokenizer_read(struct sf_tokenizer *tokenizer, const struct sf_json *root,
                      struct sf_err *err);

#endif
