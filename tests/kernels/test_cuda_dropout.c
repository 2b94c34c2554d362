/* Which numbers are dropped, bit by bit: the factors that dropout.h makes on the host. */
#include "tests/kernels/cuda_support.h"

#include <string.h>

#include "kernels/device.h"
#include "kernels/dropout_cuda.h"
#include "libformat/codec/halves.h"

/* Blocks of threads, quads cut at both ends, places far along the run; number: the highest bit is not
 * the generator's. */
static const struct {
    int64_t count, before;
    struct sk_dropout dropout;
    uint32_t site;
} cases[] = {{1, 0, {0.5f, 1, 0}, 0},
             {1023, 0, {0.1f, 42, 1}, 7},
             {1024, 1, {0.3f, 42, 0x7fffffff}, 7},
             {70001, 4095, {0.05f, UINT64_MAX, 3}, UINT32_MAX},
             {5, 2, {0.9f, 3, 2}, 1},
             {4096, (int64_t)1 << 40 | 3, {0.25f, 9, 8}, 336}};
enum { CASES = sizeof cases / sizeof *cases };

static uint16_t bits_of(float x)
{
    return sf_bf16_from_f32(x);
}

START_TEST(the_same_are_dropped_as_on_the_host)
{
    struct kit kit;
    struct sf_err err = {0};
    int64_t n = cases[_i].count, before = cases[_i].before, dropped = 0;
    uint64_t bytes = (uint64_t)n * sizeof(uint16_t);
    kit_begin(&kit, 9900 + (uint64_t)_i);
    uint16_t *x = kit_bytes(&kit, bytes, false), *got = kit_bytes(&kit, bytes, false);
    void *from, *to;
    for (int64_t i = 0; i < n; i++)
        x[i] = bits_of(1);
    assert_ok(sk_device_alloc(&from, bytes, "x", &err), err);
    assert_ok(sk_device_alloc(&to, bytes, "factors", &err), err);
    for (int add = 0; add < 2; add++) {
        assert_ok(sk_memory_cuda.write(&cuda_ctx, from, x, bytes, &err), err);
        memset(got, add ? 0 : 0xff, bytes); /* NaN, or what is added to */
        assert_ok(sk_memory_cuda.write(&cuda_ctx, to, got, bytes, &err), err);
        struct sk_drop drop = {&cases[_i].dropout, cases[_i].site, before, add};
        assert_ok(sk_dropout_cuda(&cuda_ctx, to, from, n, drop, &err), err);
        assert_ok(sk_memory_cuda.read(&cuda_ctx, got, to, bytes, &err), err);
        for (int64_t i = 0; i < n; i++) {
            float factor[4];
            sk_dropout_factors(factor, cases[_i].dropout, cases[_i].site,
                               (uint64_t)(before + i) / 4);
            uint16_t want = bits_of(factor[(before + i) % 4]);
            ck_assert_msg(got[i] == want, "element %lld is %04x, not %04x", (long long)i, got[i],
                          want);
            dropped += want == 0;
        }
    }
    double share = (double)dropped / (2 * (double)n);
    if (n > 1000)
        ck_assert_double_eq_tol(share, (double)cases[_i].dropout.probability, 0.06);
    sk_device_free(from);
    sk_device_free(to);
    kit_end(&kit);
}
END_TEST

static Suite *dropout_suite(void)
{
    Suite *suite = suite_create("cuda_dropout");
    TCase *tc = tcase_create("cuda_dropout");
    tcase_add_loop_test(tc, the_same_are_dropped_as_on_the_host, 0, CASES);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(dropout_suite);
}
