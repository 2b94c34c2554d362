#include "kernels/route.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu_table.h"
#include "kernels/matrix_cpu.h"

enum { SPAN = 1024 }; /* elements of a router row that are expanded at once */

static float router_logit(const float *x, const struct sk_matrix *router, int64_t expert,
                          int64_t hidden)
{
    float w[SPAN];
    double sum = 0;
    for (int64_t first = 0; first < hidden; first += SPAN) {
        int64_t n = sk_min(hidden - first, SPAN);
        sk_matrix_read(w, router, expert * hidden + first, n);
        for (int64_t i = 0; i < n; i++)
            sum += (double)x[first + i] * w[i];
    }
    return (float)sum;
}

/* The largest logit, the lowest index on a tie; -1 if one is NaN. */
static int32_t best_expert(const float *logits, int64_t experts)
{
    int32_t best = 0;
    for (int64_t e = 0; e < experts; e++) {
        if (isnan(logits[e]))
            return -1;
        if (logits[e] > logits[best])
            best = (int32_t)e;
    }
    return best;
}

/* Counts, prefix sums, then slots in token order: a stable counting sort, serial on purpose. */
static void sort_by_expert(const struct sk_route_forward *a)
{
    memset(a->offsets, 0, (size_t)(a->experts + 1) * sizeof *a->offsets);
    for (int64_t r = 0; r < a->rows; r++)
        a->slot[r] = a->offsets[a->expert[r] + 1]++; /* rank within its expert, for now */
    for (int64_t e = 0; e < a->experts; e++)
        a->offsets[e + 1] += a->offsets[e];
    for (int64_t r = 0; r < a->rows; r++)
        a->slot[r] += a->offsets[a->expert[r]];
}

int sk_route_forward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_route_forward *a = args;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        float *logits = a->logits + r * a->experts;
        for (int64_t e = 0; e < a->experts; e++)
            logits[e] = router_logit(a->x + r * a->hidden, a->router, e, a->hidden) +
                        (a->lora ? a->lora[r * a->experts + e] : 0);
        a->expert[r] = best_expert(logits, a->experts);
        if (a->expert[r] >= 0)
            a->score[r] = 1 / (1 + expf(-logits[a->expert[r]]));
    }
    for (int64_t r = 0; r < a->rows; r++)
        if (a->expert[r] < 0)
            return sf_fail(err, SF_ENUMERIC, "a router logit of token %lld is NaN", (long long)r);
    sort_by_expert(a);
    if (a->host_offsets)
        memcpy(a->host_offsets, a->offsets, (size_t)(a->experts + 1) * sizeof *a->offsets);
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *x = a->x + r * a->hidden;
        float *u = a->u + a->slot[r] * a->hidden;
        for (int64_t i = 0; i < a->hidden; i++)
            u[i] = a->score[r] * x[i];
    }
    return SF_OK;
}

static void backward_row(const struct sk_route_backward *a, int64_t r)
{
    const float *x = a->x + r * a->hidden, *du = a->du + a->slot[r] * a->hidden;
    float *dx = a->dx ? a->dx + r * a->hidden : NULL, s = a->score[r], w[SPAN];
    double ds = 0;
    for (int64_t i = 0; i < a->hidden; i++)
        ds += (double)du[i] * x[i];
    float dz = (float)(ds * (double)s * (1 - (double)s));
    for (int64_t e = 0; a->dz && e < a->experts; e++)
        a->dz[r * a->experts + e] = e == a->expert[r] ? dz : 0;
    for (int64_t first = 0; dx && first < a->hidden; first += SPAN) {
        int64_t n = sk_min(a->hidden - first, SPAN);
        sk_matrix_read(w, a->router, a->expert[r] * a->hidden + first, n);
        for (int64_t i = 0; i < n; i++)
            dx[first + i] += s * du[first + i] + dz * w[i];
    }
}

int sk_route_backward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_route_backward *a = args;
    (void)err;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++)
        backward_row(a, r);
    return SF_OK;
}

int sk_combine_forward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_combine_forward *a = args;
    (void)err;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *shared = a->shared + r * a->hidden;
        const float *routed = a->routed + a->slot[r] * a->hidden;
        for (int64_t i = 0; i < a->hidden; i++)
            a->y[r * a->hidden + i] = shared[i] + routed[i];
    }
    return SF_OK;
}

int sk_combine_backward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_combine_backward *a = args;
    (void)err;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++)
        memcpy(a->d_routed + a->slot[r] * a->hidden, a->dy + r * a->hidden,
               (size_t)a->hidden * sizeof *a->dy);
    return SF_OK;
}
