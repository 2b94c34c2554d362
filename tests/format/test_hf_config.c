#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/hf/hf_config.h"

static struct sf_arena arena;

static struct sf_model_spec parse(const char *text)
{
    struct sf_model_spec spec;
    struct sf_err err = {0};
    assert_ok(sf_hf_config_parse(&spec, &arena, text, strlen(text), &err), err);
    return spec;
}

static struct sf_model_spec parse_file(const char *path)
{
    struct sf_err err = {0};
    char *text;
    assert_ok(sf_read_file(&text, NULL, &arena, scout_source_path(path), 1 << 20, &err), err);
    return parse(text);
}

#define TEXT(fields) "{\"model_type\": \"llama4_text\"" fields "}"

/* Everything absent: Scout, as transformers' class defaults describe it. */
START_TEST(defaults_are_scout)
{
    struct sf_model_spec s = parse(TEXT(""));
    ck_assert(!s.multimodal && s.qk_norm && s.temperature);
    ck_assert_str_eq(s.architecture, "Llama4ForCausalLM");
    ck_assert_int_eq(s.layers, 48);
    ck_assert_int_eq(s.hidden, 5120);
    ck_assert_int_eq(s.heads, 40);
    ck_assert_int_eq(s.kv_heads, 8);
    ck_assert_int_eq(s.head_size, 128);
    ck_assert_int_eq(s.expert_width, 8192);
    ck_assert_int_eq(s.dense_width, 16384);
    ck_assert_int_eq(s.experts, 16);
    ck_assert_int_eq(s.vocabulary, 202048);
    ck_assert_int_eq(s.attention_chunk, 8192);
    ck_assert(s.norm_epsilon == 1e-5 && s.temperature_floor == 8192 && s.temperature_scale == 0.1);
    ck_assert(s.rope.kind == SF_ROPE_PLAIN && s.rope.theta == 500000);
    ck_assert_int_eq(s.dtype, SF_DTYPE_NONE);
    ck_assert_int_eq(s.pad_token, -1);
    for (int l = 0; l < 48; l++) {
        ck_assert_int_eq(s.layer[l].rope, l % 4 != 3);
        ck_assert_int_eq(s.layer[l].chunked, l % 4 != 3);
        ck_assert(s.layer[l].moe);
    }
}
END_TEST

static void check_same(const struct sf_model_spec *a, const struct sf_model_spec *b)
{
    ck_assert_int_eq(a->multimodal, b->multimodal);
    ck_assert_int_eq(a->layers, b->layers);
    ck_assert_int_eq(a->hidden, b->hidden);
    ck_assert_int_eq(a->vocabulary, b->vocabulary);
    ck_assert_int_eq(a->heads, b->heads);
    ck_assert_int_eq(a->kv_heads, b->kv_heads);
    ck_assert_int_eq(a->head_size, b->head_size);
    ck_assert_int_eq(a->expert_width, b->expert_width);
    ck_assert_int_eq(a->experts, b->experts);
    ck_assert_int_eq(a->attention_chunk, b->attention_chunk);
    ck_assert_int_eq(a->qk_norm, b->qk_norm);
    ck_assert_int_eq(a->temperature, b->temperature);
    ck_assert(a->temperature_floor == b->temperature_floor);
    ck_assert_int_eq(a->rope.kind, b->rope.kind);
    ck_assert(a->rope.theta == b->rope.theta && a->rope.factor == b->rope.factor);
    ck_assert(a->rope.low_freq_factor == b->rope.low_freq_factor);
    ck_assert(a->rope.high_freq_factor == b->rope.high_freq_factor);
    ck_assert_int_eq(a->rope.original_max_positions, b->rope.original_max_positions);
    ck_assert_int_eq(a->dtype, b->dtype);
    ck_assert_int_eq(a->bos_token, b->bos_token);
    ck_assert_int_eq(a->pad_token, b->pad_token);
    for (int64_t l = 0; l < a->layers; l++) {
        ck_assert_int_eq(a->layer[l].rope, b->layer[l].rope);
        ck_assert_int_eq(a->layer[l].chunked, b->layer[l].chunked);
        ck_assert_int_eq(a->layer[l].moe, b->layer[l].moe);
    }
}

