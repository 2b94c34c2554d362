/* Adapters of routed experts, the router and lm_head: both of PEFT's layouts, its nested keys, its
 * patterns, what does not fit together. PEFT's own files: tests/golden/adapter, tests/convert/test_merge.c. */
#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "libformat/adapter/adapter_pattern.h"
#include "libformat/adapter/adapter_source.h"
#include "libformat/adapter/adapter_vllm.h"
#include "libformat/base/file.h"
#include "libformat/hf/safetensors.h"

enum { HIDDEN = 8, WIDTH = 6, EXPERTS = 3, VOCABULARY = 16, HEAD = 4 };

static struct sf_arena arena;
static struct sf_err err;
static struct sf_layer_spec layers[3] = {{.moe = true}, {.moe = false}, {.moe = true}};
static struct sf_model_spec spec;
static float numbers[2048];

static void setup(void)
{
    struct scout_random random = {11};
    spec = (struct sf_model_spec){.layers = 3,
                                  .hidden = HIDDEN,
                                  .vocabulary = VOCABULARY,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .head_size = HEAD,
                                  .expert_width = WIDTH,
                                  .dense_width = 10,
                                  .experts = EXPERTS,
                                  .experts_per_token = 1,
                                  .layer = layers};
    scout_random_fill(numbers, 2048, 1, &random);
}

static void teardown(void)
{
    sf_arena_free(&arena);
}

static struct sf_adapter_module module(enum sf_part part, int32_t layer, int64_t rank, double alpha)
{
    static int64_t used;
    struct sf_shape shape = sf_adapter_shape(&spec, part);
    struct sf_adapter_module m = {.role = {part, layer, -1},
                                  .groups = sf_adapter_groups(&spec, part),
                                  .rank = rank,
                                  .alpha = alpha,
                                  .scale = sf_adapter_scale(alpha, rank, false),
                                  .in = shape.dim[1],
                                  .out = shape.dim[0]};
    used = (used + 7) % 100;
    m.a = numbers + used;
    m.b = numbers + used + 300;
    return m;
}

static void check_module(const struct sf_adapter_module *g, const struct sf_adapter_module *w)
{
    ck_assert_int_eq(g->role.part, w->role.part);
    ck_assert_int_eq(g->role.layer, w->role.layer);
    ck_assert_int_eq(g->groups, w->groups);
    ck_assert_int_eq(g->rank, w->rank);
    ck_assert_int_eq(g->in, w->in);
    ck_assert_int_eq(g->out, w->out);
    ck_assert_double_eq(g->alpha, w->alpha);
    ck_assert_double_eq(g->scale, w->scale);
    ck_assert(memcmp(g->a, w->a, (size_t)(w->groups * w->rank * w->in) * 4) == 0);
    ck_assert(memcmp(g->b, w->b, (size_t)(w->groups * w->rank * w->out) * 4) == 0);
}

static void check_same(const struct sf_adapter *got, const struct sf_adapter *want)
{
    ck_assert_int_eq(got->prefix, want->prefix);
    ck_assert_int_eq(got->layout, want->layout);
    ck_assert_int_eq(got->modules, want->modules);
    for (int64_t i = 0; i < want->modules; i++)
        check_module(&got->module[i], &want->module[i]);
}

/* Experts of two layers, one without down_proj; ranks and alphas that differ by part and by layer. */
enum { MODULES = 8 };
static struct sf_adapter sample(struct sf_adapter_module m[MODULES], int variant)
{
    m[0] = module(SF_PART_Q, 0, 2, 4);
    m[1] = module(SF_PART_ROUTER, 0, 1, 3);
    m[2] = module(SF_ADAPTER_GATE_UP, 0, 3, 4);
    m[3] = module(SF_PART_EXPERT_DOWN, 0, 2, 4);
    m[4] = module(SF_PART_Q, 1, 4, 2.5);
    m[5] = module(SF_PART_Q, 2, 2, 4);
    m[6] = module(SF_ADAPTER_GATE_UP, 2, 3, 4);
    m[7] = module(SF_PART_HEAD, -1, 2, 4);
    return (struct sf_adapter){.prefix = variant & 1 ? SF_ADAPTER_MULTIMODAL : SF_ADAPTER_TEXT,
                               .layout = variant & 2 ? SF_ADAPTER_NATURAL : SF_ADAPTER_SWAPPED,
                               .rank = 2,
                               .alpha = 4,
                               .dropout = 0.25,
                               .base_model = "b",
                               .modules = MODULES,
                               .module = m};
}

