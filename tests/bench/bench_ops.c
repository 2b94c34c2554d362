/* Times each op of the CPU table at tiny-scout's shapes beside its bound on this machine.
 *
 *     bench_ops [THREADS]        all processors if not given
 *
 * Products are held against a square sgemm's rate on one thread, the rest against memcpy's rate for
 * the bytes that the op must touch; "share" is bound / time. */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/embed.h"
#include "kernels/gemm_cpu.h"
#include "kernels/head_loss.h"
#include "kernels/linear.h"
#include "kernels/qk.h"
#include "kernels/rmsnorm.h"
#include "kernels/route.h"
#include "kernels/swiglu.h"
#include "libformat/base/clock.h"
#include "libformat/base/mem.h"
#include "tests/kernels/kit.h"

enum {
    ROWS = 2048,
    HIDDEN = 256,
    HEADS = 4,
    KV_HEADS = 2,
    HEAD = 64,
    EXPERTS = 4,
    WIDTH = 256,
    VOCABULARY = 2064,
    RANK = 16,
    DOCUMENT = 512,
    CHUNK = 128,
    PARAMETERS = 1 << 20
};

static struct sk_ctx ctx;
static struct kit kit;
static double flops_per_s, bytes_per_s; /* one thread */

typedef void work_fn(void *arg);

/* Best of the runs that fit into a third of a second, at least three. */
static double seconds_of(work_fn *work, void *arg)
{
    double best = INFINITY, start = sf_clock_seconds();
    work(arg); /* pages and threads are there after this */
    for (int i = 0; i < 3 || sf_clock_seconds() - start < 0.33; i++) {
        double before = sf_clock_seconds();
        work(arg);
        best = fmin(best, sf_clock_seconds() - before);
    }
    return best;
}

/* ---- bounds ---- */

enum { SIDE = 512, COPY = 32 << 20 };

static void run_sgemm(void *arg)
{
    float **m = arg;
    sk_gemm_nt(m[0], SIDE, m[1], SIDE, m[2], SIDE, SIDE, SIDE, SIDE, 1, 0);
}

static void run_copy(void *arg)
{
    char **m = arg;
    memcpy(m[0], m[1], COPY);
}

static void measure_bounds(void)
{
    kit_begin(&kit, 1);
    float *m[3] = {kit_in(&kit, SIDE * SIDE, 1), kit_in(&kit, SIDE * SIDE, 1),
                   kit_in(&kit, SIDE * SIDE, 1)};
    char *c[2] = {kit_bytes(&kit, COPY, false), kit_bytes(&kit, COPY, false)};
    flops_per_s = 2.0 * SIDE * SIDE * SIDE / seconds_of(run_sgemm, m);
    bytes_per_s = 2.0 * COPY / seconds_of(run_copy, c); /* read and written */
    kit_end(&kit);
}

/* ---- rows ---- */

struct op_run {
    enum sk_op op;
    void *args;
};

static void run_op(void *arg)
{
    struct op_run *r = arg;
    struct sf_err err = {0};
    if (sk_ops_cpu()->run[r->op](&ctx, r->args, &err) != SF_OK) {
        fprintf(stderr, "%s: %s\n", sk_op_info(r->op)->name, err.message);
        exit(1);
    }
}

/* cost: flops of a product, or bytes. Prints one line and frees the row's operands. */
static void report(const char *what, enum sk_op op, void *args, double cost, bool is_product)
{
    const struct sk_op_info *info = sk_op_info(op);
    uint64_t bytes = sk_ops_cpu()->measure[op](args, ctx.threads);
    if (info->has_workspace)
        ((void **)args)[info->operands - 1] = kit_bytes(&kit, bytes, true);
    struct op_run r = {op, args};
    double seconds = seconds_of(run_op, &r);
    printf("%-20s %-18s %9.3f ms %8.2f %s %6.0f %%\n", info->name, what, 1e3 * seconds,
           1e-9 * cost / seconds, is_product ? "GFLOP/s" : "GB/s   ",
           100 * cost / (is_product ? flops_per_s : bytes_per_s) / seconds);
    kit_end(&kit);
    kit_begin(&kit, 1);
}

