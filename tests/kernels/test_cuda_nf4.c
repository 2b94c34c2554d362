#include "tests/kernels/cuda_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/device.h"
#include "kernels/matrix_cpu.h"
#include "kernels/nf4_cuda.h"
#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4_tables.h"

enum { GUARD = 64, HELD = 8 };

/* ---- memory of one case on the device ---- */

static void *held[HELD];
static int held_count;

static void *send(const void *host, uint64_t bytes)
{
    struct sf_err err = {0};
    void *at;
    ck_assert_int_lt(held_count, HELD);
    assert_ok(sk_device_alloc(&at, bytes, "an operand", &err), err);
    held[held_count++] = at;
    assert_ok(sk_memory_cuda.write(&cuda_ctx, at, host, bytes, &err), err);
    return at;
}

static uint64_t block_bytes(const struct kit *kit, const void *p)
{
    for (int i = 0; i < kit->blocks; i++)
        if (kit->block[i].data == p)
            return kit->block[i].bytes;
    return 0;
}

static struct sk_matrix send_matrix(const struct kit *kit, const struct sk_matrix *m)
{
    struct sk_matrix out = *m;
    out.data = send(m->data, block_bytes(kit, m->data));
    if (m->scale)
        out.scale = send(m->scale, block_bytes(kit, m->scale));
    if (m->scale2)
        out.scale2 = send(m->scale2, block_bytes(kit, m->scale2));
    out.codebook = send(sf_nf4_code_value, sizeof sf_nf4_code_value);
    out.map = send(sf_nf4_scale_map, sizeof sf_nf4_scale_map);
    return out;
}

static void drop_all(void)
{
    while (held_count)
        sk_device_free(held[--held_count]);
}

/* ---- expansion ---- */

/* Elements first .. first + count, bit for bit as the CPU's reading rounded to bfloat16. */
static void check_range(const struct sk_matrix *cpu, const struct sk_matrix *gpu, int64_t first,
                        int64_t count)
{
    struct sf_err err = {0};
    uint64_t bytes = (uint64_t)(count + GUARD) * sizeof(uint16_t);
    uint16_t *got = sf_alloc(bytes);
    float *want = sf_alloc((uint64_t)count * sizeof *want);
    ck_assert(got && want);
    memset(got, 0xff, bytes);
    void *out = send(got, bytes);
    assert_ok(sk_matrix_expand_cuda(&cuda_ctx, out, gpu, first, count, &err), err);
    assert_ok(sk_memory_cuda.read(&cuda_ctx, got, out, bytes, &err), err);
    sk_matrix_read(want, cpu, first, count);
    for (int64_t i = 0; i < count; i++)
        if (got[i] != sf_bf16_from_f32(want[i]))
            ck_abort_msg("format %d, elements %lld + %lld: [%lld] is %04x, want %04x",
                         (int)cpu->format, (long long)first, (long long)count, (long long)i, got[i],
                         sf_bf16_from_f32(want[i]));
    for (int64_t i = count; i < count + GUARD; i++)
        ck_assert_msg(got[i] == 0xffff, "written behind %lld elements", (long long)count);
    sk_device_free(held[--held_count]);
    sf_free(got);
    sf_free(want);
}

/* Scales of every size: the smallest normal numbers and below, where products are flushed. */
static void spread_scales(struct kit *kit, struct sk_matrix *m)
{
    int64_t n = m->rows * m->cols, scales = (n + 63) / 64;
    int64_t count = m->format == SK_FORMAT_NF4 ? scales : (scales + 255) / 256;
    float *scale = kit_in(kit, count, 0);
    for (int64_t i = 0; i < count; i++)
        scale[i] = ldexpf(1 + (float)scout_random_uniform(&kit->random), (int)(i * 7 % 190) - 149);
    if (m->format == SK_FORMAT_NF4) {
        m->scale = scale;
    } else {
        m->scale2 = scale;
        m->offset = 0; /* or it would hide what the products lose */
    }
}