START_TEST(both_forms_of_tiny_scout_are_one_model)
{
    struct sf_model_spec new_form = parse_file("examples/tiny-scout/config.json");
    struct sf_model_spec published = parse_file("examples/tiny-scout-published/config.json");
    ck_assert(new_form.multimodal && new_form.rope.kind == SF_ROPE_LLAMA3);
    ck_assert_int_eq(new_form.dtype, SF_BF16);
    ck_assert_int_eq(new_form.bos_token, 2048);
    check_same(&new_form, &published);
}
END_TEST

START_TEST(presets_of_llama4_tiny)
{
    struct sf_model_spec scout = parse_file("tests/golden/llama4-tiny/scout/model/config.json");
    struct sf_model_spec maverick =
        parse_file("tests/golden/llama4-tiny/maverick/model/config.json");
    ck_assert(scout.rope.high_freq_factor == scout.rope.low_freq_factor); /* no error, no 0/0 */
    ck_assert(scout.layer[0].rope && !scout.layer[1].rope && scout.layer[3].rope);
    ck_assert(!maverick.layer[0].moe && maverick.layer[1].moe && !maverick.qk_norm);
    ck_assert_int_eq(maverick.rope.kind, SF_ROPE_PLAIN);
}
END_TEST

START_TEST(rules_of_layers)
{
    struct sf_model_spec s =
        parse(TEXT(", \"num_hidden_layers\": 4, \"interleave_moe_layer_step\": 2"));
    ck_assert(!s.layer[0].moe && s.layer[1].moe && !s.layer[2].moe && s.layer[3].moe);
    s = parse(TEXT(", \"num_hidden_layers\": 2, \"moe_layers\": []"));
    ck_assert(!s.layer[0].moe && !s.layer[1].moe);
    s = parse(TEXT(", \"num_hidden_layers\": 2, \"moe_layers\": null"));
    ck_assert(s.layer[0].moe && s.layer[1].moe);
    s = parse(TEXT(", \"num_hidden_layers\": 4, \"no_rope_layers\": [], "
                   "\"no_rope_layer_interval\": 2"));
    ck_assert(s.layer[0].rope && !s.layer[1].rope && s.layer[2].rope && !s.layer[3].rope);
    s = parse(TEXT(", \"num_hidden_layers\": 2, \"no_rope_layers\": [0, 1], "
                   "\"layer_types\": [\"chunked_attention\", \"full_attention\"]"));
    ck_assert(!s.layer[0].rope && s.layer[0].chunked && s.layer[1].rope && !s.layer[1].chunked);
}
END_TEST

START_TEST(rules_of_fields)
{
    ck_assert(parse(TEXT(", \"attn_temperature_tuning\": 4")).temperature);
    ck_assert(!parse(TEXT(", \"attn_temperature_tuning\": 0")).temperature);
    ck_assert(!parse(TEXT(", \"attn_temperature_tuning\": false")).temperature);
    ck_assert_int_eq(parse(TEXT(", \"head_dim\": null, \"hidden_size\": 80")).head_size, 2);
    ck_assert_int_eq(parse(TEXT(", \"num_key_value_heads\": null")).kv_heads, 40);
    ck_assert_int_eq(parse(TEXT(", \"torch_dtype\": \"float16\"")).dtype, SF_F16);
    ck_assert_int_eq(parse(TEXT(", \"dtype\": \"float32\"")).dtype, SF_F32);
    ck_assert(parse(TEXT(", \"rope_theta\": 10000.0, \"rope_scaling\": null")).rope.theta == 10000);
    ck_assert(parse(TEXT(", \"rope_parameters\": {\"rope_theta\": 7}")).rope.theta == 7);
    struct sf_model_spec s = parse(
        TEXT(", \"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1,"
             " \"high_freq_factor\": 4, \"original_max_position_embeddings\": 8192}"));
    ck_assert_int_eq(s.rope.kind, SF_ROPE_LLAMA3);
    ck_assert_int_eq(s.rope.original_max_positions, 8192);
}
END_TEST

