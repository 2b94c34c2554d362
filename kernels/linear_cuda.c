#include "kernels/linear.h"

#include <assert.h>

#include "kernels/branches_cuda.h"
#include "kernels/cuda_private.h"
#include "kernels/cuda_table.h"
#include "kernels/dropout_cuda.h"
#include "kernels/gemm_cuda.h"
#include "kernels/nf4_cuda.h"
#include "kernels/product_cuda.h"

/* A workspace: W expanded (one for each branch that groups run on), A and B of all groups rounded to
 * bfloat16, packed, u = scale * dy B, and with dropout what A gets. */
struct room {
    uint16_t *weights[SK_BRANCHES], *a, *b, *u, *dropped;
    uint64_t bytes;
};

struct lora {
    int64_t groups, out, in, rank;
    int64_t dropped_rows; /* 0: no dropout */
};

static struct room lay_out(void *workspace, struct lora l, int64_t u_rows)
{
    struct sk_carver carver = {.base = workspace};
    struct room room = {0};
    uint64_t a = (uint64_t)l.groups * (uint64_t)l.rank * (uint64_t)l.in;
    uint64_t b = (uint64_t)l.groups * (uint64_t)l.rank * (uint64_t)l.out;
    for (int i = 0; i < (l.groups > 1 ? SK_BRANCHES : 1); i++)
        room.weights[i] = sk_carve(&carver, sk_product_scratch(l.out, l.in));
    room.a = sk_carve(&carver, a * sizeof *room.a);
    room.b = sk_carve(&carver, b * sizeof *room.b);
    room.u = sk_carve(&carver, (uint64_t)u_rows * (uint64_t)l.rank * sizeof *room.u);
    room.dropped =
        sk_carve(&carver, (uint64_t)l.dropped_rows * (uint64_t)l.in * sizeof *room.dropped);
    room.bytes = carver.used;
    assert(room.bytes ==
           sk_linear_room_bytes(l.groups, l.out, l.in, l.rank, u_rows, l.dropped_rows));
    return room;
}

static int round_lora(struct sk_ctx *ctx, const struct room *room, struct lora l, const float *a,
                      int64_t a_stride, const float *b, int64_t b_stride, struct sf_err *err)
{
    int code = sk_round_cuda(ctx, room->a, a, l.groups, l.rank * l.in, a_stride, err);
    return code ? code : sk_round_cuda(ctx, room->b, b, l.groups, l.out * l.rank, b_stride, err);
}

/* ---- groups ---- */

struct span { /* the rows of one group */
    int64_t first, count;
};

/* Waits for the offsets of a grouped call, and does not believe them blindly: rows outside would be
 * read and written. */
static int wait_groups(struct sk_ctx *ctx, const int32_t *offsets, const int32_t *host_offsets,
                       int64_t groups, int64_t rows, struct sf_err *err)
{
    if (!offsets)
        return SF_OK;
    if (!host_offsets)
        return sf_fail(err, SF_EINVAL, "groups of rows without their offsets in host memory");
    int code = sk_cuda_wait_counts(ctx, err);
    if (code)
        return code;
    bool good = host_offsets[0] == 0 && host_offsets[groups] == rows;
    for (int64_t g = 0; g < groups; g++)
        good = good && host_offsets[g] <= host_offsets[g + 1];
    return good ? SF_OK
                : sf_fail(err, SF_EINVAL, "offsets of %lld groups do not divide %lld rows",
                          (long long)groups, (long long)rows);
}

static struct span group_rows(const int32_t *offsets, const int32_t *host_offsets, int64_t group,
                              int64_t rows)
{
    if (!offsets)
        return (struct span){0, rows};
    return (struct span){host_offsets[group], host_offsets[group + 1] - host_offsets[group]};
}

static int branch_of(int64_t group)
{
    return (int)(group % SK_BRANCHES);
}

/* Where a group's work goes: groups share the device by branches, one alone has the stream. */
static struct sk_ctx *ctx_of(struct sk_ctx *ctx, int64_t group, int64_t groups)
{
    return groups > 1 ? sk_branch(ctx, branch_of(group)) : ctx;
}

static int fork_groups(struct sk_ctx *ctx, int64_t groups, struct sf_err *err)
{
    return groups > 1 ? sk_branches_fork(ctx, err) : SF_OK;
}

static int join_groups(struct sk_ctx *ctx, int64_t groups, struct sf_err *err)
{
    return groups > 1 ? sk_branches_join(ctx, err) : SF_OK;
}

/* ---- forward ---- */

static struct lora forward_lora(const struct sk_linear_forward *a)
{
    return (struct lora){.groups = a->groups,
                         .out = a->out,
                         .in = a->in,
                         .rank = a->rank,
                         .dropped_rows = a->dropout ? a->rows : 0};
}

uint64_t sk_linear_forward_measure_cuda(const void *args, int threads)
{
    (void)threads;
    return lay_out(NULL, forward_lora(args), 0).bytes;
}

