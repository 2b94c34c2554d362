#include <cblas.h>
#include <math.h>

#include "kernels/cpu_table.h"

static uint64_t no_workspace(const void *args, int threads)
{
    (void)args, (void)threads;
    return 0;
}

static const struct sk_ops table = {
    .name = "cpu",
    .run =
        {
            [SK_EMBED_FORWARD] = sk_embed_forward_cpu,
            [SK_RMSNORM_FORWARD] = sk_rmsnorm_forward_cpu,
            [SK_RMSNORM_BACKWARD] = sk_rmsnorm_backward_cpu,
            [SK_LINEAR_FORWARD] = sk_linear_forward_cpu,
            [SK_LINEAR_BACKWARD] = sk_linear_backward_cpu,
            [SK_QK_FORWARD] = sk_qk_forward_cpu,
            [SK_QK_BACKWARD] = sk_qk_backward_cpu,
            [SK_ATTENTION_FORWARD] = sk_attention_forward_cpu,
            [SK_ATTENTION_BACKWARD] = sk_attention_backward_cpu,
            [SK_ROUTE_FORWARD] = sk_route_forward_cpu,
            [SK_ROUTE_BACKWARD] = sk_route_backward_cpu,
            [SK_SWIGLU_FORWARD] = sk_swiglu_forward_cpu,
            [SK_SWIGLU_BACKWARD] = sk_swiglu_backward_cpu,
            [SK_COMBINE_FORWARD] = sk_combine_forward_cpu,
            [SK_COMBINE_BACKWARD] = sk_combine_backward_cpu,
            [SK_HEAD_LOSS] = sk_head_loss_cpu,
            [SK_GRAD_NORM] = sk_grad_norm_cpu,
            [SK_ADAMW] = sk_adamw_cpu,
            [SK_FILL_ZERO] = sk_fill_zero_cpu,
        },
    .measure =
        {
            [SK_EMBED_FORWARD] = no_workspace,
            [SK_RMSNORM_FORWARD] = no_workspace,
            [SK_RMSNORM_BACKWARD] = no_workspace,
            [SK_LINEAR_FORWARD] = sk_linear_forward_measure_cpu,
            [SK_LINEAR_BACKWARD] = sk_linear_backward_measure_cpu,
            [SK_QK_FORWARD] = no_workspace,
            [SK_QK_BACKWARD] = no_workspace,
            [SK_ATTENTION_FORWARD] = sk_attention_forward_measure_cpu,
            [SK_ATTENTION_BACKWARD] = sk_attention_backward_measure_cpu,
            [SK_ROUTE_FORWARD] = no_workspace,
            [SK_ROUTE_BACKWARD] = no_workspace,
            [SK_SWIGLU_FORWARD] = no_workspace,
            [SK_SWIGLU_BACKWARD] = no_workspace,
            [SK_COMBINE_FORWARD] = no_workspace,
            [SK_COMBINE_BACKWARD] = no_workspace,
            [SK_HEAD_LOSS] = sk_head_loss_measure_cpu,
            [SK_GRAD_NORM] = sk_grad_norm_measure_cpu,
            [SK_ADAMW] = no_workspace,
            [SK_FILL_ZERO] = no_workspace,
        },
};

const struct sk_ops *sk_ops_cpu(void)
{
    return &table;
}

enum { PROBE = 67 }; /* odd, and longer than any register block: tails are where old builds fail */

static float probe_value(int i)
{
    return (float)((i * 37 + 11) % 101 - 50) / 64;
}

/* Worst |sgemm - loop| over the largest |loop| for one pair of transposes. */
static double probe_sgemm(int transpose_a, int transpose_b)
{
    float a[PROBE * PROBE], b[PROBE * PROBE], c[PROBE * PROBE];
    for (int i = 0; i < PROBE * PROBE; i++) {
        a[i] = probe_value(i);
        b[i] = probe_value(i * 3 + 1);
        c[i] = 1;
    }
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                transpose_b ? CblasTrans : CblasNoTrans, PROBE, PROBE, PROBE, 0.5f, a, PROBE, b,
                PROBE, 1, c, PROBE);
    double worst = 0, largest = 0;
    for (int i = 0; i < PROBE; i++) {
        for (int j = 0; j < PROBE; j++) {
            double sum = 0;
            for (int k = 0; k < PROBE; k++)
                sum += (double)(transpose_a ? a[k * PROBE + i] : a[i * PROBE + k]) *
                       (transpose_b ? b[j * PROBE + k] : b[k * PROBE + j]);
            double want = 1 + 0.5 * sum, off = fabs(want - c[i * PROBE + j]);
            worst = off <= worst ? worst : off; /* a NaN wins */
            largest = fmax(largest, fabs(want));
        }
    }
    return worst / largest;
}

int sk_cpu_start(struct sk_ctx *ctx, int threads, struct sf_err *err)
{
    openblas_set_num_threads(1); /* ours are the outer threads: their number must not show */
    *ctx = (struct sk_ctx){.threads = threads < 1 ? 1 : threads};
    for (int pair = 0; pair < 4; pair++) {
        double error = probe_sgemm(pair & 1, pair >> 1);
        if (!(error < 1e-5))
            return sf_fail(
                err, SF_EUNSUPPORTED,
                "this OpenBLAS (%s) multiplies wrongly on this processor: relative error "
                "%.3g in a %dx%d product; try another OPENBLAS_CORETYPE",
                openblas_get_config(), error, PROBE, PROBE);
    }
    return SF_OK;
}
