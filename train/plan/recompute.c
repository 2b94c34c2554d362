#include "train/plan/recompute.h"

struct writer { /* one entry of a buffer's list of forward nodes that write it */
    int32_t node, next;
};

struct work {
    struct sft_tape *tape;
    struct sft_node *old;    /* the tape as emitted */
    int32_t old_nodes, turn; /* of the tape as emitted */
    int32_t old_buffers;
    int32_t *clone;      /* [old_buffers] where it is made again; -1: not yet */
    int32_t *first;      /* [old_buffers] into writer, in forward order; -1: none */
    int32_t *last_write; /* [old_buffers] number of the last node on the new tape that wrote it */
    struct writer *writer;
    bool *done; /* [turn] has run again */
};

static bool wanted(const struct sft_tape *tape)
{
    for (int32_t i = 0; i < tape->buffers; i++)
        if (tape->buffer[i].class == SFT_RECOMPUTE)
            return tape->turn < tape->nodes;
    return false;
}

static void list_writers(struct work *w)
{
    int32_t count = 0;
    for (int32_t b = 0; b < w->old_buffers; b++)
        w->clone[b] = w->first[b] = w->last_write[b] = -1;
    for (int32_t i = w->turn - 1; i >= 0; i--) {
        for (int k = 0; k < w->old[i].operands; k++) {
            int32_t b = w->old[i].operand[k].buffer;
            if (b < 0 || !sft_node_writes(&w->old[i], k))
                continue;
            if (w->first[b] >= 0 && w->writer[w->first[b]].node == i)
                continue;
            w->writer[count] = (struct writer){i, w->first[b]};
            w->first[b] = count++;
            if (w->last_write[b] < i)
                w->last_write[b] = i;
        }
    }
}

static int begin(struct work *w, struct sft_tape *tape)
{
    *w = (struct work){.tape = tape,
                       .old = tape->node,
                       .old_nodes = tape->nodes,
                       .turn = tape->turn,
                       .old_buffers = tape->buffers};
    uint64_t buffers = (uint64_t)tape->buffers + 1, nodes = (uint64_t)tape->nodes + 1;
    w->clone = sf_arena_array(tape->arena, buffers, sizeof *w->clone);
    w->first = sf_arena_array(tape->arena, buffers, sizeof *w->first);
    w->last_write = sf_arena_array(tape->arena, buffers, sizeof *w->last_write);
    w->writer = sf_arena_array(tape->arena, nodes * SFT_MAX_OPERANDS, sizeof *w->writer);
    w->done = sf_arena_array(tape->arena, nodes, sizeof *w->done);
    tape->node = NULL;
    tape->nodes = tape->node_capacity = 0;
    if (!w->clone || !w->first || !w->last_write || !w->writer || !w->done)
        return -1;
    list_writers(w);
    return 0;
}

static bool forgotten(const struct work *w, int32_t buffer)
{
    return buffer >= 0 && buffer < w->old_buffers && w->tape->buffer[buffer].class == SFT_RECOMPUTE;
}

/* Like buffer b, to be written again. */
static int32_t copy_of(struct work *w, int32_t b)
{
    struct sft_buffer was = w->tape->buffer[b];
    w->tape->layer = was.layer;
    enum sft_class class = was.class == SFT_HOST ? SFT_HOST : SFT_STEP;
    return sft_tape_buffer(w->tape, class, was.kind, was.bytes, "%s again", was.name);
}

static int run_again(struct work *w, int32_t n, struct sf_err *err);

/* Makes `b` as it stood before forward node `limit` read it. */
static int make_until(struct work *w, int32_t b, int32_t limit, struct sf_err *err)
{
    if (w->clone[b] < 0)
        w->clone[b] = copy_of(w, b);
    for (int32_t at = w->first[b]; at >= 0; at = w->writer[at].next) {
        int32_t n = w->writer[at].node;
        int code = n < limit && !w->done[n] ? run_again(w, n, err) : SF_OK;
        if (code)
            return code;
        if (n > limit && w->done[n])
            return sf_fail(err, SF_EINVAL, "tape: %s was made again too early for %s",
                           w->tape->buffer[b].name, sk_op_info(w->old[limit].op)->name);
    }
    return SF_OK;
}

