/* Adapters of lm_head with PEFT's copy of the base's head beside them: the base's own, and others. */
#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/folders.h"
#include "libformat/convert/base_copy.h"
#include "libformat/hf/hf_config.h"
#include "tests/convert/conversion.h"

static struct sf_arena arena;
static struct sf_err err;
static struct sf_map *map;
static struct sf_hf_index *index_of_base;
static struct sf_model_spec spec;

static void setup(void)
{
    struct conversion c = {.source = scout_source_path("examples/tiny-scout"),
                           .output = scout_scratch_path("base_copy.scout"),
                           .threads = 2};
    char *config;
    uint64_t bytes;
    map = converted(c);
    assert_ok(sf_hf_index_open(&index_of_base, scout_source_path("examples/tiny-scout"), &err),
              err);
    assert_ok(sf_map_read_file(&config, &bytes, map, "config.json", &arena, &err), err);
    assert_ok(sf_hf_config_parse(&spec, &arena, config, bytes, &err), err);
}

static void teardown(void)
{
    sf_map_close(map);
    sf_hf_index_close(index_of_base);
    sf_arena_free(&arena);
}

/* The checkpoint's head in memory of our own. */
static struct sf_tensor head_copy(void)
{
    for (int64_t i = 0; i < sf_hf_index_count(index_of_base); i++) {
        const struct sf_named_tensor *t = sf_hf_index_at(index_of_base, i, NULL);
        if (!strstr(t->name, "lm_head.weight"))
            continue;
        struct sf_tensor copy = t->tensor;
        void *data = sf_arena_alloc(&arena, copy.bytes);
        copy.data = memcpy(data, t->tensor.data, copy.bytes);
        return copy;
    }
    ck_abort_msg("the base has no head");
    return (struct sf_tensor){0};
}

/* An adapter of lm_head of rank 2 in both PEFT's files, with `copy` beside it. */
static const char *adapter_with(const struct sf_tensor *copy)
{
    static const char config[] =
        "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":4,\"bias\":\"none\","
        "\"target_modules\":[\"lm_head\"]}";
    const char *directory = scout_scratch_path("with_copy");
    uint64_t a = 2 * (uint64_t)spec.hidden * 4, b = (uint64_t)spec.vocabulary * 2 * 4;
    float *numbers = sf_arena_array(&arena, (a > b ? a : b) / 4, sizeof *numbers);
    struct sf_named_tensor t[] = {
        {"base_model.model.lm_head.base_layer.weight", *copy},
        {"base_model.model.lm_head.lora_A.weight", {SF_F32, {2, {2, spec.hidden}}, numbers, a}},
        {"base_model.model.lm_head.lora_B.weight",
         {SF_F32, {2, {spec.vocabulary, 2}}, numbers, b}}};
    char path[512];
    assert_ok(sf_make_directory(directory, &err), err);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", directory);
    assert_ok(sf_safetensors_write(path, t, 3, &err), err);
    snprintf(path, sizeof path, "%s/adapter_config.json", directory);
    assert_ok(sf_write_file(path, config, strlen(config), &err), err);
    return directory;
}

static int read_on(struct sf_adapter_base base, const char *directory)
{
    struct sf_adapter adapter;
    int code = sf_adapter_read_on(&adapter, &arena, directory, &spec, &base, &err);
    if (code == SF_OK)
        ck_assert_int_eq(adapter.modules, 1);
    return code;
}

START_TEST(the_bases_own_is_left_out)
{
    struct sf_tensor copy = head_copy();
    const char *directory = adapter_with(&copy);
    assert_ok(read_on(sf_base_in_container(map), directory), err);
    assert_ok(read_on(sf_base_in_checkpoint(index_of_base), directory), err);
    struct sf_adapter adapter;
    assert_fails(sf_adapter_read(&adapter, &arena, directory, &spec, &err), SF_EUNSUPPORTED,
                 "base_layer.weight: PEFT put a copy of the base's weight into the file", err);
}
END_TEST

/* One bit of the last number. */
START_TEST(another_weight_is_told)
{
    struct sf_tensor copy = head_copy();
    unsigned char *data = sf_arena_alloc(&arena, copy.bytes);
    memcpy(data, copy.data, copy.bytes);
    data[copy.bytes - 2] ^= 1;
    copy.data = data;
    const char *directory = adapter_with(&copy);
    assert_fails(read_on(sf_base_in_container(map), directory), SF_EUNSUPPORTED,
                 "base_model.model.lm_head.base_layer.weight: the adapter's file holds a whole "
                 "weight that is not the base's",
                 err);
    assert_fails(read_on(sf_base_in_checkpoint(index_of_base), directory), SF_EUNSUPPORTED,
                 "a whole weight that is not the base's", err);
}
END_TEST

START_TEST(four_bits_cannot_be_compared)
{
    struct sf_tensor copy = head_copy();
    const struct sf_entry *entry = sf_map_find(map, (struct sf_role){SF_PART_HEAD, -1, -1});
    ck_assert_ptr_nonnull(entry);
    ck_assert_int_eq(entry->encoding, SF_ENCODING_RAW);
    ((struct sf_entry *)(uintptr_t)entry)->encoding = SF_ENCODING_NF4;
    assert_fails(read_on(sf_base_in_container(map), adapter_with(&copy)), SF_EUNSUPPORTED,
                 "holds that weight in 4 bits: they cannot be compared", err);
}
END_TEST

static Suite *base_copy_suite(void)
{
    Suite *suite = suite_create("base_copy");
    TCase *tc = tcase_create("base_copy");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_bases_own_is_left_out);
    tcase_add_test(tc, another_weight_is_told);
    tcase_add_test(tc, four_bits_cannot_be_compared);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(base_copy_suite)
