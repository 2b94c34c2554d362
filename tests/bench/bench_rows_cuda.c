#include <stdio.h>

#include "kernels/adamw_8bit.h"
#include "kernels/rmsnorm.h"
#include "kernels/route.h"
#include "kernels/swiglu.h"
#include "tests/bench/bench_cuda.h"

/* Scout's shapes; parameters: LoRA of rank 64 on attention and shared expert, a quarter of them. */
enum { ROWS = 4096, HIDDEN = 5120, WIDTH = 8192, EXPERTS = 16, PARAMETERS = 56 << 20 };

static const double row_bytes = 2.0 * ROWS * HIDDEN;

static struct bench_cost touches(double bytes)
{
    return (struct bench_cost){0, bytes};
}

static void bench_norm(void)
{
    const struct sk_matrix *weight = bench_matrices(SK_FORMAT_BF16, 1, 1, HIDDEN);
    struct sk_rmsnorm_forward f = {.y = bench_room(2ull * ROWS * HIDDEN),
                                   .sum = bench_room(2ull * ROWS * HIDDEN),
                                   .rstd = bench_floats(ROWS, 1),
                                   .x = bench_halves((int64_t)ROWS * HIDDEN, 1),
                                   .delta = bench_halves((int64_t)ROWS * HIDDEN, 1),
                                   .weight = weight,
                                   .rows = ROWS,
                                   .cols = HIDDEN,
                                   .epsilon = 1e-5f};
    bench_op(SK_RMSNORM_FORWARD, "4096 x 5120, delta, sum", sk_rmsnorm_forward_cuda, NULL, &f,
             touches(4 * row_bytes));
    struct sk_rmsnorm_backward b = {.ds = f.y,
                                    .dy = f.x,
                                    .sum = f.sum,
                                    .rstd = f.rstd,
                                    .residual = f.delta,
                                    .weight = weight,
                                    .rows = ROWS,
                                    .cols = HIDDEN};
    bench_op(SK_RMSNORM_BACKWARD, "4096 x 5120, residual", sk_rmsnorm_backward_cuda, NULL, &b,
             touches(4 * row_bytes));
    bench_clear();
}

static void bench_swiglu(void)
{
    const double bytes = 2.0 * ROWS * WIDTH;
    uint16_t *both = bench_halves(2ll * ROWS * WIDTH, 1);
    uint16_t *to = bench_room(4ull * ROWS * WIDTH);
    struct sk_swiglu_forward f = {.h = bench_room(2ull * ROWS * WIDTH),
                                  .gate = (sk_act *)both,
                                  .up = (sk_act *)(both + WIDTH),
                                  .rows = ROWS,
                                  .width = WIDTH,
                                  .stride = 2 * WIDTH};
    bench_op(SK_SWIGLU_FORWARD, "4096 x 8192", sk_swiglu_forward_cuda, NULL, &f,
             touches(3 * bytes));
    struct sk_swiglu_backward b = {.d_gate = (sk_act *)to,
                                   .d_up = (sk_act *)(to + WIDTH),
                                   .dh = f.h,
                                   .gate = f.gate,
                                   .up = f.up,
                                   .rows = ROWS,
                                   .width = WIDTH,
                                   .stride = 2 * WIDTH};
    bench_op(SK_SWIGLU_BACKWARD, "4096 x 8192", sk_swiglu_backward_cuda, NULL, &b,
             touches(5 * bytes));
    bench_clear();
}

