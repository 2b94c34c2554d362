#include "libformat/text/added_tokens.h"

#include <string.h>

/* ---- reading ---- */

static int read_flags(struct sf_added_token *token, const struct sf_json *entry, struct sf_err *err)
{
    static const char *const refused[] = {"single_word", "lstrip", "rstrip"};
    bool on = false;
    int code = SF_OK;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0] && code == SF_OK; i++) {
        code = sf_json_as_bool(&on, sf_json_get(entry, refused[i]), refused[i], err);
        if (code == SF_OK && on)
            return sf_fail(err, SF_EUNSUPPORTED, "%s is true; only false is supported", refused[i]);
    }
    if (code == SF_OK)
        code = sf_json_as_bool(&token->normalized, sf_json_get(entry, "normalized"), "normalized",
                               err);
    if (code == SF_OK)
        code = sf_json_as_bool(&token->special, sf_json_get(entry, "special"), "special", err);
    return code;
}

/* The id that `tokenizers` gives a new token: behind the model's, then one after the other. */
static int64_t next_id(const struct sf_added_tokens *added, const struct sf_bpe *bpe)
{
    int64_t next = bpe->count;
    for (int64_t i = 0; i < added->count; i++)
        if (added->token[i].id >= next)
            next = (int64_t)added->token[i].id + 1;
    return next;
}

static int read_token(struct sf_added_tokens *added, const struct sf_json *entry, int64_t next,
                      const struct sf_bpe *bpe, struct sf_arena *arena, struct sf_err *err)
{
    struct sf_added_token token = {0};
    int64_t id = 0;
    int code = sf_json_as_string(&token.text, sf_json_get(entry, "content"), "content", err);
    if (code == SF_OK)
        code = sf_json_as_int(&id, sf_json_get(entry, "id"), "id", err);
    if (code == SF_OK)
        code = read_flags(&token, entry, err);
    if (code != SF_OK)
        return code;
    token.bytes = (uint32_t)strlen(token.text);
    if (token.bytes == 0)
        return sf_fail(err, SF_EUNSUPPORTED, "content is empty");
    int32_t known = sf_words_find(&bpe->words, token.text, token.bytes);
    int64_t want = known >= 0 ? known : next;
    if (id != want || id > SF_BPE_MAX_ID)
        return sf_fail(err, SF_EUNSUPPORTED, "\"%s\" has id %lld, but is token %lld", token.text,
                       (long long)id, (long long)want);
    token.id = (int32_t)id;
    token.text = sf_arena_strndup(arena, token.text, token.bytes);
    if (!token.text)
        return sf_fail(err, SF_ENOMEM, "cannot allocate token strings");
    code = sf_words_add(&added->words, token.text, token.bytes, (int32_t)added->count, err);
    if (code == SF_OK)
        added->token[added->count++] = token;
    return code;
}

/* ---- tries ---- */

static void trie_add(struct sf_trie_node *node, int32_t *nodes, const struct sf_added_token *token,
                     int32_t index)
{
    int32_t at = 0;
    for (uint32_t i = 0; i < token->bytes; i++) {
        unsigned char byte = (unsigned char)token->text[i];
        int32_t child = node[at].child[0];
        while (child && node[child].byte != byte)
            child = node[child].child[1];
        if (!child) {
            child = (*nodes)++;
            node[child] =
                (struct sf_trie_node){.child = {0, node[at].child[0]}, .token = -1, .byte = byte};
            node[at].child[0] = child;
        }
        at = child;
    }
    node[at].token = index;
}

static int make_trie(struct sf_added_tokens *added, int look, struct sf_arena *arena,
                     struct sf_err *err)
{
    uint64_t most = 1;
    for (int64_t i = 0; i < added->count; i++)
        most += added->token[i].bytes;
    struct sf_trie_node *node = sf_arena_array(arena, most, sizeof *node);
    if (!node || most > INT32_MAX)
        return sf_fail(err, SF_ENOMEM, "cannot allocate added tokens of %llu bytes",
                       (unsigned long long)most);
    int32_t nodes = 1;
    node[0].token = -1;
    for (int64_t i = 0; i < added->count; i++) {
        if (added->token[i].normalized != (look == 1))
            continue;
        trie_add(node, &nodes, &added->token[i], (int32_t)i);
        added->starts[look][(unsigned char)added->token[i].text[0]] = true;
    }
    added->node[look] = node;
    return SF_OK;
}

int sf_added_tokens_read(struct sf_added_tokens *added, const struct sf_json *list,
                         const struct sf_bpe *bpe, struct sf_arena *arena, struct sf_err *err)
{
    if (list && sf_json_type(list) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "added_tokens is not an array");
    int64_t count = list ? sf_json_count(list) : 0, number = 0;
    added->token = sf_arena_array(arena, (uint64_t)count, sizeof *added->token);
    if (!added->token)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %lld added tokens", (long long)count);
    int code = sf_words_init(&added->words, count, err);
    int64_t next = next_id(added, bpe);
    for (const struct sf_json *e = sf_json_first(list); e && code == SF_OK; e = sf_json_next(e)) {
        code = read_token(added, e, next, bpe, arena, err);
        if (code != SF_OK)
            return sf_err_prefix(err, "added_tokens, entry %lld", (long long)number);
        if (added->token[number++].id >= next)
            next = (int64_t)added->token[number - 1].id + 1;
    }
    for (int look = 0; look < 2 && code == SF_OK; look++)
        code = make_trie(added, look, arena, err);
    return code;
}

void sf_added_tokens_free(struct sf_added_tokens *added)
{
    sf_words_free(&added->words);
    *added = (struct sf_added_tokens){0};
}

/* ---- looking ---- */

/* The longest token that begins at text[0], -1 if none. */
static int32_t longest_at(const struct sf_trie_node *node, const char *text, uint64_t bytes)
{
    int32_t at = 0, found = -1;
    for (uint64_t i = 0; i < bytes; i++) {
        int32_t child = node[at].child[0];
        while (child && node[child].byte != (unsigned char)text[i])
            child = node[child].child[1];
        if (!child)
            break;
        at = child;
        found = node[at].token >= 0 ? node[at].token : found;
    }
    return found;
}

const struct sf_added_token *sf_added_tokens_find(uint64_t *at, const struct sf_added_tokens *added,
                                                  int look, const char *text, uint64_t bytes,
                                                  uint64_t from)
{
    for (uint64_t i = from; i < bytes; i++) {
        if (!added->starts[look][(unsigned char)text[i]])
            continue;
        int32_t found = longest_at(added->node[look], text + i, bytes - i);
        if (found >= 0) {
            *at = i;
            return &added->token[found];
        }
    }
    return NULL;
}
