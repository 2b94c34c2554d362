#include "tests/kernels/kit.h"

#include <math.h>
#include <string.h>

#include "kernels/head_loss.h"

/* The op takes at most 512 rows at once and 256 rows of the head: some cases cross these. */
static const struct shape {
    int64_t rows, hidden, vocabulary;
    enum sk_format format;
    int ignored; /* of 8 rows; 8: all of the first 520 */
    float spread;
} shapes[] = {{1, 64, 3, SK_FORMAT_F32, 0, 1},      {7, 33, 300, SK_FORMAT_BF16, 3, 1},
              {130, 40, 257, SK_FORMAT_BF16, 0, 1}, {600, 12, 70, SK_FORMAT_F16, 5, 1},
              {600, 12, 70, SK_FORMAT_NF4, 8, 1},   {16, 64, 90, SK_FORMAT_NF4_NESTED, 2, 6},
              {40, 600, 330, SK_FORMAT_BF16, 1, 1}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

struct wide {
    struct shape s;
    const int32_t *targets;
    double scale;
    double *x, *w, *z, *token_loss, *dx;
    double lora_scale;
    double *a, *b, *da, *db; /* a NULL: no LoRA */
    double *factor;          /* [rows, hidden] of a dropout; else ones */
};

enum { RANK = 5, SITE = 9 };
static const struct sk_dropout dropout = {.probability = 0.3f, .key = 78, .number = 6};

/* t[k] = <factors * x, row k of A>. */
static void lora_inner(double t[RANK], const struct wide *l, int64_t r)
{
    for (int k = 0; k < RANK; k++) {
        t[k] = 0;
        for (int64_t j = 0; j < l->s.hidden; j++)
            t[k] += l->factor[r * l->s.hidden + j] * l->x[r * l->s.hidden + j] *
                    l->a[k * l->s.hidden + j];
    }
}

static double row_loss(struct wide *l, int64_t r)
{
    double *z = l->z + r * l->s.vocabulary, largest = -INFINITY, sum = 0, t[RANK];
    if (l->a)
        lora_inner(t, l, r);
    for (int64_t i = 0; i < l->s.vocabulary; i++) {
        z[i] = kit_dot(l->x + r * l->s.hidden, l->w + i * l->s.hidden, l->s.hidden);
        z[i] += l->a ? l->lora_scale * kit_dot(t, l->b + i * RANK, RANK) : 0;
        largest = fmax(largest, z[i]);
    }
    for (int64_t i = 0; i < l->s.vocabulary; i++)
        sum += exp(z[i] - largest);
    return l->targets[r] < 0 ? 0 : largest + log(sum) - z[l->targets[r]];
}

static double slope_loss(void *ctx)
{
    struct wide *l = ctx;
    double loss = 0;
    for (int64_t r = 0; r < l->s.rows; r++)
        loss += l->token_loss[r] = row_loss(l, r);
    return l->scale * loss;
}

/* What LoRA adds for one row, whose d logits are given. */
static void lora_backward(struct wide *l, int64_t r, const double *dz)
{
    double t[RANK], u[RANK] = {0};
    lora_inner(t, l, r);
    for (int64_t i = 0; i < l->s.vocabulary; i++) {
        for (int k = 0; k < RANK; k++) {
            u[k] += l->lora_scale * dz[i] * l->b[i * RANK + k];
            l->db[i * RANK + k] += l->lora_scale * dz[i] * t[k];
        }
    }
    for (int k = 0; k < RANK; k++) {
        for (int64_t j = 0; j < l->s.hidden; j++) {
            int64_t at = r * l->s.hidden + j;
            l->da[k * l->s.hidden + j] += u[k] * l->factor[at] * l->x[at];
            l->dx[at] += u[k] * l->factor[at] * l->a[k * l->s.hidden + j];
        }
    }
}

/* Uses p = exp(z - z[target] - loss), another way to the softmax than the op's. */
static void backward_formula(struct kit *kit, struct wide *l)
{
    double *row = kit_zeros(kit, l->s.vocabulary);
    for (int64_t r = 0; r < l->s.rows; r++) {
        const double *z = l->z + r * l->s.vocabulary;
        double *dx = l->dx + r * l->s.hidden;
        if (l->targets[r] < 0)
            continue;
        for (int64_t i = 0; i < l->s.vocabulary; i++) {
            double p = exp(z[i] - z[l->targets[r]] - l->token_loss[r]);
            double dz = row[i] = l->scale * (p - (i == l->targets[r]));
            for (int64_t j = 0; j < l->s.hidden; j++)
                dx[j] += dz * l->w[i * l->s.hidden + j];
        }
        if (l->a)
            lora_backward(l, r, row);
    }
}

static void make_case(struct kit *kit, struct wide *l, struct sk_head_loss *a, int which)
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
    *a = (struct sk_head_loss){.token_loss = kit_out(kit, s->rows),
                               .loss = kit_bytes(kit, sizeof(double), true),
                               .x = kit_in(kit, s->rows * s->hidden, s->spread),
                               .head = kit_matrices(kit, s->format, 1, s->vocabulary, s->hidden),
                               .targets = targets,
                               .gradient_scale = scale,
                               .rows = s->rows,
                               .hidden = s->hidden,
                               .vocabulary = s->vocabulary};
    *l = (struct wide){.s = *s,
                       .targets = targets,
                       .scale = (double)*scale,
                       .x = kit_wide(kit, a->x, s->rows * s->hidden),
                       .w = kit_dense(kit, a->head),
                       .z = kit_zeros(kit, s->rows * s->vocabulary),
                       .token_loss = kit_zeros(kit, s->rows),
                       .dx = kit_zeros(kit, s->rows * s->hidden)};
}

