#include "kernels/rmsnorm.h"

#include <math.h>

#include "kernels/cpu_table.h"
#include "kernels/matrix_cpu.h"

enum { SPAN = 1024 }; /* columns whose weight is expanded at once */

static void scale_row(float *y, const float *x, float rstd, const struct sk_matrix *weight,
                      int64_t cols)
{
    float w[SPAN];
    for (int64_t first = 0; first < cols; first += SPAN) {
        int64_t n = sk_min(cols - first, SPAN);
        sk_matrix_read(w, weight, first, n);
        for (int64_t i = 0; i < n; i++)
            y[first + i] = x[first + i] * rstd * w[i];
    }
}

int sk_rmsnorm_forward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_rmsnorm_forward *a = args;
    (void)err;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *s = a->x + r * a->cols;
        if (a->delta || a->sum) {
            float *sum = a->sum + r * a->cols;
            for (int64_t i = 0; i < a->cols; i++)
                sum[i] = a->delta ? s[i] + a->delta[r * a->cols + i] : s[i];
            s = sum;
        }
        double squares = 0;
        for (int64_t i = 0; i < a->cols; i++)
            squares += (double)s[i] * s[i];
        a->rstd[r] = (float)(1 / sqrt(squares / (double)a->cols + (double)a->epsilon));
        scale_row(a->y + r * a->cols, s, a->rstd[r], a->weight, a->cols);
    }
    return SF_OK;
}

/* mean(g * n) over a row, g = dy * weight, n = s * rstd. g is formed again by the caller: the only
 * place to keep it is ds, and that may be the residual. */
static double mean_product(const float *dy, const float *s, float rstd,
                           const struct sk_matrix *weight, int64_t cols)
{
    float w[SPAN];
    double sum = 0;
    for (int64_t first = 0; first < cols; first += SPAN) {
        int64_t n = sk_min(cols - first, SPAN);
        sk_matrix_read(w, weight, first, n);
        for (int64_t i = 0; i < n; i++)
            sum += (double)dy[first + i] * w[i] * s[first + i];
    }
    return sum * (double)rstd / (double)cols;
}

int sk_rmsnorm_backward_cpu(struct sk_ctx *ctx, const void *args, struct sf_err *err)
{
    const struct sk_rmsnorm_backward *a = args;
    (void)err;
#pragma omp parallel for num_threads(ctx->threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        const float *dy = a->dy + r * a->cols, *s = a->sum + r * a->cols;
        const float *residual = a->residual ? a->residual + r * a->cols : NULL;
        float *ds = a->ds + r * a->cols, rstd = a->rstd[r], w[SPAN];
        float mean = (float)mean_product(dy, s, rstd, a->weight, a->cols);
        for (int64_t first = 0; first < a->cols; first += SPAN) {
            int64_t n = sk_min(a->cols - first, SPAN);
            sk_matrix_read(w, a->weight, first, n);
            for (int64_t i = first; i < first + n; i++)
                ds[i] = rstd * (dy[i] * w[i - first] - s[i] * rstd * mean) +
                        (residual ? residual[i] : 0);
        }
    }
    return SF_OK;
}
