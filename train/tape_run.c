#include "train/tape_run.h"

#include <string.h>

static void *inside(void *block, const struct sft_buffer *b, struct sft_ref ref)
{
    return (unsigned char *)block + b->offset + ref.offset;
}

void *sft_place_of(const struct sft_places *places, const struct sft_tape *tape, struct sft_ref ref)
{
    if (ref.buffer < 0)
        return NULL;
    const struct sft_buffer *b = &tape->buffer[ref.buffer];
    union { /* weights are only ever read: prune.h and the ops' headers see to it */
        const void *read;
        void *pointer;
    } weight;
    switch (b->class) {
    case SFT_WEIGHT:
        weight.read = sft_image_matrices(places->image, b->role);
        return weight.pointer;
    case SFT_ADAPTER:
        return inside(places->adapter, b, ref);
    case SFT_HOST:
        return inside(places->host, b, ref);
    case SFT_CACHE:
        return inside(places->cache, b, ref);
    default:
        return inside(places->step, b, ref);
    }
}

int sft_node_run(const struct sft_places *places, const struct sft_tape *tape,
                 const struct sft_node *node, const struct sk_ops *ops, struct sk_ctx *ctx,
                 struct sf_err *err)
{
    unsigned char args[SFT_MAX_ARGS] __attribute__((aligned(16)));
    memcpy(args, node->args, sizeof args);
    for (int k = 0; k < node->operands; k++) {
        const void *pointer = sft_place_of(places, tape, node->operand[k]);
        memcpy(args + (size_t)k * sizeof pointer, &pointer, sizeof pointer);
    }
    int code = ops->run[node->op](ctx, args, err);
    if (!code)
        return SF_OK;
    int32_t first = node->operand[0].buffer;
    return sf_err_prefix(err, "%s (%s)", sk_op_info(node->op)->name,
                         first < 0 ? "no output" : tape->buffer[first].name);
}
