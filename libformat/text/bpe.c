#include "libformat/text/bpe.h"

#include <string.h>

#include "libformat/base/mem.h"
#include "libformat/text/byte_alphabet.h"
#include "libformat/text/merge_queue.h"

enum {
    CACHE_SLOTS = 1 << 14,
    CACHE_BYTES = 27, /* longest pre-token that is remembered */
    CACHE_IDS = 12,
    WHOLE_BYTES = 512, /* written tokens up to this are looked up without the heap */
    LONGEST = 1 << 29
};

struct cached {
    unsigned char bytes, count; /* bytes 0: free */
    char piece[CACHE_BYTES + 1];
    int32_t id[CACHE_IDS];
};

struct symbol { /* one token of the pre-token, in a list that shrinks from n bytes to the result */
    int32_t id; /* -1: merged into the one before */
    int32_t previous, next; /* -1: none */
};

struct sf_bpe_scratch {
    struct cached *cache;
    struct symbol *symbol;
    int64_t capacity;             /* symbols */
    struct sf_merge_queue *queue; /* NULL until the first merge */
    char *written;                /* a long pre-token in the byte alphabet, for ignore_merges */
    uint64_t written_capacity;
};

int sf_bpe_scratch_open(struct sf_bpe_scratch **out, struct sf_err *err)
{
    void *block, *cache;
    int code = sf_alloc_for(&block, sizeof(struct sf_bpe_scratch), "BPE scratch", err);
    if (code != SF_OK)
        return code;
    code = sf_alloc_for(&cache, CACHE_SLOTS * sizeof(struct cached), "BPE cache", err);
    if (code != SF_OK) {
        sf_free(block);
        return code;
    }
    *out = block;
    (*out)->cache = cache;
    return SF_OK;
}

void sf_bpe_scratch_close(struct sf_bpe_scratch *s)
{
    if (!s)
        return;
    sf_free(s->cache);
    sf_free(s->symbol);
    sf_merge_queue_close(s->queue);
    sf_free(s->written);
    sf_free(s);
}

static int reserve_symbols(struct sf_bpe_scratch *s, int64_t n, struct sf_err *err)
{
    if (n <= s->capacity)
        return SF_OK;
    int64_t capacity = n < 256 ? 256 : n;
    void *symbol;
    sf_free(s->symbol);
    s->symbol = NULL;
    s->capacity = 0;
    int code = sf_alloc_for(&symbol, (uint64_t)capacity * sizeof *s->symbol, "BPE symbols", err);
    if (code)
        return code;
    s->symbol = symbol;
    s->capacity = capacity;
    return SF_OK;
}

/* A list of n symbols makes n - 1 candidates, and each of at most n - 1 merges two more. */
static int begin(struct sf_bpe_scratch *s, const struct sf_bpe *bpe, int64_t n, struct sf_err *err)
{
    int code = reserve_symbols(s, n, err);
    if (!code && !s->queue)
        code = sf_merge_queue_open(&s->queue, bpe->ranks, err);
    return code ? code : sf_merge_queue_begin(s->queue, 3 * n, n >= SF_MERGE_QUEUE_LONG, err);
}

/* ---- merging ---- */

static void push_pair(struct sf_bpe_scratch *s, const struct sf_bpe *bpe, int32_t left)
{
    const struct symbol *a = &s->symbol[left];
    if (a->next < 0)
        return;
    const struct sf_merge *m = sf_bpe_find_merge(bpe, a->id, s->symbol[a->next].id);
    if (m)
        sf_merge_queue_push(s->queue, (struct sf_merge_candidate){m->rank, left, m->id});
}

/* Applies a candidate if its pair still stands there and still becomes the same token. */
static void apply(struct sf_bpe_scratch *s, const struct sf_bpe *bpe, struct sf_merge_candidate c)
{
    int32_t left = c.position;
    struct symbol *a = &s->symbol[left];
    if (a->id < 0 || a->next < 0)
        return;
    struct symbol *b = &s->symbol[a->next];
    const struct sf_merge *m = sf_bpe_find_merge(bpe, a->id, b->id);
    if (!m || m->id != c.id)
        return;
    a->id = c.id;
    a->next = b->next;
    b->id = -1;
    if (a->next >= 0)
        s->symbol[a->next].previous = left;
    if (a->previous >= 0)
        push_pair(s, bpe, a->previous);
    push_pair(s, bpe, left);
}

