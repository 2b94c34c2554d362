#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "libformat/tensor/model_spec.h"

/* ---- rope ---- */

enum { TINY = 64, SCOUT = 128 };

static const struct sf_rope instruct = {SF_ROPE_LLAMA3, 500000, 16, 1, 1, 8192};
static const struct sf_rope base = {SF_ROPE_LLAMA3, 500000, 8, 1, 4, 8192};

/* Within one unit in the last place: the reference's powf is a vector one. */
static void assert_frequency(const char *what, int i, float got, float want)
{
    float ulp = nextafterf(want, INFINITY) - want;
    ck_assert_msg(fabsf(got - want) <= ulp, "%s: f_%d is %.9g, not %.9g", what, i, got, want);
}

/* Figures of the published models, as transformers 5.17 computes them. */
START_TEST(frequencies_of_scout)
{
    static const struct {
        int i;
        float instruct, base;
    } rows[] = {
        {0, 1, 1},
        {1, 0.814617217f, 0.814617217f},
        {28, 0.00321144611f, 0.00321144611f},
        {29, 0.00261609908f, 0.00216657045f},
        {34, 0.000938473851f, 0.000178507802f},
        {35, 4.77810645e-05f, 9.5562129e-05f},
        {63, 1.53446294e-07f, 3.06892588e-07f},
    };
    float a[SCOUT / 2], b[SCOUT / 2];
    sf_rope_frequencies(a, &instruct, SCOUT);
    sf_rope_frequencies(b, &base, SCOUT);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        assert_frequency("instruct", rows[k].i, a[rows[k].i], rows[k].instruct);
        assert_frequency("base", rows[k].i, b[rows[k].i], rows[k].base);
    }
}
END_TEST

/* Which frequencies are left alone, blended and divided: the whole band of each. */
START_TEST(bands_of_scout)
{
    struct sf_rope plain = {.kind = SF_ROPE_PLAIN, .theta = 500000};
    float f[SCOUT / 2], a[SCOUT / 2], b[SCOUT / 2];
    sf_rope_frequencies(f, &plain, SCOUT);
    sf_rope_frequencies(a, &instruct, SCOUT);
    sf_rope_frequencies(b, &base, SCOUT);
    for (int i = 0; i < SCOUT / 2; i++) {
        ck_assert_msg(a[i] == (i <= 34 ? f[i] : f[i] / 16), "instruct %d", i);
        if (i <= 28 || i >= 35)
            ck_assert_msg(b[i] == (i <= 28 ? f[i] : f[i] / 8), "base %d", i);
        else
            ck_assert_msg(b[i] < f[i] && b[i] > f[i] / 8, "base %d is not between", i);
    }
}
END_TEST

