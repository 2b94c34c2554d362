#include "train/plan/pack.h"

#include <stdlib.h>
#include <string.h>

#include "libformat/base/mem.h"

enum order { BY_SIZE, BY_AREA, BY_BIRTH, ORDERS };

enum { ROUNDS = 12 };

struct item { /* an interval on its way through one order */
    double key;
    int32_t index;
};

struct attempt { /* one packing under way */
    struct sft_interval *interval;
    int32_t count;
    uint64_t bound, best, enough;
    struct item *item;
    int32_t *placed;
    uint64_t *offset; /* of the best so far */
};

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static double key_of(const struct sft_interval *v, enum order order)
{
    switch (order) {
    case BY_AREA:
        return (double)v->bytes * (v->death - v->birth + 1);
    case BY_BIRTH:
        return -(double)v->birth;
    default:
        return (double)v->bytes;
    }
}

static bool meet(const struct sft_interval *a, const struct sft_interval *b)
{
    return a->birth <= b->death && b->birth <= a->death;
}

/* The tightest gap among the placed intervals that meet `v`; `placed` is sorted by offset. */
static uint64_t best_fit(const struct sft_interval *all, const int32_t *placed, int32_t count,
                         const struct sft_interval *v)
{
    uint64_t end = 0, best = UINT64_MAX, best_slack = UINT64_MAX;
    for (int32_t i = 0; i < count; i++) {
        const struct sft_interval *p = &all[placed[i]];
        if (!meet(p, v))
            continue;
        if (p->offset >= end && p->offset - end >= v->bytes &&
            p->offset - end - v->bytes < best_slack) {
            best = end;
            best_slack = p->offset - end - v->bytes;
        }
        if (p->offset + p->bytes > end)
            end = p->offset + p->bytes;
    }
    return best_slack < UINT64_MAX ? best : end;
}

static void insert_placed(const struct sft_interval *all, int32_t *placed, int32_t count,
                          int32_t index)
{
    int32_t at = count;
    while (at > 0 && all[placed[at - 1]].offset > all[index].offset) {
        placed[at] = placed[at - 1];
        at--;
    }
    placed[at] = index;
}

static void sort_items(struct item *item, const struct sft_interval *interval, int32_t count,
                       enum order order)
{
    for (int32_t i = 0; i < count; i++)
        item[i] = (struct item){key_of(&interval[i], order), i};
    qsort(item, (size_t)count, sizeof *item, compare_items);
}

/* Places all in the order of `item`; *top is the place in it of the one that reaches highest. Gives
 * up, and returns as much, at the first that reaches `most`. */
static uint64_t place_all(int32_t *top, struct sft_interval *interval, const struct item *item,
                          int32_t count, int32_t *placed, uint64_t most)
{
    uint64_t block = 0;
    *top = 0;
    for (int32_t i = 0; i < count && block < most; i++) {
        struct sft_interval *v = &interval[item[i].index];
        v->offset = best_fit(interval, placed, i, v);
        insert_placed(interval, placed, i, item[i].index);
        if (v->offset + v->bytes > block) {
            block = v->offset + v->bytes;
            *top = i;
        }
    }
    return block;
}

static void promote(struct item *item, int32_t at)
{
    struct item first = item[at];
    memmove(item + 1, item, (size_t)at * sizeof *item);
    item[0] = first;
}

static bool good_enough(const struct attempt *t)
{
    return t->best <= t->enough || t->best <= t->bound + t->bound / 256;
}

/* One order, then a few more tries with whatever sticks out on top placed first. */
static void try_order(struct attempt *t, enum order order)
{
    sort_items(t->item, t->interval, t->count, order);
    for (int round = 0; round < ROUNDS && !good_enough(t); round++) {
        int32_t top;
        uint64_t bytes = place_all(&top, t->interval, t->item, t->count, t->placed, t->best);
        if (bytes < t->best) {
            t->best = bytes;
            for (int32_t i = 0; i < t->count; i++)
                t->offset[i] = t->interval[i].offset;
        }
        promote(t->item, top);
    }
}