static int32_t *steps(int64_t count, int64_t step)
{
    int32_t *out = kit_ints(&kit, count + 1);
    for (int64_t i = 0; i <= count; i++)
        out[i] = (int32_t)(i * step);
    return out;
}

static int32_t *cycle(int64_t count, int64_t modulus)
{
    int32_t *out = kit_ints(&kit, count);
    for (int64_t i = 0; i < count; i++)
        out[i] = (int32_t)(i * 7 % modulus);
    return out;
}

static void bench_linear(const char *what, int64_t in, int64_t out, int64_t groups, int64_t rank)
{
    struct sk_linear_forward f = {.y = kit_out(&kit, ROWS * out),
                                  .t = kit_out(&kit, ROWS * rank),
                                  .x = kit_in(&kit, ROWS * in, 1),
                                  .w = kit_matrices(&kit, SK_FORMAT_NF4_NESTED, groups, out, in),
                                  .a = rank ? kit_in(&kit, groups * rank * in, 1) : NULL,
                                  .b = rank ? kit_in(&kit, groups * rank * out, 1) : NULL,
                                  .offsets = steps(groups, ROWS / groups),
                                  .rows = ROWS,
                                  .in = in,
                                  .out = out,
                                  .groups = groups,
                                  .rank = rank,
                                  .y_stride = out,
                                  .a_stride = rank * in,
                                  .b_stride = rank * out,
                                  .scale = 1};
    double lora = 2.0 * ROWS * (double)(rank * (in + out)), dense = 2.0 * ROWS * (double)(in * out);
    report(what, SK_LINEAR_FORWARD, &f, dense + lora, true);
    struct sk_linear_backward b = {.dx = kit_out(&kit, ROWS * in),
                                   .da = rank ? kit_inout(&kit, groups * rank * in, 1) : NULL,
                                   .db = rank ? kit_inout(&kit, groups * rank * out, 1) : NULL,
                                   .dy = kit_in(&kit, ROWS * out, 1),
                                   .x = kit_in(&kit, ROWS * in, 1),
                                   .t = kit_in(&kit, ROWS * rank, 1),
                                   .w = kit_matrices(&kit, SK_FORMAT_NF4_NESTED, groups, out, in),
                                   .a = rank ? kit_in(&kit, groups * rank * in, 1) : NULL,
                                   .b = rank ? kit_in(&kit, groups * rank * out, 1) : NULL,
                                   .offsets = steps(groups, ROWS / groups),
                                   .rows = ROWS,
                                   .in = in,
                                   .out = out,
                                   .groups = groups,
                                   .rank = rank,
                                   .y_stride = out,
                                   .a_stride = rank * in,
                                   .b_stride = rank * out,
                                   .scale = 1};
    report(what, SK_LINEAR_BACKWARD, &b, dense + 2 * lora, true);
}