/* Forward reads x twice: for the logits, and to move it. */
static void bench_route(void)
{
    struct sk_route_forward f = {.u = bench_room(2ull * ROWS * HIDDEN),
                                 .logits = bench_room(4ull * ROWS * EXPERTS),
                                 .score = bench_room(4ull * ROWS),
                                 .expert = bench_room(4ull * ROWS),
                                 .slot = bench_room(4ull * ROWS),
                                 .offsets = bench_room(4ull * (EXPERTS + 1)),
                                 .x = bench_halves((int64_t)ROWS * HIDDEN, 1),
                                 .router = bench_matrices(SK_FORMAT_BF16, 1, EXPERTS, HIDDEN),
                                 .rows = ROWS,
                                 .hidden = HIDDEN,
                                 .experts = EXPERTS};
    bench_op(SK_ROUTE_FORWARD, "4096 x 5120, 16 experts", sk_route_forward_cuda,
             sk_route_forward_measure_cuda, &f, touches(3 * row_bytes));
    struct sk_route_backward b = {.dx = bench_halves((int64_t)ROWS * HIDDEN, 1),
                                  .du = f.u,
                                  .x = f.x,
                                  .score = f.score,
                                  .expert = f.expert,
                                  .slot = f.slot,
                                  .router = f.router,
                                  .rows = ROWS,
                                  .hidden = HIDDEN,
                                  .experts = EXPERTS};
    bench_op(SK_ROUTE_BACKWARD, "4096 x 5120, 16 experts", sk_route_backward_cuda, NULL, &b,
             touches(4 * row_bytes));
    struct sk_combine_forward c = {.y = bench_room(2ull * ROWS * HIDDEN),
                                   .shared = f.x,
                                   .routed = f.u,
                                   .slot = f.slot,
                                   .rows = ROWS,
                                   .hidden = HIDDEN};
    bench_op(SK_COMBINE_FORWARD, "4096 x 5120", sk_combine_forward_cuda, NULL, &c,
             touches(3 * row_bytes));
    struct sk_combine_backward d = {
        .d_routed = c.y, .dy = f.x, .slot = f.slot, .rows = ROWS, .hidden = HIDDEN};
    bench_op(SK_COMBINE_BACKWARD, "4096 x 5120", sk_combine_backward_cuda, NULL, &d,
             touches(2 * row_bytes));
    bench_clear();
}

static void bench_update(void)
{
    const double bytes = 4.0 * PARAMETERS;
    struct sk_adamw_hyper *hyper = bench_room(sizeof *hyper);
    struct sk_grad_norm n = {.norm = bench_room(4),
                             .clip = bench_room(4),
                             .grad = bench_floats(PARAMETERS, 1),
                             .count = PARAMETERS,
                             .max_norm = 1};
    const struct sk_adamw_hyper first = {.learning_rate = 1e-4, .step = 1};
    struct sf_err err = {0};
    bench_check(sk_device_write(hyper, &first, sizeof first, &err), &err);
    bench_op(SK_GRAD_NORM, "56 Mi parameters", sk_grad_norm_cuda, sk_grad_norm_measure_cuda, &n,
             touches(bytes));
    struct sk_adamw a = {.parameter = bench_floats(PARAMETERS, 1),
                         .m = bench_floats(PARAMETERS, 0),
                         .v = bench_floats(PARAMETERS, 0),
                         .grad = n.grad,
                         .clip = n.clip,
                         .hyper = hyper,
                         .count = PARAMETERS,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .epsilon = 1e-8,
                         .weight_decay = 0.01};
    bench_op(SK_ADAMW, "56 Mi parameters", sk_adamw_cuda, NULL, &a, touches(7 * bytes));
    struct sk_adamw_8bit b = {.parameter = a.parameter,
                              .m = bench_room(PARAMETERS),
                              .v = bench_room(PARAMETERS),
                              .m_scale = bench_floats(PARAMETERS / SK_ADAMW_BLOCK, 0),
                              .v_scale = bench_floats(PARAMETERS / SK_ADAMW_BLOCK, 0),
                              .grad = n.grad,
                              .clip = n.clip,
                              .hyper = hyper,
                              .count = PARAMETERS,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .weight_decay = 0.01};
    bench_op(SK_ADAMW_8BIT, "56 Mi parameters", sk_adamw_8bit_cuda, NULL, &b, touches(4 * bytes));
    bench_clear();
}

void bench_rows(void)
{
    bench_norm();
    bench_swiglu();
    bench_route();
    bench_update();
}