static int merge(struct sf_ids *out, const struct sf_bpe *bpe, const char *piece, uint64_t bytes,
                 struct sf_bpe_scratch *s, struct sf_err *err)
{
    if (bytes > LONGEST)
        return sf_fail(err, SF_EUNSUPPORTED, "a pre-token of %llu bytes (0.5 GiB at most)",
                       (unsigned long long)bytes);
    int32_t n = (int32_t)bytes;
    struct sf_merge_candidate c;
    int code = begin(s, bpe, n, err);
    if (code != SF_OK)
        return code;
    for (int32_t i = 0; i < n; i++)
        s->symbol[i] = (struct symbol){.id = bpe->byte_id[(unsigned char)piece[i]],
                                       .previous = i - 1,
                                       .next = i + 1 < n ? i + 1 : -1};
    for (int32_t i = 0; i + 1 < n; i++)
        push_pair(s, bpe, i);
    while (sf_merge_queue_pop(&c, s->queue))
        apply(s, bpe, c);
    for (int32_t i = 0; i >= 0 && code == SF_OK; i = s->symbol[i].next)
        code = sf_ids_append(out, &s->symbol[i].id, 1, err);
    return code;
}

/* ---- whole tokens and the cache ---- */

/* The id of the pre-token as it stands, -1 if it is no token. */
static int32_t find_whole(const struct sf_bpe *bpe, const char *piece, uint64_t bytes,
                          char *written)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < bytes; i++)
        n += (uint64_t)sf_byte_to_char(written + n, (unsigned char)piece[i]);
    return sf_words_find(&bpe->words, written, n);
}

static int reserve_written(struct sf_bpe_scratch *s, uint64_t bytes, struct sf_err *err)
{
    if (bytes <= s->written_capacity)
        return SF_OK;
    void *block;
    int code = sf_alloc_for(&block, bytes, "BPE scratch", err);
    if (code == SF_OK) {
        sf_free(s->written);
        s->written = block;
        s->written_capacity = bytes;
    }
    return code;
}

static int encode_anew(struct sf_ids *out, const struct sf_bpe *bpe, const char *piece,
                       uint64_t bytes, struct sf_bpe_scratch *s, struct sf_err *err)
{
    if (bpe->ignore_merges && bytes <= bpe->longest) { /* a written token has no fewer bytes */
        char small[WHOLE_BYTES], *written = small;
        if (bytes * 2 > WHOLE_BYTES) {
            int code = reserve_written(s, bytes * 2, err);
            if (code != SF_OK)
                return code;
            written = s->written;
        }
        int32_t id = find_whole(bpe, piece, bytes, written);
        if (id >= 0)
            return sf_ids_append(out, &id, 1, err);
    }
    return merge(out, bpe, piece, bytes, s, err);
}

int sf_bpe_encode(struct sf_ids *out, const struct sf_bpe *bpe, const char *piece, uint64_t bytes,
                  struct sf_bpe_scratch *s, struct sf_err *err)
{
    if (bytes > CACHE_BYTES)
        return encode_anew(out, bpe, piece, bytes, s, err);
    struct cached *c = &s->cache[sf_words_hash(piece, bytes) & (CACHE_SLOTS - 1)];
    if (c->bytes == bytes && memcmp(c->piece, piece, bytes) == 0)
        return sf_ids_append(out, c->id, c->count, err);
    int64_t before = out->count;
    int code = encode_anew(out, bpe, piece, bytes, s, err);
    if (code == SF_OK && out->count - before <= CACHE_IDS) {
        c->bytes = (unsigned char)bytes;
        c->count = (unsigned char)(out->count - before);
        memcpy(c->piece, piece, bytes);
        memcpy(c->id, out->id + before, (uint64_t)c->count * sizeof *c->id);
    }
    return code;
}