static const char *in(const char *directory, const char *name)
{
    return sf_path_join(&arena, directory, name);
}

static char *config_text(const char *directory)
{
    static char *text; /* not in a frame: Check leaves by longjmp */
    assert_ok(
        sf_read_file(&text, NULL, &arena, in(directory, "adapter_config.json"), 1 << 20, &err),
        err);
    return text;
}

/* A folder of that name with the adapter in it. */
static const char *written(const char *name, const struct sf_adapter *adapter)
{
    const char *directory = scout_scratch_path(name);
    assert_ok(sf_adapter_write(directory, adapter, &spec, &err), err);
    return directory;
}

START_TEST(written_is_read_back)
{
    static struct sf_adapter_module m[MODULES];
    struct sf_adapter want = sample(m, _i), got;
    const char *directory = written("all", &want);
    assert_ok(sf_adapter_read(&got, &arena, directory, &spec, &err), err);
    check_same(&got, &want);
    ck_assert(got.dropout == 0); /* PEFT takes none beside target_parameters */
}
END_TEST

START_TEST(patterns_are_short_where_they_can_be)
{
    static struct sf_adapter_module m[MODULES];
    struct sf_adapter adapter = sample(m, 0);
    const char *directory = written("patterns", &adapter);
    char *text = config_text(directory);
    ck_assert_ptr_nonnull(strstr(text, "\"rank_pattern\": {\n"
                                       "    \"model.layers.1.self_attn.q_proj\": 4,\n"
                                       "    \"router.weight\": 1,\n"
                                       "    \"experts.gate_up_proj\": 3\n  }"));
    ck_assert_ptr_nonnull(strstr(text, "\"alpha_pattern\": {\n"
                                       "    \"model.layers.1.self_attn.q_proj\": 2.5,\n"
                                       "    \"router.weight\": 3\n  }"));
    ck_assert_ptr_nonnull(strstr(text,
                                 "\"target_parameters\": [\n"
                                 "    \"model.layers.0.feed_forward.router.weight\",\n"
                                 "    \"feed_forward.experts.gate_up_proj\",\n"
                                 "    \"model.layers.0.feed_forward.experts.down_proj\"\n  ]"));
    ck_assert_ptr_nonnull(strstr(text, "\"lm_head\""));
}
END_TEST

/* The formulas of PEFT's get_delta_weight, on the files' own numbers: delta[e][i][o]. */
static void file_delta(float *delta, const struct sf_safetensors *file, const char *key,
                       int64_t rank, int64_t rows, int64_t cols, bool natural)
{
    const struct sf_tensor *a, *b;
    a = sf_safetensors_find(file, sf_arena_printf(&arena, "%s.lora_A.weight", key));
    b = sf_safetensors_find(file, sf_arena_printf(&arena, "%s.lora_B.weight", key));
    ck_assert(a && b);
    int64_t wide = a->shape.dim[1];
    const float *fa = a->data, *fb = b->data;
    ck_assert_int_eq(wide, natural ? rows : cols);
    for (int64_t e = 0; e < EXPERTS; e++)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t o = 0; o < cols; o++) {
                float sum =
                    0; /* weight_A[e, r, i], weight_B[o, r, e]; einsum to (e i o) or (e o i) */
                for (int64_t r = 0; r < rank; r++)
                    sum += fa[(e * rank + r) * wide + (natural ? i : o)] *
                           fb[((natural ? o : i) * rank + r) * EXPERTS + e];
                delta[(e * rows + i) * cols + o] = sum;
            }
}

