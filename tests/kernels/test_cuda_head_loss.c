#include "tests/kernels/cuda_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/gemm_cpu.h"
#include "kernels/head_loss.h"

/* float32 sums over hidden, then over the vocabulary. */
static const double float32_bar = 1e-5;

/* The op takes 128 to 2048 rows at once, as the vocabulary allows, and 32 MiB of a head that it has
 * to expand: some cases cross these. */
static const struct shape {
    int64_t rows, hidden, vocabulary;
    enum sk_format format;
    int ignored; /* of 8 rows; 8: all of the first 520 */
    float spread;
} shapes[] = {
    {1, 64, 3, SK_FORMAT_F32, 0, 1},          {7, 40, 300, SK_FORMAT_BF16, 3, 1},
    {130, 36, 257, SK_FORMAT_BF16, 0, 1},     {600, 16, 70, SK_FORMAT_F16, 5, 1},
    {600, 16, 72, SK_FORMAT_NF4, 8, 1},       {16, 64, 90, SK_FORMAT_NF4_NESTED, 2, 6},
    {2500, 64, 2064, SK_FORMAT_BF16, 2, 1},   {64, 5120, 1032, SK_FORMAT_BF16, 1, 0.1f},
    {300, 128, 202048, SK_FORMAT_BF16, 1, 1}, {140, 256, 70008, SK_FORMAT_NF4_NESTED, 2, 1}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static const struct cuda_op head_loss = {SK_HEAD_LOSS, "afffffamfffhfw", sk_head_loss_cuda,
                                         sk_head_loss_measure_cuda};
enum { DX, LOGITS, DA, DB, TOKEN_LOSS, LOSS };
enum { WANT_DX = 1, WANT_LOGITS = 2, HOST_TARGETS = 4, LORA = 8, WANT_GRADIENTS = 16, DROPS = 32 };
enum { RANK = 6, SITE = 4 };
/* Its factors, 0 and 2, lose nothing in bfloat16. */
static const struct sk_dropout dropout = {.probability = 0.5f, .key = 5, .number = 8};

static struct sk_head_loss make_case(struct kit *kit, int which, int flags)
{
    const struct shape *s = &shapes[which];
    int32_t *targets = kit_ints(kit, s->rows);
    float *scale = kit_in(kit, 1, 0);
    *scale = 0.037f;
    for (int64_t r = 0; r < s->rows; r++) {
        bool ignored = s->ignored == 8 ? r < 520 : r % 8 < s->ignored;
        targets[r] = ignored ? SK_IGNORE_INDEX
                             : (int32_t)(scout_random_u64(&kit->random) % (uint64_t)s->vocabulary);
    }
    struct sk_head_loss a = {.dx = flags & WANT_DX ? kit_out(kit, s->rows * s->hidden) : NULL,
                             .logits =
                                 flags & WANT_LOGITS ? kit_out(kit, s->rows * s->vocabulary) : NULL,
                             .token_loss = kit_out(kit, s->rows),
                             .loss = kit_bytes(kit, sizeof(double), true),
                             .x = kit_in(kit, s->rows * s->hidden, s->spread),
                             .head = kit_matrices(kit, s->format, 1, s->vocabulary, s->hidden),
                             .targets = targets,
                             .host_targets = flags & HOST_TARGETS ? targets : NULL,
                             .gradient_scale = scale,
                             .rows = s->rows,
                             .hidden = s->hidden,
                             .vocabulary = s->vocabulary};
    *a.loss = NAN;
    if (flags & LORA) {
        int64_t na = RANK * s->hidden, nb = s->vocabulary * RANK;
        a.a = kit_in(kit, na, 0.2f);
        a.b = kit_in(kit, nb, 0.2f);
        a.da = flags & WANT_GRADIENTS ? kit_inout(kit, na, 0.1f) : NULL;
        a.db = flags & WANT_GRADIENTS ? kit_inout(kit, nb, 0.1f) : NULL;
        a.rank = RANK;
        a.scale = 1.5f;
        a.dropout = flags & DROPS ? &dropout : NULL;
        a.site = SITE;
    }
    return a;
}

static void compare(const char *what, const struct shape *s, float *got, float *truth,
                    float *emulated, int64_t n, bool halves)
{
    char label[96];
    if (halves)
        cuda_round(emulated, n);
    snprintf(label, sizeof label, "%s of %lld x %lld -> %lld", what, (long long)s->rows,
             (long long)s->hidden, (long long)s->vocabulary);
    cuda_compare(label, got, truth, emulated, n, halves ? 0 : float32_bar);
}

/* The sum in row order, and zeros where a row has no target. */
static void check_sums(const struct sk_head_loss *a, const struct cuda_results *got, double truth)
{
    const float *token_loss = got->of[TOKEN_LOSS], *dx = got->of[DX];
    double loss = *(double *)got->of[LOSS], sum = 0;
    for (int64_t r = 0; r < a->rows; r++) {
        sum += (double)token_loss[r];
        if (a->targets[r] >= 0)
            continue;
        ck_assert_msg(token_loss[r] == 0, "row %lld has a loss and no target", (long long)r);
        for (int64_t i = 0; dx && i < a->hidden; i++)
            if (dx[r * a->hidden + i] != 0)
                ck_abort_msg("row %lld has a gradient and no target", (long long)r);
    }
    ck_assert_msg(fabs(loss - sum) <= 1e-7 * sum, "loss %.12g, its rows %.12g", loss, sum);
    ck_assert_msg(fabs(loss - truth) <= float32_bar * truth, "loss %.12g, want %.12g", loss, truth);
}

/* ---- LoRA: what CUDA rounds on the way, in plain products ---- */

static float *floats(struct kit *kit, int64_t n)
{
    return kit_in(kit, n, 0);
}

static float *rounded(struct kit *kit, const float *x, int64_t n, float scale)
{
    float *out = floats(kit, n);
    for (int64_t i = 0; i < n; i++)
        out[i] = scale * x[i];
    cuda_round(out, n);
    return out;
}

struct emulation {
    const struct sk_head_loss *a;
    float *w, *la, *lb; /* the head, A and B, rounded */
    float *factor;      /* [rows, hidden] */
    float *x, *t, *z;   /* x through the factors; z turns into d logits */
};

static void emulate_forward(struct emulation *e, struct kit *kit)
{
    const struct sk_head_loss *a = e->a;
    int64_t n = a->rows * a->hidden, h = a->hidden, v = a->vocabulary;
    double *dense = kit_dense(kit, a->head);
    e->w = floats(kit, v * h);
    for (int64_t i = 0; i < v * h; i++)
        e->w[i] = (float)dense[i];
    cuda_round(e->w, v * h);
    e->la = rounded(kit, a->a, RANK * h, 1);
    e->lb = rounded(kit, a->b, v * RANK, 1);
    e->factor = floats(kit, n);
    e->x = floats(kit, n);
    for (int64_t i = 0; i < n; i++) {
        float factor[4] = {1, 1, 1, 1};
        if (a->dropout)
            sk_dropout_factors(factor, dropout, SITE, (uint64_t)i / 4);
        e->factor[i] = factor[i % 4];
        e->x[i] = e->factor[i] * a->x[i];
    }
    e->t = floats(kit, a->rows * RANK);
    sk_gemm_nt(e->t, RANK, e->x, h, e->la, h, a->rows, RANK, h, 1, 0);
    cuda_round(e->t, a->rows * RANK);
    e->z = floats(kit, a->rows * v);
    sk_gemm_nt(e->z, v, a->x, h, e->w, h, a->rows, v, h, 1, 0);
    sk_gemm_nt(e->z, v, e->t, RANK, e->lb, RANK, a->rows, v, RANK, a->scale, 1);
}

/* z becomes softmax - onehot, rounded; 0 where there is no target. */
static void emulate_softmax(struct emulation *e, float *token_loss)
{
    for (int64_t r = 0; r < e->a->rows; r++) {
        float *z = e->z + r * e->a->vocabulary;
        int32_t target = e->a->targets[r];
        double sum = 0, wanted = target < 0 ? 0 : (double)z[target];
        for (int64_t i = 0; i < e->a->vocabulary; i++)
            sum += exp((double)z[i]);
        token_loss[r] = target < 0 ? 0 : (float)(log(sum) - wanted);
        for (int64_t i = 0; i < e->a->vocabulary; i++)
            z[i] = target < 0 ? 0 : (float)(exp((double)z[i]) / sum - (i == target));
    }
    cuda_round(e->z, e->a->rows * e->a->vocabulary);
}

static void emulate_backward(const struct emulation *e, struct kit *kit, float *dx, float *da,
                             float *db)
{
    const struct sk_head_loss *a = e->a;
    int64_t h = a->hidden, v = a->vocabulary, small = a->rows * RANK;
    float scale = *a->gradient_scale, *u = floats(kit, small), *part = floats(kit, a->rows * h);
    sk_gemm_nn(u, RANK, e->z, v, e->lb, RANK, a->rows, RANK, v, a->scale, 0);
    if (da) {
        memcpy(da, a->da, (size_t)(RANK * h) * sizeof *da);
        memcpy(db, a->db, (size_t)(v * RANK) * sizeof *db);
        sk_gemm_tn(da, h, rounded(kit, u, small, scale), RANK, e->x, h, RANK, h, a->rows, 1, 1);
        sk_gemm_tn(db, RANK, e->z, v, rounded(kit, e->t, small, scale), RANK, v, RANK, a->rows,
                   a->scale, 1);
    }
    if (!dx)
        return;
    sk_gemm_nn(dx, h, e->z, v, e->w, h, a->rows, h, v, scale, 0);
    sk_gemm_nn(part, h, da ? rounded(kit, u, small, 1) : u, RANK, e->la, h, a->rows, h, RANK, scale,
               0);
    for (int64_t i = 0; da && i < a->rows * h; i++)
        dx[i] += e->factor[i] * part[i];
}

static void emulate(struct cuda_results *out, struct kit *kit, const struct sk_head_loss *a)
{
    struct emulation e = {.a = a};
    emulate_forward(&e, kit);
    if (a->logits)
        memcpy(out->of[LOGITS], e.z, (size_t)(a->rows * a->vocabulary) * sizeof *e.z);
    emulate_softmax(&e, out->of[TOKEN_LOSS]);
    emulate_backward(&e, kit, out->of[DX], out->of[DA], out->of[DB]);
}

static void check(int which, int flags)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got, truth, emulated;
    const struct shape *s = &shapes[which];
    kit_begin(&kit, 5300 + (uint64_t)which);
    struct sk_head_loss a = make_case(&kit, which, flags);
    cuda_round_activations(&kit, &head_loss, &a);
    cuda_run_cpu(&truth, &kit, &head_loss, &a);
    struct sk_head_loss e = a;
    if (s->format == SK_FORMAT_F32 || s->format == SK_FORMAT_F16)
        e.head = cuda_round_matrices(&kit, a.head, 1);
    cuda_run_cpu(&emulated, &kit, &head_loss, &e);
    if (flags & LORA)
        emulate(&emulated, &kit, &a);
    assert_ok(cuda_run_gpu(&got, &kit, &head_loss, &a, &err), err);
    if (a.dx)
        compare("dx", s, got.of[DX], truth.of[DX], emulated.of[DX], a.rows * a.hidden, true);
    if (a.logits)
        compare("logits", s, got.of[LOGITS], truth.of[LOGITS], emulated.of[LOGITS],
                a.rows * a.vocabulary, false);
    compare("token_loss", s, got.of[TOKEN_LOSS], truth.of[TOKEN_LOSS], emulated.of[TOKEN_LOSS],
            a.rows, false);
    if (a.da) {
        compare("da", s, got.of[DA], truth.of[DA], emulated.of[DA], RANK * a.hidden, false);
        compare("db", s, got.of[DB], truth.of[DB], emulated.of[DB], a.vocabulary * RANK, false);
    }
    if (flags & LORA) { /* its loss is not the CPU's, whose t was not rounded */
        double sum = 0;
        for (int64_t r = 0; r < a.rows; r++)
            sum += (double)((float *)emulated.of[TOKEN_LOSS])[r];
        *(double *)emulated.of[LOSS] = sum;
    }
    bool exact = e.head == a.head && !(flags & LORA);
    check_sums(&a, &got, exact ? *(double *)truth.of[LOSS] : *(double *)emulated.of[LOSS]);
    kit_end(&kit);
}