/* t = x A^T, then y = scale * t B^T: what LoRA adds is there before the big product adds to it, so
 * that y is rounded twice only in its small part, and is read where the product hides it. */
static int forward_group_lora(struct sk_ctx *ctx, const struct sk_linear_forward *a,
                              const struct room *room, int64_t group, struct span rows,
                              struct sf_err *err)
{
    uint16_t *t = (uint16_t *)a->t + rows.first * a->rank;
    const uint16_t *x = a->dropout ? room->dropped : (const uint16_t *)a->x;
    struct sk_gemm down = {.c = t,
                           .a = x + rows.first * a->in,
                           .b = room->a + group * a->rank * a->in,
                           .c_stride = a->rank,
                           .a_stride = a->in,
                           .b_stride = a->in,
                           .m = rows.count,
                           .n = a->rank,
                           .k = a->in,
                           .alpha = 1,
                           .b_turned = true};
    struct sk_gemm up = {.c = (uint16_t *)a->y + rows.first * a->y_stride,
                         .a = t,
                         .b = room->b + group * a->out * a->rank,
                         .c_stride = a->y_stride,
                         .a_stride = a->rank,
                         .b_stride = a->rank,
                         .m = rows.count,
                         .n = a->out,
                         .k = a->rank,
                         .alpha = a->scale,
                         .b_turned = true};
    int code = SF_OK;
    if (a->dropout)
        code = sk_dropout_cuda(ctx, room->dropped, (const uint16_t *)a->x, a->rows * a->in,
                               (struct sk_drop){a->dropout, a->site, a->first_row * a->in, false},
                               err);
    if (!code)
        code = sk_gemm_cuda(ctx, &down, err);
    return code ? code : sk_gemm_cuda(ctx, &up, err);
}

static int forward_group(struct sk_ctx *ctx, const struct sk_linear_forward *a,
                         const struct room *room, int64_t group, struct span rows,
                         struct sf_err *err)
{
    int code = a->a ? forward_group_lora(ctx, a, room, group, rows, err) : SF_OK;
    if (code || !a->w)
        return code;
    struct sk_product product = {.to = (uint16_t *)a->y + rows.first * a->y_stride,
                                 .from = (const uint16_t *)a->x + rows.first * a->in,
                                 .w = &a->w[group],
                                 .scratch = room->weights[branch_of(group)],
                                 .to_stride = a->y_stride,
                                 .from_stride = a->in,
                                 .rows = rows.count,
                                 .accumulate = a->a};
    return sk_matrix_product_cuda(ctx, &product, err);
}

int sk_linear_forward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_linear_forward *a = args;
    struct room room = lay_out(a->workspace, forward_lora(a), 0);
    int code =
        a->a ? round_lora(ctx, &room, forward_lora(a), a->a, a->a_stride, a->b, a->b_stride, err)
             : SF_OK;
    if (!code)
        code = wait_groups(ctx, a->offsets, a->host_offsets, a->groups, a->rows, err);
    if (!code)
        code = fork_groups(ctx, a->groups, err);
    for (int64_t group = 0; !code && group < a->groups; group++) {
        struct span rows = group_rows(a->offsets, a->host_offsets, group, a->rows);
        if (rows.count > 0)
            code = forward_group(ctx_of(ctx, group, a->groups), a, &room, group, rows, err);
    }
    return code ? code : join_groups(ctx, a->groups, err);
}

/* ---- backward ---- */

static struct lora backward_lora(const struct sk_linear_backward *a)
{
    return (struct lora){.groups = a->groups,
                         .out = a->out,
                         .in = a->in,
                         .rank = a->rank,
                         .dropped_rows = a->dropout ? a->rows : 0};
}

uint64_t sk_linear_backward_measure_cuda(const void *args, int threads)
{
    const struct sk_linear_backward *a = args;
    (void)threads;
    return lay_out(NULL, backward_lora(a), a->rows).bytes;
}

/* u = scale * dy B. */
static int backward_group_u(struct sk_ctx *ctx, const struct sk_linear_backward *a,
                            const struct room *room, int64_t group, struct span rows,
                            struct sf_err *err)
{
    struct sk_gemm up = {.c = room->u + rows.first * a->rank,
                         .a = (const uint16_t *)a->dy + rows.first * a->y_stride,
                         .b = room->b + group * a->out * a->rank,
                         .c_stride = a->rank,
                         .a_stride = a->y_stride,
                         .b_stride = a->rank,
                         .m = rows.count,
                         .n = a->rank,
                         .k = a->out,
                         .alpha = a->scale};
    return sk_gemm_cuda(ctx, &up, err);
}

