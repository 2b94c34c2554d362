#include "kernels/gemm_cpu.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/ops.h"
#include "libformat/base/mem.h"

void sk_gemm_nn(float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b,
                int64_t b_stride, int64_t m, int64_t n, int64_t k, float alpha, float beta)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
                (int)a_stride, b, (int)b_stride, beta, c, (int)c_stride);
}

void sk_gemm_nt(float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b,
                int64_t b_stride, int64_t m, int64_t n, int64_t k, float alpha, float beta)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, alpha, a,
                (int)a_stride, b, (int)b_stride, beta, c, (int)c_stride);
}

void sk_gemm_tn(float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b,
                int64_t b_stride, int64_t m, int64_t n, int64_t k, float alpha, float beta)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
                (int)a_stride, b, (int)b_stride, beta, c, (int)c_stride);
}

/* ---- the check at start ---- */

typedef void gemm_fn(float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b,
                     int64_t b_stride, int64_t m, int64_t n, int64_t k, float alpha, float beta);

static const struct {
    const char *name;
    gemm_fn *run;
    int a_transposed, b_transposed;
} products[] = {
    {"a b", sk_gemm_nn, 0, 0}, {"a b^T", sk_gemm_nt, 0, 1}, {"a^T b", sk_gemm_tn, 1, 0}};

/* Sides around and between register blocks; the last is beyond 100^3, where small paths end. */
static const struct {
    int m, n, k;
} probes[] = {{1, 1, 1}, {7, 16, 5}, {16, 67, 64}, {67, 3, 131}, {131, 97, 129}};
enum { PRODUCTS = 3, PROBES = 5, SIDE = 131 };

struct probe {
    float a[SIDE * SIDE], b[SIDE * SIDE], c[SIDE * SIDE];
};

static void fill(struct probe *p)
{
    for (int i = 0; i < SIDE * SIDE; i++) {
        p->a[i] = (float)((i * 37 + 11) % 101 - 50) / 64;
        p->b[i] = (float)((i * 53 + 29) % 97 - 48) / 64;
        p->c[i] = (float)(i % 7 - 3);
    }
}

/* Worst |product - loop| over the largest |loop|; NaN if one is. */
static double probe_error(struct probe *p, int which, int m, int n, int k)
{
    int at = products[which].a_transposed, bt = products[which].b_transposed;
    double worst = 0, largest = 0;
    fill(p);
    products[which].run(p->c, SIDE, p->a, SIDE, p->b, SIDE, m, n, k, 0.5f, 2);
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            double want = 2 * (double)((i * SIDE + j) % 7 - 3);
            for (int s = 0; s < k; s++)
                want += 0.5 * (double)p->a[at ? s * SIDE + i : i * SIDE + s] *
                        (double)p->b[bt ? j * SIDE + s : s * SIDE + j];
            double off = fabs(want - (double)p->c[i * SIDE + j]);
            worst = off <= worst ? worst : off;
            largest = fmax(largest, fabs(want));
        }
    }
    return worst / fmax(largest, 1e-3);
}

int sk_gemm_start(struct sf_err *err)
{
    openblas_set_num_threads(1); /* ours are the outer threads: their number must not show */
    void *memory;
    int code = sf_alloc_for(&memory, sizeof(struct probe), "the check of OpenBLAS", err);
    for (int i = 0; code == SF_OK && i < PRODUCTS * PROBES; i++) {
        int m = probes[i / PRODUCTS].m, n = probes[i / PRODUCTS].n, k = probes[i / PRODUCTS].k;
        double error = probe_error(memory, i % PRODUCTS, m, n, k);
        if (!(error < 1e-5))
            code = sf_fail(err, SF_EUNSUPPORTED,
                           "this OpenBLAS (%s) multiplies wrongly on this processor: %s of "
                           "m %d, n %d, k %d is off by %.3g; try another OPENBLAS_CORETYPE",
                           openblas_get_config(), products[i % PRODUCTS].name, m, n, k, error);
    }
    sf_free(memory);
    return code;
}

/* The configuration's first two words are name and version; the rest is how it was built. */
void sk_cpu_library(char text[SK_LIBRARY_TEXT])
{
    const char *config = openblas_get_config();
    size_t name = strcspn(config, " "), words = name + (config[name] == ' ');
    words += strcspn(config + words, " ");
    snprintf(text, SK_LIBRARY_TEXT, "%.*s %s", (int)words, config, openblas_get_corename());
}