static void bench_attention(const char *what, int64_t chunk)
{
    struct sk_attention_shape s = {.rows = ROWS,
                                   .documents = ROWS / DOCUMENT,
                                   .heads = HEADS,
                                   .kv_heads = KV_HEADS,
                                   .head_size = HEAD,
                                   .longest = DOCUMENT,
                                   .chunk = chunk,
                                   .scale = 0.125f};
    int64_t nq = ROWS * HEADS * HEAD, nk = ROWS * KV_HEADS * HEAD;
    double seen = (double)(chunk ? chunk : DOCUMENT) / 2; /* keys of a query, about */
    double product = 2.0 * ROWS * HEADS * HEAD * seen;
    struct sk_attention_forward f = {.o = kit_out(&kit, nq),
                                     .lse = kit_out(&kit, ROWS * HEADS),
                                     .q = kit_in(&kit, nq, 1),
                                     .k = kit_in(&kit, nk, 1),
                                     .v = kit_in(&kit, nk, 1),
                                     .documents = steps(s.documents, DOCUMENT),
                                     .shape = s};
    report(what, SK_ATTENTION_FORWARD, &f, 2 * product, true);
    struct sk_attention_backward b = {.dq = kit_out(&kit, nq),
                                      .dk = kit_out(&kit, nk),
                                      .dv = kit_out(&kit, nk),
                                      .d_o = kit_in(&kit, nq, 1),
                                      .o = kit_in(&kit, nq, 1),
                                      .lse = kit_in(&kit, ROWS * HEADS, 1),
                                      .q = kit_in(&kit, nq, 0.1f),
                                      .k = kit_in(&kit, nk, 0.1f),
                                      .v = kit_in(&kit, nk, 1),
                                      .documents = steps(s.documents, DOCUMENT),
                                      .shape = s};
    report(what, SK_ATTENTION_BACKWARD, &b, 5 * product, true);
}

static void bench_qk(void)
{
    struct sk_qk_shape s = {.rows = ROWS,
                            .heads = HEADS,
                            .kv_heads = KV_HEADS,
                            .head_size = HEAD,
                            .rope = true,
                            .norm = true,
                            .epsilon = 1e-5f};
    int64_t nq = ROWS * HEADS * HEAD, nk = ROWS * KV_HEADS * HEAD;
    struct sk_qk_forward f = {.q = kit_inout(&kit, nq, 1),
                              .k = kit_inout(&kit, nk, 1),
                              .q_rstd = kit_out(&kit, ROWS * HEADS),
                              .k_rstd = kit_out(&kit, ROWS * KV_HEADS),
                              .positions = cycle(ROWS, DOCUMENT),
                              .inv_freq = kit_in(&kit, HEAD / 2, 1),
                              .shape = s};
    report("rope, norm", SK_QK_FORWARD, &f, 8.0 * (double)(nq + nk), false);
    struct sk_qk_backward b = {.dq = kit_inout(&kit, nq, 1),
                               .dk = kit_inout(&kit, nk, 1),
                               .q = kit_in(&kit, nq, 1),
                               .k = kit_in(&kit, nk, 1),
                               .q_rstd = kit_in(&kit, ROWS * HEADS, 1e-3f),
                               .k_rstd = kit_in(&kit, ROWS * KV_HEADS, 1e-3f),
                               .positions = cycle(ROWS, DOCUMENT),
                               .inv_freq = kit_in(&kit, HEAD / 2, 1),
                               .shape = s};
    report("rope, norm", SK_QK_BACKWARD, &b, 12.0 * (double)(nq + nk), false);
}

static void bench_rmsnorm(void)
{
    int64_t n = ROWS * HIDDEN;
    struct sk_rmsnorm_forward f = {.y = kit_out(&kit, n),
                                   .sum = kit_out(&kit, n),
                                   .rstd = kit_out(&kit, ROWS),
                                   .x = kit_in(&kit, n, 1),
                                   .delta = kit_in(&kit, n, 1),
                                   .weight = kit_matrices(&kit, SK_FORMAT_BF16, 1, 1, HIDDEN),
                                   .rows = ROWS,
                                   .cols = HIDDEN,
                                   .epsilon = 1e-5f};
    report("with residual", SK_RMSNORM_FORWARD, &f, 16.0 * (double)n, false);
    struct sk_rmsnorm_backward b = {.ds = kit_inout(&kit, n, 1),
                                    .dy = kit_in(&kit, n, 1),
                                    .sum = kit_in(&kit, n, 1),
                                    .rstd = kit_in(&kit, ROWS, 1),
                                    .weight = kit_matrices(&kit, SK_FORMAT_BF16, 1, 1, HIDDEN),
                                    .rows = ROWS,
                                    .cols = HIDDEN};
    b.residual = b.ds;
    report("in place", SK_RMSNORM_BACKWARD, &b, 16.0 * (double)n, false);
}

