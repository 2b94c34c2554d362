#include "kernels/head_loss.h"

#include <assert.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu_table.h"
#include "kernels/gemm_cpu.h"
#include "kernels/linear.h"
#include "kernels/matrix_cpu.h"

/* Rows whose logits exist at once: 64 MiB of them, within 64 .. 512 rows. */
static int64_t chunk_rows(int64_t vocabulary)
{
    int64_t rows = (16 << 20) / vocabulary;
    return rows < 64 ? 64 : rows > 512 ? 512 : rows;
}

/* Threads' strips of the head (logits), or one panel of it that all share (dx). */
static uint64_t head_bytes(const struct sk_head_loss *a, int threads)
{
    uint64_t strips = (uint64_t)threads * sk_scratch_bytes(SK_TILE_OUT * a->hidden);
    uint64_t panel = sk_scratch_bytes(SK_TILE_PANEL * a->hidden);
    return strips > panel ? strips : panel;
}

struct chunk {
    const struct sk_head_loss *a;
    int64_t first, rows;
    float *logits; /* [rows, vocabulary] */
    double *loss;  /* [rows] */
    float *t;      /* [rows, rank] */
    char *head;    /* room_bytes() */
};

/* ---- LoRA: what linear.h does without a W, a chunk at a time ---- */

static struct sk_linear_forward lora_forward(const struct chunk *c)
{
    const struct sk_head_loss *a = c->a;
    return (struct sk_linear_forward){.y = c->logits,
                                      .t = c->t,
                                      .x = a->x + c->first * a->hidden,
                                      .a = a->a,
                                      .b = a->b,
                                      .workspace = c->head,
                                      .rows = c->rows,
                                      .in = a->hidden,
                                      .out = a->vocabulary,
                                      .groups = 1,
                                      .rank = a->rank,
                                      .y_stride = a->vocabulary,
                                      .scale = a->scale,
                                      .dropout = a->dropout,
                                      .site = a->site,
                                      .first_row = c->first};
}

static struct sk_linear_backward lora_backward(const struct chunk *c)
{
    const struct sk_head_loss *a = c->a;
    return (struct sk_linear_backward){.dx = a->dx ? a->dx + c->first * a->hidden : NULL,
                                       .da = a->da,
                                       .db = a->db,
                                       .dy = c->logits,
                                       .x = a->x + c->first * a->hidden,
                                       .t = c->t,
                                       .a = a->a,
                                       .b = a->b,
                                       .workspace = c->head,
                                       .rows = c->rows,
                                       .in = a->hidden,
                                       .out = a->vocabulary,
                                       .groups = 1,
                                       .rank = a->rank,
                                       .y_stride = a->vocabulary,
                                       .scale = a->scale,
                                       .accumulate_dx = true,
                                       .dropout = a->dropout,
                                       .site = a->site,
                                       .first_row = c->first};
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The head's and LoRA's, which take turns. */
static uint64_t room_bytes(const struct sk_head_loss *a, int64_t rows, int threads)
{
    struct chunk c = {.a = a, .rows = rows};
    uint64_t bytes = head_bytes(a, threads);
    if (a->rank == 0)
        return bytes;
    struct sk_linear_forward forward = lora_forward(&c);
    struct sk_linear_backward backward = lora_backward(&c);
    bytes = larger(bytes, sk_linear_forward_measure_cpu(&forward, threads));
    return larger(bytes, sk_linear_backward_measure_cpu(&backward, threads));
}

uint64_t sk_head_loss_measure_cpu(const void *args, int threads)
{
    const struct sk_head_loss *a = args;
    int64_t rows = sk_min(chunk_rows(a->vocabulary), a->rows);
    return sk_scratch_bytes(rows * a->vocabulary) + sk_scratch_bytes(rows * 2) +
           sk_scratch_bytes(rows * a->rank) + room_bytes(a, rows, threads);
}

/* ---- a chunk ---- */

static void logits_of_strip(const struct chunk *c, int64_t first, float *strip)
{
    const struct sk_head_loss *a = c->a;
    int64_t n = sk_min(a->vocabulary - first, SK_TILE_OUT);
    sk_matrix_read(strip, a->head, first * a->hidden, n * a->hidden);
    sk_gemm_nt(c->logits + first, a->vocabulary, a->x + c->first * a->hidden, a->hidden, strip,
               a->hidden, c->rows, n, a->hidden, 1, a->a ? 1 : 0);
}

/* A tile of dx (SK_TILE_ROWS x SK_TILE_PANEL) += dz[:, first .. first + n] * the panel. */
static void dx_tile(const struct chunk *c, int64_t tile, int64_t first, int64_t n)
{
    const struct sk_head_loss *a = c->a;
    int64_t col_tiles = sk_tiles(a->hidden, SK_TILE_PANEL);
    int64_t col = tile % col_tiles * SK_TILE_PANEL, row = tile / col_tiles * SK_TILE_ROWS;
    sk_gemm_nn(a->dx + (c->first + row) * a->hidden + col, a->hidden,
               c->logits + row * a->vocabulary + first, a->vocabulary, (const float *)c->head + col,
               a->hidden, sk_min(c->rows - row, SK_TILE_ROWS),
               sk_min(a->hidden - col, SK_TILE_PANEL), n, 1, first == 0 ? 0 : 1);
}

/* Called by every thread of the team: the loops inside are shared, their ends are barriers. */
static void dx_of_panel(const struct chunk *c, int64_t first)
{
    const struct sk_head_loss *a = c->a;
    int64_t n = sk_min(a->vocabulary - first, SK_TILE_PANEL);
    int64_t tiles = sk_tiles(c->rows, SK_TILE_ROWS) * sk_tiles(a->hidden, SK_TILE_PANEL);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < sk_tiles(n, SK_TILE_OUT); i++) {
        int64_t at = i * SK_TILE_OUT;
        sk_matrix_read((float *)c->head + at * a->hidden, a->head, (first + at) * a->hidden,
                       sk_min(n - at, SK_TILE_OUT) * a->hidden);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < tiles; i++)
        dx_tile(c, i, first, n);
}

