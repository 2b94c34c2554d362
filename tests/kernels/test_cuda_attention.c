#include "tests/kernels/cuda_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/attention.h"
#include "kernels/cuda_private.h"
#include "libformat/base/mem.h"

/* Sums of head_size products in a tensor core, which cuts off instead of rounding. */
static const double float32_bar = 5e-6;

/* Tiles are 64 keys and 64 or 128 queries; heads of 8 to 128 elements go through tensor cores. */
enum { MOST_DOCUMENTS = 6 };
static const struct shape {
    int64_t heads, kv_heads, head_size, chunk;
    int32_t documents[MOST_DOCUMENTS + 1]; /* ends at the first number that repeats 0 */
} shapes[] = {
    {1, 1, 4, 0, {0, 1}},
    {1, 1, 128, 0, {0, 1}},
    {10, 2, 8, 0, {0, 7}},
    {5, 1, 16, 5, {0, 3, 4, 20, 33}},
    {4, 2, 64, 16, {0, 130, 137, 153}},
    {4, 2, 64, 0, {0, 128, 256}},
    {4, 4, 8, 1, {0, 1, 9}},
    {2, 1, 12, 1000, {0, 70, 71}},
    {10, 2, 32, 0, {0, 66, 67, 67, 195}}, /* the third document has no rows */
    {2, 2, 8, 64, {0, 200, 264}},
    {3, 1, 72, 0, {0, 0, 65, 65}},
    {2, 1, 256, 40, {0, 90, 91}},
    {2, 2, 136, 0, {0, 67}},
    {40, 8, 128, 0, {0, 64}},
    {40, 8, 128, 0, {0, 100, 101, 229}},
    {40, 8, 128, 96, {0, 200}},
    {5, 1, 128, 0, {0, 700}},
    {5, 1, 128, 256, {0, 1, 130, 130, 900}},
    {2, 2, 128, 3, {0, 5, 77, 300}},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0], SPREADS = 2 };
static const float spreads[SPREADS] = {1, 3}; /* of q and k: 3 leaves few keys in a softmax */

static const struct cuda_op forward = {SK_ATTENTION_FORWARD, "afaaafw", sk_attention_forward_cuda,
                                       sk_attention_forward_measure_cuda};
static const struct cuda_op backward = {SK_ATTENTION_BACKWARD, "aaaaafaaafw",
                                        sk_attention_backward_cuda,
                                        sk_attention_backward_measure_cuda};

static struct sk_attention_shape shape_of(const struct shape *s)
{
    struct sk_attention_shape out = {.heads = s->heads,
                                     .kv_heads = s->kv_heads,
                                     .head_size = s->head_size,
                                     .chunk = s->chunk,
                                     .scale = 1 / sqrtf((float)s->head_size)};
    for (int i = 1; i <= MOST_DOCUMENTS && (i == 1 || s->documents[i] > 0); i++) {
        int64_t rows = s->documents[i] - s->documents[i - 1];
        out.documents = i;
        out.rows = s->documents[i];
        out.longest = rows > out.longest ? rows : out.longest;
    }
    return out;
}

/* ---- the same formulas with p and ds rounded to bfloat16, as products on tensor cores need ---- */

static int64_t first_key(const struct sk_attention_shape *s, const int32_t *documents, int64_t r)
{
    int64_t d = 0;
    while (documents[d + 1] <= r)
        d++;
    int64_t start = documents[d];
    return s->chunk > 0 ? start + (r - start) / s->chunk * s->chunk : start;
}

static float dot(const float *a, const float *b, int64_t n)
{
    float sum[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int lane = 0; lane < 8; lane++)
            sum[lane] += a[i + lane] * b[i + lane];
    for (; i < n; i++)
        sum[0] += a[i] * b[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]) + (sum[4] + sum[5]) + (sum[6] + sum[7]);
}

static void add(float *to, float factor, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += factor * x[i];
}

static const float *key_of(const struct sk_attention_shape *s, const float *k, int64_t j, int64_t h)
{
    return k + (j * s->kv_heads + h / (s->heads / s->kv_heads)) * s->head_size;
}

static void emulate_forward_row(float *o, float *p, const struct sk_attention_forward *a, int64_t r,
                                int64_t h)
{
    const struct sk_attention_shape *s = &a->shape;
    int64_t d = s->head_size, first = first_key(s, a->documents, r);
    float most = -INFINITY, sum = 0;
    for (int64_t j = first; j <= r; j++) {
        p[j] = s->scale * dot(a->q + (r * s->heads + h) * d, key_of(s, a->k, j, h), d);
        most = fmaxf(most, p[j]);
    }
    for (int64_t j = first; j <= r; j++)
        sum += p[j] = expf(p[j] - most);
    cuda_round(p + first, r + 1 - first);
    memset(o, 0, (size_t)d * sizeof *o);
    for (int64_t j = first; j <= r; j++)
        add(o, p[j] / sum, key_of(s, a->v, j, h), d);
    cuda_round(o, d);
}