START_TEST(both_layouts_are_the_same_delta)
{
    static struct sf_adapter_module m[MODULES];
    float delta[2][EXPERTS * HIDDEN * 2 * WIDTH];
    for (int natural = 0; natural < 2; natural++) {
        struct sf_adapter adapter = sample(m, 2 * natural);
        struct sf_safetensors *file;
        const char *directory = scout_scratch_path(natural ? "n" : "s");
        m[2] = module(SF_ADAPTER_GATE_UP, 0, 3, 4);
        m[2].a = numbers;
        m[2].b = numbers + 500;
        assert_ok(sf_adapter_write(directory, &adapter, &spec, &err), err);
        assert_ok(sf_safetensors_open(&file, in(directory, "adapter_model.safetensors"), &err),
                  err);
        file_delta(delta[natural], file,
                   "base_model.model.model.layers.0.feed_forward.experts.base_layer", 3, HIDDEN,
                   2 * WIDTH, natural);
        sf_safetensors_close(file);
    }
    for (int64_t e = 0; e < EXPERTS; e++)
        for (int64_t i = 0; i < HIDDEN; i++)
            for (int64_t o = 0; o < 2 * WIDTH; o++) {
                float want = 0;
                for (int64_t r = 0; r < 3; r++)
                    want += numbers[500 + (e * 2 * WIDTH + o) * 3 + r] *
                            numbers[(e * 3 + r) * HIDDEN + i];
                int64_t at = (e * HIDDEN + i) * 2 * WIDTH + o;
                ck_assert_float_eq_tol(delta[0][at], want, 1e-6);
                ck_assert_float_eq_tol(delta[1][at], want, 1e-6);
            }
}
END_TEST

/* Without a model: the sizes are in the tensors. */
START_TEST(sizes_are_found_in_the_tensors)
{
    static struct sf_adapter_module m[MODULES];
    struct sf_adapter want = sample(m, _i);
    struct sf_adapter_source *source;
    const char *directory = written("sizes", &want), *again = scout_scratch_path("again");
    assert_ok(sf_adapter_open(&source, directory, NULL, &err), err);
    const struct sf_model_spec *got = sf_adapter_spec(source);
    ck_assert_int_eq(got->hidden, HIDDEN);
    ck_assert_int_eq(got->expert_width, WIDTH);
    ck_assert_int_eq(got->experts, EXPERTS);
    ck_assert_int_eq(got->vocabulary, VOCABULARY);
    ck_assert_int_eq(got->layers, 3);
    ck_assert_int_eq(sf_adapter_about(source)->layout, want.layout);
    sf_adapter_close(source);
    struct sf_adapter read;
    assert_ok(sf_adapter_read(&read, &arena, directory, NULL, &err), err);
    check_same(&read, &want);
    assert_ok(sf_adapter_write(again, &read, NULL, &err), err);
    ck_assert_ptr_nonnull(
        strstr(config_text(again), "model.layers.2.feed_forward.experts.gate_up"));
    assert_ok(sf_adapter_read(&read, &arena, again, &spec, &err), err);
    check_same(&read, &want);
}
END_TEST

START_TEST(a_lone_parameter_is_named_by_the_config)
{
    struct sf_adapter_module m[1] = {
        module(_i & 1 ? SF_PART_EXPERT_DOWN : SF_ADAPTER_GATE_UP, 0, 2, 4)};
    static struct sf_adapter_module w[MODULES];
    struct sf_adapter want = sample(w, _i & 2), got;
    want.module = m;
    want.modules = 1;
    const char *directory = written("lone", &want);
    assert_ok(sf_adapter_read(&got, &arena, directory, &spec, &err), err);
    check_same(&got, &want);
    ck_assert_ptr_nonnull(strstr(config_text(directory), "\"target_modules\": []"));
    /* neither hidden nor the experts' width is told by one parameter */
    assert_fails(sf_adapter_read(&got, &arena, directory, NULL, &err), SF_EFORMAT,
                 "the model is needed", err);
}
END_TEST

