#include <math.h>
#include <stdio.h>

#include "kernels/attention.h"
#include "kernels/cuda_private.h"
#include "tests/bench/bench_cuda.h"

/* Scout's shapes. */
enum { HEADS = 40, KV_HEADS = 8, HEAD = 128, CHUNK = 8192 };

/* `documents` of equal length. Only what a query sees counts: causal halves are not charged. */
static void bench_length(int64_t rows, int64_t documents)
{
    char what[64];
    int32_t starts[64];
    int64_t length = rows / documents, nq = rows * HEADS * HEAD, nk = rows * KV_HEADS * HEAD;
    double seen = 0;
    for (int64_t i = 0; i <= documents; i++)
        starts[i] = (int32_t)(i * length);
    for (int64_t i = 0; i < length; i++)
        seen += (double)documents * (double)(i % CHUNK + 1);
    struct sk_attention_shape s = {.rows = rows,
                                   .documents = documents,
                                   .heads = HEADS,
                                   .kv_heads = KV_HEADS,
                                   .head_size = HEAD,
                                   .longest = length,
                                   .chunk = CHUNK,
                                   .scale = 1 / sqrtf(HEAD)};
    struct sk_attention_forward f = {.o = bench_room(2 * (uint64_t)nq),
                                     .lse = bench_room(4 * (uint64_t)(rows * HEADS)),
                                     .q = bench_halves(nq, 1),
                                     .k = bench_halves(nk, 1),
                                     .v = bench_halves(nk, 1),
                                     .documents = bench_ints(starts, documents + 1),
                                     .shape = s};
    struct sk_attention_backward b = {.dq = bench_room(2 * (uint64_t)nq),
                                      .dk = bench_room(2 * (uint64_t)nk),
                                      .dv = bench_room(2 * (uint64_t)nk),
                                      .d_o = bench_halves(nq, 1),
                                      .o = f.o,
                                      .lse = f.lse,
                                      .q = f.q,
                                      .k = f.k,
                                      .v = f.v,
                                      .documents = f.documents,
                                      .shape = s};
    double flops = 4.0 * HEADS * HEAD * seen;
    snprintf(what, sizeof what, "%lld rows, %lld documents%s", (long long)rows,
             (long long)documents, bench_ctx.cuda->wgmma ? ", wgmma" : "");
    bench_op(SK_ATTENTION_FORWARD, what, sk_attention_forward_cuda,
             sk_attention_forward_measure_cuda, &f, (struct bench_cost){flops, 0});
    bench_op(SK_ATTENTION_BACKWARD, what, sk_attention_backward_cuda,
             sk_attention_backward_measure_cuda, &b, (struct bench_cost){2.5 * flops, 0});
    bench_clear();
}

static void bench_lengths(void)
{
    bench_length(2048, 1);
    bench_length(4096, 1);
    bench_length(4096, 16);
    bench_length(8192, 1);
    bench_length(16384, 1);
}

/* Both ways where both can run. */
void bench_attention(void)
{
    bool wgmma = bench_ctx.cuda->wgmma;
    bench_ctx.cuda->wgmma = false;
    bench_lengths();
    bench_ctx.cuda->wgmma = true;
    if (bench_ctx.cuda->major == 9)
        bench_lengths();
    bench_ctx.cuda->wgmma = wgmma;
}
