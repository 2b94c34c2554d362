#include "train/plan/tape.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "kernels/linear.h"
#include "libformat/base/mem.h"
#include "train/plan/offload.h"
#include "train/plan/pack.h"
#include "train/plan/prune.h"
#include "train/plan/recompute.h"

const char *sft_kind_name(enum sft_kind kind)
{
    static const char *const name[SFT_KIND_COUNT] = {
        "activations",     "attention",   "between",   "shared expert", "routed experts",
        "residual stream", "small state", "gradients", "workspace",     "inputs and outputs"};
    return (unsigned)kind < SFT_KIND_COUNT ? name[kind] : "?";
}

void sft_tape_begin(struct sft_tape *tape, struct sf_arena *arena)
{
    *tape = (struct sft_tape){.arena = arena, .layer = -1};
}

/* Room for one more element; the old array stays in the arena until that ends. */
static void *grow(struct sft_tape *tape, void *array, int32_t count, int32_t *capacity, size_t size)
{
    if (count < *capacity)
        return array;
    int32_t wanted = *capacity ? *capacity * 2 : 256;
    void *bigger = sf_arena_array(tape->arena, (uint64_t)wanted, size);
    if (!bigger) {
        tape->failed = true;
        return NULL;
    }
    if (count)
        memcpy(bigger, array, (size_t)count * size);
    *capacity = wanted;
    return bigger;
}

static int32_t add_buffer(struct sft_tape *tape, struct sft_buffer buffer, const char *fmt,
                          va_list args)
{
    struct sft_buffer *array =
        grow(tape, tape->buffer, tape->buffers, &tape->buffer_capacity, sizeof *tape->buffer);
    char name[128];
    vsnprintf(name, sizeof name, fmt, args);
    buffer.name = array ? sf_arena_strdup(tape->arena, name) : NULL;
    if (!buffer.name) {
        tape->failed = true;
        return -1;
    }
    buffer.birth = buffer.death = -1;
    tape->buffer = array;
    tape->buffer[tape->buffers] = buffer;
    return tape->buffers++;
}

int32_t sft_tape_buffer(struct sft_tape *tape, enum sft_class class, enum sft_kind kind,
                        uint64_t bytes, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    struct sft_buffer buffer = {.class = class, .kind = kind, .layer = tape->layer, .bytes = bytes};
    int32_t number = add_buffer(tape, buffer, fmt, args);
    va_end(args);
    return number;
}

int32_t sft_tape_adapter(struct sft_tape *tape, uint64_t offset, uint64_t bytes, const char *fmt,
                         ...)
{
    va_list args;
    va_start(args, fmt);
    struct sft_buffer buffer = {
        .class = SFT_ADAPTER, .layer = tape->layer, .bytes = bytes, .offset = offset};
    int32_t number = add_buffer(tape, buffer, fmt, args);
    va_end(args);
    return number;
}

int32_t sft_tape_cache(struct sft_tape *tape, uint64_t offset, uint64_t bytes, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    struct sft_buffer buffer = {
        .class = SFT_CACHE, .layer = tape->layer, .bytes = bytes, .offset = offset};
    int32_t number = add_buffer(tape, buffer, fmt, args);
    va_end(args);
    return number;
}

static int32_t add_weight(struct sft_tape *tape, struct sf_role role, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    struct sft_buffer buffer = {.class = SFT_WEIGHT, .layer = role.layer, .role = role};
    int32_t number = add_buffer(tape, buffer, fmt, args);
    va_end(args);
    return number;
}

int32_t sft_tape_weight(struct sft_tape *tape, struct sf_role role)
{
    char text[SF_ROLE_TEXT];
    return add_weight(tape, role, "%s", sf_role_format(text, role));
}

void sft_tape_emit(struct sft_tape *tape, enum sk_op op, const void *args,
                   const struct sft_ref *operands, int count)
{
    const struct sk_op_info *info = sk_op_info(op);
    assert(count == info->operands - info->has_workspace && count <= SFT_MAX_OPERANDS);
    assert(info->args_bytes <= SFT_MAX_ARGS);
    struct sft_node *array =
        grow(tape, tape->node, tape->nodes, &tape->node_capacity, sizeof *tape->node);
    if (!array)
        return;
    tape->node = array;
    struct sft_node *node = &tape->node[tape->nodes++];
    *node = (struct sft_node){.op = op, .backward = tape->turned, .operands = count};
    memcpy(node->args, args, info->args_bytes);
    memcpy(node->operand, operands, (size_t)count * sizeof *operands);
}

void sft_tape_turn(struct sft_tape *tape)
{
    tape->turned = true;
    tape->turn = tape->nodes;
}