START_TEST(square_experts_need_a_word)
{
    static struct sf_adapter_module m[MODULES];
    struct sf_adapter want = sample(m, 2 * _i), got;
    spec.expert_width = HIDDEN;
    m[0] = module(SF_PART_EXPERT_DOWN, 0, 2, 4);
    want.modules = 1;
    const char *directory = written("square", &want);
    assert_ok(sf_adapter_read(&got, &arena, directory, &spec, &err), err);
    check_same(&got, &want);
    char *text = config_text(directory), *mark = strstr(text, "\"scout_layout\"");
    ck_assert_ptr_nonnull(mark);
    memset(mark, ' ', (size_t)(strchr(mark, ',') + 1 - mark));
    assert_ok(sf_write_file(in(directory, "adapter_config.json"), text, strlen(text), &err), err);
    assert_fails(sf_adapter_read(&got, &arena, directory, &spec, &err), SF_EFORMAT,
                 "its shape does not tell", err);
}
END_TEST

/* ---- files by hand ---- */

struct part {
    const char *key;
    int64_t rows, cols;
};

#define E0 "base_model.model.model.layers.0.feed_forward.experts."
#define E2 "base_model.model.model.layers.2.feed_forward.experts."
#define GOOD "\"r\":2,\"target_parameters\":[\"experts.gate_up_proj\",\"experts.down_proj\"]"
enum { R = 2, ER = EXPERTS * R, GU = 2 * WIDTH };
/* both tensors of a parameter, swapped */
#define GATE_UP                                                                                    \
    {E0 "base_layer.lora_A.weight", ER, GU},                                                       \
    {                                                                                              \
        E0 "base_layer.lora_B.weight", HIDDEN, ER                                                  \
    }
#define DOWN                                                                                       \
    {E0 "lora_A.weight", ER, HIDDEN},                                                              \
    {                                                                                              \
        E0 "lora_B.weight", WIDTH, ER                                                              \
    }

static const struct {
    const char *fields, *message;
    int code;
    struct part part[8];
} bad[] = {
    {GOOD,
     NULL,
     SF_OK, /* the control: nothing wrong */
     {{E0 "base_layer.lora_A.weight", ER, GU},
      {E0 "base_layer.lora_B.default.weight", HIDDEN, ER},
      DOWN}},
    {GOOD, "has lora_A but no lora_B", SF_EFORMAT, {{E0 "base_layer.lora_A.weight", ER, GU}, DOWN}},
    {GOOD, "an inner parameter of the experts without the outer one", SF_EFORMAT, {GATE_UP}},
    {GOOD, "there is no experts.base_layer", SF_EFORMAT, {DOWN}},
    {"\"r\":2", "target_parameters names none", SF_EFORMAT, {DOWN}},
    {"\"r\":2,\"target_parameters\":[\"down_proj\"]",
     "target_parameters names one",
     SF_EFORMAT,
     {GATE_UP, DOWN}},
    {GOOD,
     "experts.lora_A.weight: shape [6, 8]: the swapped layout; the experts' tensors before",
     SF_EFORMAT,
     {{E0 "base_layer.lora_A.weight", ER, HIDDEN}, {E0 "base_layer.lora_B.weight", GU, ER}, DOWN}},
    {GOOD,
     "experts.base_layer.lora_B.weight: shape [12, 6]: the natural layout",
     SF_EFORMAT,
     {{E0 "base_layer.lora_A.weight", ER, GU}, {E0 "base_layer.lora_B.weight", GU, ER}, DOWN}},
    {GOOD,
     "layers.2.feed_forward.experts.base_layer.lora_A.weight: shape [6, 8]: the natural",
     SF_EFORMAT,
     {GATE_UP,
      DOWN,
      {E2 "base_layer.lora_A.weight", ER, HIDDEN},
      {E2 "base_layer.lora_B.weight", GU, ER},
      {E2 "lora_A.weight", ER, WIDTH},
      {E2 "lora_B.weight", HIDDEN, ER}}},
    {GOOD,
     "shape [4, 12], this model and r 2 want [6, 12] (swapped) or [6, 8] (natural)",
     SF_EFORMAT,
     {{E0 "base_layer.lora_A.weight", 4, GU}, {E0 "base_layer.lora_B.weight", HIDDEN, ER}, DOWN}},
    {GOOD,
     "experts.gate_up_proj.lora_A.weight: no key",
     SF_EUNSUPPORTED,
     {{E0 "gate_up_proj.lora_A.weight", ER, GU}}},
    {GOOD,
     "this model of 3 layers has no such module",
     SF_EFORMAT,
     {{"base_model.model.model.layers.1.feed_forward.experts.lora_A.weight", ER, HIDDEN}}},
    {GOOD ",\"rank_pattern\":{\"gate_up_proj\":1}",
     "this model and r 1 want [3, 12]",
     SF_EFORMAT,
     {GATE_UP, DOWN}},
    {GOOD,
     "lm_head.base_layer.weight: PEFT put a copy of the base's weight into the file",
     SF_EUNSUPPORTED,
     {GATE_UP, DOWN, {"base_model.model.lm_head.base_layer.weight", VOCABULARY, HIDDEN}}},
};

