/* PEFT adapters: what we write is read back, what PEFT wrote is read, what we do not understand is
 * refused by name. (PEFT reading ours: tests/golden/adapter/check_with_peft.py.) */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/adapter/adapter_file.h"
#include "libformat/base/file.h"
#include "libformat/hf/safetensors.h"

enum { RANK = 2, HIDDEN = 8 };

static struct sf_arena arena;
static struct sf_err err;
static struct sf_layer_spec layers[3] = {{.moe = true}, {.moe = false}, {.moe = true}};
static struct sf_model_spec spec;
static float numbers[256];

static void setup(void)
{
    struct scout_random random = {7};
    spec = (struct sf_model_spec){.layers = 3,
                                  .hidden = HIDDEN,
                                  .vocabulary = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .head_size = 4,
                                  .expert_width = 6,
                                  .dense_width = 10,
                                  .experts = 2,
                                  .experts_per_token = 1,
                                  .layer = layers};
    scout_random_fill(numbers, 256, 1, &random);
}

static void teardown(void)
{
    sf_arena_free(&arena);
}

static struct sf_adapter_module module(enum sf_part part, int32_t layer, const float *a)
{
    struct sf_shape shape = sf_spec_shape(&spec, part);
    return (struct sf_adapter_module){.role = {part, layer, -1},
                                      .groups = 1,
                                      .rank = RANK,
                                      .alpha = 2.5,
                                      .in = shape.dim[1],
                                      .out = shape.dim[0],
                                      .scale = 2.5 / RANK,
                                      .a = a,
                                      .b = a + 64};
}

/* q everywhere, the shared gate everywhere, o only in layer 1, the dense up (layer 1 has it). */
static struct sf_adapter sample(struct sf_adapter_module m[7], enum sf_adapter_prefix prefix)
{
    m[0] = module(SF_PART_Q, 0, numbers);
    m[1] = module(SF_PART_SHARED_GATE, 0, numbers + 3);
    m[2] = module(SF_PART_Q, 1, numbers + 6);
    m[3] = module(SF_PART_O, 1, numbers + 9);
    m[4] = module(SF_PART_DENSE_UP, 1, numbers + 12);
    m[5] = module(SF_PART_Q, 2, numbers + 15);
    m[6] = module(SF_PART_SHARED_GATE, 2, numbers + 18);
    return (struct sf_adapter){.prefix = prefix,
                               .rank = RANK,
                               .alpha = 2.5,
                               .base_model = "some/base \"x\"",
                               .modules = 7,
                               .module = m};
}

static void check_same(const struct sf_adapter *got, const struct sf_adapter *want)
{
    ck_assert_int_eq(got->prefix, want->prefix);
    ck_assert_int_eq(got->rank, want->rank);
    ck_assert_double_eq(got->alpha, want->alpha);
    ck_assert_str_eq(got->base_model, want->base_model);
    ck_assert_int_eq(got->modules, want->modules);
    for (int64_t i = 0; i < want->modules; i++) {
        const struct sf_adapter_module *g = &got->module[i], *w = &want->module[i];
        ck_assert_int_eq(g->role.part, w->role.part);
        ck_assert_int_eq(g->role.layer, w->role.layer);
        ck_assert_int_eq(g->role.expert, -1);
        ck_assert_int_eq(g->in, w->in);
        ck_assert_int_eq(g->out, w->out);
        ck_assert_double_eq(g->scale, w->scale);
        ck_assert(memcmp(g->a, w->a, (size_t)(w->rank * w->in) * 4) == 0);
        ck_assert(memcmp(g->b, w->b, (size_t)(w->rank * w->out) * 4) == 0);
    }
}

static const char *config_text(const char *directory)
{
    char *text;
    assert_ok(sf_read_file(&text, NULL, &arena,
                           sf_path_join(&arena, directory, "adapter_config.json"), 1 << 20, &err),
              err);
    return text;
}

START_TEST(written_is_read_back)
{
    struct sf_adapter_module m[7];
    struct sf_adapter want = sample(m, (enum sf_adapter_prefix)_i), got;
    const char *directory = scout_scratch_path(_i ? "multimodal/deep" : "text");
    assert_ok(sf_adapter_write(directory, &want, &spec, &err), err);
    assert_ok(sf_adapter_read(&got, &arena, directory, &spec, &err), err);
    check_same(&got, &want);
}
END_TEST

