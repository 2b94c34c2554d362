#include "kernels/dropout_cuda.h"

#include "kernels/row_cuda.cuh"

enum { THREADS = 256 };

/* A thread has one quad: what one draw of the generator decides. */
static __global__ void __launch_bounds__(THREADS)
    drop(bf16 *out, const bf16 *x, int64_t count, sk_dropout d, uint32_t site, bool add)
{
    int64_t quad = (int64_t)blockIdx.x * THREADS + threadIdx.x, first = 4 * quad;
    if (first >= count)
        return;
    float factor[4];
    sk_dropout_factors(factor, d, site, (uint64_t)quad);
    for (int i = 0; i < 4 && first + i < count; i++) {
        float before = add ? __bfloat162float(out[first + i]) : 0;
        out[first + i] = __float2bfloat16(before + factor[i] * __bfloat162float(x[first + i]));
    }
}

extern "C" int sk_dropout_cuda(struct sk_ctx *ctx, uint16_t *out, const uint16_t *x, int64_t count,
                               const struct sk_dropout *dropout, uint32_t site, bool add,
                               struct sf_err *err)
{
    int64_t quads = (count + 3) / 4;
    drop<<<(unsigned)((quads + THREADS - 1) / THREADS), THREADS, 0, ctx->cuda->stream>>>(
        (bf16 *)out, (const bf16 *)x, count, *dropout, site, add);
    SK_LAUNCHED("drop", err);
    return SF_OK;
}