/* Rounds the sizes; the sum of all must fit, so no offset can wrap. */
static int round_sizes(struct sft_interval *interval, int32_t count, struct sf_err *err)
{
    uint64_t sum = 0;
    for (int32_t i = 0; i < count; i++)
        if (!sf_align_up(&interval[i].bytes, interval[i].bytes, SFT_BLOCK_ALIGN) ||
            !sf_add(&sum, sum, interval[i].bytes))
            return sf_fail(err, SF_EINVAL, "%d buffers of a step need more than 2^64 bytes", count);
    return SF_OK;
}

static int place(uint64_t *block_bytes, struct attempt *t, struct sf_arena *scratch,
                 struct sf_err *err)
{
    uint64_t n = (uint64_t)t->count + 1;
    t->item = sf_arena_array(scratch, n, sizeof *t->item);
    t->placed = sf_arena_array(scratch, n, sizeof *t->placed);
    t->offset = sf_arena_array(scratch, n, sizeof *t->offset);
    if (!t->item || !t->placed || !t->offset)
        return sf_fail(err, SF_ENOMEM, "no memory to pack %d buffers", t->count);
    for (int order = 0; order < ORDERS; order++)
        try_order(t, (enum order)order);
    for (int32_t i = 0; i < t->count; i++)
        t->interval[i].offset = t->offset[i];
    *block_bytes = t->best;
    return SF_OK;
}

int sft_pack(uint64_t *block_bytes, struct sft_interval *interval, int32_t count, uint64_t enough,
             struct sf_arena *scratch, struct sf_err *err)
{
    struct attempt t = {.interval = interval, .count = count, .enough = enough, .best = UINT64_MAX};
    int32_t peak;
    int code = round_sizes(interval, count, err);
    if (!code)
        code = sft_pack_bound(&t.bound, &peak, interval, count, scratch, err);
    *block_bytes = t.bound;
    if (code || count == 0 || (enough && t.bound > enough))
        return code;
    return place(block_bytes, &t, scratch, err);
}

int sft_pack_bound(uint64_t *bytes, int32_t *peak, const struct sft_interval *interval,
                   int32_t count, struct sf_arena *scratch, struct sf_err *err)
{
    int32_t last = 0;
    *bytes = 0;
    *peak = -1;
    for (int32_t i = 0; i < count; i++)
        last = last < interval[i].death ? interval[i].death : last;
    /* change[n]: what is born at node n, less what ended before it; sums wrap and come back */
    uint64_t live = 0, *change = sf_arena_array(scratch, (uint64_t)last + 2, sizeof *change);
    if (!change)
        return sf_fail(err, SF_ENOMEM, "no memory to measure %d buffers", count);
    for (int32_t i = 0; i < count; i++) {
        change[interval[i].birth] += interval[i].bytes;
        change[interval[i].death + 1] -= interval[i].bytes;
    }
    for (int32_t n = 0; count && n <= last; n++) {
        live += change[n];
        if (live > *bytes || *peak < 0) {
            *bytes = live;
            *peak = n;
        }
    }
    return SF_OK;
}

static bool is_packed(const struct sft_buffer *buffer)
{
    return sft_class_in_step(buffer->class) && buffer->birth >= 0;
}

int sft_pack_tape(struct sft_tape *tape, struct sf_err *err)
{
    struct sft_interval *interval =
        sf_arena_array(tape->arena, (uint64_t)tape->buffers + 1, sizeof *interval);
    if (!interval)
        return sf_fail(err, SF_ENOMEM, "no memory to pack %d buffers", tape->buffers);
    int32_t count = 0;
    for (int32_t i = 0; i < tape->buffers; i++) {
        const struct sft_buffer *b = &tape->buffer[i];
        if (is_packed(b))
            interval[count++] = (struct sft_interval){b->bytes, b->birth, b->death, 0};
    }
    int code = sft_pack(&tape->step_bytes, interval, count, tape->enough_bytes, tape->arena, err);
    if (!code)
        code = sft_pack_bound(&tape->live_bytes, &tape->peak, interval, count, tape->arena, err);
    if (code)
        return code;
    count = 0;
    for (int32_t i = 0; i < tape->buffers; i++)
        if (is_packed(&tape->buffer[i]))
            tape->buffer[i].offset = interval[count++].offset;
    return SF_OK;
}