/* inv_freq of the tiny reference models (head size 64, original length 64), float32. */
static const struct {
    const char *name;
    struct sf_rope rope;
    float want[TINY / 2];
} tiny[] = {
    {"scout",
     {SF_ROPE_LLAMA3, 500000, 16, 1, 1, 64},
     {1,
      0.663601279f,
      0.440366626f,
      0.292227834f,
      0.193922758f,
      0.128687382f,
      0.00533731887f,
      0.00354185118f,
      0.00235037692f,
      0.00155971304f,
      0.00103502756f,
      0.000686845568f,
      0.000455791567f,
      0.000302463828f,
      0.000200715382f,
      0.000133194975f,
      8.83883404e-05f,
      5.86546157e-05f,
      3.89232773e-05f,
      2.58295349e-05f,
      1.71405118e-05f,
      1.13744645e-05f,
      7.5481089e-06f,
      5.00893429e-06f,
      3.32393483e-06f,
      2.20576726e-06f,
      1.46374987e-06f,
      9.71346253e-07f,
      6.44586578e-07f,
      4.27748461e-07f,
      2.83854405e-07f,
      1.8836613e-07f}},
    {"scout_base",
     {SF_ROPE_LLAMA3, 500000, 8, 1, 4, 64},
     {1,
      0.663601279f,
      0.440366626f,
      0.205000967f,
      0.079403013f,
      0.0277513936f,
      0.0106746377f,
      0.00708370237f,
      0.00470075384f,
      0.00311942608f,
      0.00207005511f,
      0.00137369114f,
      0.000911583134f,
      0.000604927656f,
      0.000401430763f,
      0.00026638995f,
      0.000176776681f,
      0.000117309231f,
      7.78465546e-05f,
      5.16590699e-05f,
      3.42810235e-05f,
      2.2748929e-05f,
      1.50962178e-05f,
      1.00178686e-05f,
      6.64786967e-06f,
      4.41153452e-06f,
      2.92749974e-06f,
      1.94269251e-06f,
      1.28917316e-06f,
      8.55496921e-07f,
      5.6770881e-07f,
      3.7673226e-07f}},
    {"maverick",
     {.kind = SF_ROPE_PLAIN, .theta = 500000},
     {1,
      0.663601279f,
      0.440366626f,
      0.292227834f,
      0.193922758f,
      0.128687382f,
      0.0853971019f,
      0.0566696189f,
      0.0376060307f,
      0.0249554086f,
      0.0165604409f,
      0.0109895291f,
      0.00729266508f,
      0.00483942125f,
      0.00321144611f,
      0.0021311196f,
      0.00141421345f,
      0.000938473851f,
      0.000622772437f,
      0.000413272559f,
      0.000274248188f,
      0.000181991432f,
      0.000120769742f,
      8.01429487e-05f,
      5.31829573e-05f,
      3.52922762e-05f,
      2.34199979e-05f,
      1.55415401e-05f,
      1.03133852e-05f,
      6.84397537e-06f,
      4.54167048e-06f,
      3.01385808e-06f}},
};

START_TEST(frequencies_of_the_tiny_models)
{
    float got[TINY / 2];
    scout_poison(got, TINY / 2);
    sf_rope_frequencies(got, &tiny[_i].rope, TINY);
    for (int i = 0; i < TINY / 2; i++)
        assert_frequency(tiny[_i].name, i, got[i], tiny[_i].want[i]);
}
END_TEST

/* ---- parts and roles ---- */

START_TEST(part_names_go_both_ways)
{
    for (int i = 0; i < SF_PART_COUNT; i++) {
        enum sf_part back = SF_PART_COUNT;
        ck_assert(sf_part_from_name(&back, sf_part_name((enum sf_part)i)));
        ck_assert_int_eq((int)back, i);
    }
    enum sf_part none;
    ck_assert(!sf_part_from_name(&none, "Q") && !sf_part_from_name(&none, ""));
    ck_assert_str_eq(sf_part_name(SF_PART_COUNT), "?");
    ck_assert_str_eq(sf_part_name(SF_PART_SHARED_DOWN), "shared_down");
    ck_assert_str_eq(sf_part_name(SF_PART_EXPERT_GATE), "expert_gate");
}
END_TEST

/* Scout's sizes, with a dense layer 0 as Maverick has. */
static struct sf_layer_spec layers[2] = {{.rope = true, .chunked = true}, {.moe = true}};
static const struct sf_model_spec spec = {.layers = 2,
                                          .hidden = 5120,
                                          .vocabulary = 202048,
                                          .heads = 40,
                                          .kv_heads = 8,
                                          .head_size = 128,
                                          .expert_width = 8192,
                                          .dense_width = 16384,
                                          .experts = 16,
                                          .layer = layers};