/* Loss of one row; its logits become gradient_scale * (softmax - onehot). */
static void finish_row(const struct chunk *c, int64_t r)
{
    const struct sk_head_loss *a = c->a;
    float *z = c->logits + r * a->vocabulary;
    int32_t target = a->targets[c->first + r];
    if (a->logits)
        memcpy(a->logits + (c->first + r) * a->vocabulary, z, (size_t)a->vocabulary * sizeof *z);
    c->loss[r] = 0;
    if (target == SK_IGNORE_INDEX) {
        memset(z, 0, (size_t)a->vocabulary * sizeof *z);
        return;
    }
    float largest = z[0], wanted = z[target];
    for (int64_t i = 1; i < a->vocabulary; i++)
        largest = z[i] > largest ? z[i] : largest;
    double sum = 0;
    for (int64_t i = 0; i < a->vocabulary; i++) {
        z[i] = expf(z[i] - largest);
        sum += (double)z[i];
    }
    c->loss[r] = log(sum) + (double)largest - (double)wanted;
    double over = (double)*a->gradient_scale / sum;
    double hit = ((double)z[target] - sum) * over; /* p - 1, without losing what is left of it */
    for (int64_t i = 0; i < a->vocabulary; i++)
        z[i] = (float)((double)z[i] * over);
    z[target] = (float)hit;
}

/* Called by every thread of the team. */
static void run_head(const struct chunk *c)
{
    const struct sk_head_loss *a = c->a;
    uint64_t mine = (uint64_t)omp_get_thread_num() * sk_scratch_bytes(SK_TILE_OUT * a->hidden);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < sk_tiles(a->vocabulary, SK_TILE_OUT); i++)
        logits_of_strip(c, i * SK_TILE_OUT, (float *)(c->head + mine));
#pragma omp for schedule(static)
    for (int64_t r = 0; r < c->rows; r++)
        finish_row(c, r);
    for (int64_t first = 0; a->dx && first < a->vocabulary; first += SK_TILE_PANEL)
        dx_of_panel(c, first);
}

/* What LoRA makes of the logits is there before the head adds to it. */
static int run_chunk(struct sk_ctx *ctx, const struct chunk *c, struct sf_err *err)
{
    struct sk_linear_forward forward = lora_forward(c);
    struct sk_linear_backward backward = lora_backward(c);
    int code = c->a->a ? sk_linear_forward_cpu(ctx, &forward, err) : SF_OK;
    if (code)
        return code;
#pragma omp parallel num_threads(ctx->threads)
    run_head(c);
    return c->a->da ? sk_linear_backward_cpu(ctx, &backward, err) : SF_OK;
}

static bool has_target(const struct chunk *c)
{
    for (int64_t r = 0; r < c->rows; r++)
        if (c->a->targets[c->first + r] != SK_IGNORE_INDEX)
            return true;
    return false;
}

static void skip_chunk(const struct chunk *c)
{
    const struct sk_head_loss *a = c->a;
    memset(a->token_loss + c->first, 0, (size_t)c->rows * sizeof *a->token_loss);
    if (a->dx)
        memset(a->dx + c->first * a->hidden, 0, (size_t)(c->rows * a->hidden) * sizeof *a->dx);
}

static int check_targets(const struct sk_head_loss *a, struct sf_err *err)
{
    for (int64_t r = 0; r < a->rows; r++)
        if (a->targets[r] != SK_IGNORE_INDEX &&
            (a->targets[r] < 0 || a->targets[r] >= a->vocabulary))
            return sf_fail(err, SF_EINVAL,
                           "label %d at position %lld is outside the vocabulary of %lld",
                           a->targets[r], (long long)r, (long long)a->vocabulary);
    return SF_OK;
}

int sk_head_loss_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_head_loss *a = args;
    assert(!a->a || !a->dx || a->da); /* dx would lack LoRA's part */
    int code = check_targets(a, err);
    if (code != SF_OK)
        return code;
    int64_t most = sk_min(chunk_rows(a->vocabulary), a->rows);
    struct chunk c = {.a = a, .logits = a->workspace};
    c.loss = (double *)((char *)a->workspace + sk_scratch_bytes(most * a->vocabulary));
    c.t = (float *)((char *)c.loss + sk_scratch_bytes(most * 2));
    c.head = (char *)c.t + sk_scratch_bytes(most * a->rank);
    *a->loss = 0;
    for (c.first = 0; c.first < a->rows; c.first += most) {
        c.rows = sk_min(a->rows - c.first, most);
        if (!a->logits && !has_target(&c)) {
            skip_chunk(&c);
            continue;
        }
        if ((code = run_chunk(ctx, &c, err)))
            return code;
        for (int64_t r = 0; r < c.rows; r++) {
            a->token_loss[c.first + r] = (float)c.loss[r];
            *a->loss += c.loss[r];
        }
    }
    return SF_OK;
}