static void bench_route(void)
{
    int64_t n = ROWS * HIDDEN;
    double product = 2.0 * (double)n * EXPERTS;
    struct sk_route_forward f = {.u = kit_out(&kit, n),
                                 .logits = kit_out(&kit, ROWS * EXPERTS),
                                 .score = kit_out(&kit, ROWS),
                                 .expert = kit_out_ints(&kit, ROWS),
                                 .slot = kit_out_ints(&kit, ROWS),
                                 .offsets = kit_out_ints(&kit, EXPERTS + 1),
                                 .x = kit_in(&kit, n, 1),
                                 .router = kit_matrices(&kit, SK_FORMAT_BF16, 1, EXPERTS, HIDDEN),
                                 .rows = ROWS,
                                 .hidden = HIDDEN,
                                 .experts = EXPERTS};
    report("", SK_ROUTE_FORWARD, &f, product, true);
    struct sk_route_backward b = {.dx = kit_inout(&kit, n, 1),
                                  .du = kit_in(&kit, n, 1),
                                  .x = kit_in(&kit, n, 1),
                                  .score = kit_in(&kit, ROWS, 1),
                                  .expert = cycle(ROWS, EXPERTS),
                                  .slot = cycle(ROWS, ROWS),
                                  .router = kit_matrices(&kit, SK_FORMAT_BF16, 1, EXPERTS, HIDDEN),
                                  .rows = ROWS,
                                  .hidden = HIDDEN,
                                  .experts = EXPERTS};
    report("", SK_ROUTE_BACKWARD, &b, 16.0 * (double)n, false);
    struct sk_combine_forward c = {.y = kit_out(&kit, n),
                                   .shared = kit_in(&kit, n, 1),
                                   .routed = kit_in(&kit, n, 1),
                                   .slot = cycle(ROWS, ROWS),
                                   .rows = ROWS,
                                   .hidden = HIDDEN};
    report("", SK_COMBINE_FORWARD, &c, 12.0 * (double)n, false);
    struct sk_combine_backward d = {.d_routed = kit_out(&kit, n),
                                    .dy = kit_in(&kit, n, 1),
                                    .slot = cycle(ROWS, ROWS),
                                    .rows = ROWS,
                                    .hidden = HIDDEN};
    report("", SK_COMBINE_BACKWARD, &d, 8.0 * (double)n, false);
}

static void bench_swiglu(void)
{
    int64_t n = ROWS * WIDTH;
    struct sk_swiglu_forward f = {
        .h = kit_out(&kit, n), .rows = ROWS, .width = WIDTH, .stride = 2 * WIDTH};
    f.gate = kit_in(&kit, 2 * n, 1);
    f.up = f.gate + WIDTH;
    report("", SK_SWIGLU_FORWARD, &f, 12.0 * (double)n, false);
    struct sk_swiglu_backward b = {.d_gate = kit_inout(&kit, 2 * n, 1e-3f),
                                   .dh = kit_in(&kit, n, 1e-3f),
                                   .gate = kit_in(&kit, 2 * n, 1),
                                   .rows = ROWS,
                                   .width = WIDTH,
                                   .stride = 2 * WIDTH};
    b.d_up = b.d_gate + WIDTH;
    b.up = b.gate + WIDTH;
    report("", SK_SWIGLU_BACKWARD, &b, 20.0 * (double)n, false);
}

