#include "train/matmul_rate.h"

#include <string.h>

#include "kernels/linear.h"
#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "kernels/philox.h"

enum { WARM = 3, BLOCKS = 3, BLOCK_RUNS = 8, FILL = 1 << 18 };

struct bench {
    const struct sk_ops *ops;
    struct sk_ctx *ctx;
    struct sk_linear_forward args;
    struct sk_matrix w;
    void *block;
    unsigned char *pattern; /* FILL elements */
    struct sk_watch *watch;
};

/* Rows, in, out. */
static void take_shape(struct bench *b)
{
    int64_t rows = b->ops->device ? 8192 : 256, width = b->ops->device ? 8192 : 1024;
    b->args = (struct sk_linear_forward){
        .rows = rows, .in = width, .out = width, .groups = 1, .y_stride = width};
    b->w = (struct sk_matrix){.format = b->ops->activation, .rows = width, .cols = width};
}

/* Numbers in +-1: zeros would be multiplied with less power and more clock than real ones. */
static void make_pattern(struct bench *b)
{
    for (int64_t i = 0; i < FILL; i += 4) {
        uint32_t word[4];
        sk_philox(word, 1, 0, (uint64_t)i);
        for (int k = 0; k < 4; k++) {
            float x = 2 * sk_philox_uniform(word[k]) - 1;
            uint16_t half = sf_bf16_from_f32(x);
            if (b->ops->activation == SK_FORMAT_F32)
                memcpy(b->pattern + (size_t)(i + k) * sizeof x, &x, sizeof x);
            else
                memcpy(b->pattern + (size_t)(i + k) * sizeof half, &half, sizeof half);
        }
    }
}

static int fill(struct bench *b, void *to, int64_t count, struct sf_err *err)
{
    uint64_t element = sk_activation_bytes(b->ops->activation);
    int code = SF_OK;
    for (int64_t at = 0; !code && at < count; at += FILL) {
        int64_t n = count - at < FILL ? count - at : FILL;
        code = b->ops->memory->write(b->ctx, (unsigned char *)to + (uint64_t)at * element,
                                     b->pattern, (uint64_t)n * element, err);
    }
    return code;
}

static int prepare(struct bench *b, struct sf_err *err)
{
    void *pattern;
    uint64_t element = sk_activation_bytes(b->ops->activation);
    int64_t x = b->args.rows * b->args.in, w = b->args.in * b->args.out;
    int64_t y = b->args.rows * b->args.out;
    uint64_t workspace = b->ops->measure[SK_LINEAR_FORWARD](&b->args, b->ctx->threads);
    int code = sf_alloc_for(&pattern, FILL * sizeof(float), "a pattern", err);
    if (code)
        return code;
    b->pattern = pattern;
    make_pattern(b);
    code = b->ops->memory->allocate(&b->block, b->ctx, SK_PLACE_OPS,
                                    (uint64_t)(x + w + y) * element + workspace,
                                    "a measured product", err);
    if (code)
        return code;
    unsigned char *at = b->block;
    b->args.x = (const void *)at;
    b->w.data = at + (uint64_t)x * element;
    b->args.y = (void *)(at + (uint64_t)(x + w) * element);
    b->args.workspace = at + (uint64_t)(x + w + y) * element;
    b->args.w = &b->w;
    code = fill(b, b->block, x + w, err);
    return code ? code : b->ops->stopwatch->open(&b->watch, b->ctx, BLOCKS + 1, err);
}

static int run(struct bench *b, int times, struct sf_err *err)
{
    int code = SF_OK;
    for (int i = 0; !code && i < times; i++)
        code = b->ops->run[SK_LINEAR_FORWARD](b->ctx, &b->args, err);
    return code;
}

/* The best of a few blocks of runs. */
static int measure(double *flops, struct bench *b, struct sf_err *err)
{
    double seconds[BLOCKS], least;
    int code = run(b, WARM, err);
    for (int i = 0; !code && i < BLOCKS; i++) {
        code = b->ops->stopwatch->mark(b->watch, i, NULL, err);
        if (!code)
            code = run(b, BLOCK_RUNS, err);
    }
    if (!code)
        code = b->ops->stopwatch->mark(b->watch, BLOCKS, NULL, err);
    if (!code)
        code = b->ops->stopwatch->read(seconds, b->watch, BLOCKS + 1, err);
    if (code)
        return code;
    least = seconds[0];
    for (int i = 1; i < BLOCKS; i++)
        least = seconds[i] < least ? seconds[i] : least;
    *flops =
        2.0 * BLOCK_RUNS * (double)b->args.rows * (double)b->args.in * (double)b->args.out / least;
    return SF_OK;
}

int sft_matmul_rate(double *flops, const struct sk_ops *ops, struct sk_ctx *ctx, struct sf_err *err)
{
    struct bench b = {.ops = ops, .ctx = ctx};
    *flops = 0;
    take_shape(&b);
    int code = prepare(&b, err);
    if (!code)
        code = measure(flops, &b, err);
    if (b.watch)
        ops->stopwatch->close(b.watch);
    ops->memory->release(ctx, SK_PLACE_OPS, b.block);
    sf_free(b.pattern);
    return code;
}