static const char *by_hand(const char *fields, const struct part *part)
{
    const char *directory = scout_scratch_path("by_hand");
    struct sf_named_tensor t[8];
    char *config = sf_arena_printf(&arena, "{\"peft_type\":\"LORA\",%s}", fields);
    int n = 0;
    for (; n < 8 && part[n].key; n++)
        t[n] = (struct sf_named_tensor){part[n].key,
                                        {SF_F32,
                                         {2, {part[n].rows, part[n].cols}},
                                         numbers,
                                         (uint64_t)(part[n].rows * part[n].cols) * 4}};
    assert_ok(sf_make_directory(directory, &err), err);
    assert_ok(sf_safetensors_write(in(directory, "adapter_model.safetensors"), t, n, &err), err);
    assert_ok(sf_write_file(in(directory, "adapter_config.json"), config, strlen(config), &err),
              err);
    return directory;
}

START_TEST(what_does_not_fit_is_refused)
{
    struct sf_adapter got;
    int code = sf_adapter_read(&got, &arena, by_hand(bad[_i].fields, bad[_i].part), &spec, &err);
    if (bad[_i].message)
        assert_fails(code, bad[_i].code, bad[_i].message, err);
    else
        assert_ok(code, err);
}
END_TEST

/* ---- patterns: re.match("(.*\.)?(KEY)$", path) ---- */

