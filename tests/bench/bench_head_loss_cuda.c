#include <stdio.h>

#include "kernels/gemm_cuda.h"
#include "kernels/head_loss.h"
#include "tests/bench/bench_cuda.h"

/* Scout's shapes. */
enum { ROWS = 4096, HIDDEN = 5120, VOCABULARY = 202048 };

/* `every`: of so many rows one has a target. */
static void bench_targets(const char *what, int every, bool dx)
{
    static int32_t targets[ROWS];
    double rows = 0;
    for (int i = 0; i < ROWS; i++) {
        targets[i] = i % every ? SK_IGNORE_INDEX : (int32_t)((int64_t)i * 7919 % VOCABULARY);
        rows += i % every == 0;
    }
    struct sk_head_loss a = {.dx = dx ? bench_room(2ull * ROWS * HIDDEN) : NULL,
                             .token_loss = bench_room(4ull * ROWS),
                             .loss = bench_room(sizeof(double)),
                             .x = bench_halves((int64_t)ROWS * HIDDEN, 1),
                             .head = bench_matrices(SK_FORMAT_BF16, 1, VOCABULARY, HIDDEN),
                             .targets = bench_ints(targets, ROWS),
                             .host_targets = targets,
                             .gradient_scale = bench_floats(1, 1e-4f),
                             .rows = ROWS,
                             .hidden = HIDDEN,
                             .vocabulary = VOCABULARY};
    bench_op(SK_HEAD_LOSS, what, sk_head_loss_cuda, sk_head_loss_measure_cuda, &a,
             (struct bench_cost){(dx ? 4.0 : 2.0) * rows * HIDDEN * VOCABULARY, 0});
    bench_clear();
}

static void run_product(void *arg)
{
    struct sf_err err = {0};
    bench_check(sk_gemm_cuda(&bench_ctx, arg, &err), &err);
}

/* The two products of a chunk alone: what a chunk of other rows would give. */
static void bench_products(int64_t rows)
{
    char what[64];
    struct sk_gemm logits = {.c = bench_room(4 * (uint64_t)rows * VOCABULARY),
                             .a = bench_halves(rows * HIDDEN, 1),
                             .b = bench_halves((int64_t)VOCABULARY * HIDDEN, 0.02f),
                             .c_stride = VOCABULARY,
                             .a_stride = HIDDEN,
                             .b_stride = HIDDEN,
                             .m = rows,
                             .n = VOCABULARY,
                             .k = HIDDEN,
                             .alpha = 1,
                             .b_turned = true,
                             .c_float = true};
    struct sk_gemm dx = {.c = bench_room(4 * (uint64_t)rows * HIDDEN),
                         .a = logits.c,
                         .b = logits.b,
                         .c_stride = HIDDEN,
                         .a_stride = 2 * VOCABULARY,
                         .b_stride = HIDDEN,
                         .m = rows,
                         .n = HIDDEN,
                         .k = VOCABULARY,
                         .alpha = 1,
                         .c_float = true};
    struct bench_cost cost = {2.0 * (double)rows * HIDDEN * VOCABULARY, 0};
    snprintf(what, sizeof what, "logits of %lld rows", (long long)rows);
    bench_row("product", what, run_product, &logits, cost);
    snprintf(what, sizeof what, "dx of %lld rows", (long long)rows);
    bench_row("product", what, run_product, &dx, cost);
    bench_clear();
}

void bench_head_loss(void)
{
    bench_products(256);
    bench_products(384);
    bench_products(512);
    bench_targets("with gradient", 1, true);
    bench_targets("loss only", 1, false);
    bench_targets("gradient, 1 of 4 rows", 4, true);
}
