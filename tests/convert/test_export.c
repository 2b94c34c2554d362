#include "tests/support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"
#include "libformat/convert/export.h"
#include "libformat/convert/export_config.h"
#include "libformat/hf/hf_index.h"
#include "tests/convert/conversion.h"

static const char *const models[] = {"examples/tiny-scout", "tests/golden/llama4-tiny/scout/model",
                                     "tests/golden/llama4-tiny/maverick/model"};
enum { MODELS = sizeof models / sizeof models[0] };

/* A container of models[m] in scratch, and its map. */
static struct sf_map *container(int m, bool keep, const char *name)
{
    return converted((struct conversion){.source = scout_source_path(models[m]),
                                         .output = scout_scratch_path(name),
                                         .keep = {"*"},
                                         .keep_count = keep});
}

/* scratch/<what>-<model>: loop tests share the scratch directory. */
static const char *folder(const char *what, int m)
{
    char name[64];
    snprintf(name, sizeof name, "%s-%d", what, m);
    return scout_scratch_path(name);
}

static struct sf_hf_index *exported(const struct sf_map *map, const char *directory,
                                    struct sf_export_options options)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    assert_ok(sf_export_run(map, directory, &options, &err), err);
    assert_ok(sf_hf_index_open(&index, directory, &err), err);
    return index;
}

/* Nothing quantized: the folder that comes out holds the tensors that went in, byte for byte. */
START_TEST(what_was_kept_comes_out_as_it_went_in)
{
    struct sf_err err = {0};
    struct sf_hf_index *source;
    struct sf_map *map = container(_i, true, "kept.scout");
    struct sf_hf_index *index =
        exported(map, folder("kept", _i), (struct sf_export_options){SF_EXPORT_BF16, 3, 700000});
    assert_ok(sf_hf_index_open(&source, scout_source_path(models[_i]), &err), err);
    ck_assert_int_eq(sf_hf_index_count(index), sf_hf_index_count(source));
    ck_assert_int_gt(sf_hf_index_shard_count(index), 3);
    for (int64_t i = 0; i < sf_hf_index_count(source); i++) {
        const struct sf_named_tensor *want = sf_hf_index_at(source, i, NULL);
        const struct sf_tensor *have = sf_hf_index_find(index, want->name);
        ck_assert_msg(have != NULL, "%s", want->name);
        ck_assert_int_eq(have->dtype, want->tensor.dtype);
        ck_assert(sf_shape_equal(&have->shape, &want->tensor.shape));
        ck_assert_msg(memcmp(have->data, want->tensor.data, have->bytes) == 0, "%s", want->name);
    }
    sf_hf_index_close(source);
    sf_hf_index_close(index);
    sf_map_close(map);
}
END_TEST

/* One element by the formulas of spec/quantization.md, read off the planes. */
static uint16_t plain_element(const struct sf_map *map, const struct sf_entry *e, int64_t k)
{
    const struct sf_plane *p = e->plane;
    const unsigned char *codes = sf_map_bytes(map, p[SF_PLANE_CODES].address);
    const unsigned char *q = sf_map_bytes(map, p[SF_PLANE_SCALE].address);
    const float *nested = sf_map_bytes(map, p[SF_PLANE_SCALE2].address);
    const float *offset = sf_map_bytes(map, p[SF_PLANE_OFFSET].address);
    int64_t block = k / 64;
    float product = sf_nf4_scale_map[q[block]] * nested[block / 256];
    float absmax = product + *offset;
    int code = k % 2 == 0 ? codes[k / 2] >> 4 : codes[k / 2] & 15;
    return sf_bf16_from_f32(sf_nf4_code_value[code] * absmax);
}

/* Where (o, i) of the entry lies in the exported tensor that holds it. */
static int64_t place_in(const struct sf_tensor *t, const struct sf_entry *e, int64_t o, int64_t i)
{
    if (!sf_part_is_expert(e->role.part))
        return o * e->shape.dim[1] + i;
    int64_t column = o + (e->role.part == SF_PART_EXPERT_UP ? t->shape.dim[2] / 2 : 0);
    return (e->role.expert * t->shape.dim[1] + i) * t->shape.dim[2] + column;
}