static const struct {
    const char *key, *path;
    bool matches;
} pattern_cases[] = {
    {"q_proj", "model.layers.0.self_attn.q_proj", true},
    {"_proj", "model.layers.0.self_attn.q_proj", false}, /* only behind a dot */
    {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj", true},
    {"model.layers.0.self_attn.q_proj", "language_model.model.layers.0.self_attn.q_proj", true},
    {"layers.1.self_attn.q_proj", "model.layers.11.self_attn.q_proj", false},
    {"layers.1..self_attn.q_proj", "model.layers.11.self_attn.q_proj", true}, /* a dot is any */
    {"layers\\.[0-3]\\..*_proj", "model.layers.2.self_attn.q_proj", true},
    {"layers\\.[0-3]\\..*_proj", "model.layers.4.self_attn.q_proj", false},
    {"q_proj|k_proj", "model.layers.4.self_attn.k_proj", true},
    {"^model.*q_proj", "model.layers.4.self_attn.q_proj", true},
    {"self_attn", "model.layers.4.self_attn.q_proj", false}, /* the end must match */
    {"(?:gate|up)_proj", "model.layers.4.feed_forward.up_proj", true},
};

START_TEST(patterns_match_as_pefts)
{
    bool got;
    assert_ok(sf_adapter_pattern_match(&got, pattern_cases[_i].key, pattern_cases[_i].path, &err),
              err);
    ck_assert_msg(got == pattern_cases[_i].matches, "%s on %s", pattern_cases[_i].key,
                  pattern_cases[_i].path);
}
END_TEST

START_TEST(the_first_pattern_counts)
{
    struct sf_adapter got;
    const char *q = "base_model.model.model.layers.0.self_attn.q_proj.";
    struct part part[8] = {{sf_arena_printf(&arena, "%slora_A.weight", q), 3, HIDDEN},
                           {sf_arena_printf(&arena, "%slora_B.weight", q), HIDDEN, 3}};
    const char *directory = by_hand(
        "\"r\":2,\"lora_alpha\":8,\"rank_pattern\":{\"k_proj\":5,\".*attn.*\":3,\"q_proj\":2},"
        "\"alpha_pattern\":{\"q_proj\":12}",
        part);
    assert_ok(sf_adapter_read(&got, &arena, directory, &spec, &err), err);
    ck_assert_int_eq(got.rank, 2);
    ck_assert_int_eq(got.module[0].rank, 3);
    ck_assert_double_eq(got.module[0].scale, 4);
}
END_TEST

/* ---- vLLM ---- */

START_TEST(rows_of_q_and_k_are_turned_for_vllm)
{
    struct sf_adapter_module q = module(SF_PART_Q, 0, 1, 1), v = module(SF_PART_V, 0, 1, 1);
    const float *b = q.b, *other = v.b;
    assert_ok(sf_adapter_vllm_permute(&q, &arena, HEAD, &err), err);
    assert_ok(sf_adapter_vllm_permute(&v, &arena, HEAD, &err), err);
    static const int from[HIDDEN] = {0, 2, 1, 3, 4, 6, 5, 7}; /* new[p * 2 + i] = old[2 i + p] */
    for (int i = 0; i < HIDDEN; i++)
        ck_assert(q.b[i] == b[from[i]]);
    ck_assert_ptr_eq(v.b, other);
    assert_fails(sf_adapter_vllm_permute(&q, &arena, 3, &err), SF_EINVAL, "heads of 3", err);
}
END_TEST

START_TEST(what_vllm_cannot_serve_is_said)
{
    static struct sf_adapter_module m[MODULES];
    struct sf_adapter adapter = sample(m, 1);
    ck_assert_ptr_nonnull(strstr(sf_adapter_vllm_refusal(&arena, &adapter), "router"));
    adapter.module = &m[2];
    ck_assert_ptr_nonnull(strstr(sf_adapter_vllm_refusal(&arena, &adapter), "routed experts"));
    adapter.module = &m[7];
    adapter.modules = 1;
    ck_assert_ptr_nonnull(strstr(sf_adapter_vllm_refusal(&arena, &adapter), "lm_head"));
    adapter.module = &m[4];
    ck_assert_ptr_nonnull(strstr(sf_adapter_vllm_refusal(&arena, &adapter), "has rank 4"));
    adapter.rank = m[4].rank = 1024;
    adapter.alpha = m[4].alpha;
    ck_assert_ptr_nonnull(strstr(sf_adapter_vllm_refusal(&arena, &adapter), "512"));
    adapter.rank = m[4].rank = 16;
    ck_assert_ptr_null(sf_adapter_vllm_refusal(&arena, &adapter));
    ck_assert(sf_adapter_vllm_permutes(&adapter));
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("adapter_experts");
    TCase *tc = tcase_create("adapter_experts");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, written_is_read_back, 0, 4);
    tcase_add_test(tc, patterns_are_short_where_they_can_be);
    tcase_add_test(tc, both_layouts_are_the_same_delta);
    tcase_add_loop_test(tc, sizes_are_found_in_the_tensors, 0, 4);
    tcase_add_loop_test(tc, a_lone_parameter_is_named_by_the_config, 0, 4);
    tcase_add_loop_test(tc, square_experts_need_a_word, 0, 2);
    tcase_add_loop_test(tc, what_does_not_fit_is_refused, 0, sizeof bad / sizeof *bad);
    tcase_add_loop_test(tc, patterns_match_as_pefts, 0,
                        sizeof pattern_cases / sizeof *pattern_cases);
    tcase_add_test(tc, the_first_pattern_counts);
    tcase_add_test(tc, rows_of_q_and_k_are_turned_for_vllm);
    tcase_add_test(tc, what_vllm_cannot_serve_is_said);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
