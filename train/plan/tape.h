/* tape.h -- a training step as data: op nodes over buffers, emitted once for a shape.
 *
 * The model emits nodes in execution order, forward then backward. A buffer is bytes with a class
 * (where they live) and a kind (what they are). A policy relabels buffers (memory_policy.h);
 * finishing a tape then drops nodes whose results nobody reads (prune.h), makes forgotten
 * activations again where the backward wants them (recompute.h), measures workspaces, computes
 * lifetimes and packs the step block (pack.h). The plan adds up (plan.h); the executor fills
 * pointers into the nodes and runs them (train/step.h). So the plan is the tape, not executed.
 *
 * Life: everything lives in one arena; a tape is read-only once finished. Host only, no CUDA
 * header. Threads: one tape is emitted by one thread; a finished one may be read by any number. */
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
    SFT_STEP,      /* the step block, packed by lifetime */
    SFT_RECOMPUTE, /* like STEP, but forgotten after the forward and made again in the backward */
    SFT_KEPT, /* like STEP, but alive to the end of the tape: inputs, outputs, what a probe reads */
    SFT_HOST, /* the host block: what ops read or write in host memory; never shared */
    SFT_ADAPTER, /* the adapter block: LoRA weights, gradients, moments; offset given at birth */
    SFT_CACHE, /* keys and values of a text under way, kept from run to run; offset given at birth */
    SFT_WEIGHT /* a struct sk_matrix array, resolved through the image at each run */
};

/* What a buffer is: policies decide by it, plans are grouped by it. */
enum sft_kind {
    SFT_ACTIVATION,           /* rows times a width of the model, made by a pass over memory */
    SFT_ACTIVATION_ATTENTION, /* q, k, v, and what attention makes of them */
    SFT_ACTIVATION_MIDDLE,    /* the residual stream between attention and feed-forward */
    SFT_ACTIVATION_MLP,       /* gate and up of a shared expert or dense MLP */
    SFT_ACTIVATION_EXPERTS,   /* gate and up of the routed experts */
    SFT_ACTIVATION_KINDS,     /* those above are worth forgetting (memory_policy.h) */
    SFT_RESIDUAL =
        SFT_ACTIVATION_KINDS, /* the residual stream where a layer begins: what recompute starts from */
    SFT_SMALL,     /* rows times a few numbers (norms, router, LoRA's t): cheaper to keep */
    SFT_GRADIENT,  /* gradients of activations */
    SFT_WORKSPACE, /* one node's scratch */
    SFT_PORT,      /* inputs and outputs of the tape */
    SFT_KIND_COUNT
};
const char *sft_kind_name(enum sft_kind kind);

struct sft_buffer {
    const char *name; /* "layers.3.q", for plans and errors */
    enum sft_class class;
    enum sft_kind kind;
    int32_t layer; /* of the model, -1 outside the layers */
    uint64_t bytes;
    uint64_t offset;      /* in its block, once packed */
    int32_t birth, death; /* first and last node that needs the bytes; -1 while untouched */
    bool offload;         /* wanted on the host between forward and backward (offload.h) */
    struct sf_role role;  /* WEIGHT: which; for experts the whole layer's, expert -1 */
};

/* An operand: a buffer, some bytes in. buffer -1 is NULL. */
struct sft_ref {
    int32_t buffer;
    uint64_t offset;
};
#define SFT_NONE ((struct sft_ref){-1, 0})

enum { SFT_MAX_OPERANDS = 14, SFT_MAX_ARGS = 256, SFT_BLOCK_ALIGN = 256 };

struct sft_node {
    enum sk_op op;
    bool backward; /* emitted after sft_tape_turn() */
    bool again;    /* a forward node made again for the backward */
    int32_t operands;
    struct sft_ref operand[SFT_MAX_OPERANDS];
    unsigned char args[SFT_MAX_ARGS]
        __attribute__((aligned(16))); /* the op's struct, pointers open */
};

struct sft_tape {
    struct sf_arena *arena;
    struct sft_buffer *buffer;
    int32_t buffers, buffer_capacity;
    struct sft_node *node;
    int32_t nodes, node_capacity;
    int32_t turn;          /* first node behind the forward; `nodes` if there is none */
    int32_t layer;         /* given to buffers made from now on; -1 outside the layers */
    uint64_t enough_bytes; /* set before finishing: pack.h's `enough`; 0: as small as can be */
    uint64_t step_bytes;   /* of the step block, once packed */
    uint64_t host_bytes;   /* of the host block */
    uint64_t live_bytes;   /* the most that is alive at one node: no packing can do with less */
    int32_t peak;          /* that node */
    bool turned, failed;   /* failed: out of memory while emitting; sft_tape_finish reports it */
};

void sft_tape_begin(struct sft_tape *tape, struct sf_arena *arena);
/* A new buffer of the step block; the name is formatted into the arena. Gives its number. */
int32_t sft_tape_buffer(struct sft_tape *tape, enum sft_class class, enum sft_kind kind,
                        uint64_t bytes, const char *fmt, ...) SF_PRINTF(5, 6);
/* `bytes` of the adapter block from `offset` on. */
int32_t sft_tape_adapter(struct sft_tape *tape, uint64_t offset, uint64_t bytes, const char *fmt,
                         ...) SF_PRINTF(4, 5);
/* The same of the cache. */
int32_t sft_tape_cache(struct sft_tape *tape, uint64_t offset, uint64_t bytes, const char *fmt, ...)
    SF_PRINTF(4, 5);
int32_t sft_tape_weight(struct sft_tape *tape, struct sf_role role);
static inline struct sft_ref sft_at(int32_t buffer, uint64_t offset)
{
    return (struct sft_ref){buffer, offset};
}
/* Appends a node: `args` is the op's struct (its pointers are ignored), `operands` its refs in the
 * order of the struct, the workspace (if the op has one) left out: finishing makes it. */
void sft_tape_emit(struct sft_tape *tape, enum sk_op op, const void *args,
                   const struct sft_ref *operands, int count);
/* From here on nodes are backward. */
void sft_tape_turn(struct sft_tape *tape);
/* Prunes, recomputes, measures workspaces (`ops`, for `threads`), computes lifetimes, packs.
 * SF_ENOMEM if memory ran out; SF_EINVAL for a buffer that is read before it is written. */
int sft_tape_finish(struct sft_tape *tape, const struct sk_ops *ops, int threads,
                    struct sf_err *err);

/* ---- for the passes over a tape ---- */

/* Bit i: output i is also read (accumulated into, or changed in place). */
uint32_t sft_node_updates(const struct sft_node *node);
/* A node's outputs are its first operands; false for an operand that is only read. */
bool sft_node_writes(const struct sft_node *node, int operand);
bool sft_node_reads(const struct sft_node *node, int operand);
/* True for classes that live in the step block. */
static inline bool sft_class_in_step(enum sft_class class)
{
    return class == SFT_STEP || class == SFT_RECOMPUTE || class == SFT_KEPT;
}

#endif