static const enum sk_format formats[] = {SK_FORMAT_F32, SK_FORMAT_BF16, SK_FORMAT_F16,
                                         SK_FORMAT_NF4, SK_FORMAT_NF4_NESTED};
enum { FORMATS = sizeof formats / sizeof formats[0] };

static void check_matrix(enum sk_format format, int64_t rows, int64_t cols, bool spread)
{
    struct kit kit;
    kit_begin(&kit, (uint64_t)(rows * 1000 + cols));
    struct sk_matrix *cpu = kit_matrices(&kit, format, 1, rows, cols);
    if (spread)
        spread_scales(&kit, cpu);
    struct sk_matrix gpu = send_matrix(&kit, cpu);
    int64_t n = rows * cols;
    check_range(cpu, &gpu, 0, n);
    for (int64_t first = 64; first < n; first = first * 5 / 64 * 64) {
        check_range(cpu, &gpu, first, n - first);
        check_range(cpu, &gpu, first, n - first < 100 ? n - first : 100);
    }
    drop_all();
    kit_end(&kit);
}

START_TEST(expands_as_the_codec_does)
{
    static const int64_t shape[][2] = {{1, 1},    {1, 7},    {1, 64},   {3, 43},     {32, 64},
                                       {1, 2049}, {33, 127}, {64, 264}, {1024, 5120}};
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++)
        check_matrix(formats[_i], shape[i][0], shape[i][1], false);
}
END_TEST

START_TEST(tiny_scales_are_flushed_alike)
{
    check_matrix(SK_FORMAT_NF4, 300, 128, true);
    check_matrix(SK_FORMAT_NF4_NESTED, 1000, 16 * 1024, true);
}
END_TEST

/* Many thread blocks, each with several tiles, and a rest. */
START_TEST(an_expert_of_scout)
{
    check_matrix(SK_FORMAT_NF4_NESTED, 8192, 5120, false);
}
END_TEST

/* ---- groups of float32 ---- */

static void check_groups(int64_t groups, int64_t count, int64_t stride)
{
    struct kit kit;
    struct sf_err err = {0};
    kit_begin(&kit, (uint64_t)count);
    int64_t all = groups * stride, packed = groups * count;
    float *in = kit_in(&kit, all, 1);
    uint16_t *got = kit_bytes(&kit, (uint64_t)(packed + GUARD) * sizeof *got, false);
    memset(got, 0xff, (size_t)(packed + GUARD) * sizeof *got);
    float *from = send(in, (uint64_t)all * sizeof *in);
    uint16_t *to = send(got, (uint64_t)(packed + GUARD) * sizeof *got);
    assert_ok(sk_round_cuda(&cuda_ctx, to, from, groups, count, stride, &err), err);
    assert_ok(
        sk_memory_cuda.read(&cuda_ctx, got, to, (uint64_t)(packed + GUARD) * sizeof *got, &err),
        err);
    for (int64_t i = 0; i < packed; i++)
        if (got[i] != sf_bf16_from_f32(in[i / count * stride + i % count]))
            ck_abort_msg("[%lld] of %lld groups of %lld", (long long)i, (long long)groups,
                         (long long)count);
    for (int64_t i = packed; i < packed + GUARD; i++)
        ck_assert_msg(got[i] == 0xffff, "written behind %lld elements", (long long)packed);
    drop_all();
    kit_end(&kit);
}

START_TEST(rounds_groups)
{
    check_groups(1, 1, 1);
    check_groups(1, 4096, 4096);
    check_groups(3, 40, 48);
    check_groups(3, 40, 43);
    check_groups(5, 33, 33);
    check_groups(16, 64 * 5120, 64 * 5120);
}
END_TEST

static Suite *nf4_suite(void)
{
    Suite *suite = suite_create("cuda_nf4");
    TCase *tc = tcase_create("cuda_nf4");
    tcase_add_loop_test(tc, expands_as_the_codec_does, 0, FORMATS);
    tcase_add_test(tc, tiny_scales_are_flushed_alike);
    tcase_add_test(tc, an_expert_of_scout);
    tcase_add_test(tc, rounds_groups);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(nf4_suite);
}
