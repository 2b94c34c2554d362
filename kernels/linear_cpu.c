#include "kernels/linear.h"

#include <omp.h>

#include "kernels/cpu_table.h"
#include "kernels/gemm_cpu.h"
#include "kernels/matrix_cpu.h"

struct span { /* the rows of one group */
    int64_t first, count;
};

static struct span group_rows(const int32_t *offsets, int64_t group, int64_t rows)
{
    if (!offsets)
        return (struct span){0, rows};
    return (struct span){offsets[group], offsets[group + 1] - offsets[group]};
}

/* ---- dropout: a workspace of [rows, in] beside the others ---- */

static uint64_t dropped_bytes(const struct sk_dropout *dropout, int64_t rows, int64_t in)
{
    return dropout ? sk_scratch_bytes(rows * in) : 0;
}

struct drop { /* what an op has of it */
    const struct sk_dropout *dropout;
    uint32_t site;
    int64_t before; /* elements that were counted before the op's first */
};

/* Elements first .. first + count of to = factors * from, or to +=. */
static void drop(float *to, const float *from, int64_t first, int64_t count, struct drop d,
                 bool add)
{
    float factor[4];
    for (int64_t i = first; i < first + count; i++) {
        int64_t counted = d.before + i;
        if (i == first || counted % 4 == 0)
            sk_dropout_factors(factor, *d.dropout, d.site, (uint64_t)counted / 4);
        to[i] = (add ? to[i] : 0) + factor[counted % 4] * from[i];
    }
}

/* ---- forward ---- */

uint64_t sk_linear_forward_measure_cpu(const void *args, int threads)
{
    const struct sk_linear_forward *a = args;
    return (uint64_t)threads * sk_scratch_bytes(SK_TILE_OUT * a->in) +
           dropped_bytes(a->dropout, a->rows, a->in);
}

/* t of one tile of a group's rows; `x` is what A gets. */
static void forward_t_tile(const struct sk_linear_forward *a, const float *x, int64_t group,
                           int64_t tile)
{
    struct span rows = group_rows(a->offsets, group, a->rows);
    int64_t first = tile * SK_TILE_ROWS;
    if (first >= rows.count)
        return;
    int64_t n = sk_min(rows.count - first, SK_TILE_ROWS), row = rows.first + first;
    sk_gemm_nt(a->t + row * a->rank, a->rank, x + row * a->in, a->in, a->a + group * a->a_stride,
               a->in, n, a->rank, a->in, 1, 0);
}

/* SK_TILE_OUT columns of y for all rows of a group: W's rows are expanded here and nowhere else. */
static void forward_out_tile(const struct sk_linear_forward *a, int64_t group, int64_t tile,
                             float *panel)
{
    struct span rows = group_rows(a->offsets, group, a->rows);
    if (rows.count == 0)
        return;
    int64_t first = tile * SK_TILE_OUT, n = sk_min(a->out - first, SK_TILE_OUT);
    float *y = a->y + rows.first * a->y_stride + first;
    if (a->w) {
        sk_matrix_read(panel, &a->w[group], first * a->in, n * a->in);
        sk_gemm_nt(y, a->y_stride, a->x + rows.first * a->in, a->in, panel, a->in, rows.count, n,
                   a->in, 1, 0);
    }
    if (a->a)
        sk_gemm_nt(y, a->y_stride, a->t + rows.first * a->rank, a->rank,
                   a->b + group * a->b_stride + first * a->rank, a->rank, rows.count, n, a->rank,
                   a->scale, a->w ? 1 : 0);
}

int sk_linear_forward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_linear_forward *a = args;
    (void)err;
    int64_t row_tiles = a->a ? sk_tiles(a->rows, SK_TILE_ROWS) : 0;
    int64_t out_tiles = sk_tiles(a->out, SK_TILE_OUT);
    uint64_t scratch = sk_scratch_bytes(SK_TILE_OUT * a->in);
    float *dropped = (float *)((char *)a->workspace + (uint64_t)ctx->threads * scratch);
    struct drop d = {a->dropout, a->site, a->first_row * a->in};
#pragma omp parallel num_threads(ctx->threads)
    {
        float *panel = (float *)((char *)a->workspace + (uint64_t)omp_get_thread_num() * scratch);
        if (a->dropout) {
#pragma omp for schedule(static)
            for (int64_t row = 0; row < a->rows; row++)
                drop(dropped, a->x, row * a->in, a->in, d, false);
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < a->groups * row_tiles; i++)
            forward_t_tile(a, a->dropout ? dropped : a->x, i / row_tiles, i % row_tiles);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < a->groups * out_tiles; i++)
            forward_out_tile(a, i / out_tiles, i % out_tiles, panel);
    }
    return SF_OK;
}

/* ---- backward ---- */

uint64_t sk_linear_backward_measure_cpu(const void *args, int threads)
{
    const struct sk_linear_backward *a = args;
    (void)threads;
    return sk_scratch_bytes(SK_TILE_PANEL * a->in) + sk_scratch_bytes(a->rows * a->rank) +
           dropped_bytes(a->dropout, a->rows, a->in);
}

struct backward {
    const struct sk_linear_backward *a;
    float *panel; /* [SK_TILE_PANEL, in] of W, shared by all threads */
    float *u;     /* [rows, rank] = scale * dy B */
    float *room;  /* [rows, in] with dropout: u A, then what A got */
    struct drop drop;
};

