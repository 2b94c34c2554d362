#include "kernels/attention_cached.h"

#include <math.h>
#include <string.h>

#include "tests/kernels/kit.h"

static const struct shape {
    int64_t start, rows, room, heads, kv_heads, head_size, chunk;
} shapes[] = {
    {0, 1, 1, 1, 1, 4, 0},      {0, 7, 9, 10, 2, 8, 0},
    {5, 1, 8, 4, 2, 16, 0},     {13, 6, 40, 5, 1, 16, 5},
    {63, 3, 200, 4, 2, 64, 64}, {150, 20, 170, 4, 4, 8, 0},
    {6, 5, 8, 2, 1, 12, 0},     /* hangs over the end */ {9, 4, 9, 2, 2, 8, 3}, /* beyond it */
};
enum { SHAPES = sizeof shapes / sizeof shapes[0], MOST_KEYS = 256 };

/* One query by the formula, in float64, over caches that hold what they should. */
static void attend(double *o, const struct sk_attention_cached *a, const float *k_cache,
                   const float *v_cache, int64_t row, int64_t head)
{
    double p[MOST_KEYS], sum = 0, largest = -INFINITY;
    int64_t d = a->head_size, position = a->positions[row], kv = head / (a->heads / a->kv_heads);
    int64_t first = a->chunk ? position - position % a->chunk : 0;
    for (int64_t j = first; j <= position; j++) {
        p[j - first] = 0;
        for (int64_t e = 0; e < d; e++)
            p[j - first] += (double)a->scale * (double)a->q[(row * a->heads + head) * d + e] *
                            (double)k_cache[(j * a->kv_heads + kv) * d + e];
        largest = fmax(largest, p[j - first]);
    }
    for (int64_t j = first; j <= position; j++)
        sum += p[j - first] = exp(p[j - first] - largest);
    for (int64_t e = 0; e < d; e++) {
        o[e] = 0;
        for (int64_t j = first; j <= position; j++)
            o[e] += p[j - first] / sum * (double)v_cache[(j * a->kv_heads + kv) * d + e];
    }
}

/* The cache as it should be afterwards. */
static float *with_rows(struct kit *kit, const float *cache, const float *rows,
                        const struct shape *s)
{
    int64_t width = s->kv_heads * s->head_size;
    float *out = kit_in(kit, s->room * width, 0);
    memcpy(out, cache, (size_t)(s->room * width) * sizeof *out);
    for (int64_t i = 0; i < s->rows && s->start + i < s->room; i++)
        memcpy(out + (s->start + i) * width, rows + i * width, (size_t)width * sizeof *out);
    return out;
}

static void make_case(struct kit *kit, struct sk_attention_cached *a, const struct shape *s)
{
    int64_t nq = s->rows * s->heads * s->head_size, width = s->kv_heads * s->head_size;
    int32_t *positions = kit_ints(kit, s->rows);
    for (int64_t i = 0; i < s->rows; i++)
        positions[i] = (int32_t)(s->start + i);
    *a = (struct sk_attention_cached){.o = kit_out(kit, nq),
                                      .k_cache = kit_inout(kit, s->room * width, 2),
                                      .v_cache = kit_inout(kit, s->room * width, 1),
                                      .q = kit_in(kit, nq, 2),
                                      .k = kit_in(kit, s->rows * width, 2),
                                      .v = kit_in(kit, s->rows * width, 1),
                                      .positions = positions,
                                      .rows = s->rows,
                                      .room = s->room,
                                      .heads = s->heads,
                                      .kv_heads = s->kv_heads,
                                      .head_size = s->head_size,
                                      .chunk = s->chunk,
                                      .scale = 1 / sqrtf((float)s->head_size)};
}

START_TEST(meets_the_formula)
{
    struct kit kit;
    struct sk_attention_cached a;
    const struct shape *s = &shapes[_i];
    int64_t width = s->kv_heads * s->head_size, d = s->head_size;
    kit_begin(&kit, 900 + (uint64_t)_i);
    make_case(&kit, &a, s);
    const float *k = with_rows(&kit, a.k_cache, a.k, s), *v = with_rows(&kit, a.v_cache, a.v, s);
    double *o = kit_zeros(&kit, s->rows * s->heads * d);
    for (int64_t i = 0; i < s->rows * s->heads; i++)
        if (s->start + i / s->heads < s->room)
            attend(o + i * d, &a, k, v, i / s->heads, i % s->heads);
    kit_run(&kit, SK_ATTENTION_CACHED, &a);
    kit_close("o", a.o, o, s->rows * s->heads * d, 4e-6);
    ck_assert_mem_eq(a.k_cache, k, (size_t)(s->room * width) * sizeof *k);
    ck_assert_mem_eq(a.v_cache, v, (size_t)(s->room * width) * sizeof *v);
    kit_end(&kit);
}
END_TEST

START_TEST(a_place_before_the_text_is_refused)
{
    struct kit kit;
    struct sk_attention_cached a;
    struct shape s = {-1, 2, 4, 1, 1, 4, 0};
    kit_begin(&kit, 1);
    make_case(&kit, &a, &s);
    kit_fails(&kit, SK_ATTENTION_CACHED, &a, SF_EINVAL, "a row at position -1");
    kit_end(&kit);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("attention_cached");
    TCase *c = tcase_create("cpu");
    tcase_add_loop_test(c, meets_the_formula, 0, SHAPES);
    tcase_add_test(c, a_place_before_the_text_is_refused);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
