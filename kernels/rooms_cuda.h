/* rooms_cuda.h -- how the CUDA fillings divide their workspaces.
 *
 * Plain C that needs no CUDA: a plan measures with it where there is neither toolkit nor card, the
 * ops run with it, so the two cannot differ. lay_out(NULL) measures. Places are on 256 bytes. */
#ifndef SCOUT_KERNELS_ROOMS_CUDA_H
#define SCOUT_KERNELS_ROOMS_CUDA_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/head_loss.h"
#include "kernels/linear.h"
#include "kernels/route.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
typedef __nv_bfloat16 sk_half;
#else
typedef uint16_t sk_half;
#endif

/* Device memory that a started context holds: cuBLAS's workspace, and a page of small things. */
enum {
    SK_CUDA_BLAS_BYTES = 32 << 20, /* what NVIDIA recommends for Hopper */
    SK_CUDA_SMALL_BYTES = 256
};

struct sk_carver {
    unsigned char *base;
    uint64_t used;
};
static inline void *sk_carve(struct sk_carver *carver, uint64_t bytes)
{
    void *at = carver->base ? carver->base + carver->used : NULL;
    carver->used += (bytes + 255) / 256 * 256;
    return at;
}
static inline struct sk_carver sk_carver_at(void *workspace)
{
    struct sk_carver carver;
    carver.base = (unsigned char *)workspace;
    carver.used = 0;
    return carver;
}

/* Groups of rows run side by side on so many, each with a workspace of cuBLAS's own. */
enum { SK_BRANCHES = 4 };
static inline uint64_t sk_cuda_held_bytes(void)
{
    return (uint64_t)(1 + SK_BRANCHES) * SK_CUDA_BLAS_BYTES + SK_CUDA_SMALL_BYTES;
}

