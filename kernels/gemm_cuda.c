#include "kernels/gemm_cuda.h"

#include <limits.h>

#include "kernels/cuda_fault.h"
#include "kernels/cuda_private.h"

/* As SK_CUDA_TRY of cuda_call.h. */
#define BLAS(call) (sk_cuda_injected(#call) ? CUBLAS_STATUS_EXECUTION_FAILED : (call))

uint64_t sk_blas_bytes(void)
{
    return SK_CUDA_BLAS_BYTES;
}

static int check_blas(cublasStatus_t status, const char *call, struct sf_err *err)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return SF_OK;
    return sf_fail(err, status == CUBLAS_STATUS_ALLOC_FAILED ? SF_ENOMEM : SF_ECUDA, "%s: %s", call,
                   cublasGetStatusString(status));
}

/* Our own workspace: the same memory, and so the same products, in every run. */
int sk_blas_start(struct sk_cuda *cuda, struct sf_err *err)
{
    int code = sk_device_alloc(&cuda->blas_workspace, SK_CUDA_BLAS_BYTES, "cuBLAS", err);
    if (!code)
        code = check_blas(BLAS(cublasCreate(&cuda->blas)), "cublasCreate", err);
    if (!code)
        code = check_blas(BLAS(cublasSetStream(cuda->blas, cuda->stream)), "cublasSetStream", err);
    if (!code)
        code = check_blas(
            BLAS(cublasSetWorkspace(cuda->blas, cuda->blas_workspace, SK_CUDA_BLAS_BYTES)),
            "cublasSetWorkspace", err);
    /* Where a sum is split, its parts stay float32 until they are added. */
    if (!code)
        code = check_blas(
            BLAS(cublasSetMathMode(cuda->blas, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)),
            "cublasSetMathMode", err);
    return code;
}

void sk_blas_stop(struct sk_cuda *cuda)
{
    if (cuda->blas)
        cublasDestroy(cuda->blas);
    sk_device_free(cuda->blas_workspace);
}

static bool fits(const struct sk_gemm *g)
{
    return g->m <= INT_MAX && g->n <= INT_MAX && g->k <= INT_MAX && g->c_stride <= INT_MAX &&
           g->a_stride <= INT_MAX && g->b_stride <= INT_MAX;
}

/* cuBLAS counts columns first: what is [m, n] here is [n, m] there. So it is asked for c turned,
 * which is op(b) turned times op(a) turned: the operands change places, and an operand that does not
 * lie turned here needs no turning there. */
int sk_gemm_cuda(struct sk_ctx *ctx, const struct sk_gemm *g, struct sf_err *err)
{
    if (!fits(g))
        return sf_fail(err, SF_EUNSUPPORTED, "a product of [%lld, %lld] by [%lld, %lld] is too big",
                       (long long)g->m, (long long)g->k, (long long)g->k, (long long)g->n);
    cublasStatus_t status =
        BLAS(cublasGemmEx(ctx->cuda->blas, g->b_turned ? CUBLAS_OP_T : CUBLAS_OP_N,
                          g->a_turned ? CUBLAS_OP_T : CUBLAS_OP_N, (int)g->n, (int)g->m, (int)g->k,
                          &g->alpha, g->b, CUDA_R_16BF, (int)g->b_stride, g->a, CUDA_R_16BF,
                          (int)g->a_stride, &g->beta, g->c, g->c_float ? CUDA_R_32F : CUDA_R_16BF,
                          (int)g->c_stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    if (status == CUBLAS_STATUS_SUCCESS)
        return SF_OK;
    return sf_fail(err, SF_ECUDA, "cublasGemmEx of [%lld, %lld] by [%lld, %lld]: %s",
                   (long long)g->m, (long long)g->k, (long long)g->k, (long long)g->n,
                   cublasGetStatusString(status));
}
