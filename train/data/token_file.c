/* A file of rows, mapped and believed once everything in it has been looked at. */
#include <string.h>

#include "libformat/base/map_guard.h"
#include "libformat/base/mem.h"
#include "train/data/tokens_private.h"

enum { LOOK_TOKENS = 1 << 17 }; /* at a time */

static int read_header(struct tokens_header *h, const struct sf_mapping *file,
                       struct sf_hash128 key, struct sf_err *err)
{
    if (file->bytes < TOKENS_HEADER_BYTES)
        return sf_fail(err, SF_EFORMAT, "%llu bytes, %d at least", (unsigned long long)file->bytes,
                       TOKENS_HEADER_BYTES);
    memcpy(h, file->data, sizeof *h);
    if (memcmp(h->magic, TOKENS_MAGIC, sizeof h->magic) != 0)
        return sf_fail(err, SF_EFORMAT, "not a file of tokens");
    if (h->version != TOKENS_VERSION || h->order != TOKENS_ORDER)
        return sf_fail(err, SF_ENOENT, "written by another version");
    if (h->hash != sf_hash64(h, offsetof(struct tokens_header, hash), 0))
        return sf_fail(err, SF_EDAMAGED, "the header's checksum does not match");
    if (h->key.low != key.low || h->key.high != key.high)
        return sf_fail(err, SF_ENOENT, "made of other data or with other options");
    return SF_OK;
}

/* The parts fill the file. */
static int check_sizes(const struct tokens_header *h, const struct sf_mapping *file,
                       struct sf_err *err)
{
    uint64_t tokens, rows, sum = TOKENS_HEADER_BYTES;
    bool fits = h->tokens > 0 && h->rows > 0 && h->files > 0 && h->notes >= 0 &&
                sf_mul(&tokens, (uint64_t)h->tokens, sizeof(struct sft_token)) &&
                sf_mul(&rows, (uint64_t)h->rows, sizeof(struct sft_token_row)) &&
                sf_add(&sum, sum, tokens) && sf_add(&sum, sum, rows) &&
                sf_add(&sum, sum, h->string_bytes);
    if (!fits || sum != file->bytes)
        return sf_fail(err, SF_EDAMAGED, "%lld tokens in %lld rows are not what %llu bytes hold",
                       (long long)h->tokens, (long long)h->rows, (unsigned long long)file->bytes);
    return SF_OK;
}

static int check_body(const struct tokens_header *h, const struct sft_tokens *t,
                      const struct sf_mapping *file, int64_t vocabulary, struct sf_err *err)
{
    struct sf_hasher *hasher;
    int code = sf_hasher_open(&hasher, err);
    if (code)
        return code;
    for (int64_t at = 0; !code && at < t->tokens; at += LOOK_TOKENS) {
        int64_t end = at + LOOK_TOKENS < t->tokens ? at + LOOK_TOKENS : t->tokens;
        sf_hasher_add(hasher, t->token + at, (uint64_t)(end - at) * sizeof *t->token);
        for (int64_t i = at; !code && i < end; i++) {
            struct sft_token token = t->token[i];
            if (token.id < 0 || token.id >= vocabulary || token.label >= vocabulary ||
                (token.label < 0 && token.label != SFT_NO_TARGET))
                code = sf_fail(err, SF_EDAMAGED, "token %lld has id %d and label %d", (long long)i,
                               (int)token.id, (int)token.label);
        }
    }
    const unsigned char *rest = (const unsigned char *)t->row;
    sf_hasher_add(hasher, rest, (uint64_t)(file->data + file->bytes - rest));
    struct sf_hash128 body = sf_hasher_digest(hasher);
    sf_hasher_close(hasher);
    if (!code && (body.low != h->body.low || body.high != h->body.high))
        code = sf_fail(err, SF_EDAMAGED, "the checksum of its %lld tokens does not match",
                       (long long)t->tokens);
    return code;
}

static int check_rows(const struct sft_tokens *t, uint64_t string_bytes, struct sf_err *err)
{
    int64_t at = 0, strings = 0;
    for (int64_t i = 0; i < t->rows; i++) {
        const struct sft_token_row *r = &t->row[i];
        if (r->start != at || r->length < 1 || r->length > t->tokens - at || r->targets < 0 ||
            r->targets >= r->length || r->file < -1 || r->file >= t->files || r->line < 0)
            return sf_fail(err, SF_EDAMAGED, "row %lld has %d tokens from %lld on", (long long)i,
                           (int)r->length, (long long)r->start);
        at += r->length;
    }
    for (uint64_t i = 0; i < string_bytes; i++)
        strings += t->strings[i] == 0;
    if (at != t->tokens || strings != t->files + t->notes || string_bytes == 0 ||
        t->strings[string_bytes - 1] != 0)
        return sf_fail(err, SF_EDAMAGED, "%lld tokens in rows of %lld, %lld names and notes",
                       (long long)at, (long long)t->tokens, (long long)strings);
    return SF_OK;
}

static int read_mapped(struct tokens_owner *o, struct sf_hash128 key, int64_t vocabulary,
                       struct sf_err *err)
{
    struct tokens_header h;
    int code = read_header(&h, &o->mapping, key, err);
    if (!code)
        code = check_sizes(&h, &o->mapping, err);
    if (code)
        return code;
    struct sft_tokens *t = &o->tokens;
    *t = (struct sft_tokens){.token = (const void *)(o->mapping.data + TOKENS_HEADER_BYTES),
                             .tokens = h.tokens,
                             .rows = h.rows,
                             .counts = h.counts,
                             .files = h.files,
                             .notes = h.notes};
    t->row = (const void *)(t->token + h.tokens);
    t->strings = (const char *)(t->row + h.rows);
    code = check_body(&h, t, &o->mapping, vocabulary, err);
    if (!code)
        code = check_rows(t, h.string_bytes, err);
    int there = sf_mapping_check(&o->mapping, "the file", err);
    return there ? there : code;
}

int sft_tokens_map(struct sft_tokens **out, const char *path, struct sf_hash128 key,
                   int64_t vocabulary, struct sf_err *err)
{
    struct tokens_owner *o;
    void *copy;
    uint64_t bytes = strlen(path) + 1;
    int code = tokens_owner_new(&o, err);
    if (code)
        return code;
    code = sf_alloc_for(&copy, bytes, "a path", err);
    if (!code)
        o->path = memcpy(copy, path, bytes);
    if (!code)
        code = sf_map_file(&o->mapping, path, err);
    if (!code) {
        code = read_mapped(o, key, vocabulary, err);
        if (code)
            sf_err_prefix(err, "%s", path);
    }
    if (code)
        sft_tokens_release(&o->tokens);
    else
        *out = &o->tokens;
    return code;
}