START_TEST(quantized_weights_come_out_as_they_decode)
{
    struct sf_map *map = container(_i, false, "nf4.scout");
    struct sf_hf_index *index =
        exported(map, folder("nf4", _i), (struct sf_export_options){SF_EXPORT_BF16, 2, 1u << 30});
    int64_t checked = 0;
    for (int64_t n = 0; n < sf_map_info(map)->tensors; n++) {
        const struct sf_entry *e = sf_map_tensor(map, n);
        if (e->encoding != SF_ENCODING_NF4)
            continue;
        const struct sf_tensor *t = sf_hf_index_find(index, e->source_name);
        ck_assert_msg(t != NULL, "%s", e->source_name);
        int64_t in = e->shape.dim[1], bad = -1;
        for (int64_t k = 0; k < e->shape.dim[0] * in && bad < 0; k++)
            if (sf_get_u16((const char *)t->data + 2 * place_in(t, e, k / in, k % in)) !=
                plain_element(map, e, k))
                bad = k;
        ck_assert_msg(bad < 0, "%s: element %lld", e->name, (long long)bad);
        checked++;
    }
    ck_assert_int_gt(checked, 20);
    sf_hf_index_close(index);
    sf_map_close(map);
}
END_TEST

static void check_state(const struct sf_hf_index *index, const struct sf_map *map,
                        const struct sf_entry *e)
{
    char name[256];
    struct sf_err err = {0};
    struct sf_json *state;
    double offset;
    int64_t size;
    snprintf(name, sizeof name, "%s.quant_state.bitsandbytes__nf4", e->name);
    const struct sf_tensor *t = sf_hf_index_find(index, name);
    ck_assert_ptr_nonnull(t);
    assert_ok(sf_json_parse(&state, t->data, t->bytes, &err), err);
    assert_ok(sf_json_as_double(&offset, sf_json_get(state, "nested_offset"), "offset", &err), err);
    ck_assert((float)offset ==
              *(const float *)sf_map_bytes(map, e->plane[SF_PLANE_OFFSET].address));
    const struct sf_json *shape = sf_json_first(sf_json_get(state, "shape"));
    assert_ok(sf_json_as_int(&size, shape, "rows", &err), err);
    ck_assert_int_eq(size, e->shape.dim[0]);
    assert_ok(sf_json_as_int(&size, sf_json_next(shape), "columns", &err), err);
    ck_assert_int_eq(size, e->shape.dim[1]);
    sf_json_free(state);
}

START_TEST(bitsandbytes_tensors_are_the_planes)
{
    static const struct {
        const char *suffix;
        enum sf_plane_kind kind;
    } parts[] = {{"", SF_PLANE_CODES},
                 {".absmax", SF_PLANE_SCALE},
                 {".nested_absmax", SF_PLANE_SCALE2},
                 {".quant_map", SF_PLANE_CODEBOOK},
                 {".nested_quant_map", SF_PLANE_MAP}};
    struct sf_map *map = container(_i, false, "bnb.scout");
    struct sf_hf_index *index =
        exported(map, folder("bnb", _i), (struct sf_export_options){SF_EXPORT_BNB4, 2, 1u << 20});
    for (int64_t n = 0; n < sf_map_info(map)->tensors; n++) {
        const struct sf_entry *e = sf_map_tensor(map, n);
        int count = e->encoding == SF_ENCODING_NF4 ? 5 : 1;
        for (int p = 0; p < count; p++) {
            char name[256];
            snprintf(name, sizeof name, "%s%s", e->name, parts[p].suffix);
            const struct sf_tensor *t = sf_hf_index_find(index, name);
            const struct sf_plane *plane = &e->plane[parts[p].kind];
            ck_assert_msg(t && t->bytes == plane->bytes, "%s", name);
            ck_assert_msg(memcmp(t->data, sf_map_bytes(map, plane->address), t->bytes) == 0, "%s",
                          name);
        }
        if (count == 5)
            check_state(index, map, e);
    }
    sf_hf_index_close(index);
    sf_map_close(map);
}
END_TEST

START_TEST(a_folder_with_a_checkpoint_is_left_alone)
{
    struct sf_err err = {0};
    struct sf_export_options options = {SF_EXPORT_BF16, 1, 1u << 30};
    struct sf_map *map = container(1, false, "again.scout");
    const char *directory = scout_scratch_path("again");
    assert_ok(sf_export_run(map, directory, &options, &err), err);
    assert_fails(sf_export_run(map, directory, &options, &err), SF_EINVAL,
                 "again: holds a checkpoint already", err);
    sf_map_close(map);
}
END_TEST

