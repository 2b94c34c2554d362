/* cpu_table.h -- the functions that ops_cpu.c puts into the table; each lives in its <stem>_cpu.c
 * and does what the stem's header says. */
#ifndef SCOUT_KERNELS_CPU_TABLE_H
#define SCOUT_KERNELS_CPU_TABLE_H

#include "kernels/ops.h"

typedef int sk_run_fn(struct sk_ctx *ctx, const void *args, struct sf_err *err);
typedef uint64_t sk_measure_fn(const void *args, int threads);

sk_run_fn sk_embed_forward_cpu, sk_rmsnorm_forward_cpu, sk_rmsnorm_backward_cpu;
sk_run_fn sk_linear_forward_cpu, sk_linear_backward_cpu;
sk_measure_fn sk_linear_forward_measure_cpu, sk_linear_backward_measure_cpu;
sk_run_fn sk_qk_forward_cpu, sk_qk_backward_cpu;
sk_run_fn sk_attention_forward_cpu, sk_attention_backward_cpu, sk_attention_cached_cpu;
sk_measure_fn sk_attention_forward_measure_cpu, sk_attention_backward_measure_cpu;
sk_run_fn sk_route_forward_cpu, sk_route_backward_cpu, sk_combine_forward_cpu,
    sk_combine_backward_cpu;
sk_run_fn sk_swiglu_forward_cpu, sk_swiglu_backward_cpu;
sk_run_fn sk_head_loss_cpu;
sk_measure_fn sk_head_loss_measure_cpu;
sk_run_fn sk_transfer_begin_cpu, sk_transfer_end_cpu;
sk_run_fn sk_grad_norm_cpu, sk_adamw_cpu, sk_adamw_8bit_cpu, sk_fill_zero_cpu;
sk_measure_fn sk_grad_norm_measure_cpu;

#endif
