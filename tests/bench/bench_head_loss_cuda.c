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

void bench_head_loss(void)
{
    bench_targets("with gradient", 1, true);
    bench_targets("loss only", 1, false);
    bench_targets("gradient, 1 of 4 rows", 4, true);
}