/* scale * B A is 1 in the first column of one q_proj, 0 everywhere else. */
START_TEST(an_adapter_is_added_before_the_rounding)
{
    enum { LARGEST = 4096 };
    static float a[LARGEST] = {0.5f}, b[LARGEST];
    struct sf_err err = {0};
    struct sf_map *map = container(1, _i, "merge.scout");
    const struct sf_entry *q = sf_map_find(map, (struct sf_role){SF_PART_Q, 2, -1});
    int64_t out = q->shape.dim[0], in = q->shape.dim[1];
    struct sf_adapter_module module = {q->role, 1, 1, in, out, 2.0, 2.0, a, b};
    struct sf_adapter adapter = {.modules = 1, .module = &module};
    struct sf_export_options options = {SF_EXPORT_BF16, 2, 1u << 30, .adapter = &adapter};
    for (int64_t o = 0; o < out; o++)
        b[o] = 1;
    struct sf_hf_index *merged = exported(map, folder("merged", _i), options);
    options.adapter = NULL;
    struct sf_hf_index *plain = exported(map, folder("unmerged", _i), options);
    for (int64_t i = 0; i < sf_hf_index_count(plain); i++) {
        const struct sf_named_tensor *w = sf_hf_index_at(plain, i, NULL);
        const struct sf_tensor *have = sf_hf_index_find(merged, w->name);
        for (int64_t k = 0; k < (int64_t)w->tensor.bytes / 2; k++) {
            uint16_t was = sf_get_u16((const char *)w->tensor.data + 2 * k);
            uint16_t is = sf_get_u16((const char *)have->data + 2 * k);
            bool adapted = strcmp(w->name, q->source_name) == 0 && k % in == 0;
            ck_assert_uint_eq(is, adapted ? sf_bf16_from_f32(sf_f32_from_bf16(was) + 1) : was);
        }
    }
    options = (struct sf_export_options){SF_EXPORT_BNB4, 1, 1u << 30, .adapter = &adapter};
    assert_fails(sf_export_run(map, folder("no-merge", _i), &options, &err), SF_EINVAL,
                 "merged into bf16 weights only", err);
    options.format = SF_EXPORT_BF16;
    module.in++;
    assert_fails(sf_export_run(map, folder("misfit", _i), &options, &err), SF_EUNSUPPORTED,
                 "the adapter's layer 2 q has no weight of its shape", err);
    sf_hf_index_close(plain);
    sf_hf_index_close(merged);
    sf_map_close(map);
}
END_TEST

static bool stop_at_once(void *context, uint64_t done, uint64_t total)
{
    (void)context, (void)done, (void)total;
    return false;
}

START_TEST(an_interrupted_export_has_no_index)
{
    struct sf_err err = {0};
    struct sf_export_options options = {SF_EXPORT_BF16, 1, 1u << 30, stop_at_once};
    struct sf_map *map = container(1, false, "stopped.scout");
    char path[4096];
    ck_assert_int_eq(sf_export_run(map, scout_scratch_path("stopped"), &options, &err),
                     SF_EINTERRUPTED);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", scout_scratch_path("stopped"));
    ck_assert(!sf_file_exists(path));
    sf_map_close(map);
}
END_TEST

static void check_config(const char *before, enum sf_export_format format, const char *after)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    char *text = sf_arena_strdup(&arena, before);
    uint64_t bytes = strlen(text);
    assert_ok(sf_export_config(&text, &bytes, &arena, format, &err), err);
    ck_assert_uint_eq(bytes, strlen(text));
    if (format == SF_EXPORT_BF16)
        ck_assert_str_eq(text, after);
    else
        ck_assert_msg(strstr(text, after) != NULL, "%s", text);
    struct sf_json *root;
    assert_ok(sf_json_parse(&root, text, bytes, &err), err);
    assert_ok(sf_json_check_unique(root, &err), err);
    sf_json_free(root);
    sf_arena_free(&arena);
}

START_TEST(configs_keep_every_other_byte)
{
    check_config("{\"a\": 500000.0,  \"attn_temperature_tuning\" :4 }", SF_EXPORT_BF16,
                 "{\"a\": 500000.0,  \"attn_temperature_tuning\" :true }");
    check_config("{\"t\": {\"attn_temperature_tuning\": 0,\n \"x\": 1}}", SF_EXPORT_BF16,
                 "{\"t\": {\"attn_temperature_tuning\": false,\n \"x\": 1}}");
    check_config("{\"attn_temperature_tuning\": true}", SF_EXPORT_BF16,
                 "{\"attn_temperature_tuning\": true}");
    check_config("{\"s\": \"\\\"attn_temperature_tuning\\\": 4\"}", SF_EXPORT_BF16,
                 "{\"s\": \"\\\"attn_temperature_tuning\\\": 4\"}");
    check_config("{\"model_type\": \"llama4\"}", SF_EXPORT_BNB4,
                 "\"quant_method\": \"bitsandbytes\"");
    check_config("{ }", SF_EXPORT_BNB4, "\"load_in_4bit\": true");
}
END_TEST

