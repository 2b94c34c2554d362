#include "kernels/dropout_cuda.h"

#include "kernels/row_cuda.cuh"

enum { THREADS = 256 };

/* A thread has one quad: what one draw of the generator decides. */
static __global__ void __launch_bounds__(THREADS)
    drop_elements(bf16 *out, const bf16 *x, int64_t count, sk_dropout d, uint32_t site,
                  int64_t before, bool add)
{
    int64_t quad = before / 4 + (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t first = 4 * quad - before; /* below 0 where the first quad is cut */
    if (first >= count)
        return;
    float factor[4];
    sk_dropout_factors(factor, d, site, (uint64_t)quad);
    for (int i = first < 0 ? (int)-first : 0; i < 4 && first + i < count; i++) {
        float there = add ? __bfloat162float(out[first + i]) : 0;
        out[first + i] = __float2bfloat16(there + factor[i] * __bfloat162float(x[first + i]));
    }
}

extern "C" int sk_dropout_cuda(struct sk_ctx *ctx, uint16_t *out, const uint16_t *x, int64_t count,
                               struct sk_drop drop, struct sf_err *err)
{
    int64_t quads = (drop.before % 4 + count + 3) / 4;
    drop_elements<<<(unsigned)((quads + THREADS - 1) / THREADS), THREADS, 0, ctx->cuda->stream>>>(
        (bf16 *)out, (const bf16 *)x, count, *drop.dropout, drop.site, drop.before, drop.add);
    SK_LAUNCHED("drop_elements", err);
    return SF_OK;
}
