/* cuda_table.h -- the functions that ops_cuda.c puts into the table; each lives in its
 * <stem>_cuda.cu and does what the stem's header says. */
#ifndef SCOUT_KERNELS_CUDA_TABLE_H
#define SCOUT_KERNELS_CUDA_TABLE_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct sk_memory sk_memory_cuda; /* cuda_ctx.c */
extern const struct sk_stopwatch sk_stopwatch_cuda;

typedef int sk_cuda_run_fn(struct sk_ctx *ctx, const void *args, struct sf_err *err);
typedef uint64_t sk_cuda_measure_fn(const void *args, int threads);

sk_cuda_run_fn sk_embed_forward_cuda, sk_rmsnorm_forward_cuda, sk_rmsnorm_backward_cuda;
sk_cuda_run_fn sk_linear_forward_cuda, sk_linear_backward_cuda;
sk_cuda_measure_fn sk_linear_forward_measure_cuda, sk_linear_backward_measure_cuda;
sk_cuda_run_fn sk_qk_forward_cuda, sk_qk_backward_cuda;
sk_cuda_run_fn sk_attention_forward_cuda, sk_attention_backward_cuda, sk_attention_cached_cuda;
sk_cuda_measure_fn sk_attention_forward_measure_cuda, sk_attention_backward_measure_cuda;
sk_cuda_run_fn sk_route_forward_cuda, sk_route_backward_cuda, sk_combine_forward_cuda,
    sk_combine_backward_cuda;
sk_cuda_measure_fn sk_route_forward_measure_cuda;
sk_cuda_run_fn sk_swiglu_forward_cuda, sk_swiglu_backward_cuda;
sk_cuda_run_fn sk_head_loss_cuda;
sk_cuda_measure_fn sk_head_loss_measure_cuda;
sk_cuda_run_fn sk_grad_norm_cuda, sk_adamw_cuda, sk_adamw_8bit_cuda, sk_fill_zero_cuda;
sk_cuda_measure_fn sk_grad_norm_measure_cuda;
sk_cuda_run_fn sk_transfer_begin_cuda, sk_transfer_end_cuda;

#ifdef __cplusplus
}
#endif

#endif
