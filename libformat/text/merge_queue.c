#include "libformat/text/merge_queue.h"

#include <stdlib.h>

#include "libformat/base/mem.h"

enum { LANE = -1 }; /* a heap entry's id: the lane of that rank */

struct entry {
    uint64_t key; /* rank << 32 | position: lowest first */
    int32_t id;
};

struct node {
    int32_t position, id, next; /* next: 0 ends the list */
};

struct lane {
    int32_t first, last; /* nodes; 0: empty */
};

struct place { /* of the lane that is handed out */
    int32_t position, id;
};

struct sf_merge_queue {
    struct entry *heap;
    int64_t waiting;   /* entries */
    struct lane *lane; /* [ranks]; NULL until the first long pre-token. Empty between pre-tokens */
    int32_t ranks;
    struct node *node; /* node 0 is none */
    int32_t nodes;
    struct place *open; /* the lane of rank `rank`, in order: open[next..end) are left */
    int64_t next, end;
    int64_t rank; /* candidates above it go to lanes */
    int64_t heap_room, lane_room;
};

int sf_merge_queue_open(struct sf_merge_queue **out, int32_t ranks, struct sf_err *err)
{
    void *block;
    int code = sf_alloc_for(&block, sizeof(struct sf_merge_queue), "BPE queue", err);
    if (code == SF_OK) {
        *out = block;
        (*out)->ranks = ranks;
    }
    return code;
}

static void free_lanes(struct sf_merge_queue *q)
{
    sf_free(q->node);
    sf_free(q->open);
    q->node = NULL;
    q->open = NULL;
    q->lane_room = 0;
}

void sf_merge_queue_close(struct sf_merge_queue *q)
{
    if (!q)
        return;
    free_lanes(q);
    sf_free(q->lane);
    sf_free(q->heap);
    sf_free(q);
}

static int reserve_heap(struct sf_merge_queue *q, int64_t most, struct sf_err *err)
{
    void *heap;
    if (most <= q->heap_room)
        return SF_OK;
    sf_free(q->heap);
    q->heap = NULL;
    q->heap_room = 0;
    int code = sf_alloc_for(&heap, (uint64_t)most * sizeof *q->heap, "BPE candidates", err);
    if (code)
        return code;
    q->heap = heap;
    q->heap_room = most;
    return SF_OK;
}

static int reserve_lanes(struct sf_merge_queue *q, int64_t most, struct sf_err *err)
{
    void *lane = q->lane, *node, *open;
    int code = SF_OK;
    if (!lane)
        code = sf_alloc_for(&lane, (uint64_t)q->ranks * sizeof *q->lane, "BPE lanes", err);
    if (code)
        return code;
    q->lane = lane;
    if (most <= q->lane_room)
        return SF_OK;
    free_lanes(q);
    code = sf_alloc_for(&node, ((uint64_t)most + 1) * sizeof *q->node, "BPE candidates", err);
    if (code)
        return code;
    q->node = node;
    code = sf_alloc_for(&open, (uint64_t)most * sizeof *q->open, "BPE candidates", err);
    if (code)
        return code;
    q->open = open;
    q->lane_room = most;
    return SF_OK;
}

int sf_merge_queue_begin(struct sf_merge_queue *q, int64_t most, bool lanes, struct sf_err *err)
{
    if (most >= INT32_MAX)
        return sf_fail(err, SF_EUNSUPPORTED, "%lld candidates for merges (2^31 at most)",
                       (long long)most);
    int code = reserve_heap(q, most, err);
    if (!code && lanes)
        code = reserve_lanes(q, most, err);
    q->waiting = q->next = q->end = 0;
    q->nodes = 1;
    q->rank = lanes ? -1 : INT64_MAX;
    return code;
}

/* ---- the heap ---- */

static void heap_push(struct sf_merge_queue *q, struct entry e)
{
    int64_t i = q->waiting++;
    for (; i > 0 && q->heap[(i - 1) / 2].key > e.key; i = (i - 1) / 2)
        q->heap[i] = q->heap[(i - 1) / 2];
    q->heap[i] = e;
}

static struct entry heap_pop(struct sf_merge_queue *q)
{
    struct entry top = q->heap[0], last = q->heap[--q->waiting];
    int64_t i = 0;
    for (int64_t child = 1; child < q->waiting; child = 2 * i + 1) {
        if (child + 1 < q->waiting && q->heap[child + 1].key < q->heap[child].key)
            child++;
        if (last.key <= q->heap[child].key)
            break;
        q->heap[i] = q->heap[child];
        i = child;
    }
    q->heap[i] = last;
    return top;
}

/* ---- lanes ---- */

static uint64_t key_of(int64_t rank, int32_t position)
{
    return (uint64_t)rank << 32 | (uint32_t)position;
}

static void lane_push(struct sf_merge_queue *q, struct sf_merge_candidate c)
{
    struct lane *lane = &q->lane[c.rank];
    q->node[q->nodes] = (struct node){.position = c.position, .id = c.id};
    if (lane->last)
        q->node[lane->last].next = q->nodes;
    else
        lane->first = q->nodes;
    if (!lane->last)
        heap_push(q, (struct entry){.key = key_of(c.rank, 0), .id = LANE});
    lane->last = q->nodes++;
}

static int by_position(const void *a, const void *b)
{
    int32_t x = ((const struct place *)a)->position, y = ((const struct place *)b)->position;
    return (x > y) - (x < y);
}

static void lane_open(struct sf_merge_queue *q, int64_t rank)
{
    struct lane *lane = &q->lane[rank];
    bool sorted = true;
    q->rank = rank;
    q->next = q->end = 0;
    for (int32_t i = lane->first; i; i = q->node[i].next) {
        struct place place = {q->node[i].position, q->node[i].id};
        sorted = sorted && (!q->end || q->open[q->end - 1].position <= place.position);
        q->open[q->end++] = place;
    }
    *lane = (struct lane){0};
    if (!sorted)
        qsort(q->open, (size_t)q->end, sizeof *q->open, by_position);
}

void sf_merge_queue_push(struct sf_merge_queue *q, struct sf_merge_candidate c)
{
    if (c.rank > q->rank)
        lane_push(q, c);
    else
        heap_push(q, (struct entry){.key = key_of(c.rank, c.position), .id = c.id});
}

bool sf_merge_queue_pop(struct sf_merge_candidate *out, struct sf_merge_queue *q)
{
    if (q->next == q->end && q->waiting && q->heap[0].id == LANE)
        lane_open(q, (int64_t)(heap_pop(q).key >> 32));
    if (q->next < q->end) {
        struct place place = q->open[q->next];
        if (!q->waiting || key_of(q->rank, place.position) <= q->heap[0].key) {
            *out = (struct sf_merge_candidate){(int32_t)q->rank, place.position, place.id};
            q->next++;
            return true;
        }
    }
    if (!q->waiting)
        return false;
    struct entry top = heap_pop(q); /* its rank is not above the open lane's: no lane's entry */
    *out = (struct sf_merge_candidate){(int32_t)(top.key >> 32), (int32_t)top.key, top.id};
    return true;
}