/* da += u^T x, db += scale * dy^T t: sums over the group's rows, in float32. */
static int backward_group_gradients(struct sk_ctx *ctx, const struct sk_linear_backward *a,
                                    const struct room *room, int64_t group, struct span rows,
                                    struct sf_err *err)
{
    struct sk_gemm db = {.c = a->db + group * a->b_stride,
                         .a = (const uint16_t *)a->dy + rows.first * a->y_stride,
                         .b = (const uint16_t *)a->t + rows.first * a->rank,
                         .c_stride = a->rank,
                         .a_stride = a->y_stride,
                         .b_stride = a->rank,
                         .m = a->out,
                         .n = a->rank,
                         .k = rows.count,
                         .alpha = a->scale,
                         .beta = 1,
                         .a_turned = true,
                         .c_float = true};
    const uint16_t *x = a->dropout ? room->dropped : (const uint16_t *)a->x;
    struct sk_gemm da = {.c = a->da + group * a->a_stride,
                         .a = room->u + rows.first * a->rank,
                         .b = x + rows.first * a->in,
                         .c_stride = a->in,
                         .a_stride = a->rank,
                         .b_stride = a->in,
                         .m = a->rank,
                         .n = a->in,
                         .k = rows.count,
                         .alpha = 1,
                         .beta = 1,
                         .a_turned = true,
                         .c_float = true};
    int code = sk_gemm_cuda(ctx, &db, err);
    if (!code && a->dropout)
        code = sk_dropout_cuda(ctx, room->dropped, (const uint16_t *)a->x, a->rows * a->in,
                               (struct sk_drop){a->dropout, a->site, a->first_row * a->in, false},
                               err);
    return code ? code : sk_gemm_cuda(ctx, &da, err);
}

/* What LoRA gives to dx: u A, through the factors of a dropout, whose room is free by now. */
static int backward_group_lora_dx(struct sk_ctx *ctx, const struct sk_linear_backward *a,
                                  const struct room *room, int64_t group, struct span rows,
                                  struct sf_err *err)
{
    uint16_t *dx = (uint16_t *)a->dx;
    struct sk_gemm down = {.c = (a->dropout ? room->dropped : dx) + rows.first * a->in,
                           .a = room->u + rows.first * a->rank,
                           .b = room->a + group * a->rank * a->in,
                           .c_stride = a->in,
                           .a_stride = a->rank,
                           .b_stride = a->in,
                           .m = rows.count,
                           .n = a->in,
                           .k = a->rank,
                           .alpha = 1,
                           .beta = a->accumulate_dx && !a->dropout ? 1 : 0};
    int code = sk_gemm_cuda(ctx, &down, err);
    if (!code && a->dropout)
        code = sk_dropout_cuda(
            ctx, dx, room->dropped, a->rows * a->in,
            (struct sk_drop){a->dropout, a->site, a->first_row * a->in, a->accumulate_dx}, err);
    return code;
}

static int backward_group_dx(struct sk_ctx *ctx, const struct sk_linear_backward *a,
                             const struct room *room, int64_t group, struct span rows,
                             struct sf_err *err)
{
    struct sk_product product = {.to = (uint16_t *)a->dx + rows.first * a->in,
                                 .from = (const uint16_t *)a->dy + rows.first * a->y_stride,
                                 .w = &a->w[group],
                                 .scratch = room->weights[branch_of(group)],
                                 .to_stride = a->in,
                                 .from_stride = a->y_stride,
                                 .rows = rows.count,
                                 .across = true,
                                 .accumulate = a->a || a->accumulate_dx};
    return sk_matrix_product_cuda(ctx, &product, err);
}

/* In the order in which they read the same: u and db dy, da x, and then what writes dx. */
static int backward_group(struct sk_ctx *ctx, const struct sk_linear_backward *a,
                          const struct room *room, int64_t group, struct span rows,
                          struct sf_err *err)
{
    int code = SF_OK;
    if (a->a)
        code = backward_group_u(ctx, a, room, group, rows, err);
    if (!code && a->a)
        code = backward_group_gradients(ctx, a, room, group, rows, err);
    if (!code && a->a && a->dx)
        code = backward_group_lora_dx(ctx, a, room, group, rows, err);
    if (!code && a->dx && a->w)
        code = backward_group_dx(ctx, a, room, group, rows, err);
    return code;
}

int sk_linear_backward_cuda(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_linear_backward *a = args;
    struct room room = lay_out(a->workspace, backward_lora(a), a->rows);
    int code =
        a->a ? round_lora(ctx, &room, backward_lora(a), a->a, a->a_stride, a->b, a->b_stride, err)
             : SF_OK;
    if (!code)
        code = wait_groups(ctx, a->offsets, a->host_offsets, a->groups, a->rows, err);
    if (!code)
        code = fork_groups(ctx, a->groups, err);
    for (int64_t group = 0; !code && group < a->groups; group++) {
        struct span rows = group_rows(a->offsets, a->host_offsets, group, a->rows);
        if (rows.count > 0)
            code = backward_group(ctx_of(ctx, group, a->groups), a, &room, group, rows, err);
    }
    return code ? code : join_groups(ctx, a->groups, err);
}
