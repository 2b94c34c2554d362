#include "train/plan/offload.h"

#include "kernels/transfer.h"

struct traveller {
    int32_t buffer, back, host; /* as emitted; where it is fetched to; in between */
    int32_t last, first;        /* nodes: last of the forward, first of the backward */
};

struct work {
    struct sft_tape *tape;
    struct sft_node *old;
    int32_t old_nodes, turn;
    struct traveller *traveller; /* by last use in the forward */
    int32_t travellers;
    int32_t *back_of; /* [buffers as emitted] -1: does not travel */
};

enum { STAYING = 2 }; /* of the last ones */

static bool touches(const struct sft_node *node, int32_t buffer)
{
    for (int k = 0; k < node->operands; k++)
        if (node->operand[k].buffer == buffer)
            return true;
    return false;
}

static void add_traveller(struct work *w, int32_t buffer)
{
    struct traveller t = {.buffer = buffer, .last = -1, .first = -1};
    for (int32_t i = 0; i < w->turn; i++)
        if (touches(&w->old[i], buffer))
            t.last = i;
    for (int32_t i = w->old_nodes - 1; i >= w->turn; i--)
        if (touches(&w->old[i], buffer))
            t.first = i;
    if (t.last < 0 || t.first < 0)
        return;
    int32_t at = w->travellers++;
    for (; at > 0 && w->traveller[at - 1].last > t.last; at--)
        w->traveller[at] = w->traveller[at - 1];
    w->traveller[at] = t;
}

/* Buffers that travel, and theirs on the other sides. */
static bool begin(struct work *w, struct sft_tape *tape)
{
    int32_t buffers = tape->buffers;
    *w = (struct work){
        .tape = tape, .old = tape->node, .old_nodes = tape->nodes, .turn = tape->turn};
    w->traveller = sf_arena_array(tape->arena, (uint64_t)buffers + 1, sizeof *w->traveller);
    w->back_of = sf_arena_array(tape->arena, (uint64_t)buffers + 1, sizeof *w->back_of);
    if (!w->traveller || !w->back_of)
        return false;
    for (int32_t b = 0; b < buffers; b++) {
        w->back_of[b] = -1;
        if (tape->buffer[b].offload)
            add_traveller(w, b);
    }
    w->travellers = w->travellers > STAYING ? w->travellers - STAYING : 0;
    for (int32_t i = 0; i < w->travellers; i++) {
        struct traveller *t = &w->traveller[i];
        struct sft_buffer was = tape->buffer[t->buffer];
        tape->layer = was.layer;
        t->host = sft_tape_buffer(tape, SFT_HOST, was.kind, was.bytes, "%s on the host", was.name);
        t->back = sft_tape_buffer(tape, SFT_STEP, was.kind, was.bytes, "%s back", was.name);
        w->back_of[t->buffer] = t->back;
    }
    tape->node = NULL;
    tape->nodes = tape->node_capacity = 0;
    return !tape->failed;
}

static void emit(struct work *w, enum sk_op op, int32_t number, bool out)
{
    const struct traveller *t = &w->traveller[number];
    struct sk_transfer_begin args = {.bytes = (int64_t)w->tape->buffer[t->buffer].bytes,
                                     .slot = number % SK_TRANSFER_SLOTS,
                                     .out = out};
    struct sft_ref refs[] = {sft_at(out ? t->host : t->back, 0),
                             sft_at(out ? t->buffer : t->host, 0)};
    sft_tape_emit(w->tape, op, &args, refs, 2);
}

static void copy_node(struct work *w, int32_t i)
{
    struct sft_node node = w->old[i];
    for (int k = 0; i >= w->turn && k < node.operands; k++) {
        int32_t b = node.operand[k].buffer;
        if (b >= 0 && w->back_of[b] >= 0)
            node.operand[k].buffer = w->back_of[b];
    }
    sft_tape_emit(w->tape, node.op, node.args, node.operand, node.operands);
    if (!w->tape->failed)
        w->tape->node[w->tape->nodes - 1].again = node.again;
}

static void forward(struct work *w)
{
    int32_t next = 0; /* to be sent */
    for (int32_t i = 0; i < w->turn && !w->tape->failed; i++) {
        copy_node(w, i);
        for (; next < w->travellers && w->traveller[next].last == i; next++) {
            if (next > 0)
                emit(w, SK_TRANSFER_END, next - 1, true);
            emit(w, SK_TRANSFER_BEGIN, next, true);
        }
    }
    emit(w, SK_TRANSFER_END, w->travellers - 1, true);
}

/* Fetched one ahead: traveller n comes while the layer that uses n + 1 computes. */
static void backward(struct work *w)
{
    int32_t next = w->travellers - 1; /* to be waited for */
    sft_tape_turn(w->tape);
    emit(w, SK_TRANSFER_BEGIN, next, false);
    for (int32_t i = w->turn; i < w->old_nodes && !w->tape->failed; i++) {
        for (; next >= 0 && w->traveller[next].first == i; next--) {
            emit(w, SK_TRANSFER_END, next, false);
            if (next > 0)
                emit(w, SK_TRANSFER_BEGIN, next - 1, false);
        }
        copy_node(w, i);
    }
}

/* The backward must want them in the opposite order, or fetching one ahead would not be enough. */
static bool ordered(const struct work *w)
{
    for (int32_t i = 1; i < w->travellers; i++)
        if (w->traveller[i].first >= w->traveller[i - 1].first)
            return false;
    return w->travellers > 0;
}

void sft_offload(struct sft_tape *tape)
{
    struct work w;
    bool marked = false;
    for (int32_t b = 0; b < tape->buffers; b++)
        marked |= tape->buffer[b].offload;
    if (!marked || tape->turn >= tape->nodes)
        return;
    struct sft_node *nodes = tape->node;
    int32_t count = tape->nodes, capacity = tape->node_capacity, turn = tape->turn;
    if (!begin(&w, tape)) {
        tape->failed = true;
        return;
    }
    if (!ordered(&w)) { /* nothing travels */
        tape->node = nodes;
        tape->nodes = count;
        tape->node_capacity = capacity;
        return;
    }
    tape->turned = false;
    tape->turn = turn;
    forward(&w);
    backward(&w);
}
