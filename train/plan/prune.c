#include "train/plan/prune.h"

/* Bit i: output i may be NULL when it is not wanted. */
static uint32_t optional_outputs(const struct sft_node *node)
{
    switch (node->op) {
    case SK_LINEAR_BACKWARD:
    case SK_ROUTE_BACKWARD:
        return 1; /* dx */
    case SK_HEAD_LOSS:
        return 3; /* dx, logits */
    default:
        return 0;
    }
}

static bool lasting(const struct sft_buffer *buffer)
{
    return buffer->class == SFT_ADAPTER || buffer->class == SFT_KEPT || buffer->class == SFT_CACHE;
}

/* True when something of what the node writes is wanted; drops the optional rest if so. */
static bool keep(struct sft_tape *tape, struct sft_node *node, const bool *read)
{
    int outputs = sk_op_info(node->op)->outputs;
    uint32_t wanted = 0;
    for (int k = 0; k < outputs; k++) {
        int32_t b = node->operand[k].buffer;
        if (b >= 0 && (read[b] || lasting(&tape->buffer[b])))
            wanted |= 1u << k;
    }
    if (!wanted)
        return false;
    uint32_t dropped = optional_outputs(node) & ~wanted;
    for (int k = 0; k < outputs; k++)
        if (dropped >> k & 1)
            node->operand[k] = SFT_NONE;
    return true;
}

void sft_prune(struct sft_tape *tape)
{
    bool *read = sf_arena_array(tape->arena, (uint64_t)tape->buffers + 1, sizeof *read);
    bool *kept = sf_arena_array(tape->arena, (uint64_t)tape->nodes + 1, sizeof *kept);
    if (!read || !kept) {
        tape->failed = true;
        return;
    }
    for (int32_t i = tape->nodes - 1; i >= 0; i--) {
        struct sft_node *node = &tape->node[i];
        kept[i] = keep(tape, node, read);
        for (int k = 0; kept[i] && k < node->operands; k++)
            if (node->operand[k].buffer >= 0 && sft_node_reads(node, k))
                read[node->operand[k].buffer] = true;
    }
    int32_t count = 0, turn = 0;
    for (int32_t i = 0; i < tape->nodes; i++) {
        if (!kept[i])
            continue;
        turn += i < tape->turn;
        tape->node[count++] = tape->node[i];
    }
    tape->nodes = count;
    tape->turn = turn;
}
