#include "kernels/adamw.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu_table.h"
#include "kernels/matrix_cpu.h"

enum { CHUNK = 4096 }; /* gradients whose squares are summed before the sums are */

uint64_t sk_grad_norm_measure_cpu(const void *args, int threads)
{
    const struct sk_grad_norm *a = args;
    (void)threads;
    return sk_scratch_bytes(sk_tiles(a->count, CHUNK) * 2);
}

int sk_grad_norm_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_grad_norm *a = args;
    (void)err;
    int64_t chunks = sk_tiles(a->count, CHUNK);
    double *partial = a->workspace, total = 0;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t c = 0; c < chunks; c++) {
        double sum = 0;
        for (int64_t i = c * CHUNK; i < sk_min((c + 1) * CHUNK, a->count); i++)
            sum += (double)a->grad[i] * a->grad[i];
        partial[c] = sum;
    }
    for (int64_t c = 0; c < chunks; c++)
        total += partial[c];
    double norm = sqrt(total), clip = (double)a->max_norm / (norm + 1e-6);
    *a->norm = (float)norm;
    *a->clip = a->max_norm <= 0 || clip > 1 ? 1 : (float)clip;
    return SF_OK;
}

int sk_adamw_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_adamw *a = args;
    (void)err;
    double lr = a->hyper->learning_rate, t = (double)a->hyper->step;
    float decay = (float)(1 - lr * a->weight_decay), clip = *a->clip;
    float step_size = (float)(lr / (1 - pow(a->beta1, t)));
    float bias2_root = (float)sqrt(1 - pow(a->beta2, t)), epsilon = (float)a->epsilon;
    float rest1 = (float)(1 - a->beta1), beta2 = (float)a->beta2, rest2 = (float)(1 - a->beta2);
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t i = 0; i < a->count; i++) {
        float g = a->grad[i] * clip, p = a->parameter[i] * decay;
        float m = a->m[i] + (g - a->m[i]) * rest1;
        float v = a->v[i] * beta2 + rest2 * g * g;
        a->m[i] = m;
        a->v[i] = v;
        a->parameter[i] = p - step_size * (m / (sqrtf(v) / bias2_root + epsilon));
    }
    return SF_OK;
}

int sk_fill_zero_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_fill_zero *a = args;
    (void)ctx, (void)err;
    memset(a->data, 0, (size_t)a->bytes);
    return SF_OK;
}
