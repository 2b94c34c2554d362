/* added_tokens.h -- tokens that stand above the model: found in the text before anything else.
 *
 * `tokenizers` looks twice: first for the tokens that are not "normalized", then, in what is left,
 * for those that are. Each look takes the leftmost and, there, the longest. */
#ifndef SCOUT_LIBFORMAT_TEXT_ADDED_TOKENS_H
#define SCOUT_LIBFORMAT_TEXT_ADDED_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/base/json.h"
#include "libformat/text/bpe.h"
#include "libformat/text/words.h"

struct sf_added_token {
    const char *text;
    uint32_t bytes;
    int32_t id;
    bool special, normalized;
};

struct sf_trie_node {
    int32_t child[2]; /* first child, next sibling; 0: none (the root is nobody's child) */
    int32_t token;    /* index of the token that ends here, -1 */
    unsigned char byte;
};

struct sf_added_tokens {
    struct sf_added_token *token;
    int64_t count;
    struct sf_words words;        /* text to index */
    struct sf_trie_node *node[2]; /* tries: [0] not normalized, [1] normalized */
    bool starts[2][256];          /* bytes that some token begins with */
};

/* `list` is tokenizer.json's "added_tokens" (may be missing). Ids must be the ones that
 * `tokenizers` would give: it numbers new tokens itself, behind the model's. */
int sf_added_tokens_read(struct sf_added_tokens *added, const struct sf_json *list,
                         const struct sf_bpe *bpe, struct sf_arena *arena, struct sf_err *err);
void sf_added_tokens_free(struct sf_added_tokens *added);

/* The leftmost-longest token of look 0 or 1 in text[from..bytes), NULL if none; *at is its place.
 */
const struct sf_added_token *sf_added_tokens_find(uint64_t *at, const struct sf_added_tokens *added,
                                                  int look, const char *text, uint64_t bytes,
                                                  uint64_t from);

#endif
