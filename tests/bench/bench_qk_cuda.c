#include "kernels/qk.h"
#include "tests/bench/bench_cuda.h"

/* Scout's shapes. */
enum { ROWS = 4096, HEADS = 40, KV_HEADS = 8, HEAD = 128 };

void bench_qk(void)
{
    static int32_t positions[ROWS];
    int64_t nq = (int64_t)ROWS * HEADS * HEAD, nk = (int64_t)ROWS * KV_HEADS * HEAD;
    for (int i = 0; i < ROWS; i++)
        positions[i] = i;
    struct sk_qk_shape s = {.rows = ROWS,
                            .heads = HEADS,
                            .kv_heads = KV_HEADS,
                            .head_size = HEAD,
                            .rope = true,
                            .norm = true,
                            .epsilon = 1e-5f};
    struct sk_qk_forward f = {.q = bench_halves(nq, 1),
                              .k = bench_halves(nk, 1),
                              .q_rstd = bench_room(4ull * ROWS * HEADS),
                              .k_rstd = bench_room(4ull * ROWS * KV_HEADS),
                              .positions = bench_ints(positions, ROWS),
                              .inv_freq = bench_floats(HEAD / 2, 0.1f),
                              .shape = s};
    struct sk_qk_backward b = {.dq = bench_halves(nq, 1),
                               .dk = bench_halves(nk, 1),
                               .q = f.q,
                               .k = f.k,
                               .q_rstd = f.q_rstd,
                               .k_rstd = f.k_rstd,
                               .positions = f.positions,
                               .inv_freq = f.inv_freq,
                               .shape = s};
    double bytes = 2.0 * (double)(nq + nk);
    bench_op(SK_QK_FORWARD, "4096 rows, rope and norm", sk_qk_forward_cuda, NULL, &f,
             (struct bench_cost){0, 2 * bytes});
    bench_op(SK_QK_BACKWARD, "4096 rows, rope and norm", sk_qk_backward_cuda, NULL, &b,
             (struct bench_cost){0, 3 * bytes});
    bench_clear();
}
