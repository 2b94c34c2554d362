#include "tests/kernels/kit.h"

#include <math.h>
#include <string.h>

#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4_tables.h"

enum { GUARD = 64, WORKSPACE_ALIGN = 256 };
static const unsigned char guard_byte = 0xa5;

/* ---- operands ---- */

void kit_begin(struct kit *kit, uint64_t seed)
{
    *kit = (struct kit){.random = {seed}};
}

void kit_end(struct kit *kit)
{
    for (int i = 0; i < kit->blocks; i++) {
        sf_free(kit->block[i].data);
        sf_free(kit->block[i].initial);
        sf_free(kit->block[i].result);
    }
    for (int i = 0; i < kit->loose_count; i++)
        sf_free(kit->loose[i]);
}

/* Check is called on failure only: benches use the kit where no test runs. */
static void *memory(uint64_t bytes, int used)
{
    void *p = used < KIT_BLOCKS ? sf_alloc(bytes) : NULL;
    if (!p)
        ck_abort_msg("no memory, or a case with more than %d operands", KIT_BLOCKS);
    return p;
}

void *kit_bytes(struct kit *kit, uint64_t bytes, bool output)
{
    int used = kit->blocks;
    void *data = memory(bytes + GUARD, used);
    struct kit_block *b = &kit->block[kit->blocks++];
    b->data = data;
    b->initial = memory(bytes, used);
    b->result = memory(bytes, used);
    b->bytes = bytes;
    b->output = output;
    memset((char *)b->data + bytes, guard_byte, GUARD);
    return b->data;
}

float *kit_in(struct kit *kit, int64_t n, float scale)
{
    float *x = kit_bytes(kit, (uint64_t)n * sizeof *x, false);
    scout_random_fill(x, n, scale, &kit->random);
    return x;
}

float *kit_out(struct kit *kit, int64_t n)
{
    float *x = kit_bytes(kit, (uint64_t)n * sizeof *x, true);
    scout_poison(x, n);
    return x;
}

float *kit_inout(struct kit *kit, int64_t n, float scale)
{
    float *x = kit_bytes(kit, (uint64_t)n * sizeof *x, true);
    scout_random_fill(x, n, scale, &kit->random);
    return x;
}

int32_t *kit_ints(struct kit *kit, int64_t n)
{
    return kit_bytes(kit, (uint64_t)n * sizeof(int32_t), false);
}

int32_t *kit_out_ints(struct kit *kit, int64_t n)
{
    int32_t *x = kit_bytes(kit, (uint64_t)n * sizeof *x, true);
    memset(x, 0xff, (size_t)n * sizeof *x);
    return x;
}

double *kit_zeros(struct kit *kit, int64_t n)
{
    double *x = memory((uint64_t)n * sizeof *x, kit->loose_count);
    kit->loose[kit->loose_count++] = x;
    return x;
}