static inline uint64_t sk_carved(uint64_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

/* ---- linear: W expanded, A and B of all groups rounded to bfloat16, packed, u = scale * dy B,
 * and with dropout what A gets ---- */

static inline uint64_t sk_product_scratch(int64_t out, int64_t in)
{
    return (uint64_t)out * (uint64_t)in * sizeof(uint16_t);
}

static inline uint64_t sk_linear_room_bytes(int64_t groups, int64_t out, int64_t in, int64_t rank,
                                            int64_t u_rows, int64_t dropped_rows)
{
    uint64_t each = (uint64_t)groups * (uint64_t)rank * sizeof(uint16_t);
    uint64_t weights = sk_carved(sk_product_scratch(out, in));
    return weights * (groups > 1 ? SK_BRANCHES : 1) + sk_carved(each * (uint64_t)in) +
           sk_carved(each * (uint64_t)out) +
           sk_carved((uint64_t)u_rows * (uint64_t)rank * sizeof(uint16_t)) +
           sk_carved((uint64_t)dropped_rows * (uint64_t)in * sizeof(uint16_t));
}

/* ---- attention: whom each row sees, and for the backward delta ---- */

struct sk_attention_room {
    int32_t *lo, *hi;
    float *delta;
    uint64_t bytes;
};

static inline struct sk_attention_room sk_attention_lay_out(const struct sk_attention_shape *s,
                                                            void *workspace, int backward)
{
    struct sk_carver carver = sk_carver_at(workspace);
    struct sk_attention_room r;
    uint64_t rows = (uint64_t)s->rows;
    r.lo = (int32_t *)sk_carve(&carver, rows * sizeof *r.lo);
    r.hi = (int32_t *)sk_carve(&carver, rows * sizeof *r.hi);
    r.delta = NULL;
    if (backward)
        r.delta = (float *)sk_carve(&carver, rows * (uint64_t)s->heads * sizeof *r.delta);
    r.bytes = carver.used;
    return r;
}

/* ---- route: what sorting needs ---- */

enum { SK_ROUTE_TILE = 128 }; /* rows ranked by one block */

struct sk_route_room {
    uint16_t *router; /* [experts, hidden] where it is not bfloat16 */
    int32_t *rank;    /* [rows]: among the rows of its tile and expert */
    int32_t *count;   /* [experts, tiles]: rows, then those of the tiles before */
    uint64_t bytes;
};

static inline struct sk_route_room sk_route_lay_out(const struct sk_route_forward *a,
                                                    void *workspace)
{
    struct sk_carver carver = sk_carver_at(workspace);
    struct sk_route_room r;
    uint64_t rows = (uint64_t)a->rows, experts = (uint64_t)a->experts;
    uint64_t tiles = (rows + SK_ROUTE_TILE - 1) / SK_ROUTE_TILE;
    r.router = (uint16_t *)sk_carve(&carver, experts * (uint64_t)a->hidden * 2);
    r.rank = (int32_t *)sk_carve(&carver, rows * 4);
    r.count = (int32_t *)sk_carve(&carver, experts * tiles * 4);
    r.bytes = carver.used;
    return r;
}

/* ---- head_loss: a chunk of rows ---- */

/* float32 logits of a chunk: LOGIT_BYTES at most, in whole tiles of a product where that allows it: 384
 * rows of Scout's, whose products run at 0.94 and 0.98 of cuBLAS's rate (256 rows: 0.79 and 0.90).
 * A head that is not bfloat16 is expanded a slice at a time, in whole blocks of NF4. */
enum {
    SK_HEAD_LOGIT_BYTES = 320 << 20,
    SK_HEAD_SLICE_BYTES = 32 << 20,
    SK_HEAD_TILE_ROWS = 128,
    SK_HEAD_MOST_ROWS = 2048,
    SK_HEAD_SLICE_STEP = 64
};

/* `rows`: those that a chunk may hold. */
struct sk_head_loss_room {
    float *logits; /* [rows, vocabulary]; then, in place, d logits as bfloat16, rows as far apart */
    float *dx;     /* [rows, hidden] */
    sk_half *x;    /* [rows, hidden], gathered */
    uint16_t *head; /* [slice, hidden] */
    double *loss;   /* [all rows] */
    int32_t *index; /* [all rows]: rows with a target, in order */
    /* with LoRA: A and B rounded, t = x A^T, u = scale * d logits B, times gradient_scale where it says
     * so (head_lora_cuda.h); with dropout what A gets, and what it gives to dx */
    uint16_t *a, *b;
    sk_half *t, *t_scaled, *u_half, *u_scaled; /* [rows, rank] */
    float *u;                                  /* [rows, rank] */
    sk_half *dropped;                          /* [rows, hidden] */
    float *lora_dx;                            /* [rows, hidden] */
    int64_t rows, slice;
    uint64_t bytes;
};

static inline int64_t sk_head_chunk_rows(int64_t rows, int64_t vocabulary)
{
    int64_t most = SK_HEAD_LOGIT_BYTES / 4 / vocabulary / SK_HEAD_TILE_ROWS * SK_HEAD_TILE_ROWS;
    most = most < SK_HEAD_TILE_ROWS ? (int64_t)SK_HEAD_TILE_ROWS : most;
    most = most < SK_HEAD_MOST_ROWS ? most : (int64_t)SK_HEAD_MOST_ROWS;
    return rows < most ? rows : most;
}

static inline int64_t sk_head_slice_rows(int64_t vocabulary, int64_t hidden)
{
    int64_t most = SK_HEAD_SLICE_BYTES / 2 / hidden / SK_HEAD_SLICE_STEP * SK_HEAD_SLICE_STEP;
    most = most < SK_HEAD_SLICE_STEP ? (int64_t)SK_HEAD_SLICE_STEP : most;
    return vocabulary < most ? vocabulary : most;
}

static inline struct sk_head_loss_room sk_head_loss_lay_out(const struct sk_head_loss *a,
                                                            void *workspace)
{
    struct sk_carver carver = sk_carver_at(workspace);
    struct sk_head_loss_room r;
    r.rows = sk_head_chunk_rows(a->rows, a->vocabulary);
    r.slice = sk_head_slice_rows(a->vocabulary, a->hidden);
    uint64_t rows = (uint64_t)r.rows, hidden = (uint64_t)a->hidden;
    r.logits = (float *)sk_carve(&carver, rows * (uint64_t)a->vocabulary * 4);
    r.dx = (float *)sk_carve(&carver, rows * hidden * 4);
    r.x = (sk_half *)sk_carve(&carver, rows * hidden * 2);
    r.head = (uint16_t *)sk_carve(&carver, (uint64_t)r.slice * hidden * 2);
    r.loss = (double *)sk_carve(&carver, (uint64_t)a->rows * 8);
    r.index = (int32_t *)sk_carve(&carver, (uint64_t)a->rows * 4);
    uint64_t rank = (uint64_t)a->rank, small = rows * rank,
             dropped = a->dropout ? rows * hidden : 0;
    r.a = (uint16_t *)sk_carve(&carver, rank * hidden * 2);
    r.b = (uint16_t *)sk_carve(&carver, rank * (uint64_t)a->vocabulary * 2);
    r.t = (sk_half *)sk_carve(&carver, small * 2);
    r.t_scaled = (sk_half *)sk_carve(&carver, small * 2);
    r.u_half = (sk_half *)sk_carve(&carver, small * 2);
    r.u_scaled = (sk_half *)sk_carve(&carver, small * 2);
    r.u = (float *)sk_carve(&carver, small * 4);
    r.dropped = (sk_half *)sk_carve(&carver, dropped * 2);
    r.lora_dx = (float *)sk_carve(&carver, dropped * 4);
    r.bytes = carver.used;
    return r;
}

/* ---- grad_norm: a sum a chunk ---- */

enum { SK_GRAD_NORM_CHUNK = 32768 };
static inline uint64_t sk_grad_norm_room_bytes(int64_t count)
{
    return (uint64_t)((count + SK_GRAD_NORM_CHUNK - 1) / SK_GRAD_NORM_CHUNK) * sizeof(double);
}

#endif
