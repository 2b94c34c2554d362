#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "libformat/hf/hf_index.h"
#include "tests/format/hf_files.h"

static const char ONE[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}";
static const char TWO[] = "{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                          "\"0\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[4,6]}}";

/* A folder of its own per test, with two shards and the index given (NULL: none). */
static const char *make_folder(const char *name, const char *index)
{
    struct sf_err err = {0};
    char file[256];
    assert_ok(sf_make_directory(scout_scratch_path(name), &err), err);
    snprintf(file, sizeof file, "%s/one.safetensors", name);
    hf_write_safetensors(file, ONE, -1, 4);
    snprintf(file, sizeof file, "%s/two.safetensors", name);
    hf_write_safetensors(file, TWO, -1, 6);
    snprintf(file, sizeof file, "%s/model.safetensors.index.json", name);
    if (index)
        hf_write_text(file, index);
    return scout_scratch_path(name);
}

START_TEST(shards_become_one_sorted_list)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    int64_t shard;
    const char *dir = make_folder("good", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":"
                                          "\"two.safetensors\",\"0\":\"two.safetensors\"}}");
    assert_ok(sf_hf_index_open(&index, dir, &err), err);
    ck_assert_int_eq(sf_hf_index_shard_count(index), 2);
    ck_assert_str_eq(sf_hf_index_shard(index, 1)->name, "two.safetensors");
    ck_assert_int_eq(sf_hf_index_count(index), 3);
    ck_assert_str_eq(sf_hf_index_at(index, 0, &shard)->name, "0");
    ck_assert_int_eq(shard, 1);
    ck_assert_str_eq(sf_hf_index_at(index, 1, &shard)->name, "a");
    ck_assert_int_eq(shard, 0);
    ck_assert_uint_eq(sf_hf_index_find(index, "b")->bytes, 4);
    ck_assert_ptr_null(sf_hf_index_find(index, "c"));
    sf_hf_index_close(index);
}
END_TEST

START_TEST(a_single_file_needs_no_index)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    assert_ok(sf_make_directory(scout_scratch_path("single"), &err), err);
    hf_write_safetensors("single/model.safetensors", ONE, -1, 4);
    assert_ok(sf_hf_index_open(&index, scout_scratch_path("single"), &err), err);
    ck_assert_int_eq(sf_hf_index_count(index), 1);
    sf_hf_index_close(index);
}
END_TEST

static const struct {
    const char *index;
    int code;
    const char *message;
} bad[] = {
    {NULL, SF_ENOENT, "holds neither"},
    {"{", SF_EFORMAT, "index.json: malformed JSON"},
    {"{}", SF_EFORMAT, "weight_map is missing"},
    {"{\"weight_map\":{\"a\":7}}", SF_EFORMAT, "a is a number"},
    {"{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}", SF_EFORMAT, "\"a\""},
    {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", SF_EFORMAT, "no plain file name"},
    {"{\"weight_map\":{\"a\":\"\"}}", SF_EFORMAT, "no plain file name"},
    {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"three.safetensors\"}}", SF_ENOENT,
     "shard 2 of 2 is missing"},
    {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\",\"0\":"
     "\"two.safetensors\"}}",
     SF_EFORMAT, "b is said to be in one.safetensors, which does not hold it"},
    {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}", SF_EFORMAT,
     "0 of two.safetensors is not in the index"},
    {"{\"weight_map\":{\"a\":\"one.safetensors\",\"z\":\"one.safetensors\"}}", SF_EFORMAT,
     "z is said to be in one.safetensors"},
};
enum { BAD = sizeof bad / sizeof bad[0] };

START_TEST(every_contradiction_is_named)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    char name[32];
    snprintf(name, sizeof name, "bad%d", _i);
    assert_fails(sf_hf_index_open(&index, make_folder(name, bad[_i].index), &err), bad[_i].code,
                 bad[_i].message, err);
}
END_TEST

START_TEST(one_name_in_two_shards)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    const char *dir = make_folder("twice", "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":"
                                           "\"two.safetensors\"}}");
    hf_write_safetensors("twice/two.safetensors", ONE, -1, 4);
    assert_fails(sf_hf_index_open(&index, dir, &err), SF_EFORMAT,
                 "a stands in one.safetensors and in two.safetensors", err);
}
END_TEST

START_TEST(a_file_is_no_folder)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    const char *path = hf_write_text("plain", "x");
    assert_fails(sf_hf_index_open(&index, path, &err), SF_EINVAL, "not a directory", err);
    assert_fails(sf_hf_index_open(&index, scout_scratch_path("nowhere"), &err), SF_ENOENT,
                 "nowhere", err);
}
END_TEST

static Suite *hf_index_suite(void)
{
    Suite *suite = suite_create("hf_index");
    TCase *tc = tcase_create("hf_index");
    tcase_add_test(tc, shards_become_one_sorted_list);
    tcase_add_test(tc, a_single_file_needs_no_index);
    tcase_add_loop_test(tc, every_contradiction_is_named, 0, BAD);
    tcase_add_test(tc, one_name_in_two_shards);
    tcase_add_test(tc, a_file_is_no_folder);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(hf_index_suite)
