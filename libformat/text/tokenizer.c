#include "libformat/text/tokenizer.h"

#include <assert.h>
#include <string.h>

#include "libformat/base/json.h"
#include "libformat/base/mem.h"
#include "libformat/text/byte_alphabet.h"
#include "libformat/text/tokenizer_file.h"
#include "libformat/text/utf8.h"

/* ---- ids ---- */

int sf_ids_append(struct sf_ids *ids, const int32_t *more, int64_t count, struct sf_err *err)
{
    void *list = ids->id;
    int code = sf_grow(&list, &ids->capacity, ids->count, ids->count + count, sizeof *ids->id,
                       "token ids", err);
    ids->id = list;
    if (code == SF_OK && count > 0) {
        memcpy(ids->id + ids->count, more, (uint64_t)count * sizeof *more);
        ids->count += count;
    }
    return code;
}

void sf_ids_free(struct sf_ids *ids)
{
    sf_free(ids->id);
    *ids = (struct sf_ids){0};
}

/* ---- open and close ---- */

int sf_tokenizer_open(struct sf_tokenizer **out, const char *json, uint64_t bytes,
                      struct sf_err *err)
{
    struct sf_json *root = NULL;
    void *block = NULL;
    int code = sf_json_parse(&root, json, bytes, err);
    if (code == SF_OK)
        code = sf_alloc_for(&block, sizeof(struct sf_tokenizer), "tokenizer", err);
    if (code == SF_OK)
        code = sf_tokenizer_read(block, root, err);
    sf_json_free(root);
    if (code != SF_OK)
        sf_tokenizer_close(block);
    else
        *out = block;
    return code;
}

void sf_tokenizer_close(struct sf_tokenizer *t)
{
    if (!t)
        return;
    sf_splitter_close(t->splitter);
    sf_added_tokens_free(&t->added);
    sf_bpe_free(&t->bpe);
    sf_ids_free(&t->before);
    sf_ids_free(&t->after);
    sf_arena_free(&t->arena);
    sf_free(t);
}

struct sf_tokenizer_scratch {
    const struct sf_tokenizer *tokenizer; /* whose pre-tokens the cache remembers */
    struct sf_splitter_scratch *split;
    struct sf_bpe_scratch *bpe;
};

int sf_tokenizer_scratch_open(struct sf_tokenizer_scratch **out,
                              const struct sf_tokenizer *tokenizer, struct sf_err *err)
{
    void *block;
    int code = sf_alloc_for(&block, sizeof(struct sf_tokenizer_scratch), "tokenizer scratch", err);
    if (code != SF_OK)
        return code;
    struct sf_tokenizer_scratch *s = block;
    s->tokenizer = tokenizer;
    code = sf_splitter_scratch_open(&s->split, err);
    if (code == SF_OK)
        code = sf_bpe_scratch_open(&s->bpe, err);
    if (code != SF_OK)
        sf_tokenizer_scratch_close(s);
    else
        *out = s;
    return code;
}

void sf_tokenizer_scratch_close(struct sf_tokenizer_scratch *s)
{
    if (!s)
        return;
    sf_splitter_scratch_close(s->split);
    sf_bpe_scratch_close(s->bpe);
    sf_free(s);
}

/* ---- encode ---- */

struct encoder {
    struct sf_ids *out;
    const struct sf_tokenizer *t;
    struct sf_tokenizer_scratch *scratch;
};

static int encode_piece(void *context, const char *piece, uint64_t bytes, struct sf_err *err)
{
    const struct encoder *e = context;
    return sf_bpe_encode(e->out, &e->t->bpe, piece, bytes, e->scratch->bpe, err);
}

/* Text without added tokens. */
static int encode_plain(struct encoder *e, const char *text, uint64_t bytes, struct sf_err *err)
{
    if (bytes == 0)
        return SF_OK;
    if (!e->t->splitter)
        return encode_piece(e, text, bytes, err);
    return sf_splitter_run(e->t->splitter, text, bytes, e->scratch->split, encode_piece, e, err);
}