/* One input of forward node n, for its second run. */
static int input_again(struct work *w, int32_t n, struct sft_ref *ref, struct sf_err *err)
{
    if (forgotten(w, ref->buffer)) {
        int code = make_until(w, ref->buffer, n, err);
        ref->buffer = w->clone[ref->buffer];
        return code;
    }
    if (w->last_write[ref->buffer] > n)
        return sf_fail(err, SF_EINVAL, "tape: %s needs %s again, which has changed since",
                       sk_op_info(w->old[n].op)->name, w->tape->buffer[ref->buffer].name);
    return SF_OK;
}

/* A norm that kept its sum starts from that, not from the two terms: the same numbers, and the
 * layer before need not run again. */
static void start_from_kept_sum(const struct work *w, struct sft_node *node)
{
    enum { SUM = 1, X = 3, DELTA = 4 };
    struct sft_ref *operand = node->operand;
    if (node->op != SK_RMSNORM_FORWARD || operand[DELTA].buffer < 0 ||
        forgotten(w, operand[SUM].buffer))
        return;
    operand[X] = operand[SUM];
    operand[SUM] = operand[DELTA] = SFT_NONE;
}

static int run_again(struct work *w, int32_t n, struct sf_err *err)
{
    struct sft_node node = w->old[n];
    w->done[n] = true;
    start_from_kept_sum(w, &node);
    for (int k = 0; k < node.operands; k++) {
        struct sft_ref *ref = &node.operand[k];
        if (ref->buffer < 0)
            continue;
        int code = SF_OK;
        bool reads = sft_node_reads(&node, k);
        if (reads && sft_node_writes(&node, k) && !forgotten(w, ref->buffer))
            code = sf_fail(err, SF_EINVAL, "tape: %s would change the kept %s twice",
                           sk_op_info(node.op)->name, w->tape->buffer[ref->buffer].name);
        else if (reads)
            code = input_again(w, n, ref, err);
        else if (!forgotten(w, ref->buffer))
            ref->buffer = copy_of(w, ref->buffer);
        else if (w->clone[ref->buffer] < 0)
            ref->buffer = w->clone[ref->buffer] = copy_of(w, ref->buffer);
        else
            ref->buffer = w->clone[ref->buffer];
        if (code)
            return code;
    }
    sft_tape_emit(w->tape, node.op, node.args, node.operand, node.operands);
    if (!w->tape->failed)
        w->tape->node[w->tape->nodes - 1].again = true;
    return SF_OK;
}

static int backward_node(struct work *w, struct sft_node node, struct sf_err *err)
{
    for (int k = 0; k < node.operands; k++) {
        struct sft_ref *ref = &node.operand[k];
        if (ref->buffer < 0)
            continue;
        if (forgotten(w, ref->buffer)) {
            int code = make_until(w, ref->buffer, w->turn, err);
            if (code)
                return code;
            ref->buffer = w->clone[ref->buffer];
        } else if (sft_node_writes(&node, k)) {
            w->last_write[ref->buffer] = w->old_nodes; /* later than any forward node */
        }
    }
    sft_tape_emit(w->tape, node.op, node.args, node.operand, node.operands);
    return SF_OK;
}

int sft_recompute(struct sft_tape *tape, struct sf_err *err)
{
    struct work w;
    if (!wanted(tape))
        return SF_OK;
    tape->turned = false;
    if (begin(&w, tape))
        tape->failed = true;
    for (int32_t i = 0; i < w.old_nodes && !tape->failed; i++) {
        if (i == w.turn)
            sft_tape_turn(tape);
        if (i < w.turn) {
            sft_tape_emit(tape, w.old[i].op, w.old[i].args, w.old[i].operand, w.old[i].operands);
            continue;
        }
        int code = backward_node(&w, w.old[i], err);
        if (code)
            return code;
    }
    return SF_OK;
}
