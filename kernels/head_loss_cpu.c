#include "kernels/head_loss.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu_table.h"
#include "kernels/gemm_cpu.h"
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

uint64_t sk_head_loss_measure_cpu(const void *args, int threads)
{
    const struct sk_head_loss *a = args;
    int64_t rows = sk_min(chunk_rows(a->vocabulary), a->rows);
    return sk_scratch_bytes(rows * a->vocabulary) + sk_scratch_bytes(rows * 2) +
           head_bytes(a, threads);
}

struct chunk {
    const struct sk_head_loss *a;
    int64_t first, rows;
    float *logits; /* [rows, vocabulary] */
    double *loss;  /* [rows] */
    char *head;    /* head_bytes() */
};

static void logits_of_strip(const struct chunk *c, int64_t first, float *strip)
{
    const struct sk_head_loss *a = c->a;
    int64_t n = sk_min(a->vocabulary - first, SK_TILE_OUT);
    sk_matrix_read(strip, a->head, first * a->hidden, n * a->hidden);
    sk_gemm_nt(c->logits + first, a->vocabulary, a->x + c->first * a->hidden, a->hidden, strip,
               a->hidden, c->rows, n, a->hidden, 1, 0);
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

static void run_chunk(const struct chunk *c)
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
    int code = check_targets(a, err);
    if (code != SF_OK)
        return code;
    int64_t most = sk_min(chunk_rows(a->vocabulary), a->rows);
    struct chunk c = {.a = a, .logits = a->workspace};
    c.loss = (double *)((char *)a->workspace + sk_scratch_bytes(most * a->vocabulary));
    c.head = (char *)c.loss + sk_scratch_bytes(most * 2);
    *a->loss = 0;
    for (c.first = 0; c.first < a->rows; c.first += most) {
        c.rows = sk_min(a->rows - c.first, most);
        if (!a->logits && !has_target(&c)) {
            skip_chunk(&c);
            continue;
        }
#pragma omp parallel num_threads(ctx->threads)
        run_chunk(&c);
        for (int64_t r = 0; r < c.rows; r++) {
            a->token_loss[c.first + r] = (float)c.loss[r];
            *a->loss += c.loss[r];
        }
    }
    return SF_OK;
}
