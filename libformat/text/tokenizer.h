/* tokenizer.h -- a Hugging Face tokenizer.json (byte-level BPE) that gives the same ids as Hugging
 * Face's `tokenizers`.
 *
 * Supported: added tokens (special or not), a Sequence of Split(regex, Isolated) and ByteLevel as
 * pre-tokenizer (or ByteLevel alone with its own regex), BPE with or without ignore_merges, a
 * TemplateProcessing post-processor (alone or in a Sequence with ByteLevel). Anything else in the
 * file is refused by name, never ignored. Threads: encoding is safe from many threads at once, each
 * with its own sf_tokenizer_scratch. */
#ifndef SCOUT_LIBFORMAT_TEXT_TOKENIZER_H
#define SCOUT_LIBFORMAT_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"

struct sf_tokenizer;

/* json[0..bytes) is the content of tokenizer.json and need not outlive the call. */
int sf_tokenizer_open(struct sf_tokenizer **out, const char *json, uint64_t bytes,
                      struct sf_err *err);
void sf_tokenizer_close(struct sf_tokenizer *tokenizer); /* NULL is welcome */

/* Per-thread working memory; grows as needed, reused between calls. */
struct sf_tokenizer_scratch;
int sf_tokenizer_scratch_open(struct sf_tokenizer_scratch **out,
                              const struct sf_tokenizer *tokenizer, struct sf_err *err);
void sf_tokenizer_scratch_close(struct sf_tokenizer_scratch *scratch);

/* A growing list of ids. `= {0}` is ready; sf_ids_free ends it. */
struct sf_ids {
    int32_t *id;
    int64_t count, capacity;
};
int sf_ids_append(struct sf_ids *ids, const int32_t *more, int64_t count, struct sf_err *err);
void sf_ids_free(struct sf_ids *ids);

/* Appends the ids of text[0..bytes) to *out. Special tokens written out in the text become their
 * ids, as `tokenizers` does. add_special: the post-processor's tokens (begin of text) too.
 * SF_EFORMAT when the text is not UTF-8 (with the byte offset). Linear in the text's length. */
int sf_tokenizer_encode(struct sf_ids *out, const struct sf_tokenizer *tokenizer, const char *text,
                        uint64_t bytes, bool add_special, struct sf_tokenizer_scratch *scratch,
                        struct sf_err *err);

/* The text of ids as bytes (may cut a character when the ids do), NUL behind it, in `arena`.
 * Special tokens are left out when skip_special. SF_EINVAL: an id outside the vocabulary. */
int sf_tokenizer_decode(char **out, uint64_t *bytes, const struct sf_tokenizer *tokenizer,
                        const int32_t *ids, int64_t count, bool skip_special,
                        struct sf_arena *arena, struct sf_err *err);

int64_t sf_tokenizer_vocabulary(const struct sf_tokenizer *tokenizer); /* highest id + 1 */
/* The token's string as written in tokenizer.json, NULL if the id has none. Borrowed. */
const char *sf_tokenizer_token(const struct sf_tokenizer *tokenizer, int32_t id);
/* The id of exactly this token string, -1 if there is none. */
int32_t sf_tokenizer_id(const struct sf_tokenizer *tokenizer, const char *token);
/* Bytes of text that the id stands for; 0 if there is no such token. */
uint64_t sf_tokenizer_token_bytes(const struct sf_tokenizer *tokenizer, int32_t id);
bool sf_tokenizer_is_special(const struct sf_tokenizer *tokenizer, int32_t id);

#endif