static float *emulate_forward(struct kit *kit, const struct sk_attention_forward *a)
{
    const struct sk_attention_shape *s = &a->shape;
    float *o = kit_out(kit, s->rows * s->heads * s->head_size), *p = kit_out(kit, s->rows);
    for (int64_t i = 0; i < s->rows * s->heads; i++)
        emulate_forward_row(o + i * s->head_size, p, a, i / s->heads, i % s->heads);
    return o;
}

struct gradients {
    float *dq, *dk, *dv;
};

static void emulate_backward_row(const struct gradients *g, const struct sk_attention_backward *a,
                                 int64_t r, int64_t h)
{
    const struct sk_attention_shape *s = &a->shape;
    int64_t d = s->head_size, at = (r * s->heads + h) * d;
    float delta = dot(a->d_o + at, a->o + at, d);
    for (int64_t j = first_key(s, a->documents, r); j <= r; j++) {
        const float *k = key_of(s, a->k, j, h), *v = key_of(s, a->v, j, h);
        float p = expf(s->scale * dot(a->q + at, k, d) - a->lse[r * s->heads + h]);
        float ds = p * (dot(a->d_o + at, v, d) - delta);
        cuda_round(&p, 1);
        cuda_round(&ds, 1);
        add(g->dq + at, s->scale * ds, k, d);
        add(g->dk + (k - a->k), s->scale * ds, a->q + at, d);
        add(g->dv + (v - a->v), p, a->d_o + at, d);
    }
}

static struct gradients emulate_backward(struct kit *kit, const struct sk_attention_backward *a)
{
    const struct sk_attention_shape *s = &a->shape;
    int64_t nq = s->rows * s->heads * s->head_size, nk = s->rows * s->kv_heads * s->head_size;
    struct gradients g = {kit_in(kit, nq, 0), kit_in(kit, nk, 0), kit_in(kit, nk, 0)};
    for (int64_t i = 0; i < s->rows * s->heads; i++)
        emulate_backward_row(&g, a, i / s->heads, i % s->heads);
    cuda_round(g.dq, nq);
    cuda_round(g.dk, nk);
    cuda_round(g.dv, nk);
    return g;
}

/* ---- cases ---- */

static struct sk_attention_forward make_case(struct kit *kit, int which)
{
    struct sk_attention_shape s = shape_of(&shapes[which / SPREADS]);
    int64_t nq = s.rows * s.heads * s.head_size, nk = s.rows * s.kv_heads * s.head_size;
    float spread = spreads[which % SPREADS];
    int32_t *documents = kit_ints(kit, s.documents + 1);
    memcpy(documents, shapes[which / SPREADS].documents,
           ((size_t)s.documents + 1) * sizeof *documents);
    return (struct sk_attention_forward){.o = kit_out(kit, nq),
                                         .lse = kit_out(kit, s.rows * s.heads),
                                         .q = kit_in(kit, nq, spread),
                                         .k = kit_in(kit, nk, spread),
                                         .v = kit_in(kit, nk, 1),
                                         .documents = documents,
                                         .shape = s};
}

/* mma.sync everywhere, wgmma on Hopper too. */
static bool choose_way(int way)
{
    cuda_ctx.cuda->wgmma = way == 1;
    return way == 0 || cuda_ctx.cuda->major == 9;
}

static const char *label_of(const char *what, int which, const struct sk_attention_shape *s)
{
    static char label[96];
    snprintf(label, sizeof label, "%s %lldx%lld/%lldx%lld chunk %lld spread %g %s", what,
             (long long)s->rows, (long long)s->heads, (long long)s->kv_heads,
             (long long)s->head_size, (long long)s->chunk, (double)spreads[which % SPREADS],
             cuda_ctx.cuda->wgmma ? "wgmma" : "mma");
    return label;
}

START_TEST(forward_meets_the_cpu)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth;
    kit_begin(&kit, 7300 + (uint64_t)_i);
    struct sk_attention_forward a = make_case(&kit, _i);
    const struct sk_attention_shape *s = &a.shape;
    cuda_round_activations(&kit, &forward, &a);
    cuda_run_cpu(&truth, &kit, &forward, &a);
    float *emulated = emulate_forward(&kit, &a);
    for (int way = 0; way < 2 && choose_way(way); way++) {
        assert_ok(cuda_run_gpu(&got, &kit, &forward, &a, &err), err);
        cuda_compare(label_of("o", _i, s), got.of[0], truth.of[0], emulated,
                     s->rows * s->heads * s->head_size, 0);
        cuda_compare(label_of("lse", _i, s), got.of[1], truth.of[1], NULL, s->rows * s->heads,
                     float32_bar);
    }
    kit_end(&kit);
}
END_TEST

/* Where every query sees one key, p is 1 and ds is 0 but for what float32 leaves. */
static void check_nothing(const char *what, const float *got, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabsf(got[i]) < 1e-4f, "%s[%lld] is %g, want 0", what, (long long)i,
                      (double)got[i]);
}

