#include "kernels/product_cuda.h"

#include "kernels/gemm_cuda.h"
#include "kernels/nf4_cuda.h"

int sk_matrix_product_cuda(struct sk_ctx *ctx, const struct sk_product *p, struct sf_err *err)
{
    int64_t out = p->w->rows, in = p->w->cols;
    const uint16_t *weights;
    int code = sk_matrix_halves_cuda(&weights, ctx, p->scratch, p->w, 0, out * in, err);
    if (code)
        return code;
    struct sk_gemm product = {.c = p->to,
                              .a = p->from,
                              .b = weights,
                              .c_stride = p->to_stride,
                              .a_stride = p->from_stride,
                              .b_stride = in,
                              .m = p->rows,
                              .n = p->across ? in : out,
                              .k = p->across ? out : in,
                              .alpha = 1,
                              .beta = p->accumulate ? 1 : 0,
                              .b_turned = !p->across};
    return sk_gemm_cuda(ctx, &product, err);
}