uint32_t sft_node_updates(const struct sft_node *node)
{
    switch (node->op) {
    case SK_QK_FORWARD:
    case SK_QK_BACKWARD:
        return 3;            /* q and k, in place */
    case SK_LINEAR_BACKWARD: /* da and db always, dx where asked */
        return 6u | ((const struct sk_linear_backward *)(const void *)node->args)->accumulate_dx;
    case SK_HEAD_LOSS:
        return 12; /* da and db */
    case SK_ATTENTION_CACHED:
        return 6; /* both caches */
    case SK_ROUTE_BACKWARD:
    case SK_TRANSFER_END: /* what begin wrote */
        return 1;
    case SK_ADAMW:
        return 7; /* parameter, m, v */
    case SK_ADAMW_8BIT:
        return 31; /* and the scales of both */
    default:
        return 0;
    }
}

bool sft_node_writes(const struct sft_node *node, int operand)
{
    const struct sk_op_info *info = sk_op_info(node->op);
    return operand < info->outputs || (info->has_workspace && operand == info->operands - 1);
}

bool sft_node_reads(const struct sft_node *node, int operand)
{
    return !sft_node_writes(node, operand) || (sft_node_updates(node) >> operand & 1);
}

/* Gives every node that wants one its scratch, alive at that node alone. */
static void add_workspaces(struct sft_tape *tape, const struct sk_ops *ops, int threads)
{
    for (int32_t i = 0; i < tape->nodes && !tape->failed; i++) {
        struct sft_node *node = &tape->node[i];
        const struct sk_op_info *info = sk_op_info(node->op);
        if (!info->has_workspace)
            continue;
        uint64_t bytes = ops->measure[node->op] ? ops->measure[node->op](node->args, threads) : 0;
        int32_t buffer = bytes ? sft_tape_buffer(tape, SFT_STEP, SFT_WORKSPACE, bytes,
                                                 "%s workspace", info->name)
                               : -1;
        node->operand[node->operands++] = sft_at(buffer, 0);
    }
}

static int touch(struct sft_tape *tape, int32_t node, int operand, struct sf_err *err)
{
    struct sft_buffer *b = &tape->buffer[tape->node[node].operand[operand].buffer];
    if (b->birth < 0) {
        bool input = sft_node_reads(&tape->node[node], operand);
        if (input && (b->class == SFT_STEP || b->class == SFT_RECOMPUTE))
            return sf_fail(err, SF_EINVAL, "tape: %s reads %s, which no node has written",
                           sk_op_info(tape->node[node].op)->name, b->name);
        /* What comes from outside is there before the first node. */
        b->birth = input && b->class == SFT_KEPT ? 0 : node;
    }
    b->death = b->class == SFT_KEPT ? tape->nodes - 1 : node;
    return SF_OK;
}

static int compute_lifetimes(struct sft_tape *tape, struct sf_err *err)
{
    for (int32_t i = 0; i < tape->nodes; i++) {
        const struct sft_node *node = &tape->node[i];
        const struct sk_op_info *info = sk_op_info(node->op);
        for (int k = 0; k < node->operands;
             k++) { /* inputs first: an output may be the same buffer */
            int operand = (k + info->outputs) % node->operands;
            if (node->operand[operand].buffer < 0)
                continue;
            int code = touch(tape, i, operand, err);
            if (code)
                return code;
        }
    }
    return SF_OK;
}

/* One behind the other: the host writes there while the device may still read its neighbour. */
static void place_host_buffers(struct sft_tape *tape)
{
    for (int32_t i = 0; i < tape->buffers; i++) {
        struct sft_buffer *b = &tape->buffer[i];
        if (b->class != SFT_HOST || b->birth < 0)
            continue;
        b->offset = tape->host_bytes;
        tape->host_bytes += (b->bytes + SFT_BLOCK_ALIGN - 1) / SFT_BLOCK_ALIGN * SFT_BLOCK_ALIGN;
    }
}

int sft_tape_finish(struct sft_tape *tape, const struct sk_ops *ops, int threads,
                    struct sf_err *err)
{
    if (!tape->turned)
        sft_tape_turn(tape);
    if (!tape->failed)
        sft_prune(tape);
    int code = tape->failed ? SF_OK : sft_recompute(tape, err);
    if (code)
        return code;
    if (!tape->failed)
        sft_offload(tape);
    if (!tape->failed)
        add_workspaces(tape, ops, threads);
    if (tape->failed)
        return sf_fail(err, SF_ENOMEM, "no memory for a tape of %d nodes", tape->nodes);
    code = compute_lifetimes(tape, err);
    if (code)
        return code;
    place_host_buffers(tape);
    return sft_pack_tape(tape, err);
}
