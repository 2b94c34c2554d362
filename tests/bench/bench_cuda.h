/* bench_cuda.h -- what the rows of bench_ops_cuda share: operands in device memory, time, and the
 * limits of this device, measured in the same run.
 *
 * A noun's rows are a function here and a file bench_<noun>_cuda.c. Operands live until
 * bench_clear(). Anything that fails ends the program with its sentence. */
#ifndef SCOUT_TESTS_BENCH_BENCH_CUDA_H
#define SCOUT_TESTS_BENCH_BENCH_CUDA_H

#include "kernels/cuda_ctx.h"
#include "kernels/cuda_table.h"
#include "kernels/matrix.h"
#include "kernels/ops.h"

extern struct sk_ctx bench_ctx;

void bench_check(int code, const struct sf_err *err);

/* Device memory: normal numbers times `scale` (a million of them, repeated), or given ones. */
void *bench_halves(int64_t n, float scale); /* bfloat16 */
float *bench_floats(int64_t n, float scale);
int32_t *bench_ints(const int32_t *host, int64_t n);
void *bench_room(uint64_t bytes); /* contents undefined */
/* `count` matrices of random contents; the structs in host memory, as ops want them. */
struct sk_matrix *bench_matrices(enum sk_format format, int64_t count, int64_t rows, int64_t cols);
void bench_clear(void);

/* What the work costs: its products at cuBLAS's rate, and the bytes it must touch at the rate of a
 * device copy. "share" is the sum of the two times over the time that it took. */
struct bench_cost {
    double flops, bytes;
};
typedef void bench_work(void *arg);
/* Median of CUDA-event times; prints one line. */
void bench_row(const char *name, const char *what, bench_work *work, void *arg,
               struct bench_cost cost);
/* One call of an op. Its workspace is made here; `measure` NULL: it has none. */
void bench_op(enum sk_op op, const char *what, sk_cuda_run_fn *run, sk_cuda_measure_fn *measure,
              void *args, struct bench_cost cost);

void bench_linear(void);    /* and the expansion of NF4 */
void bench_head_loss(void); /* Scout's vocabulary */
void bench_rows(void);      /* norms, SwiGLU, routing, AdamW */
void bench_qk(void);
void bench_attention(void);

#endif
