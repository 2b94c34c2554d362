#include "kernels/qk.h"

#include <math.h>

#include "kernels/cpu_table.h"
#include "kernels/matrix_cpu.h"

enum { SPAN = 128 }; /* pairs whose sines are held at once: they serve all heads of a row */

struct turn {
    int64_t first, pairs;
    float cosine[SPAN], sine[SPAN];
};

/* The angle is a float32 product, as in transformers: late positions feel its rounding. */
static void fill_turn(struct turn *t, int32_t position, const float *inv_freq, float direction)
{
    for (int64_t j = 0; j < t->pairs; j++) {
        float angle = (float)position * inv_freq[t->first + j];
        t->cosine[j] = cosf(angle);
        t->sine[j] = direction * sinf(angle);
    }
}

static void turn_heads(float *v, int64_t heads, int64_t head_size, const struct turn *t)
{
    for (int64_t h = 0; h < heads; h++) {
        float *pair = v + h * head_size + 2 * t->first;
        for (int64_t j = 0; j < t->pairs; j++, pair += 2) {
            float a = pair[0], b = pair[1], c = t->cosine[j], s = t->sine[j];
            pair[0] = a * c - b * s;
            pair[1] = a * s + b * c;
        }
    }
}

/* Turns the adjacent pairs of one row's heads by position * inv_freq; direction -1 turns back. */
static void rotate(float *q, float *k, const struct sk_qk_shape *s, int32_t position,
                   const float *inv_freq, float direction)
{
    struct turn t;
    for (t.first = 0; t.first < s->head_size / 2; t.first += SPAN) {
        t.pairs = sk_min(s->head_size / 2 - t.first, SPAN);
        fill_turn(&t, position, inv_freq, direction);
        turn_heads(q, s->heads, s->head_size, &t);
        turn_heads(k, s->kv_heads, s->head_size, &t);
    }
}

static float normalize(float *v, int64_t head_size, float epsilon)
{
    double squares = 0;
    for (int64_t i = 0; i < head_size; i++)
        squares += (double)v[i] * v[i];
    float rstd = (float)(1 / sqrt(squares / (double)head_size + (double)epsilon));
    for (int64_t i = 0; i < head_size; i++)
        v[i] *= rstd;
    return rstd;
}

/* n is the normalized vector: dx = rstd * (dn - n * mean(dn * n)). */
static void normalize_backward(float *d, const float *n, float rstd, int64_t head_size)
{
    double sum = 0;
    for (int64_t i = 0; i < head_size; i++)
        sum += (double)d[i] * n[i];
    float mean = (float)(sum / (double)head_size);
    for (int64_t i = 0; i < head_size; i++)
        d[i] = rstd * (d[i] - n[i] * mean);
}

static float temperature_of(const struct sk_qk_shape *s, int32_t position)
{
    float steps = floorf(((float)position + 1) / s->temperature_floor);
    return 1 + s->temperature_scale * log1pf(steps);
}

static void scale_vector(float *v, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++)
        v[i] *= factor;
}

static void normalize_heads(float *v, float *rstd, int64_t heads, const struct sk_qk_shape *s)
{
    for (int64_t h = 0; h < heads; h++)
        rstd[h] = normalize(v + h * s->head_size, s->head_size, s->epsilon);
}

int sk_qk_forward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_qk_forward *a = args;
    const struct sk_qk_shape *s = &a->shape;
    (void)err;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < s->rows; r++) {
        float *q = a->q + r * s->heads * s->head_size, *k = a->k + r * s->kv_heads * s->head_size;
        if (s->rope)
            rotate(q, k, s, a->positions[r], a->inv_freq, 1);
        if (s->norm) {
            normalize_heads(q, a->q_rstd + r * s->heads, s->heads, s);
            normalize_heads(k, a->k_rstd + r * s->kv_heads, s->kv_heads, s);
        }
        if (s->temperature)
            scale_vector(q, s->heads * s->head_size, temperature_of(s, a->positions[r]));
    }
    return SF_OK;
}

static void normalize_heads_backward(float *d, const float *n, const float *rstd, int64_t heads,
                                     const struct sk_qk_shape *s)
{
    for (int64_t h = 0; h < heads; h++)
        normalize_backward(d + h * s->head_size, n + h * s->head_size, rstd[h], s->head_size);
}

int sk_qk_backward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_qk_backward *a = args;
    const struct sk_qk_shape *s = &a->shape;
    if (s->norm && s->temperature) /* the kept q would be the scaled one, not the normalized one */
        return sf_fail(err, SF_EUNSUPPORTED,
                       "query norm and temperature on one layer: Llama 4 has one or the other");
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < s->rows; r++) {
        int64_t q_at = r * s->heads * s->head_size, k_at = r * s->kv_heads * s->head_size;
        float *dq = a->dq + q_at, *dk = a->dk + k_at;
        if (s->temperature)
            scale_vector(dq, s->heads * s->head_size, temperature_of(s, a->positions[r]));
        if (s->norm) {
            normalize_heads_backward(dq, a->q + q_at, a->q_rstd + r * s->heads, s->heads, s);
            normalize_heads_backward(dk, a->k + k_at, a->k_rstd + r * s->kv_heads, s->kv_heads, s);
        }
        if (s->rope)
            rotate(dq, dk, s, a->positions[r], a->inv_freq, -1);
    }
    return SF_OK;
}