START_TEST(targets_are_what_was_trained)
{
    struct sf_adapter_module m[7];
    struct sf_adapter adapter = sample(m, SF_ADAPTER_TEXT);
    const char *directory = scout_scratch_path("targets");
    assert_ok(sf_adapter_write(directory, &adapter, &spec, &err), err);
    ck_assert_ptr_nonnull(strstr(config_text(directory),
                                 "\"target_modules\": [\n"
                                 "    \"q_proj\",\n"
                                 "    \"model.layers.1.self_attn.o_proj\",\n"
                                 "    \"shared_expert.gate_proj\",\n"
                                 "    \"feed_forward.up_proj\"\n"
                                 "  ]"));
    adapter.prefix = SF_ADAPTER_MULTIMODAL;
    assert_ok(sf_adapter_write(directory, &adapter, &spec, &err), err);
    ck_assert_ptr_nonnull(strstr(
        config_text(directory),
        "\"(?:.*\\\\.)?language_model\\\\.model\\\\.layers\\\\.(?:[0-9]+\\\\.self_attn\\\\.q_proj|"
        "(?:1)\\\\.self_attn\\\\.o_proj|[0-9]+\\\\.feed_forward\\\\.shared_expert\\\\.gate_proj|"
        "[0-9]+\\\\.feed_forward\\\\.up_proj)\""));
}
END_TEST

START_TEST(rslora_divides_by_the_root)
{
    struct sf_adapter_module m[7];
    struct sf_adapter adapter = sample(m, SF_ADAPTER_TEXT), got;
    const char *directory = scout_scratch_path("rslora");
    adapter.rslora = true;
    for (int i = 0; i < 7; i++)
        m[i].scale = 2.5 / sqrt(2);
    assert_ok(sf_adapter_write(directory, &adapter, &spec, &err), err);
    assert_ok(sf_adapter_read(&got, &arena, directory, &spec, &err), err);
    ck_assert(got.rslora);
    ck_assert_double_eq(got.module[0].scale, 2.5 / sqrt(2));
}
END_TEST

START_TEST(unwritable_modules_are_refused)
{
    struct sf_adapter_module m[7];
    struct sf_adapter adapter = sample(m, SF_ADAPTER_TEXT);
    const char *directory = scout_scratch_path("unwritable");
    m[1].role.layer = 1; /* layer 1 is dense: no shared expert */
    assert_fails(sf_adapter_write(directory, &adapter, &spec, &err), SF_EINVAL, "layer 1", err);
    m[1].role.layer = 0;
    m[3].rank = 3; /* whose scale would be another */
    assert_fails(sf_adapter_write(directory, &adapter, &spec, &err), SF_EINVAL, "rank 3", err);
    adapter.modules = 0;
    assert_fails(sf_adapter_write(directory, &adapter, &spec, &err), SF_EINVAL, "without", err);
    ck_assert(!sf_file_exists(directory));
}
END_TEST

/* ---- files by hand ---- */

static const char *q_key[2] = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                               "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"};

/* A folder with this config and a complete q adapter of layer 0 in `dtype` whose bytes are `a`
 * then `b`, 16 elements each; `extra`, if any, is a third tensor like the first. */
static const char *by_hand(const char *config, enum sf_dtype dtype, const void *a,
                           const char *extra)
{
    const char *directory = scout_scratch_path("by_hand");
    uint64_t bytes = 16 * sf_dtype_bytes(dtype);
    struct sf_named_tensor t[3] = {
        {q_key[0], {dtype, {2, {RANK, HIDDEN}}, a, bytes}},
        {q_key[1], {dtype, {2, {HIDDEN, RANK}}, a, bytes}},
        {extra, {dtype, {2, {RANK, HIDDEN}}, a, bytes}},
    };
    assert_ok(sf_make_directory(directory, &err), err);
    assert_ok(sf_safetensors_write(sf_path_join(&arena, directory, "adapter_model.safetensors"), t,
                                   extra ? 3 : 2, &err),
              err);
    assert_ok(sf_write_file(sf_path_join(&arena, directory, "adapter_config.json"), config,
                            strlen(config), &err),
              err);
    return directory;
}

static const char plain[] = "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4}";