enum { WANT_DX = 1, WANT_LOGITS = 2, LORA = 4, WANT_GRADIENTS = 8, DROPS = 16 };

static void add_lora(struct kit *kit, struct wide *l, struct sk_head_loss *a, int flags)
{
    int64_t na = RANK * a->hidden, nb = a->vocabulary * RANK, nx = a->rows * a->hidden;
    a->rank = RANK;
    a->scale = 1.5f;
    a->a = kit_in(kit, na, 0.3f);
    a->b = kit_in(kit, nb, 0.3f);
    a->da = flags & WANT_GRADIENTS ? kit_inout(kit, na, 0.1f) : NULL;
    a->db = flags & WANT_GRADIENTS ? kit_inout(kit, nb, 0.1f) : NULL;
    a->dropout = flags & DROPS ? &dropout : NULL;
    a->site = SITE;
    l->lora_scale = (double)a->scale;
    l->a = kit_wide(kit, a->a, na);
    l->b = kit_wide(kit, a->b, nb);
    l->da = kit_zeros(kit, na);
    l->db = kit_zeros(kit, nb);
    l->factor = kit_zeros(kit, nx);
    for (int64_t i = 0; i < nx; i++) {
        float factor[4] = {1, 1, 1, 1};
        if (flags & DROPS)
            sk_dropout_factors(factor, dropout, SITE, (uint64_t)i / 4);
        l->factor[i] = (double)factor[i % 4];
    }
}

/* da, db: what was there before. */
static void check_gradients(const struct wide *l, const struct sk_head_loss *a, double *da,
                            double *db)
{
    int64_t na = RANK * a->hidden, nb = a->vocabulary * RANK;
    for (int64_t i = 0; i < na; i++)
        da[i] += l->da[i];
    for (int64_t i = 0; i < nb; i++)
        db[i] += l->db[i];
    kit_close("da", a->da, da, na, 2e-6);
    kit_close("db", a->db, db, nb, 2e-6);
}

static void check(int which, int flags)
{
    struct kit kit;
    struct wide l;
    struct sk_head_loss a;
    kit_begin(&kit, 1300 + (uint64_t)which);
    make_case(&kit, &l, &a, which);
    int64_t nx = a.rows * a.hidden, nz = a.rows * a.vocabulary;
    a.dx = flags & WANT_DX ? kit_out(&kit, nx) : NULL;
    a.logits = flags & WANT_LOGITS ? kit_out(&kit, nz) : NULL;
    if (flags & LORA)
        add_lora(&kit, &l, &a, flags);
    *a.loss = NAN;
    double loss = slope_loss(&l) / l.scale, sum = 0;
    backward_formula(&kit, &l);
    if (flags == WANT_DX || (flags & DROPS && a.dx))
        kit_slope(&kit, "dx", slope_loss, &l, l.x, l.dx, nx, 20);
    if (flags & DROPS) {
        kit_slope(&kit, "da", slope_loss, &l, l.a, l.da, RANK * a.hidden, 20);
        kit_slope(&kit, "db", slope_loss, &l, l.b, l.db, a.vocabulary * RANK, 20);
    }
    double *da = a.da ? kit_wide(&kit, a.da, RANK * a.hidden) : NULL;
    double *db = a.db ? kit_wide(&kit, a.db, a.vocabulary * RANK) : NULL;
    kit_run(&kit, SK_HEAD_LOSS, &a);
    if (da && db)
        check_gradients(&l, &a, da, db);
    kit_close("token_loss", a.token_loss, l.token_loss, a.rows, 1e-6);
    ck_assert_msg(fabs(*a.loss - loss) <= 1e-6 * loss, "loss %.12g, want %.12g", *a.loss, loss);
    for (int64_t r = 0; r < a.rows; r++) {
        sum += (double)a.token_loss[r];
        ck_assert(a.targets[r] >= 0 || a.token_loss[r] == 0);
    }
    ck_assert(fabs(sum - *a.loss) <= 1e-7 * sum);
    if (a.dx)
        kit_close("dx", a.dx, l.dx, nx, 2e-6);
    if (a.logits)
        kit_close("logits", a.logits, l.z, nz, 5e-7);
    kit_end(&kit);
}

START_TEST(loss_and_gradient_meet_the_formula)
{
    check(_i, WANT_DX);
    check(_i, WANT_DX | WANT_LOGITS);
    check(_i, WANT_LOGITS);
    check(_i, 0);
    check(_i, LORA | WANT_DX | WANT_GRADIENTS);
    check(_i, LORA | WANT_DX | WANT_GRADIENTS | DROPS);
    check(_i, LORA | WANT_GRADIENTS | WANT_LOGITS);
    check(_i, LORA | WANT_LOGITS);
    check(_i, LORA);
}
END_TEST

START_TEST(targets_outside_are_refused)
{
    static const struct {
        int32_t target;
        const char *part;
    } bad[] = {{300, "label 300 at position 4"}, {-1, "label -1 at position 4"}};
    struct kit kit;
    struct wide l;
    struct sk_head_loss a;
    kit_begin(&kit, 77);
    make_case(&kit, &l, &a, 1);
    int32_t *targets = kit_ints(&kit, a.rows);
    memcpy(targets, a.targets, (size_t)a.rows * sizeof *targets);
    a.targets = targets;
    for (int i = 0; i < 2; i++) {
        targets[4] = bad[i].target;
        kit_fails(&kit, SK_HEAD_LOSS, &a, SF_EINVAL, bad[i].part);
    }
    kit_end(&kit);
}
END_TEST

static Suite *head_loss_suite(void)
{
    Suite *suite = suite_create("head_loss");
    TCase *tc = tcase_create("head_loss");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, loss_and_gradient_meet_the_formula, 0, SHAPES);
    tcase_add_test(tc, targets_outside_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(head_loss_suite)
