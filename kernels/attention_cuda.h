/* attention_cuda.h -- what the attention kernels share: who sees whom, and the shape as they take it.
 *
 * Tiles are runs of rows, whatever documents they hold. lo[i] is the first key that query i sees,
 * hi[j] the end of the queries that see key j: both grow with the row, so what a tile of queries
 * needs are the keys lo[its first row] .. its last row, and the rest is a mask (lo[i] <= j <= i, or
 * j <= i < hi[j]). Documents and chunks are known nowhere else. Private to the CUDA filling. */
#ifndef SCOUT_KERNELS_ATTENTION_CUDA_H
#define SCOUT_KERNELS_ATTENTION_CUDA_H

#include "kernels/attention.h"
#include "kernels/cuda_math.cuh"

struct sk_attention_bounds {
    const int32_t *lo, *hi; /* [rows] */
};

/* Operands of a forward (o, lse written) or a backward (o unused, lse read). */
struct sk_attention_tensors {
    const bf16 *q, *k, *v, *d_o;
    bf16 *o, *dq, *dk, *dv;
    float *lse;
    const float *delta; /* [rows, heads]: <do, o> */
    sk_attention_bounds bounds;
    int rows, heads, kv_heads, head_size;
    float scale;
};

enum { SK_ATTENTION_LONGEST_HEAD = 256 };

/* Tensor cores; head_size is a multiple of 8, at most 128. */
int sk_attention_forward_tiles(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err);
int sk_attention_backward_tiles(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err);
/* The same on wgmma, for compute capability 9.0; there only where the build is for sm_90a. */
bool sk_attention_has_hopper(void);
int sk_attention_forward_hopper(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err);
int sk_attention_backward_hopper(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err);
/* A warp a row: any head_size up to SK_ATTENTION_LONGEST_HEAD, slow. */
int sk_attention_forward_plain(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err);
int sk_attention_backward_plain(const sk_attention_tensors *t, cudaStream_t stream, sf_err *err);

#endif