START_TEST(loss_and_gradient_meet_the_cpu)
{
    check(_i, WANT_DX | HOST_TARGETS);
    check(_i, WANT_DX);
    check(_i, HOST_TARGETS);
    if (shapes[_i].rows * shapes[_i].vocabulary < 10000000) {
        check(_i, WANT_DX | WANT_LOGITS | HOST_TARGETS);
        check(_i, WANT_LOGITS);
        check(_i, LORA | WANT_DX | WANT_GRADIENTS | HOST_TARGETS);
        check(_i, LORA | WANT_DX | WANT_GRADIENTS | DROPS | HOST_TARGETS);
        check(_i, LORA | WANT_DX | WANT_GRADIENTS | DROPS);
        check(_i, LORA | WANT_GRADIENTS | HOST_TARGETS);
        check(_i, LORA | WANT_LOGITS);
    }
}
END_TEST

/* No row has a target: nothing but zeros. */
START_TEST(no_target_at_all)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    for (int host = 0; host < 2; host++) {
        kit_begin(&kit, 12);
        struct sk_head_loss a = make_case(&kit, 4, WANT_DX | (host ? HOST_TARGETS : 0));
        int32_t *targets = kit_ints(&kit, a.rows);
        for (int64_t r = 0; r < a.rows; r++)
            targets[r] = SK_IGNORE_INDEX;
        a.targets = targets;
        a.host_targets = host ? targets : NULL;
        assert_ok(cuda_run_gpu(&got, &kit, &head_loss, &a, &err), err);
        ck_assert(*(double *)got.of[LOSS] == 0);
        for (int64_t i = 0; i < a.rows * a.hidden; i++)
            if (((float *)got.of[DX])[i] != 0)
                ck_abort_msg("dx[%lld] is not 0", (long long)i);
        for (int64_t r = 0; r < a.rows; r++)
            ck_assert(((float *)got.of[TOKEN_LOSS])[r] == 0);
        kit_end(&kit);
    }
}
END_TEST

START_TEST(targets_outside_are_refused)
{
    struct kit kit;
    struct sf_err err = {0};
    struct cuda_results got;
    for (int host = 0; host < 2; host++) {
        kit_begin(&kit, 13);
        struct sk_head_loss a = make_case(&kit, 1, WANT_DX);
        int32_t *targets = kit_ints(&kit, a.rows);
        memcpy(targets, a.targets, (size_t)a.rows * sizeof *targets);
        targets[4] = host ? 300 : -1;
        a.targets = targets;
        a.host_targets = host ? targets : NULL;
        assert_fails(cuda_run_gpu(&got, &kit, &head_loss, &a, &err), SF_EINVAL,
                     host ? "label 300 at position 4" : "row 4", err);
        kit_end(&kit);
    }
}
END_TEST

static Suite *head_loss_suite(void)
{
    Suite *suite = suite_create("cuda_head_loss");
    TCase *tc = tcase_create("cuda_head_loss");
    tcase_add_loop_test(tc, loss_and_gradient_meet_the_cpu, 0, SHAPES);
    tcase_add_test(tc, no_target_at_all);
    tcase_add_test(tc, targets_outside_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return cuda_test_main(head_loss_suite);
}
