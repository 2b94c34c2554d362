#include "tests/kernels/kit.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/attention.h"

enum { MOST_DOCUMENTS = 6, MOST_KEYS = 256 };
static const struct shape {
    int64_t heads, kv_heads, head_size, chunk;
    int32_t documents[MOST_DOCUMENTS + 1]; /* ends at the first number that repeats 0 */
} shapes[] = {
    {1, 1, 4, 0, {0, 1}},
    {10, 2, 8, 0, {0, 7}},
    {5, 1, 16, 5, {0, 3, 4, 20, 33}},
    {4, 2, 64, 16, {0, 130, 137, 153}},
    {4, 4, 8, 1, {0, 1, 9}},
    {2, 1, 12, 1000, {0, 70, 71}},
    {10, 2, 32, 0, {0, 66, 67, 67, 195}}, /* the third document has no rows */
    {2, 2, 8, 64, {0, 200, 264}},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

struct wide {
    struct sk_attention_shape s;
    const int32_t *documents;
    double *q, *k, *v, *d_o, *o, *lse;
};

/* First key that row r sees. */
static int64_t first_key(const struct wide *l, int64_t r)
{
    int64_t d = 0;
    while (l->documents[d + 1] <= r)
        d++;
    int64_t start = l->documents[d];
    return l->s.chunk > 0 ? start + (r - start) / l->s.chunk * l->s.chunk : start;
}

static const double *key_of(const struct wide *l, const double *k, int64_t row, int64_t head)
{
    int64_t kv_head = head / (l->s.heads / l->s.kv_heads);
    return k + (row * l->s.kv_heads + kv_head) * l->s.head_size;
}

/* p[j] over keys first_key(r) .. r; returns log sum exp. */
static double weights_of(double *p, const struct wide *l, int64_t r, int64_t h)
{
    int64_t first = first_key(l, r), d = l->s.head_size;
    const double *q = l->q + (r * l->s.heads + h) * d;
    double largest = -INFINITY, sum = 0;
    assert(first <= r); /* a row sees itself */
    for (int64_t j = first; j <= r; j++) {
        p[j - first] = (double)l->s.scale * kit_dot(q, key_of(l, l->k, j, h), d);
        largest = fmax(largest, p[j - first]);
    }
    for (int64_t j = first; j <= r; j++)
        sum += exp(p[j - first] - largest);
    for (int64_t j = first; j <= r; j++)
        p[j - first] = exp(p[j - first] - largest) / sum;
    return largest + log(sum);
}

static void forward_formula(struct wide *l)
{
    double p[MOST_KEYS];
    for (int64_t i = 0; i < l->s.rows * l->s.heads; i++) {
        int64_t r = i / l->s.heads, h = i % l->s.heads, first = first_key(l, r);
        double *o = l->o + i * l->s.head_size;
        l->lse[i] = weights_of(p, l, r, h);
        for (int64_t e = 0; e < l->s.head_size; e++) {
            o[e] = 0;
            for (int64_t j = first; j <= r; j++)
                o[e] += p[j - first] * key_of(l, l->v, j, h)[e];
        }
    }
}

static double slope_loss(void *ctx)
{
    struct wide *l = ctx;
    forward_formula(l);
    return kit_dot(l->d_o, l->o, l->s.rows * l->s.heads * l->s.head_size);
}

/* dP is formed whole and its mean under p taken from it, not from <do, o> as the op does. */
static void backward_formula(double *dq, double *dk, double *dv, const struct wide *l)
{
    int64_t d = l->s.head_size, group = l->s.heads / l->s.kv_heads;
    double p[MOST_KEYS], dp[MOST_KEYS], scale = (double)l->s.scale;
    for (int64_t i = 0; i < l->s.rows * l->s.heads; i++) {
        int64_t r = i / l->s.heads, h = i % l->s.heads, first = first_key(l, r);
        const double *d_o = l->d_o + i * d;
        double mean = 0;
        weights_of(p, l, r, h);
        for (int64_t j = first; j <= r; j++) {
            dp[j - first] = kit_dot(d_o, key_of(l, l->v, j, h), d);
            mean += p[j - first] * dp[j - first];
        }
        for (int64_t j = first; j <= r; j++) {
            int64_t at = (j * l->s.kv_heads + h / group) * d;
            double ds = p[j - first] * (dp[j - first] - mean);
            for (int64_t e = 0; e < d; e++) {
                dq[i * d + e] += scale * ds * l->k[at + e];
                dk[at + e] += scale * ds * l->q[i * d + e];
                dv[at + e] += p[j - first] * d_o[e];
            }
        }
    }
}

static struct sk_attention_shape shape_of(const struct shape *s)
{
    struct sk_attention_shape out = {.heads = s->heads,
                                     .kv_heads = s->kv_heads,
                                     .head_size = s->head_size,
                                     .chunk = s->chunk,
                                     .scale = 1 / sqrtf((float)s->head_size)};
    for (int i = 1; i <= MOST_DOCUMENTS && s->documents[i] > 0; i++) {
        int64_t rows = s->documents[i] - s->documents[i - 1];
        out.documents = i;
        out.rows = s->documents[i];
        out.longest = rows > out.longest ? rows : out.longest;
    }
    return out;
}

struct given {
    const float *q, *k, *v, *d_o;
};

/* `scale` of q and k: large ones make a softmax that is almost one key. */
static void make_case(struct kit *kit, struct wide *l, struct given *g, int which, float scale)
{
    l->s = shape_of(&shapes[which]);
    int64_t nq = l->s.rows * l->s.heads * l->s.head_size;
    int64_t nk = l->s.rows * l->s.kv_heads * l->s.head_size;
    int32_t *documents = kit_ints(kit, l->s.documents + 1);
    for (int64_t i = 0; i <= l->s.documents; i++)
        documents[i] = shapes[which].documents[i];
    l->documents = documents;
    g->q = kit_in(kit, nq, scale);
    g->k = kit_in(kit, nk, scale);
    g->v = kit_in(kit, nk, 1);
    g->d_o = kit_in(kit, nq, 1);
    l->q = kit_wide(kit, g->q, nq);
    l->k = kit_wide(kit, g->k, nk);
    l->v = kit_wide(kit, g->v, nk);
    l->d_o = kit_wide(kit, g->d_o, nq);
    l->o = kit_zeros(kit, nq);
    l->lse = kit_zeros(kit, l->s.rows * l->s.heads);
    forward_formula(l);
}

static void check_forward(int which, float scale)
{
    struct kit kit;
    struct wide l;
    struct given g;
    kit_begin(&kit, 700 + (uint64_t)which);
    make_case(&kit, &l, &g, which, scale);
    int64_t heads = l.s.rows * l.s.heads, nq = heads * l.s.head_size;
    struct sk_attention_forward a = {.o = kit_out(&kit, nq),
                                     .lse = kit_out(&kit, heads),
                                     .q = g.q,
                                     .k = g.k,
                                     .v = g.v,
                                     .documents = l.documents,
                                     .shape = l.s};
    kit_run(&kit, SK_ATTENTION_FORWARD, &a);
    kit_close("o", a.o, l.o, nq, 1e-6 * (double)(1 + scale * scale));
    kit_close("lse", a.lse, l.lse, heads, 1e-6);
    kit_end(&kit);
}

START_TEST(forward_meets_the_formula)
{
    check_forward(_i, 1);
    check_forward(_i, 4);
}
END_TEST

static const float *kept(struct kit *kit, const double *from, int64_t n)
{
    float *to = kit_in(kit, n, 0);
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)from[i];
    return to;
}

