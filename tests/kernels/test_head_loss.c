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
};

static double row_loss(struct wide *l, int64_t r)
{
    double *z = l->z + r * l->s.vocabulary, largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < l->s.vocabulary; i++) {
        z[i] = kit_dot(l->x + r * l->s.hidden, l->w + i * l->s.hidden, l->s.hidden);
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

/* Uses p = exp(z - z[target] - loss), another way to the softmax than the op's. */
static void backward_formula(struct wide *l)
{
    for (int64_t r = 0; r < l->s.rows; r++) {
        const double *z = l->z + r * l->s.vocabulary;
        double *dx = l->dx + r * l->s.hidden;
        if (l->targets[r] < 0)
            continue;
        for (int64_t i = 0; i < l->s.vocabulary; i++) {
            double p = exp(z[i] - z[l->targets[r]] - l->token_loss[r]);
            double dz = l->scale * (p - (i == l->targets[r]));
            for (int64_t j = 0; j < l->s.hidden; j++)
                dx[j] += dz * l->w[i * l->s.hidden + j];
        }
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

enum { WANT_DX = 1, WANT_LOGITS = 2 };

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
    *a.loss = NAN;
    double loss = slope_loss(&l) / l.scale, sum = 0;
    backward_formula(&l);
    if (flags == WANT_DX)
        kit_slope(&kit, "dx", slope_loss, &l, l.x, l.dx, nx, 20);
    kit_run(&kit, SK_HEAD_LOSS, &a);
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
