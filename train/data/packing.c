#include "train/data/packing.h"

#include <assert.h>
#include <string.h>

#include "libformat/base/arena.h"
#include "libformat/base/mem.h"

struct packer {
    int64_t documents, capacity, packs;
    int64_t *by_length; /* [documents], longest first, of one length in their order */
    int64_t *pack;      /* [documents]: which it goes to */
    int64_t *next;      /* [documents]: the next pack with as much room, -1: none */
    int64_t *head;      /* [capacity + 1]: the first pack with so much room, -1: none */
    uint64_t *some;     /* a bit per room: head is a pack */
};

static int open_packer(struct packer *out, struct sf_arena *arena, int64_t documents,
                       int64_t capacity, struct sf_err *err)
{
    uint64_t n = (uint64_t)documents, words = (uint64_t)capacity / 64 + 1;
    *out = (struct packer){.documents = documents, .capacity = capacity};
    out->by_length = sf_arena_array(arena, n, sizeof *out->by_length);
    out->pack = sf_arena_array(arena, n, sizeof *out->pack);
    out->next = sf_arena_array(arena, n, sizeof *out->next);
    out->head = sf_arena_array(arena, (uint64_t)capacity + 1, sizeof *out->head);
    out->some = sf_arena_array(arena, words, sizeof *out->some);
    if (!out->by_length || !out->pack || !out->next || !out->head || !out->some)
        return sf_fail(err, SF_ENOMEM, "no memory to pack %lld rows", (long long)documents);
    memset(out->some, 0, words * sizeof *out->some);
    return SF_OK;
}

/* A counting sort; `head` counts, before it holds packs. */
static void sort_by_length(struct packer *p, const struct sft_dataset *data)
{
    int64_t at = 0;
    memset(p->head, 0, ((uint64_t)p->capacity + 1) * sizeof *p->head);
    for (int64_t i = 0; i < p->documents; i++)
        p->head[sft_dataset_length(data, i)]++;
    for (int64_t length = p->capacity; length >= 0; length--) {
        int64_t count = p->head[length];
        p->head[length] = at;
        at += count;
    }
    for (int64_t i = 0; i < p->documents; i++)
        p->by_length[p->head[sft_dataset_length(data, i)]++] = i;
    for (int64_t room = 0; room <= p->capacity; room++)
        p->head[room] = -1;
}

/* The least room of at least `length` that a pack has, -1 if none has. */
static int64_t best_room(const struct packer *p, int64_t length)
{
    int64_t words = p->capacity / 64 + 1, word = length / 64;
    uint64_t bits = p->some[word] & ~UINT64_C(0) << (length % 64);
    while (!bits && ++word < words)
        bits = p->some[word];
    return bits ? word * 64 + __builtin_ctzll(bits) : -1;
}

static int64_t take_pack(struct packer *p, int64_t room)
{
    int64_t pack = p->head[room];
    p->head[room] = p->next[pack];
    if (p->head[room] < 0)
        p->some[room / 64] &= ~(UINT64_C(1) << (room % 64));
    return pack;
}

static void put_pack(struct packer *p, int64_t pack, int64_t room)
{
    p->next[pack] = p->head[room];
    p->head[room] = pack;
    p->some[room / 64] |= UINT64_C(1) << (room % 64);
}

static void assign_packs(struct packer *p, const struct sft_dataset *data)
{
    for (int64_t i = 0; i < p->documents; i++) {
        int64_t document = p->by_length[i], length = sft_dataset_length(data, document);
        int64_t room = best_room(p, length);
        int64_t pack = room < 0 ? p->packs++ : take_pack(p, room);
        p->pack[document] = pack;
        put_pack(p, pack, (room < 0 ? p->capacity : room) - length);
    }
}

/* Packs get the numbers in which their first documents stand; next[] holds the new number. */
static void number_packs(struct packer *p)
{
    int64_t numbered = 0;
    for (int64_t i = 0; i < p->packs; i++)
        p->next[i] = -1;
    for (int64_t i = 0; i < p->documents; i++) {
        int64_t *number = &p->next[p->pack[i]];
        if (*number < 0)
            *number = numbered++;
        p->pack[i] = *number;
    }
    assert(numbered == p->packs);
}

/* ---- the packed dataset ---- */

static int allocate(struct sft_dataset *out, const struct packer *p, struct sf_err *err)
{
    void *document, *first;
    int code =
        sf_alloc_for(&document, (uint64_t)p->documents * sizeof *out->document, "packs", err);
    if (code)
        return code;
    code = sf_alloc_for(&first, ((uint64_t)p->packs + 1) * sizeof *out->first, "packs", err);
    if (code) {
        sf_free(document);
        return code;
    }
    out->document = document;
    out->first = first;
    return SF_OK;
}

/* Documents by pack, in their order: first[pack + 1] runs over its documents while they are put. */
static void place_documents(struct sft_dataset *out, const struct sft_dataset *from,
                            const struct packer *p)
{
    int64_t at = 0;
    memset(out->first, 0, ((uint64_t)p->packs + 1) * sizeof *out->first);
    for (int64_t i = 0; i < p->documents; i++)
        out->first[p->pack[i] + 1]++;
    for (int64_t i = 1; i <= p->packs; i++) {
        int64_t count = out->first[i];
        out->first[i] = at;
        at += count;
    }
    for (int64_t i = 0; i < p->documents; i++)
        out->document[out->first[p->pack[i] + 1]++] = from->document[i];
}

static int replace(struct sft_dataset *data, const struct packer *p, struct sf_err *err)
{
    struct sft_dataset packed = *data;
    int code = allocate(&packed, p, err);
    if (code)
        return code;
    packed.rows = p->packs;
    packed.longest = 0;
    place_documents(&packed, data, p);
    for (int64_t i = 0; i < packed.rows; i++)
        if (sft_dataset_length(&packed, i) > packed.longest)
            packed.longest = sft_dataset_length(&packed, i);
    data->source = NULL; /* the packed one's now */
    sft_dataset_free(data);
    *data = packed;
    return SF_OK;
}

int sft_packing_apply(struct sft_dataset *data, int64_t capacity, struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct packer p;
    assert(!data->first);
    if (data->longest > capacity)
        return sf_fail(err, SF_EINVAL, "a row of %lld tokens fits no pack of %lld",
                       (long long)data->longest, (long long)capacity);
    int code = open_packer(&p, &arena, data->rows, capacity, err);
    if (!code) {
        sort_by_length(&p, data);
        assign_packs(&p, data);
        number_packs(&p);
        code = replace(data, &p, err);
    }
    sf_arena_free(&arena);
    return code;
}

double sft_packing_efficiency(const struct sft_dataset *data, int64_t capacity)
{
    return (double)data->tokens / ((double)data->rows * (double)capacity);
}