START_TEST(backward_meets_the_formula)
{
    struct kit kit;
    struct wide l;
    struct given g;
    kit_begin(&kit, 800 + (uint64_t)_i);
    make_case(&kit, &l, &g, _i, 1);
    int64_t heads = l.s.rows * l.s.heads, nq = heads * l.s.head_size;
    int64_t nk = l.s.rows * l.s.kv_heads * l.s.head_size;
    double *gq = kit_zeros(&kit, nq), *gk = kit_zeros(&kit, nk), *gv = kit_zeros(&kit, nk);
    backward_formula(gq, gk, gv, &l);
    bool one_key = l.s.rows == 1 || l.s.chunk == 1; /* then p is 1, and dq and dk are 0 */
    if (!one_key && l.s.rows < 100) {
        kit_slope(&kit, "dq", slope_loss, &l, l.q, gq, nq, 20);
        kit_slope(&kit, "dk", slope_loss, &l, l.k, gk, nk, 20);
    }
    if (l.s.rows < 100)
        kit_slope(&kit, "dv", slope_loss, &l, l.v, gv, nk, 20);
    struct sk_attention_backward a = {.dq = kit_out(&kit, nq),
                                      .dk = kit_out(&kit, nk),
                                      .dv = kit_out(&kit, nk),
                                      .d_o = g.d_o,
                                      .o = kept(&kit, l.o, nq),
                                      .lse = kept(&kit, l.lse, heads),
                                      .q = g.q,
                                      .k = g.k,
                                      .v = g.v,
                                      .documents = l.documents,
                                      .shape = l.s};
    kit_run(&kit, SK_ATTENTION_BACKWARD, &a);
    kit_close("dv", a.dv, gv, nk, 1e-6);
    for (int64_t i = 0; one_key && i < nq; i++)
        ck_assert(fabs((double)a.dq[i]) < 1e-5);
    for (int64_t i = 0; one_key && i < nk; i++)
        ck_assert(fabs((double)a.dk[i]) < 1e-5);
    if (!one_key) {
        kit_close("dq", a.dq, gq, nq, 2e-6);
        kit_close("dk", a.dk, gk, nk, 2e-6);
    }
    kit_end(&kit);
}
END_TEST

START_TEST(documents_that_do_not_cover_are_refused)
{
    static const struct {
        int32_t documents[3];
        const char *part;
    } bad[] = {{{0, 5, 8}, "cover rows 0 to 8 of 9"},
               {{1, 5, 9}, "cover rows 1 to 9 of 9"},
               {{0, 7, 9}, "document 0 has 7 rows, the longest has 5"},
               {{0, 5, 4}, "document 1 has -1 rows"}};
    struct kit kit;
    kit_begin(&kit, 2);
    int32_t *documents = kit_ints(&kit, 3);
    struct sk_attention_shape s = {
        .rows = 9, .documents = 2, .heads = 1, .kv_heads = 1, .head_size = 4, .longest = 5};
    struct sk_attention_forward f = {.documents = documents, .shape = s};
    struct sk_attention_backward b = {.documents = documents, .shape = s};
    for (int i = 0; i < 4; i++) {
        memcpy(documents, bad[i].documents, sizeof bad[i].documents);
        kit_fails(&kit, SK_ATTENTION_FORWARD, &f, SF_EINVAL, bad[i].part);
        kit_fails(&kit, SK_ATTENTION_BACKWARD, &b, SF_EINVAL, bad[i].part);
    }
    kit_end(&kit);
}
END_TEST

static Suite *attention_suite(void)
{
    Suite *suite = suite_create("attention");
    TCase *tc = tcase_create("attention");
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, forward_meets_the_formula, 0, SHAPES);
    tcase_add_loop_test(tc, backward_meets_the_formula, 0, SHAPES);
    tcase_add_test(tc, documents_that_do_not_cover_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(attention_suite)