/* Takes out the added tokens of this look; what lies between goes to the next look. */
static int encode_look(struct encoder *e, int look, const char *text, uint64_t bytes,
                       struct sf_err *err)
{
    uint64_t done = 0, at;
    int code = SF_OK;
    if (look == 2)
        return encode_plain(e, text, bytes, err);
    while (code == SF_OK) {
        const struct sf_added_token *token =
            sf_added_tokens_find(&at, &e->t->added, look, text, bytes, done);
        if (!token)
            return encode_look(e, look + 1, text + done, bytes - done, err);
        code = encode_look(e, look + 1, text + done, at - done, err);
        if (code == SF_OK)
            code = sf_ids_append(e->out, &token->id, 1, err);
        done = at + token->bytes;
    }
    return code;
}

int sf_tokenizer_encode(struct sf_ids *out, const struct sf_tokenizer *tokenizer, const char *text,
                        uint64_t bytes, bool add_special, struct sf_tokenizer_scratch *scratch,
                        struct sf_err *err)
{
    struct encoder e = {.out = out, .t = tokenizer, .scratch = scratch};
    uint64_t bad;
    int code = SF_OK;
    assert(scratch->tokenizer == tokenizer);
    if (!sf_utf8_valid(text, bytes, &bad))
        return sf_fail(err, SF_EFORMAT, "text is not UTF-8 at byte %llu", (unsigned long long)bad);
    if (add_special)
        code = sf_ids_append(out, tokenizer->before.id, tokenizer->before.count, err);
    if (code == SF_OK)
        code = encode_look(&e, 0, text, bytes, err);
    if (code == SF_OK && add_special)
        code = sf_ids_append(out, tokenizer->after.id, tokenizer->after.count, err);
    return code;
}

/* ---- decode ---- */

/* The bytes that a token stands for, into `out` (no more than the token is long); returns how many.
 * A token with a character outside the byte alphabet stands for itself. */
static uint64_t decode_token(char *out, const char *token)
{
    uint64_t n = 0, length = strlen(token);
    const unsigned char *p = (const unsigned char *)token, *end = p + length;
    while (p < end) {
        int byte = sf_char_to_byte(sf_utf8_next(&p));
        if (byte < 0) {
            memcpy(out, token, length);
            return length;
        }
        out[n++] = (char)byte;
    }
    return n;
}

int sf_tokenizer_decode(char **out, uint64_t *bytes, const struct sf_tokenizer *t,
                        const int32_t *ids, int64_t count, bool skip_special,
                        struct sf_arena *arena, struct sf_err *err)
{
    uint64_t most = 1, n = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!sf_tokenizer_token(t, ids[i]))
            return sf_fail(err, SF_EINVAL, "id %d (number %lld) is no token; ids end at %lld",
                           ids[i], (long long)i, (long long)t->ids - 1);
        most += strlen(t->text[ids[i]]);
    }
    char *text = sf_arena_alloc(arena, most);
    if (!text)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %llu bytes of text",
                       (unsigned long long)most);
    for (int64_t i = 0; i < count; i++)
        if (!skip_special || !t->special[ids[i]])
            n += decode_token(text + n, t->text[ids[i]]);
    text[n] = 0;
    *out = text;
    if (bytes)
        *bytes = n;
    return SF_OK;
}

/* ---- what there is ---- */

int64_t sf_tokenizer_vocabulary(const struct sf_tokenizer *t)
{
    return t->ids;
}

const char *sf_tokenizer_token(const struct sf_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->ids ? t->text[id] : NULL;
}

uint64_t sf_tokenizer_token_bytes(const struct sf_tokenizer *t, int32_t id)
{
    const char *token = sf_tokenizer_token(t, id);
    if (!token)
        return 0;
    uint64_t n = 0;
    for (const unsigned char *p = (const unsigned char *)token; *p; n++)
        if (sf_char_to_byte(sf_utf8_next(&p)) < 0)
            return strlen(token); /* decode_token: it stands for itself */
    return n;
}

int32_t sf_tokenizer_id(const struct sf_tokenizer *t, const char *token)
{
    int32_t added = sf_words_find(&t->added.words, token, strlen(token));
    return added >= 0 ? t->added.token[added].id
                      : sf_words_find(&t->bpe.words, token, strlen(token));
}

bool sf_tokenizer_is_special(const struct sf_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->ids && t->special[id];
}