/* bitsandbytes' own description goes from what is no longer quantized, wherever it stands. */
#define DESCRIPTION                                                                                \
    "\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"x\": [{}, \"}\"]}"
START_TEST(a_description_of_quantization_is_cut_whole)
{
    static const char *const pair[][2] = {
        {"{" DESCRIPTION "}", "{}"},
        {"{" DESCRIPTION ", \"a\": 1}", "{\"a\": 1}"},
        {"{\"a\": \"}\\\",{\", " DESCRIPTION " }", "{\"a\": \"}\\\",{\"}"},
        {"{\"a\": [\"]\"], " DESCRIPTION ", \"b\": 500000.0}", "{\"a\": [\"]\"], \"b\": 500000.0}"},
        {"{\"t\": {\"quantization_config\": 1}, " DESCRIPTION "}",
         "{\"t\": {\"quantization_config\": 1}}"},
        {"{" DESCRIPTION ", \"a\": 1, " DESCRIPTION "}", "{\"a\": 1}"},
    };
    for (size_t i = 0; i < sizeof pair / sizeof pair[0]; i++) {
        struct sf_err err = {0};
        struct sf_arena arena = {0};
        char *text = sf_arena_strdup(&arena, pair[i][0]);
        uint64_t bytes = strlen(text);
        assert_ok(sf_export_config(&text, &bytes, &arena, SF_EXPORT_BF16, &err), err);
        ck_assert_str_eq(text, pair[i][1]);
        ck_assert_uint_eq(bytes, strlen(text));
        text = sf_arena_strdup(&arena, pair[i][0]);
        bytes = strlen(text);
        assert_ok(sf_export_config(&text, &bytes, &arena, SF_EXPORT_BNB4, &err), err);
        ck_assert_str_eq(text, pair[i][0]);
        sf_arena_free(&arena);
    }
}
END_TEST

START_TEST(configs_that_cannot_be_written_are_refused)
{
    static const struct {
        const char *text, *message;
        int code;
    } bad[] = {
        {"[1]", "config.json: not a JSON object", SF_EFORMAT},
        {"{\"a\": ", "config.json", SF_EFORMAT},
        {"{\"quantization_config\": {\"quant_method\": \"gptq\"}}", "not bitsandbytes'",
         SF_EUNSUPPORTED},
        {"{\"quantization_config\": null}", "not bitsandbytes'", SF_EUNSUPPORTED},
        /* The name is found by what it means, the text by how it is written. */
        {"{\"a\": 1, \"quantiz\\u0061tion_config\": {\"quant_method\": \"bitsandbytes\"}}",
         "written with escapes", SF_EUNSUPPORTED},
        {"{\"quantiz\\u0061tion_config\": {\"quant_method\": \"bitsandbytes\"}, \"a\": 1}",
         "written with escapes", SF_EUNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct sf_err err = {0};
        struct sf_arena arena = {0};
        char *text = sf_arena_strdup(&arena, bad[i].text);
        uint64_t bytes = strlen(text);
        assert_fails(sf_export_config(&text, &bytes, &arena, SF_EXPORT_BF16, &err), bad[i].code,
                     bad[i].message, err);
        sf_arena_free(&arena);
    }
}
END_TEST

static Suite *export_suite(void)
{
    Suite *suite = suite_create("export");
    TCase *tc = tcase_create("export");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, what_was_kept_comes_out_as_it_went_in, 0, MODELS);
    tcase_add_loop_test(tc, quantized_weights_come_out_as_they_decode, 0, MODELS);
    tcase_add_loop_test(tc, bitsandbytes_tensors_are_the_planes, 0, MODELS);
    tcase_add_test(tc, a_folder_with_a_checkpoint_is_left_alone);
    tcase_add_loop_test(tc, an_adapter_is_added_before_the_rounding, 0, 2);
    tcase_add_test(tc, an_interrupted_export_has_no_index);
    tcase_add_test(tc, configs_keep_every_other_byte);
    tcase_add_test(tc, a_description_of_quantization_is_cut_whole);
    tcase_add_test(tc, configs_that_cannot_be_written_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(export_suite)
