#include "kernels/qk.h"

#include <math.h>
#include <stddef.h>

#include "kernels/cpu_table.h"

/* Turns adjacent pairs by position * inv_freq; direction -1 turns back. The angle is a float32
 * product, as in transformers: late positions feel its rounding. */
static void rotate(float *v, int64_t head_size, int32_t position, const float *inv_freq,
                   float direction)
{
    for (int64_t j = 0; j < head_size / 2; j++) {
        float angle = (float)position * inv_freq[j];
        float c = cosf(angle), s = direction * sinf(angle);
        float a = v[2 * j], b = v[2 * j + 1];
        v[2 * j] = a * c - b * s;
        v[2 * j + 1] = a * s + b * c;
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

static void forward_heads(float *v, float *rstd, int64_t heads, int32_t position,
                          const float *inv_freq, const struct sk_qk_shape *s)
{
    for (int64_t h = 0; h < heads; h++, v += s->head_size) {
        if (s->rope)
            rotate(v, s->head_size, position, inv_freq, 1);
        if (s->norm)
            rstd[h] = normalize(v, s->head_size, s->epsilon);
    }
}

int sk_qk_forward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_qk_forward *a = args;
    const struct sk_qk_shape *s = &a->shape;
    (void)err;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < s->rows; r++) {
        float *q = a->q + r * s->heads * s->head_size, *k = a->k + r * s->kv_heads * s->head_size;
        forward_heads(q, s->norm ? a->q_rstd + r * s->heads : NULL, s->heads, a->positions[r],
                      a->inv_freq, s);
        forward_heads(k, s->norm ? a->k_rstd + r * s->kv_heads : NULL, s->kv_heads, a->positions[r],
                      a->inv_freq, s);
        if (s->temperature)
            scale_vector(q, s->heads * s->head_size, temperature_of(s, a->positions[r]));
    }
    return SF_OK;
}

static void backward_heads(float *d, const float *v, const float *rstd, int64_t heads,
                           int32_t position, const float *inv_freq, const struct sk_qk_shape *s)
{
    for (int64_t h = 0; h < heads; h++, d += s->head_size) {
        if (s->norm)
            normalize_backward(d, v + h * s->head_size, rstd[h], s->head_size);
        if (s->rope)
            rotate(d, s->head_size, position, inv_freq, -1);
    }
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
        if (s->temperature)
            scale_vector(a->dq + q_at, s->heads * s->head_size, temperature_of(s, a->positions[r]));
        backward_heads(a->dq + q_at, a->q ? a->q + q_at : NULL,
                       s->norm ? a->q_rstd + r * s->heads : NULL, s->heads, a->positions[r],
                       a->inv_freq, s);
        backward_heads(a->dk + k_at, a->k ? a->k + k_at : NULL,
                       s->norm ? a->k_rstd + r * s->kv_heads : NULL, s->kv_heads, a->positions[r],
                       a->inv_freq, s);
    }
    return SF_OK;
}