START_TEST(halves_become_float32)
{
    struct sf_adapter got;
    uint16_t bf16[16] = {0x3f80, 0xbf00}, f16[16] = {0x3c00, 0xb800, 0x0001, 0x83ff, 0x7bff};
    assert_ok(sf_adapter_read(&got, &arena, by_hand(plain, SF_BF16, bf16, NULL), &spec, &err), err);
    ck_assert(got.module[0].a[0] == 1 && got.module[0].a[1] == -0.5f && got.module[0].a[2] == 0);
    assert_ok(sf_adapter_read(&got, &arena, by_hand(plain, SF_F16, f16, NULL), &spec, &err), err);
    ck_assert(got.module[0].b[0] == 1 && got.module[0].b[1] == -0.5f);
    ck_assert(got.module[0].b[2] == 0x1p-24f && got.module[0].b[3] == -1023 * 0x1p-24f);
    ck_assert(got.module[0].b[4] == 65504);
    ck_assert_double_eq(got.module[0].scale, 2);
    ck_assert_str_eq(got.base_model, "");
}
END_TEST

START_TEST(what_is_not_a_number_is_refused)
{
    struct sf_adapter got;
    float nan[16] = {0, 0, 0, NAN};
    assert_fails(sf_adapter_read(&got, &arena, by_hand(plain, SF_F32, nan, NULL), &spec, &err),
                 SF_ENUMERIC, "q_proj.lora_A.weight: element 3", err);
}
END_TEST

static const struct {
    const char *fields;
    int code;
    const char *message;
} bad_fields[] = {
    {"\"peft_type\":\"LOHA\"", SF_EUNSUPPORTED, "peft_type is LOHA"},
    {"\"peft_type\":\"LORA\",\"use_dora\":true", SF_EUNSUPPORTED, "use_dora"},
    {"\"peft_type\":\"LORA\",\"bias\":\"all\"", SF_EUNSUPPORTED, "bias is all"},
    {"\"peft_type\":\"LORA\",\"lora_bias\":true", SF_EUNSUPPORTED, "lora_bias"},
    {"\"peft_type\":\"LORA\",\"modules_to_save\":[\"lm_head\"]", SF_EUNSUPPORTED,
     "modules_to_save"},
    {"\"peft_type\":\"LORA\",\"r\":2,\"rank_pattern\":{\"q_proj\":4}", SF_EFORMAT,
     "r 4 want [4, 8]"},
    {"\"peft_type\":\"LORA\",\"rank_pattern\":{\"q_proj\":2.5}", SF_EFORMAT, "q_proj is 2.5"},
    {"\"peft_type\":\"LORA\",\"rank_pattern\":{\"(\":2}", SF_EFORMAT, "no regular expression"},
    {"\"peft_type\":\"LORA\",\"rank_pattern\":{\"(((.+)+)+)[^a-z]\":2}", SF_EFORMAT, "steps"},
    {"\"peft_type\":\"LORA\",\"rank_pattern\":{\"q\":2,\"q\":2}", SF_EFORMAT, "rank_pattern: "},
    {"\"peft_type\":\"LORA\",\"rank_pattern\":[]", SF_EFORMAT, "rank_pattern is no object"},
    {"\"peft_type\":\"LORA\",\"alpha_pattern\":{\"q_proj\":0}", SF_EFORMAT, "would change nothing"},
    {"\"peft_type\":\"LORA\",\"alpha_pattern\":{\"q_proj\":\"4\"}", SF_EFORMAT,
     "alpha_pattern: q_proj"},
    {"\"peft_type\":\"LORA\",\"target_parameters\":\"a\"", SF_EFORMAT,
     "target_parameters is no list"},
    {"\"peft_type\":\"LORA\",\"scout_for\":\"vllm\",\"r\":2", SF_EUNSUPPORTED, "in vLLM's order"},
    {"\"peft_type\":\"LORA\",\"scout_for\":\"x\"", SF_EUNSUPPORTED, "scout_for is x"},
    {"\"peft_type\":\"LORA\",\"trainable_token_indices\":[3]", SF_EUNSUPPORTED,
     "trainable_token_indices"},
    {"\"peft_type\":\"LORA\",\"fan_in_fan_out\":true", SF_EUNSUPPORTED, "fan_in_fan_out"},
    {"\"peft_type\":\"LORA\",\"init_lora_weights\":\"pissa\"", SF_EUNSUPPORTED, "pissa"},
    {"\"peft_type\":\"LORA\",\"of_the_future\":1", SF_EUNSUPPORTED, "of_the_future"},
    {"\"r\":2", SF_EFORMAT, "peft_type is missing"},
    {"\"peft_type\":\"LORA\",\"r\":0", SF_EFORMAT, "r is 0"},
    {"\"peft_type\":\"LORA\",\"lora_alpha\":0", SF_EFORMAT, "lora_alpha is 0"},
    {"\"peft_type\":\"LORA\",\"lora_dropout\":1", SF_EFORMAT, "lora_dropout is 1"},
    {"\"peft_type\":\"LORA\",\"r\":\"2\"", SF_EFORMAT, "r"},
    {"\"peft_type\":\"LORA\",\"r\":2,\"r\":2", SF_EFORMAT, "r"},
    {"\"peft_type\":\"LORA\",\"r\":3", SF_EFORMAT, "[2, 8], this model and r 3 want [3, 8]"},
    {"broken", SF_EFORMAT, "adapter_config.json"},
};

