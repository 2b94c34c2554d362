#include <stdio.h>

#include "kernels/linear.h"
#include "kernels/nf4_cuda.h"
#include "tests/bench/bench_cuda.h"

/* Scout's shapes. */
enum { ROWS = 4096, HIDDEN = 5120, KEYS = 1024, WIDTH = 8192, EXPERTS = 16, RANK = 64 };

static const double nf4_bytes = 0.5 + 1.0 / 64 + 4.0 / 16384; /* of a weight */

struct expansion {
    const struct sk_matrix *w;
    uint16_t *out;
};

static void run_expansion(void *arg)
{
    struct expansion *e = arg;
    struct sf_err err = {0};
    bench_check(sk_matrix_expand_cuda(&bench_ctx, e->out, e->w, 0, e->w->rows * e->w->cols, &err),
                &err);
}

static void bench_expansion(const char *what, int64_t rows, int64_t cols)
{
    double n = (double)(rows * cols);
    struct expansion e = {bench_matrices(SK_FORMAT_NF4_NESTED, 1, rows, cols),
                          bench_room(2 * (uint64_t)(rows * cols))};
    bench_row("expand", what, run_expansion, &e, (struct bench_cost){0, n * (2 + nf4_bytes)});
    bench_clear();
}

/* Rows by expert: the same for all, or falling from twice the mean to one row and none. */
static void share_rows(int32_t *offsets, int groups, bool skewed)
{
    int32_t at = 0;
    for (int g = 0; g < groups; g++) {
        int32_t mean = ROWS / groups;
        offsets[g] = at;
        at += !skewed ? mean : 2 * mean * (groups - 1 - g) / (groups - 1);
    }
    offsets[groups] = ROWS;
}

static void name_row(char name[64], int64_t in, int64_t out, int groups, bool skewed, int64_t rank)
{
    char experts[32] = "";
    if (groups > 1)
        snprintf(experts, sizeof experts, "%d %s of ", groups, skewed ? "skewed" : "equal");
    snprintf(name, 64, "%s%lld -> %lld%s", experts, (long long)in, (long long)out,
             rank ? " LoRA 64" : "");
}

/* W is expanded once a pass: 2 bytes written for each weight, and its codes read. */
static void bench_shape(int64_t in, int64_t out, int groups, bool skewed, int64_t rank)
{
    char name[64];
    int32_t offsets[EXPERTS + 1];
    share_rows(offsets, groups, skewed);
    name_row(name, in, out, groups, skewed, rank);
    const int32_t *device_offsets = groups > 1 ? bench_ints(offsets, groups + 1) : NULL;
    const struct sk_matrix *w = bench_matrices(SK_FORMAT_NF4_NESTED, groups, out, in);
    float *a = rank ? bench_floats(groups * rank * in, 0.02f) : NULL;
    float *b = rank ? bench_floats(groups * rank * out, 0.02f) : NULL;
    double flops = 2.0 * ROWS * (double)(in * out), lora = 2.0 * ROWS * (double)(rank * (in + out));
    double bytes = (2 + nf4_bytes) * (double)groups * (double)(in * out);
    struct sk_linear_forward f = {.y = bench_room(2ull * ROWS * (uint64_t)out),
                                  .t = bench_room(2ull * ROWS * (uint64_t)rank),
                                  .x = bench_halves(ROWS * in, 1),
                                  .w = w,
                                  .a = a,
                                  .b = b,
                                  .offsets = device_offsets,
                                  .host_offsets = offsets,
                                  .rows = ROWS,
                                  .in = in,
                                  .out = out,
                                  .groups = groups,
                                  .rank = rank,
                                  .y_stride = out,
                                  .a_stride = rank * in,
                                  .b_stride = rank * out,
                                  .scale = 1};
    bench_op(SK_LINEAR_FORWARD, name, sk_linear_forward_cuda, sk_linear_forward_measure_cuda, &f,
             (struct bench_cost){flops + lora, bytes});
    struct sk_linear_backward g = {.dx = bench_room(2ull * ROWS * (uint64_t)in),
                                   .da = rank ? bench_floats(groups * rank * in, 0) : NULL,
                                   .db = rank ? bench_floats(groups * rank * out, 0) : NULL,
                                   .dy = bench_halves(ROWS * out, 1),
                                   .x = f.x,
                                   .t = f.t,
                                   .w = w,
                                   .a = a,
                                   .b = b,
                                   .offsets = device_offsets,
                                   .host_offsets = offsets,
                                   .rows = ROWS,
                                   .in = in,
                                   .out = out,
                                   .groups = groups,
                                   .rank = rank,
                                   .y_stride = out,
                                   .a_stride = rank * in,
                                   .b_stride = rank * out,
                                   .scale = 1};
    bench_op(SK_LINEAR_BACKWARD, name, sk_linear_backward_cuda, sk_linear_backward_measure_cuda, &g,
             (struct bench_cost){flops + 2 * lora, bytes});
    bench_clear();
}

/* One product of few rows, as an expert's: with weights that lie there as bfloat16, and expanded. */
static void bench_weights(int64_t rows, enum sk_format format, const char *what)
{
    struct sk_linear_forward f = {.y = bench_room(2ull * (uint64_t)rows * WIDTH),
                                  .x = bench_halves(rows * HIDDEN, 1),
                                  .w = bench_matrices(format, 1, WIDTH, HIDDEN),
                                  .rows = rows,
                                  .in = HIDDEN,
                                  .out = WIDTH,
                                  .groups = 1,
                                  .y_stride = WIDTH};
    double n = (double)HIDDEN * WIDTH, read = format == SK_FORMAT_BF16 ? 0 : 2 + nf4_bytes;
    bench_op(SK_LINEAR_FORWARD, what, sk_linear_forward_cuda, sk_linear_forward_measure_cuda, &f,
             (struct bench_cost){2.0 * (double)rows * n, n * read});
    bench_clear();
}

void bench_linear(void)
{
    bench_weights(256, SK_FORMAT_BF16, "256 rows, 5120 -> 8192, bf16");
    bench_weights(256, SK_FORMAT_NF4_NESTED, "256 rows, 5120 -> 8192, NF4");
    bench_weights(ROWS, SK_FORMAT_BF16, "4096 rows, 5120 -> 8192, bf16");
    bench_expansion("nested NF4, 8192 x 5120", WIDTH, HIDDEN);
    bench_expansion("nested NF4, 1024 x 5120", KEYS, HIDDEN);
    bench_shape(HIDDEN, HIDDEN, 1, false, RANK);
    bench_shape(HIDDEN, KEYS, 1, false, RANK);
    bench_shape(HIDDEN, WIDTH, 1, false, 0);
    bench_shape(HIDDEN, WIDTH, 1, false, RANK);
    bench_shape(WIDTH, HIDDEN, 1, false, RANK);
    for (int skewed = 0; skewed < 2; skewed++) {
        bench_shape(HIDDEN, WIDTH, EXPERTS, skewed, 0);
        bench_shape(WIDTH, HIDDEN, EXPERTS, skewed, 0);
    }
    bench_shape(HIDDEN, WIDTH, EXPERTS, false, RANK);
}
