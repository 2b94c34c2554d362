#include "tests/bench/bench_cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda_call.h"
#include "kernels/cuda_private.h"
#include "kernels/gemm_cuda.h"
#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4_tables.h"
#include "tests/support/support.h"

enum { BLOCKS = 256, PATTERN = 1000003, RUNS = 15, SIDE = 8192 };
static const int64_t copy_bytes = (int64_t)1 << 30;

struct sk_ctx bench_ctx;
static void *block[BLOCKS], *host_block[BLOCKS];
static int blocks, host_blocks;
static struct scout_random numbers = {1};
static double flops_per_s, bytes_per_s;

void bench_check(int code, const struct sf_err *err)
{
    if (code == SF_OK)
        return;
    fprintf(stderr, "bench_ops_cuda: %s\n", err->message);
    exit(1);
}

static void check_cuda(cudaError_t result)
{
    if (result == cudaSuccess)
        return;
    fprintf(stderr, "bench_ops_cuda: %s\n", cudaGetErrorString(result));
    exit(1);
}

/* ---- operands ---- */

static void *host_room(uint64_t bytes)
{
    void *p = host_blocks < BLOCKS ? sf_alloc(bytes) : NULL;
    if (!p) {
        fprintf(stderr, "bench_ops_cuda: no host memory, or more than %d operands\n", BLOCKS);
        exit(1);
    }
    return host_block[host_blocks++] = p;
}

void *bench_room(uint64_t bytes)
{
    struct sf_err err = {0};
    if (blocks == BLOCKS) {
        fprintf(stderr, "bench_ops_cuda: more than %d operands\n", BLOCKS);
        exit(1);
    }
    bench_check(sk_device_alloc(&block[blocks], bytes ? bytes : 1, "a benchmark", &err), &err);
    return block[blocks++];
}

static void *repeated(const void *pattern, uint64_t pattern_bytes, uint64_t bytes)
{
    struct sf_err err = {0};
    char *to = bench_room(bytes);
    for (uint64_t at = 0; at < bytes; at += pattern_bytes) {
        uint64_t n = bytes - at < pattern_bytes ? bytes - at : pattern_bytes;
        bench_check(sk_device_write(to + at, pattern, n, &err), &err);
    }
    return to;
}

void *bench_halves(int64_t n, float scale)
{
    static uint16_t pattern[PATTERN];
    for (int i = 0; i < PATTERN; i++)
        pattern[i] = sf_bf16_from_f32(scale * scout_random_normal(&numbers));
    return repeated(pattern, sizeof pattern, (uint64_t)n * sizeof *pattern);
}

float *bench_floats(int64_t n, float scale)
{
    static float pattern[PATTERN];
    for (int i = 0; i < PATTERN; i++)
        pattern[i] = scale * scout_random_normal(&numbers);
    return repeated(pattern, sizeof pattern, (uint64_t)n * sizeof *pattern);
}

int32_t *bench_ints(const int32_t *host, int64_t n)
{
    return repeated(host, (uint64_t)n * sizeof *host, (uint64_t)n * sizeof *host);
}

static void *random_bytes(int64_t n)
{
    static uint64_t pattern[PATTERN / 8];
    for (int i = 0; i < PATTERN / 8; i++)
        pattern[i] = scout_random_u64(&numbers);
    return repeated(pattern, sizeof pattern, (uint64_t)n);
}

static void fill_matrix(struct sk_matrix *m, const float *codebook, const float *map)
{
    int64_t n = m->rows * m->cols, scales = (n + 63) / 64;
    if (m->format == SK_FORMAT_BF16) {
        m->data = bench_halves(n, 0.02f);
        return;
    }
    m->data = random_bytes((n + 1) / 2);
    m->codebook = codebook;
    if (m->format == SK_FORMAT_NF4) {
        m->scale = bench_floats(scales, 0.02f);
        return;
    }
    m->scale = random_bytes(scales);
    m->scale2 = bench_floats((scales + 255) / 256, 0.02f);
    m->offset = 0.03f;
    m->map = map;
}

struct sk_matrix *bench_matrices(enum sk_format format, int64_t count, int64_t rows, int64_t cols)
{
    struct sk_matrix *list = host_room((uint64_t)count * sizeof *list);
    const float *codebook =
        repeated(sf_nf4_code_value, sizeof sf_nf4_code_value, sizeof sf_nf4_code_value);
    const float *map = repeated(sf_nf4_scale_map, sizeof sf_nf4_scale_map, sizeof sf_nf4_scale_map);
    for (int64_t i = 0; i < count; i++) {
        list[i] = (struct sk_matrix){.format = format, .rows = rows, .cols = cols};
        fill_matrix(&list[i], codebook, map);
    }
    return list;
}