double *kit_wide(struct kit *kit, const float *from, int64_t n)
{
    double *x = kit_zeros(kit, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = (double)from[i];
    return x;
}

/* ---- matrices ---- */

static int64_t blocks_of(int64_t n)
{
    return (n + 63) / 64;
}

static void fill_halves(struct kit *kit, uint16_t *out, int64_t n, enum sk_format format)
{
    for (int64_t i = 0; i < n; i++) {
        float value = 0.3f * scout_random_normal(&kit->random);
        uint64_t noise = scout_random_u64(&kit->random);
        out[i] = format == SK_FORMAT_BF16
                     ? sf_bf16_from_f32(value)
                     : (uint16_t)((noise & 0x83ff) | (8 + noise % 7) << 10); /* 2^-7 .. 1 */
    }
}

static void fill_random_bytes(struct kit *kit, uint8_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (uint8_t)scout_random_u64(&kit->random);
}

static void fill_nf4(struct kit *kit, struct sk_matrix *m)
{
    int64_t n = m->rows * m->cols, blocks = blocks_of(n), groups = (blocks + 255) / 256;
    uint8_t *codes = kit_bytes(kit, (uint64_t)(n + 1) / 2, false);
    fill_random_bytes(kit, codes, (n + 1) / 2);
    m->data = codes;
    m->codebook = sf_nf4_code_value;
    float *scale = kit_in(kit, m->format == SK_FORMAT_NF4 ? blocks : groups, 0);
    for (int64_t i = 0; i < (m->format == SK_FORMAT_NF4 ? blocks : groups); i++)
        scale[i] = 0.1f + (float)scout_random_uniform(&kit->random);
    m->scale = scale;
    if (m->format == SK_FORMAT_NF4)
        return;
    uint8_t *q = kit_bytes(kit, (uint64_t)blocks, false);
    fill_random_bytes(kit, q, blocks);
    m->scale = q;
    m->scale2 = scale;
    m->offset = 0.625f;
    m->map = sf_nf4_scale_map;
}

struct sk_matrix *kit_matrices(struct kit *kit, enum sk_format format, int64_t count, int64_t rows,
                               int64_t cols)
{
    struct sk_matrix *list = kit_bytes(kit, (uint64_t)count * sizeof *list, false);
    for (int64_t i = 0; i < count; i++) {
        struct sk_matrix *m = &list[i];
        *m = (struct sk_matrix){.format = format, .rows = rows, .cols = cols};
        if (format == SK_FORMAT_F32) {
            m->data = kit_in(kit, rows * cols, 0.3f);
        } else if (format == SK_FORMAT_BF16 || format == SK_FORMAT_F16) {
            uint16_t *data = kit_bytes(kit, (uint64_t)(rows * cols) * sizeof *data, false);
            fill_halves(kit, data, rows * cols, format);
            m->data = data;
        } else {
            fill_nf4(kit, m);
        }
    }
    return list;
}

static double half_value(uint16_t h) /* finite, normal */
{
    double magnitude = ldexp(1024 + (h & 0x3ff), ((h >> 10) & 0x1f) - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

static double nf4_value(const struct sk_matrix *m, int64_t i)
{
    int64_t block = i / 64;
    uint8_t pair = ((const uint8_t *)m->data)[i / 2];
    float scale;
    if (m->format == SK_FORMAT_NF4) {
        scale = ((const float *)m->scale)[block];
    } else {
        scale = m->map[((const uint8_t *)m->scale)[block]] * m->scale2[block / 256];
        scale = scale + m->offset;
    }
    return (double)sf_round_bf16(m->codebook[i % 2 ? pair & 15 : pair >> 4] * scale);
}

double *kit_dense(struct kit *kit, const struct sk_matrix *m)
{
    double *out = kit_zeros(kit, m->rows * m->cols);
    for (int64_t i = 0; i < m->rows * m->cols; i++) {
        switch (m->format) {
        case SK_FORMAT_F32:
            out[i] = (double)((const float *)m->data)[i];
            break;
        case SK_FORMAT_BF16: /* the upper half of a float32 */
            out[i] = (double)sf_f32_from_bits((uint32_t)((const uint16_t *)m->data)[i] << 16);
            break;
        case SK_FORMAT_F16:
            out[i] = half_value(((const uint16_t *)m->data)[i]);
            break;
        case SK_FORMAT_NF4:
        case SK_FORMAT_NF4_NESTED:
            out[i] = nf4_value(m, i);
            break;
        }
    }
    return out;
}

/* ---- running ---- */

static void assert_guard(const char *op, const char *what, int index, const unsigned char *at)
{
    for (int i = 0; i < GUARD; i++)
        if (at[i] != guard_byte) /* not ck_assert: that tells the parent of every check it passed */
            ck_abort_msg("%s wrote %d bytes behind the end of %s %d", op, i, what, index);
}

static int run_once(const struct kit *kit, enum sk_op op, void *args, int threads,
                    struct sf_err *err)
{
    const struct sk_op_info *info = sk_op_info(op);
    const struct sk_ops *ops = sk_ops_cpu();
    struct sk_ctx ctx;
    assert_ok(sk_cpu_start(&ctx, threads, err), *err);
    uint64_t bytes = ops->measure[op](args, threads);
    ck_assert_msg(info->has_workspace || bytes == 0, "%s measures a workspace it has no place for",
                  info->name);
    char *raw = memory(bytes + GUARD + WORKSPACE_ALIGN, 0);
    char *workspace = raw + (WORKSPACE_ALIGN - (uintptr_t)raw % WORKSPACE_ALIGN);
    memset(workspace, 0xff, bytes); /* NaN */
    memset(workspace + bytes, guard_byte, GUARD);
    if (info->has_workspace)
        ((void **)args)[info->operands - 1] = workspace;
    int code = ops->run[op](&ctx, args, err);
    assert_guard(info->name, "workspace of threads", threads, (unsigned char *)workspace + bytes);
    for (int i = 0; i < kit->blocks; i++)
        assert_guard(info->name, "operand", i,
                     (const unsigned char *)kit->block[i].data + kit->block[i].bytes);
    sf_free(raw);
    return code;
}

static void keep_start(struct kit *kit)
{
    for (int i = 0; i < kit->blocks; i++)
        memcpy(kit->block[i].initial, kit->block[i].data, kit->block[i].bytes);
}

static void restore_start(struct kit *kit)
{
    for (int i = 0; i < kit->blocks; i++)
        memcpy(kit->block[i].data, kit->block[i].initial, kit->block[i].bytes);
}

void kit_run(struct kit *kit, enum sk_op op, void *args)
{
    static const int threads[] = {1, 2, 3, 5};
    const char *name = sk_op_info(op)->name;
    struct sf_err err = {0};
    keep_start(kit);
    for (int t = 0; t < 4; t++) {
        restore_start(kit);
        assert_ok(run_once(kit, op, args, threads[t], &err), err);
        for (int i = 0; i < kit->blocks; i++) {
            struct kit_block *b = &kit->block[i];
            if (!b->output)
                ck_assert_msg(memcmp(b->data, b->initial, b->bytes) == 0, "%s changed its input %d",
                              name, i);
            else if (t == 0)
                memcpy(b->result, b->data, b->bytes);
            else
                ck_assert_msg(memcmp(b->data, b->result, b->bytes) == 0,
                              "%s: output %d differs between 1 and %d threads", name, i,
                              threads[t]);
        }
    }
}

void kit_fails(struct kit *kit, enum sk_op op, void *args, int code, const char *part)
{
    struct sf_err err = {0};
    assert_fails(run_once(kit, op, args, 2, &err), code, part, err);
}

/* ---- comparing ---- */

void kit_close(const char *what, const float *got, const double *want, int64_t n, double tolerance)
{
    double off = 0, norm = 0, worst = -1;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - want[i]);
        off += d * d;
        norm += want[i] * want[i];
        if (!(d <= worst)) {
            worst = d;
            at = i;
        }
    }
    ck_assert_msg(sqrt(off) <= tolerance * sqrt(norm),
                  "%s: relative error %.3g > %.3g; worst at %lld of %lld: %.9g, want %.9g", what,
                  sqrt(off / norm), tolerance, (long long)at, (long long)n, (double)got[at],
                  want[at]);
}

void kit_slope(struct kit *kit, const char *what, kit_loss *loss, void *ctx, double *x,
               const double *gradient, int64_t n, int samples)
{
    const double h = 1e-5;
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(gradient[i]));
    ck_assert_msg(largest > 0, "%s: every gradient is 0", what);
    for (int s = 0; s < samples; s++) {
        int64_t i = (int64_t)(scout_random_u64(&kit->random) % (uint64_t)n);
        double kept = x[i], above, below;
        x[i] = kept + h;
        above = loss(ctx);
        x[i] = kept - h;
        below = loss(ctx);
        x[i] = kept;
        double slope = (above - below) / (2 * h);
        ck_assert_msg(fabs(slope - gradient[i]) <= 1e-6 * largest,
                      "%s[%lld]: slope %.12g, gradient %.12g, largest %.3g", what, (long long)i,
                      slope, gradient[i], largest);
    }
    loss(ctx);
}