static void compare_gradients(int which, const struct sk_attention_backward *a,
                              const struct gradients *g, const struct cuda_results *got,
                              const struct cuda_results *truth)
{
    const struct sk_attention_shape *s = &a->shape;
    int64_t nq = s->rows * s->heads * s->head_size, nk = s->rows * s->kv_heads * s->head_size;
    cuda_compare(label_of("dv", which, s), got->of[2], truth->of[2], g->dv, nk, 0);
    if (s->rows == 1 || s->chunk == 1) {
        check_nothing("dq", got->of[0], nq);
        check_nothing("dk", got->of[1], nk);
        return;
    }
    cuda_compare(label_of("dq", which, s), got->of[0], truth->of[0], g->dq, nq, 0);
    cuda_compare(label_of("dk", which, s), got->of[1], truth->of[1], g->dk, nk, 0);
}

START_TEST(backward_meets_the_cpu)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results seen, got, truth;
    kit_begin(&kit, 7400 + (uint64_t)_i);
    struct sk_attention_forward f = make_case(&kit, _i);
    const struct sk_attention_shape *s = &f.shape;
    int64_t heads = s->rows * s->heads, nq = heads * s->head_size;
    int64_t nk = s->rows * s->kv_heads * s->head_size;
    cuda_round_activations(&kit, &forward, &f);
    cuda_run_cpu(&seen, &kit, &forward, &f);
    float *o = kit_in(&kit, nq, 0), *lse = kit_in(&kit, heads, 0);
    memcpy(o, seen.of[0], (size_t)nq * sizeof *o);
    memcpy(lse, seen.of[1], (size_t)heads * sizeof *lse);
    struct sk_attention_backward a = {.dq = kit_out(&kit, nq),
                                      .dk = kit_out(&kit, nk),
                                      .dv = kit_out(&kit, nk),
                                      .d_o = kit_in(&kit, nq, 1),
                                      .o = o,
                                      .lse = lse,
                                      .q = f.q,
                                      .k = f.k,
                                      .v = f.v,
                                      .documents = f.documents,
                                      .shape = *s};
    cuda_round_activations(&kit, &backward, &a);
    cuda_run_cpu(&truth, &kit, &backward, &a);
    struct gradients g = emulate_backward(&kit, &a);
    for (int way = 0; way < 2 && choose_way(way); way++) {
        assert_ok(cuda_run_gpu(&got, &kit, &backward, &a, &err), err);
        compare_gradients(_i, &a, &g, &got, &truth);
    }
    kit_end(&kit);
}
END_TEST

/* ---- refusals: found on the device, told by the next read ---- */

START_TEST(documents_that_do_not_cover_are_refused)
{
    static const struct {
        int32_t documents[3];
        const char *part;
    } bad[] = {{{0, 5, 8}, "document 1 ends at row 8"},
               {{1, 5, 9}, "document 0 ends at row 5"},
               {{0, 7, 9}, "document 0 ends at row 7"},
               {{0, 5, 4}, "document 1 ends at row 4"}};
    for (int i = 0; i < 4; i++) {
        struct kit kit;
        struct sf_err err = {0};
        struct cuda_results got;
        kit_begin(&kit, 2);
        int32_t *documents = kit_ints(&kit, 3);
        memcpy(documents, bad[i].documents, sizeof bad[i].documents);
        struct sk_attention_forward a = {.o = kit_out(&kit, 9 * 8),
                                         .lse = kit_out(&kit, 9),
                                         .q = kit_in(&kit, 9 * 8, 1),
                                         .k = kit_in(&kit, 9 * 8, 1),
                                         .v = kit_in(&kit, 9 * 8, 1),
                                         .documents = documents,
                                         .shape = {.rows = 9,
                                                   .documents = 2,
                                                   .heads = 1,
                                                   .kv_heads = 1,
                                                   .head_size = 8,
                                                   .longest = 5}};
        assert_fails(cuda_run_gpu(&got, &kit, &forward, &a, &err), SF_EINVAL, bad[i].part, err);
        kit_end(&kit);
    }
}
END_TEST

START_TEST(long_heads_are_refused)
{
    struct sf_err err = {0};
    struct sk_attention_forward a = {
        .shape = {
            .rows = 1, .documents = 1, .heads = 1, .kv_heads = 1, .head_size = 264, .longest = 1}};
    assert_fails(sk_attention_forward_cuda(&cuda_ctx, &a, &err), SF_EUNSUPPORTED, "264", err);
}
END_TEST

static Suite *attention_suite(void)
{
    Suite *suite = suite_create("cuda_attention");
    TCase *tc = tcase_create("cuda_attention");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, forward_meets_the_cpu, 0, SHAPES * SPREADS);
    tcase_add_loop_test(tc, backward_meets_the_cpu, 0, SHAPES * SPREADS);
    tcase_add_test(tc, documents_that_do_not_cover_are_refused);
    tcase_add_test(tc, long_heads_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(attention_suite);
}