static const struct {
    enum sf_part part;
    bool matrix, expert, outside, dense_layer, moe_layer;
    struct sf_shape shape;
} parts[] = {
    {SF_PART_EMBEDDING, false, false, true, false, false, {2, {202048, 5120}}},
    {SF_PART_INPUT_NORM, false, false, false, true, true, {1, {5120}}},
    {SF_PART_Q, true, false, false, true, true, {2, {5120, 5120}}},
    {SF_PART_K, true, false, false, true, true, {2, {1024, 5120}}},
    {SF_PART_V, true, false, false, true, true, {2, {1024, 5120}}},
    {SF_PART_O, true, false, false, true, true, {2, {5120, 5120}}},
    {SF_PART_POST_NORM, false, false, false, true, true, {1, {5120}}},
    {SF_PART_ROUTER, false, false, false, false, true, {2, {16, 5120}}},
    {SF_PART_SHARED_GATE, true, false, false, false, true, {2, {8192, 5120}}},
    {SF_PART_SHARED_UP, true, false, false, false, true, {2, {8192, 5120}}},
    {SF_PART_SHARED_DOWN, true, false, false, false, true, {2, {5120, 8192}}},
    {SF_PART_DENSE_GATE, true, false, false, true, false, {2, {16384, 5120}}},
    {SF_PART_DENSE_UP, true, false, false, true, false, {2, {16384, 5120}}},
    {SF_PART_DENSE_DOWN, true, false, false, true, false, {2, {5120, 16384}}},
    {SF_PART_EXPERT_GATE, true, true, false, false, true, {2, {8192, 5120}}},
    {SF_PART_EXPERT_UP, true, true, false, false, true, {2, {8192, 5120}}},
    {SF_PART_EXPERT_DOWN, true, true, false, false, true, {2, {5120, 8192}}},
    {SF_PART_FINAL_NORM, false, false, true, false, false, {1, {5120}}},
    {SF_PART_HEAD, false, false, true, false, false, {2, {202048, 5120}}},
    {SF_PART_UNUSED, false, false, true, false, false, {0, {0}}},
};

START_TEST(what_each_part_is_and_where)
{
    ck_assert_int_eq(sizeof parts / sizeof *parts, SF_PART_COUNT);
    for (int i = 0; i < SF_PART_COUNT; i++) {
        enum sf_part p = parts[i].part;
        ck_assert_int_eq((int)p, i);
        ck_assert_msg(sf_part_is_matrix(p) == parts[i].matrix, "%s", sf_part_name(p));
        ck_assert_msg(sf_part_is_expert(p) == parts[i].expert, "%s", sf_part_name(p));
        ck_assert_msg(sf_part_in_layer(p) == !parts[i].outside, "%s", sf_part_name(p));
        ck_assert_msg(sf_spec_has(&spec, p, -1) == parts[i].outside, "%s", sf_part_name(p));
        ck_assert_msg(sf_spec_has(&spec, p, 0) == parts[i].dense_layer, "%s", sf_part_name(p));
        ck_assert_msg(sf_spec_has(&spec, p, 1) == parts[i].moe_layer, "%s", sf_part_name(p));
        ck_assert_msg(!sf_spec_has(&spec, p, 2), "%s", sf_part_name(p));
        struct sf_shape shape = sf_spec_shape(&spec, p);
        ck_assert_msg(sf_shape_equal(&shape, &parts[i].shape), "%s", sf_part_name(p));
    }
}
END_TEST

START_TEST(roles_as_text)
{
    char text[SF_ROLE_TEXT];
    ck_assert_str_eq(sf_role_format(text, (struct sf_role){SF_PART_EMBEDDING, -1, -1}),
                     "embedding");
    ck_assert_str_eq(sf_role_format(text, (struct sf_role){SF_PART_Q, 0, -1}), "layer 0 q");
    ck_assert_str_eq(sf_role_format(text, (struct sf_role){SF_PART_EXPERT_GATE, 7, 3}),
                     "layer 7 expert 3 expert_gate");
    sf_role_format(text, (struct sf_role){SF_PART_EXPERT_GATE, INT32_MAX, INT32_MAX});
    ck_assert_uint_lt(strlen(text), sizeof text);
    ck_assert_ptr_nonnull(strstr(text, "expert_gate"));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("model_spec");
    TCase *t = tcase_create("model_spec");
    tcase_add_test(t, frequencies_of_scout);
    tcase_add_test(t, bands_of_scout);
    tcase_add_loop_test(t, frequencies_of_the_tiny_models, 0, sizeof tiny / sizeof *tiny);
    tcase_add_test(t, part_names_go_both_ways);
    tcase_add_test(t, what_each_part_is_and_where);
    tcase_add_test(t, roles_as_text);
    suite_add_tcase(s, t);
    return s;
}
SCOUT_TEST_MAIN(suite)
