/* product_cuda.h -- activations times one frozen matrix: the place of every product with W.
 *
 * Today W is expanded to bfloat16 in `scratch` and multiplied there by cuBLAS; a kernel that decodes
 * NF4 inside the product is to stand behind this same call. */
#ifndef SCOUT_KERNELS_PRODUCT_CUDA_H
#define SCOUT_KERNELS_PRODUCT_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/matrix.h"
#include "kernels/ops.h"
#include "kernels/rooms_cuda.h"

struct sk_product {
    uint16_t *to;                   /* [rows, w->rows]; across: [rows, w->cols] */
    const uint16_t *from;           /* [rows, w->cols]; across: [rows, w->rows] */
    const struct sk_matrix *w;      /* [out, in] */
    uint16_t *scratch;              /* sk_product_scratch() bytes, on 256 */
    int64_t to_stride, from_stride; /* elements between rows */
    int64_t rows;
    bool across;     /* false: to = from W^T, as y of x; true: to = from W, as dx of dy */
    bool accumulate; /* to += instead of to =, rounded once */
};
int sk_matrix_product_cuda(struct sk_ctx *ctx, const struct sk_product *p, struct sf_err *err);

#endif
