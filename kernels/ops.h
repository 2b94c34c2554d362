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
 *  - Activations are [rows, columns], row-major, rows = tokens of all sequences in order, in the back
 *    end's element (activation.h). Accumulation into an output happens only where a flag asks for it.
 *  - A back end may run behind the caller: results are there, and what went wrong is told, at the
 *    next sk_memory.read. */
#ifndef SCOUT_KERNELS_OPS_H
#define SCOUT_KERNELS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/matrix.h"
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
    SK_ATTENTION_CACHED,
    SK_ROUTE_FORWARD,
    SK_ROUTE_BACKWARD,
    SK_SWIGLU_FORWARD,
    SK_SWIGLU_BACKWARD,
    SK_COMBINE_FORWARD,
    SK_COMBINE_BACKWARD,
    SK_HEAD_LOSS,
    SK_GRAD_NORM,
    SK_ADAMW,
    SK_ADAMW_8BIT,
    SK_FILL_ZERO,
    SK_TRANSFER_BEGIN,
    SK_TRANSFER_END,
    SK_OP_COUNT
};

/* What a back end needs to run ops: made by its start function (sk_cpu_start, sk_cuda_start). */
struct sk_cuda;
struct sk_ctx {
    int threads;          /* CPU: OpenMP threads, at least 1 */
    struct sk_cuda *cuda; /* CUDA: kernels/cuda_ctx.h; else NULL */
};

struct sk_op_info {
    const char *name;    /* "rmsnorm_forward" */
    uint32_t args_bytes; /* sizeof its argument struct */
    int outputs;         /* the first so many operands are written */
    int operands;        /* pointers at the start of the argument struct */
    bool has_workspace;  /* the last operand is the workspace */
};
const struct sk_op_info *sk_op_info(enum sk_op op);

/* Where operands live. On the CPU both places are the heap. */
enum sk_place {
    SK_PLACE_OPS, /* where ops work: device memory under CUDA */
    SK_PLACE_HOST /* host memory that ops can reach: pinned under CUDA */
};

/* A back end's memory. Blocks are on 256 bytes, contents undefined. */
struct sk_memory {
    /* `what` names the block in the error. */
    int (*allocate)(void **out, struct sk_ctx *ctx, enum sk_place place, uint64_t bytes,
                    const char *what, struct sf_err *err);
    void (*release)(struct sk_ctx *ctx, enum sk_place place, void *block); /* NULL is welcome */
    /* Between host memory and SK_PLACE_OPS, in the order of the ops. `host` may be reused at once. */
    int (*write)(struct sk_ctx *ctx, void *to, const void *host, uint64_t bytes,
                 struct sf_err *err);
    /* Waits for all before it; an error that an op met on a device is told here. */
    int (*read)(struct sk_ctx *ctx, void *host, const void *from, uint64_t bytes,
                struct sf_err *err);
};

/* Times between points of the stream of ops, for profiles. */
struct sk_watch;
struct sk_stopwatch {
    int (*open)(struct sk_watch **out, struct sk_ctx *ctx, int64_t marks, struct sf_err *err);
    void (*close)(struct sk_watch *watch); /* NULL is welcome */
    /* Notes the moment when everything before it is done, as mark `index`; `next`, what comes then,
     * names the range for tools that trace a device (NVTX); NULL: nothing. */
    int (*mark)(struct sk_watch *watch, int64_t index, const char *next, struct sf_err *err);
    /* seconds[i] from mark i to mark i + 1, for i < marks - 1; waits. */
    int (*read)(double *seconds, struct sk_watch *watch, int64_t marks, struct sf_err *err);
};

struct sk_ops {
    const char *name;          /* "cpu", "cuda" */
    enum sk_format activation; /* SK_FORMAT_F32 or SK_FORMAT_BF16 */
    bool device;               /* SK_PLACE_OPS is memory that the host cannot read */
    const struct sk_memory *memory;
    const struct sk_stopwatch *stopwatch;
    /* args: the op's argument struct with every pointer in place. */
    int (*run[SK_OP_COUNT])(struct sk_ctx *ctx, const void *args, struct sf_err *err);
    /* Workspace bytes for these sizes and this many threads; args' pointers are not looked at. */
    uint64_t (*measure[SK_OP_COUNT])(const void *args, int threads);
};
/* Bytes of one element of an activation. */
static inline uint64_t sk_activation_bytes(enum sk_format activation)
{
    return activation == SK_FORMAT_F32 ? 4 : 2;
}

/* The CPU table: float32, OpenMP over fixed tiles, OpenBLAS inside a tile. */
const struct sk_ops *sk_ops_cpu(void);
/* The CUDA table's element and workspaces, in every build: for plans. Its ops do not run. */
const struct sk_ops *sk_ops_cuda_plan(void);
/* Once at start: pins OpenBLAS to one thread a call and compares its products with plain loops on a
 * few shapes; SF_EUNSUPPORTED with the figures when this OpenBLAS computes wrongly on this
 * processor (OPENBLAS_CORETYPE may help). */
int sk_cpu_start(struct sk_ctx *ctx, int threads, struct sf_err *err);
/* "OpenBLAS 0.3.21 Haswell": what decides the last bits of products. */
enum { SK_LIBRARY_TEXT = 160 };
void sk_cpu_library(char text[SK_LIBRARY_TEXT]);

#endif