/* A tile of dx (SK_TILE_ROWS x SK_TILE_PANEL) += dy[:, first .. first + n] * the panel. */
static void backward_dx_tile(const struct backward *s, struct span rows, int64_t tile,
                             int64_t first, int64_t n)
{
    const struct sk_linear_backward *a = s->a;
    int64_t col_tiles = sk_tiles(a->in, SK_TILE_PANEL), col = tile % col_tiles * SK_TILE_PANEL;
    int64_t start = tile / col_tiles * SK_TILE_ROWS, row = rows.first + start;
    int64_t m = sk_min(rows.count - start, SK_TILE_ROWS);
    float beta = first == 0 && !a->accumulate_dx ? 0 : 1;
    sk_gemm_nn(a->dx + row * a->in + col, a->in, a->dy + row * a->y_stride + first, a->y_stride,
               s->panel + col, a->in, m, sk_min(a->in - col, SK_TILE_PANEL), n, 1, beta);
}

/* Called by every thread of the team: the loops inside are shared, their ends are barriers. */
static void backward_dx(const struct backward *s, int64_t group, struct span rows)
{
    const struct sk_linear_backward *a = s->a;
    int64_t tiles = sk_tiles(rows.count, SK_TILE_ROWS) * sk_tiles(a->in, SK_TILE_PANEL);
    for (int64_t first = 0; first < a->out; first += SK_TILE_PANEL) {
        int64_t n = sk_min(a->out - first, SK_TILE_PANEL), strips = sk_tiles(n, SK_TILE_OUT);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < strips; i++) {
            int64_t at = i * SK_TILE_OUT, height = sk_min(n - at, SK_TILE_OUT);
            sk_matrix_read(s->panel + at * a->in, &a->w[group], (first + at) * a->in,
                           height * a->in);
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tiles; i++)
            backward_dx_tile(s, rows, i, first, n);
    }
}

static void backward_lora_rows(const struct backward *s, int64_t group, struct span rows,
                               int64_t tile)
{
    const struct sk_linear_backward *a = s->a;
    int64_t start = tile * SK_TILE_ROWS, row = rows.first + start;
    int64_t m = sk_min(rows.count - start, SK_TILE_ROWS);
    float *u = s->u + row * a->rank;
    sk_gemm_nn(u, a->rank, a->dy + row * a->y_stride, a->y_stride, a->b + group * a->b_stride,
               a->rank, m, a->rank, a->out, a->scale, 0);
    float *dx = a->dropout ? s->room : a->dx;
    bool add = a->w || a->accumulate_dx;
    if (a->dx)
        sk_gemm_nn(dx + row * a->in, a->in, u, a->rank, a->a + group * a->a_stride, a->in, m, a->in,
                   a->rank, 1, add && !a->dropout ? 1 : 0);
    if (a->dx && a->dropout)
        drop(a->dx, s->room, row * a->in, m * a->in, s->drop, add);
}

static void backward_db_tile(const struct backward *s, int64_t group, struct span rows,
                             int64_t tile)
{
    const struct sk_linear_backward *a = s->a;
    int64_t first = tile * SK_TILE_OUT, n = sk_min(a->out - first, SK_TILE_OUT);
    sk_gemm_tn(a->db + group * a->b_stride + first * a->rank, a->rank,
               a->dy + rows.first * a->y_stride + first, a->y_stride, a->t + rows.first * a->rank,
               a->rank, n, a->rank, rows.count, a->scale, 1);
}

static void backward_da_tile(const struct backward *s, int64_t group, struct span rows,
                             int64_t tile)
{
    const struct sk_linear_backward *a = s->a;
    int64_t first = tile * SK_TILE_OUT, n = sk_min(a->in - first, SK_TILE_OUT);
    const float *x = a->dropout ? s->room : a->x;
    sk_gemm_tn(a->da + group * a->a_stride + first, a->in, s->u + rows.first * a->rank, a->rank,
               x + rows.first * a->in + first, a->in, a->rank, n, rows.count, 1, 1);
}

static void backward_lora(const struct backward *s, int64_t group, struct span rows)
{
    const struct sk_linear_backward *a = s->a;
    int64_t row_tiles = sk_tiles(rows.count, SK_TILE_ROWS);
    int64_t out_tiles = sk_tiles(a->out, SK_TILE_OUT), in_tiles = sk_tiles(a->in, SK_TILE_OUT);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < row_tiles; i++)
        backward_lora_rows(s, group, rows, i);
    if (a->dropout) {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < a->rows; row++)
            drop(s->room, a->x, row * a->in, a->in, s->drop, false);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < out_tiles + in_tiles; i++) {
        if (i < out_tiles)
            backward_db_tile(s, group, rows, i);
        else
            backward_da_tile(s, group, rows, i - out_tiles);
    }
}

int sk_linear_backward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_linear_backward *a = args;
    (void)err;
    struct backward s = {
        .a = a, .panel = a->workspace, .drop = {a->dropout, a->site, a->first_row * a->in}};
    s.u = (float *)((char *)a->workspace + sk_scratch_bytes(SK_TILE_PANEL * a->in));
    s.room = (float *)((char *)s.u + sk_scratch_bytes(a->rows * a->rank));
#pragma omp parallel num_threads(ctx->threads)
    for (int64_t group = 0; group < a->groups; group++) {
        struct span rows = group_rows(a->offsets, group, a->rows);
        if (rows.count == 0)
            continue;
        if (a->dx && a->w)
            backward_dx(&s, group, rows);
        if (a->a)
            backward_lora(&s, group, rows);
    }
    return SF_OK;
}