static void bench_head_loss(const char *what, bool dx)
{
    float *scale = kit_in(&kit, 1, 0);
    *scale = 1.0f / ROWS;
    struct sk_head_loss h = {.dx = dx ? kit_out(&kit, ROWS * HIDDEN) : NULL,
                             .token_loss = kit_out(&kit, ROWS),
                             .loss = kit_bytes(&kit, sizeof(double), true),
                             .x = kit_in(&kit, ROWS * HIDDEN, 1),
                             .head = kit_matrices(&kit, SK_FORMAT_BF16, 1, VOCABULARY, HIDDEN),
                             .targets = cycle(ROWS, VOCABULARY),
                             .gradient_scale = scale,
                             .rows = ROWS,
                             .hidden = HIDDEN,
                             .vocabulary = VOCABULARY};
    report(what, SK_HEAD_LOSS, &h, (dx ? 4.0 : 2.0) * ROWS * HIDDEN * VOCABULARY, true);
}

static void bench_update(void)
{
    struct sk_grad_norm g = {.norm = kit_out(&kit, 1),
                             .clip = kit_out(&kit, 1),
                             .grad = kit_in(&kit, PARAMETERS, 1),
                             .count = PARAMETERS,
                             .max_norm = 1};
    report("1 Mi parameters", SK_GRAD_NORM, &g, 4.0 * PARAMETERS, false);
    struct sk_adamw_hyper *hyper = kit_bytes(&kit, sizeof *hyper, false);
    *hyper = (struct sk_adamw_hyper){.learning_rate = 1e-4, .step = 5};
    struct sk_adamw a = {.parameter = kit_inout(&kit, PARAMETERS, 1),
                         .m = kit_inout(&kit, PARAMETERS, 0),
                         .v = kit_inout(&kit, PARAMETERS, 0),
                         .grad = kit_in(&kit, PARAMETERS, 1),
                         .clip = kit_in(&kit, 1, 1),
                         .hyper = hyper,
                         .count = PARAMETERS,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .epsilon = 1e-8};
    report("1 Mi parameters", SK_ADAMW, &a, 28.0 * PARAMETERS, false);
    struct sk_fill_zero z = {.data = kit_out(&kit, PARAMETERS), .bytes = 4 * PARAMETERS};
    report("1 Mi floats", SK_FILL_ZERO, &z, 4.0 * PARAMETERS, false);
}

static void bench_embed(void)
{
    struct sk_embed_forward e = {.y = kit_out(&kit, ROWS * HIDDEN),
                                 .ids = cycle(ROWS, VOCABULARY),
                                 .table = kit_matrices(&kit, SK_FORMAT_BF16, 1, VOCABULARY, HIDDEN),
                                 .rows = ROWS,
                                 .hidden = HIDDEN};
    report("bf16", SK_EMBED_FORWARD, &e, 6.0 * ROWS * HIDDEN, false);
}

int main(int argc, char **argv)
{
    struct sf_err err = {0};
    int threads = argc > 1 ? atoi(argv[1]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (sk_cpu_start(&ctx, threads, &err) != SF_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    measure_bounds();
    printf("%d threads; one thread: sgemm %.1f GFLOP/s, memcpy %.1f GB/s; %d tokens, hidden %d\n",
           ctx.threads, 1e-9 * flops_per_s, 1e-9 * bytes_per_s, ROWS, HIDDEN);
    kit_begin(&kit, 1);
    bench_embed();
    bench_rmsnorm();
    bench_linear("256x256", HIDDEN, HIDDEN, 1, 0);
    bench_linear("256x256 + LoRA", HIDDEN, HIDDEN, 1, RANK);
    bench_linear("512x256 + LoRA", HIDDEN, 2 * WIDTH, 1, RANK);
    bench_linear("4 of 512x256 + LoRA", HIDDEN, 2 * WIDTH, EXPERTS, RANK);
    bench_linear("4 of 256x256 + LoRA", WIDTH, HIDDEN, EXPERTS, RANK);
    bench_qk();
    bench_attention("4 x 512, full", 0);
    bench_attention("4 x 512, chunk 128", CHUNK);
    bench_route();
    bench_swiglu();
    bench_head_loss("with gradient", true);
    bench_head_loss("loss only", false);
    bench_update();
    kit_end(&kit);
    return 0;
}