START_TEST(bad_configs_are_refused)
{
    struct sf_adapter got;
    char *text = sf_arena_printf(&arena, "{%s}", bad_fields[_i].fields);
    assert_fails(sf_adapter_read(&got, &arena, by_hand(text, SF_F32, numbers, NULL), &spec, &err),
                 bad_fields[_i].code, bad_fields[_i].message, err);
}
END_TEST

static const struct {
    const char *key;
    int code;
    const char *message;
} bad_keys[] = {
    {"base_model.model.lm_head.lora_A.weight", SF_EFORMAT, "head has lora_A but no lora_B"},
    {"base_model.model.lm_head.base_layer.weight", SF_EUNSUPPORTED,
     "[2, 8], this model's is [16, 8]: not the weight of the base"},
    {"base_model.model.score.lora_A.weight", SF_EUNSUPPORTED, "score.lora_A.weight: no key"},
    {"model.layers.0.self_attn.k_proj.lora_A.weight", SF_EUNSUPPORTED, "no key"},
    {"base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", SF_EUNSUPPORTED,
     "no key"},
    {"base_model.model.model.layers.00.self_attn.k_proj.lora_A.weight", SF_EUNSUPPORTED, "no key"},
    {"base_model.model.model.layers.0.self_attn.k_proj.lora_A.default.weight", SF_EFORMAT,
     "layer 0 k has lora_A but no lora_B"},
    {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", SF_EFORMAT,
     "a second tensor for what base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"},
    {"base_model.model.model.layers.0.self_attn.k_proj.lora_A.other.weight", SF_EUNSUPPORTED,
     "no key"},
    {"base_model.model.model.layers.0.self_attn.q_proj.base_layer.lora_A.weight", SF_EUNSUPPORTED,
     "no key"},
    {"base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight", SF_EFORMAT, "3 layers"},
    {"base_model.model.model.layers.1.feed_forward.shared_expert.up_proj.lora_A.weight", SF_EFORMAT,
     "no such module"},
    {"base_model.model.language_model.model.layers.1.self_attn.q_proj.lora_A.weight", SF_EFORMAT,
     "two key prefixes"},
    {"base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight", SF_EFORMAT,
     "layer 1 k has lora_A but no lora_B"},
};

START_TEST(bad_keys_are_refused)
{
    struct sf_adapter got;
    const char *directory = by_hand(plain, SF_F32, numbers, bad_keys[_i].key);
    assert_fails(sf_adapter_read(&got, &arena, directory, &spec, &err), bad_keys[_i].code,
                 bad_keys[_i].message, err);
}
END_TEST

START_TEST(files_that_are_missing_are_named)
{
    struct sf_adapter got;
    assert_fails(sf_adapter_read(&got, &arena, scout_scratch_path("nowhere"), &spec, &err),
                 SF_ENOENT, "adapter_config.json", err);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("adapter_file");
    TCase *tc = tcase_create("adapter_file");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, written_is_read_back, 0, 2);
    tcase_add_test(tc, targets_are_what_was_trained);
    tcase_add_test(tc, rslora_divides_by_the_root);
    tcase_add_test(tc, unwritable_modules_are_refused);
    tcase_add_test(tc, halves_become_float32);
    tcase_add_test(tc, what_is_not_a_number_is_refused);
    tcase_add_loop_test(tc, bad_configs_are_refused, 0, sizeof bad_fields / sizeof bad_fields[0]);
    tcase_add_loop_test(tc, bad_keys_are_refused, 0, sizeof bad_keys / sizeof bad_keys[0]);
    tcase_add_test(tc, files_that_are_missing_are_named);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
