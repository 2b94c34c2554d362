#include "kernels/swiglu.h"

#include <math.h>

#include "kernels/cpu_table.h"

int sk_swiglu_forward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_swiglu_forward *a = args;
    (void)err;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *gate = a->gate + r * a->stride, *up = a->up + r * a->stride;
        for (int64_t i = 0; i < a->width; i++)
            a->h[r * a->width + i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    }
    return SF_OK;
}

int sk_swiglu_backward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_swiglu_backward *a = args;
    (void)err;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        for (int64_t i = 0; i < a->width; i++) {
            int64_t at = r * a->stride + i;
            float g = a->gate[at], up = a->up[at], dh = a->dh[r * a->width + i];
            float s = 1 / (1 + expf(-g));
            a->d_up[at] = dh * (g * s);
            a->d_gate[at] = dh * up * (s * (1 + g * (1 - s)));
        }
    }
    return SF_OK;
}
