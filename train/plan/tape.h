/* tape.h -- a training step as data: op nodes over buffers, emitted once for a shape.
 *
 * The model emits nodes in execution order, forward then backward. A buffer is bytes with a class; its
 * birth and death follow from the nodes that touch it. A policy relabels buffers (policy.h), the
 * packer gives offsets in the step block (pack.h), the plan adds up (plan.h), and the executor
 * (train/step.h) fills pointers into the nodes and runs them. plan is the tape not executed.
 *
 * Life: everything lives in one arena; a tape is read-only once packed. Host only; no CUDA header. */
#ifndef SCOUT_TRAIN_PLAN_TAPE_H
#define SCOUT_TRAIN_PLAN_TAPE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/ops.h"
#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/tensor/model_spec.h"

/* Where a buffer's bytes are. */
enum sft_class {
    SFT_STEP,      /* activations and gradients of activations: the step block, packed by lifetime */
    SFT_RECOMPUTE, /* like STEP, but forgotten after the forward and made again in the backward */
    SFT_KEPT,      /* like STEP, but alive to the end of the tape: inputs, outputs, what a probe reads */
    SFT_ADAPTER,   /* in the adapter block: LoRA weights, gradients, moments; offset given at birth */
    SFT_WEIGHT     /* a struct sk_matrix array, resolved through the image at each run */
};

struct sft_buffer {
    const char *name; /* "layers.3.attention.q", for plans and errors */
    enum sft_class class;
    uint64_t bytes;
    uint64_t offset;    /* in its block, once packed */
    int32_t birth, death; /* first and last node that touch it; -1 while untouched */
    struct sf_role role;  /* WEIGHT: which; for experts the whole layer's, expert -1 */
};

/* An operand: a buffer, some bytes in. buffer -1 is NULL. */
struct sft_ref {
    int32_t buffer;
    uint64_t offset;
};

enum { SFT_MAX_OPERANDS = 12, SFT_MAX_ARGS = 256 };

struct sft_node {
    enum sk_op op;
    bool backward; /* emitted after sft_tape_turn() */
    struct sft_ref operand[SFT_MAX_OPERANDS];
    unsigned char args[SFT_MAX_ARGS] __attribute__((aligned(16))); /* the op's struct, pointers open */
};

struct sft_tape {
    struct sf_arena *arena;
    struct sft_buffer *buffer;
    int32_t buffers, buffer_capacity;
    struct sft_node *node;
    int32_t nodes, node_capacity;
    int32_t turn;        /* first backward node; nodes if there is none */
    uint64_t step_bytes; /* of the step block, once packed */
    bool failed;         /* out of memory while emitting: reported by sft_tape_finish */
};

void sft_tape_begin(struct sft_tape *tape, struct sf_arena *arena);
/* A new buffer; the name is formatted into the arena. */
int32_t sft_tape_buffer(struct sft_tape *tape, enum sft_class class, uint64_t bytes, const char *fmt,
                        ...) SF_PRINTF(4, 5);
int32_t sft_tape_weight(struct sft_tape *tape, struct sf_role role);
static inline struct sft_ref sft_at(int32_t buffer, uint64_t offset)
{
    return (struct sft_ref){buffer, offset};
}
/* Appends a node: `args` is the op's struct (its pointers are ignored), `operands` its refs in the
 * order of the struct, the workspace (if the op has one) left out: the tape makes it. */
void sft_tape_emit(struct sft_tape *tape, enum sk_op op, const void *args,
                   const struct sft_ref *operands, int count);
/* From here on nodes are backward. */
void sft_tape_turn(struct sft_tape *tape);
/* Computes lifetimes and workspaces (`ops` measures for `threads`), applies RECOMPUTE labels, packs.
 * SF_ENOMEM if emitting ran out; SF_EINVAL for a buffer read before it is written. */
int sft_tape_finish(struct sft_tape *tape, const struct sk_ops *ops, int threads,
                    struct sf_err *err);

#endif
