/* ops.h -- the op table: every computation of a training step, once, for every back end.
 *
 * An op is a number (enum sk_op), an argument struct (declared in its kernel's header), and per
 * back end a `run` and a `measure`. Argument structs all have the same shape: first their operands,
 * as pointers, outputs before inputs; then sizes and constants. So a tape can keep arguments with
 * the pointers left open and fill them in by position (struct sk_op_info says how many there are),
 * while kernels and tests use them by name.
 *
 * Rules for every op:
 *  - Outputs never alias inputs unless the kernel's header says "in place".
 *  - An operand that the header calls optional may be NULL: "not wanted", or "none".
 *  - `workspace`, where there is one, is the last operand: at least measure() bytes, on 256 bytes,
 *    contents undefined before and after.
 *  - No op allocates, reads files, or keeps state between calls. The same inputs give the same
 *    bits, whatever the number of threads.
 *  - Activations are float32 in the CPU table [rows, columns], row-major, rows = tokens of all
 *    sequences in order. Accumulation into an output happens only where a flag asks for it. */
#ifndef SCOUT_KERNELS_OPS_H
#define SCOUT_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"

enum sk_op {
    SK_EMBED_FORWARD,
    SK_RMSNORM_FORWARD,
    SK_RMSNORM_BACKWARD,
    SK_LINEAR_FORWARD,
    SK_LINEAR_BACKWARD,
    SK_QK_FORWARD,
    SK_QK_BACKWARD,
    SK_ATTENTION_FORWARD,
    SK_ATTENTION_BACKWARD,
    SK_ROUTE_FORWARD,
    SK_ROUTE_BACKWARD,
    SK_SWIGLU_FORWARD,
    SK_SWIGLU_BACKWARD,
    SK_COMBINE_FORWARD,
    SK_COMBINE_BACKWARD,
    SK_HEAD_LOSS,
    SK_GRAD_NORM,
    SK_ADAMW,
    SK_FILL_ZERO,
    SK_OP_COUNT
};

/* What a back end needs to run ops. */
struct sk_ctx {
    int threads; /* CPU: OpenMP threads, at least 1 */
};

struct sk_op_info {
    const char *name;    /* "rmsnorm_forward" */
    uint32_t args_bytes; /* sizeof its argument struct */
    int outputs;         /* the first so many operands are written */
    int operands;        /* pointers at the start of the argument struct */
    bool has_workspace;  /* the last operand is the workspace */
};
const struct sk_op_info *sk_op_info(enum sk_op op);

struct sk_ops {
    const char *name; /* "cpu", "cuda" */
    /* args: the op's argument struct with every pointer in place. */
    int (*run[SK_OP_COUNT])(struct sk_ctx *ctx, const void *args, struct sf_err *err);
    /* Workspace bytes for these sizes and this many threads; args' pointers are not looked at. */
    uint64_t (*measure[SK_OP_COUNT])(const void *args, int threads);
};

/* The CPU table: float32, OpenMP over fixed tiles, OpenBLAS inside a tile. */
const struct sk_ops *sk_ops_cpu(void);
/* Once at start: pins OpenBLAS to one thread a call and compares its products with plain loops on a
 * few shapes; SF_EUNSUPPORTED with the figures when this OpenBLAS computes wrongly on this
 * processor (OPENBLAS_CORETYPE may help). */
int sk_cpu_start(struct sk_ctx *ctx, int threads, struct sf_err *err);

#endif