static const struct {
    const char *text;
    int code;
    const char *message;
} bad[] = {
    {"[]", SF_EFORMAT, "an array, not an object"},
    {"{}", SF_EFORMAT, "model_type is missing"},
    {"{\"model_type\": \"llama\"}", SF_EUNSUPPORTED, "model_type is \"llama\""},
    {"{\"model_type\": \"llama4\"}", SF_EFORMAT, "text_config is missing"},
    {"{\"model_type\": \"llama4\", \"text_config\": 3}", SF_EFORMAT, "text_config"},
    {TEXT(", \"hidden_size\": \"x\""), SF_EFORMAT, "hidden_size is a string"},
    {TEXT(", \"hidden_size\": 0"), SF_EFORMAT, "hidden_size is 0"},
    {TEXT(", \"hidden_size\": 1e12"), SF_EFORMAT, "hidden_size is 1000000000000"},
    {TEXT(", \"num_hidden_layers\": 100000"), SF_EFORMAT, "num_hidden_layers is 100000"},
    {TEXT(", \"num_attention_heads\": 9"), SF_EFORMAT, "not a multiple of num_key_value_heads 8"},
    {TEXT(", \"head_dim\": 7"), SF_EFORMAT, "head_dim is 7"},
    {TEXT(", \"num_experts_per_tok\": 2"), SF_EUNSUPPORTED, "num_experts_per_tok is 2"},
    {TEXT(", \"attention_bias\": true"), SF_EUNSUPPORTED, "attention_bias"},
    {TEXT(", \"tie_word_embeddings\": true"), SF_EUNSUPPORTED, "tie_word_embeddings"},
    {TEXT(", \"hidden_act\": \"gelu\""), SF_EUNSUPPORTED, "hidden_act is \"gelu\""},
    {TEXT(", \"rms_norm_eps\": 0"), SF_EFORMAT, "rms_norm_eps is 0"},
    {TEXT(", \"dtype\": \"int4\""), SF_EUNSUPPORTED, "unknown dtype \"int4\""},
    {TEXT(", \"rope_scaling\": 8"), SF_EFORMAT, "the rope block is a number"},
    {TEXT(", \"rope_scaling\": {\"rope_type\": \"yarn\"}"), SF_EUNSUPPORTED, "\"yarn\""},
    {TEXT(", \"rope_scaling\": {\"rope_type\": \"llama3\"}"), SF_EFORMAT, "has no factor"},
    {TEXT(", \"no_rope_layers\": [1]"), SF_EFORMAT, "no_rope_layers has 1 entries for 48 layers"},
    {TEXT(", \"num_hidden_layers\": 1, \"layer_types\": [\"sliding\"]"), SF_EUNSUPPORTED,
     "layer_types[0] is \"sliding\""},
    {TEXT(", \"moe_layers\": [48]"), SF_EFORMAT, "moe_layers names layer 48 of 48"},
};
enum { BAD = sizeof bad / sizeof bad[0] };

START_TEST(every_unusable_field_is_named)
{
    struct sf_model_spec spec;
    struct sf_err err = {0};
    assert_fails(sf_hf_config_parse(&spec, &arena, bad[_i].text, strlen(bad[_i].text), &err),
                 bad[_i].code, bad[_i].message, err);
}
END_TEST

static void free_arena(void)
{
    sf_arena_free(&arena);
}

static Suite *hf_config_suite(void)
{
    Suite *suite = suite_create("hf_config");
    TCase *tc = tcase_create("hf_config");
    tcase_add_checked_fixture(tc, NULL, free_arena);
    tcase_add_test(tc, defaults_are_scout);
    tcase_add_test(tc, both_forms_of_tiny_scout_are_one_model);
    tcase_add_test(tc, presets_of_llama4_tiny);
    tcase_add_test(tc, rules_of_layers);
    tcase_add_test(tc, rules_of_fields);
    tcase_add_loop_test(tc, every_unusable_field_is_named, 0, BAD);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(hf_config_suite)
