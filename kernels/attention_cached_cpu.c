#include "kernels/attention_cached.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu_table.h"
#include "kernels/matrix_cpu.h"

static void keep_rows(const struct sk_attention_cached *a, int64_t start)
{
    int64_t width = a->kv_heads * a->head_size, count = sk_min(a->rows, a->room - start);
    if (count <= 0)
        return;
    memcpy(a->k_cache + start * width, a->k, (size_t)(count * width) * sizeof *a->k);
    memcpy(a->v_cache + start * width, a->v, (size_t)(count * width) * sizeof *a->v);
}

static float dot(const float *a, const float *b, int64_t n)
{
    float sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* One pass over the keys: what was summed up shrinks when a larger score comes. */
static void attend(const struct sk_attention_cached *a, int64_t row, int64_t head, int64_t position)
{
    int64_t d = a->head_size, width = a->kv_heads * d, kv = head / (a->heads / a->kv_heads) * d;
    int64_t first = a->chunk > 0 ? position / a->chunk * a->chunk : 0;
    const float *q = a->q + (row * a->heads + head) * d;
    float *o = a->o + (row * a->heads + head) * d, most = -INFINITY;
    double sum = 0;
    memset(o, 0, (size_t)d * sizeof *o);
    for (int64_t j = first; j <= position && position < a->room; j++) {
        const float *v = a->v_cache + j * width + kv;
        float score = a->scale * dot(q, a->k_cache + j * width + kv, d);
        float larger = score > most ? score : most;
        float shrink = expf(most - larger), p = expf(score - larger);
        for (int64_t e = 0; e < d; e++)
            o[e] = o[e] * shrink + p * v[e];
        sum = sum * (double)shrink + (double)p;
        most = larger;
    }
    float inverse = sum > 0 ? (float)(1 / sum) : 0;
    for (int64_t e = 0; e < d; e++)
        o[e] *= inverse;
}

int sk_attention_cached_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_attention_cached *a = args;
    int64_t start = a->rows > 0 ? a->positions[0] : 0, tasks = a->rows * a->heads;
    if (start < 0)
        return sf_fail(err, SF_EINVAL, "a row at position %lld", (long long)start);
    keep_rows(a, start);
#pragma omp parallel for schedule(static) num_threads(ctx->threads)
    for (int64_t i = 0; i < tasks; i++)
        attend(a, i / a->heads, i % a->heads, start + i / a->heads);
    return SF_OK;
}