void bench_clear(void)
{
    while (blocks)
        sk_device_free(block[--blocks]);
    while (host_blocks)
        sf_free(host_block[--host_blocks]);
}

/* ---- time ---- */

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double median_seconds(bench_work *work, void *arg)
{
    cudaStream_t stream = bench_ctx.cuda->stream;
    cudaEvent_t start, end;
    float ms[RUNS];
    check_cuda(cudaEventCreate(&start));
    check_cuda(cudaEventCreate(&end));
    work(arg);
    work(arg);
    for (int i = 0; i < RUNS; i++) {
        check_cuda(cudaEventRecord(start, stream));
        work(arg);
        check_cuda(cudaEventRecord(end, stream));
        check_cuda(cudaEventSynchronize(end));
        check_cuda(cudaEventElapsedTime(&ms[i], start, end));
    }
    check_cuda(cudaEventDestroy(start));
    check_cuda(cudaEventDestroy(end));
    qsort(ms, RUNS, sizeof *ms, compare);
    return 1e-3 * (double)ms[RUNS / 2];
}

void bench_row(const char *name, const char *what, bench_work *work, void *arg,
               struct bench_cost cost)
{
    double seconds = median_seconds(work, arg);
    double limit = cost.flops / flops_per_s + cost.bytes / bytes_per_s;
    printf("%-20s %-34s %9.3f ms", name, what, 1e3 * seconds);
    if (cost.flops > 0)
        printf(" %7.1f TFLOP/s", 1e-12 * cost.flops / seconds);
    else
        printf(" %7.0f GB/s   ", 1e-9 * cost.bytes / seconds);
    printf(" %5.0f %%\n", 100 * limit / seconds);
    fflush(stdout);
}

struct op_run {
    sk_cuda_run_fn *run;
    const void *args;
};

static void run_op(void *arg)
{
    struct op_run *r = arg;
    struct sf_err err = {0};
    bench_check(r->run(&bench_ctx, r->args, &err), &err);
}

void bench_op(enum sk_op op, const char *what, sk_cuda_run_fn *run, sk_cuda_measure_fn *measure,
              void *args, struct bench_cost cost)
{
    const struct sk_op_info *info = sk_op_info(op);
    struct op_run r = {run, args};
    if (measure)
        ((void **)args)[info->operands - 1] = bench_room(measure(args, bench_ctx.threads));
    bench_row(info->name, what, run_op, &r, cost);
}

/* ---- limits ---- */

static void run_copy(void *arg)
{
    char **m = arg;
    check_cuda(cudaMemcpyAsync(m[0], m[1], (size_t)copy_bytes, cudaMemcpyDeviceToDevice,
                               bench_ctx.cuda->stream));
}

static void run_product(void *arg)
{
    struct sf_err err = {0};
    bench_check(sk_gemm_cuda(&bench_ctx, arg, &err), &err);
}

static void measure_limits(void)
{
    char *m[2] = {bench_room((uint64_t)copy_bytes), bench_room((uint64_t)copy_bytes)};
    bytes_per_s = 2 * (double)copy_bytes / median_seconds(run_copy, m); /* read and written */
    struct sk_gemm g = {.c = bench_room(2ull * SIDE * SIDE),
                        .a = bench_halves((int64_t)SIDE * SIDE, 1),
                        .b = bench_halves((int64_t)SIDE * SIDE, 1),
                        .c_stride = SIDE,
                        .a_stride = SIDE,
                        .b_stride = SIDE,
                        .m = SIDE,
                        .n = SIDE,
                        .k = SIDE,
                        .alpha = 1,
                        .b_turned = true};
    flops_per_s = 2.0 * SIDE * SIDE * SIDE / median_seconds(run_product, &g);
    bench_clear();
}

int main(void)
{
    struct sf_err err = {0};
    struct sk_device *device;
    struct sk_device_info info;
    bench_check(sk_device_open(&device, 0, &err), &err);
    bench_check(sk_device_info(&info, device, &err), &err);
    bench_check(sk_cuda_start(&bench_ctx, device, 1, &err), &err);
    measure_limits();
    printf("%s: device copy %.0f GB/s, cuBLAS bfloat16 %d^3 %.0f TFLOP/s\n", info.name,
           1e-9 * bytes_per_s, SIDE, 1e-12 * flops_per_s);
    printf("share = (flops / product rate + bytes / copy rate) / time; median of %d\n", RUNS);
    bench_linear();
    bench_head_loss();
    bench_rows();
    bench_qk();
    bench_attention();
    sk_cuda_stop(&bench_ctx);
    sk_device_close(device);
    return 0;
}
