#include "tests/support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/hf/safetensors.h"
#include "tests/format/hf_files.h"

START_TEST(what_is_written_reads_back)
{
    static const float a[6] = {1, 2, 3, 4, 5, 6};
    static const unsigned char b[3] = {7, 8, 9};
    const struct sf_named_tensor tensors[] = {
        {"b.first", {SF_F32, {2, {2, 3}}, a, sizeof a}},
        {"a.second", {SF_U8, {1, {3}}, b, sizeof b}},
        {"empty", {SF_F32, {2, {0, 4}}, a, 0}},
        {"scalar", {SF_U8, {0}, b, 1}},
    };
    struct sf_err err = {0};
    struct sf_safetensors *file;
    const char *path = scout_scratch_path("round.safetensors");
    assert_ok(sf_safetensors_write(path, tensors, 4, &err), err);
    assert_ok(sf_safetensors_open(&file, path, &err), err);
    ck_assert_int_eq(sf_safetensors_count(file), 4);
    ck_assert_str_eq(sf_safetensors_at(file, 0)->name, "b.first");
    for (int i = 0; i < 4; i++) {
        const struct sf_tensor *t = sf_safetensors_find(file, tensors[i].name);
        ck_assert_ptr_nonnull(t);
        ck_assert_int_eq(t->dtype, tensors[i].tensor.dtype);
        ck_assert(sf_shape_equal(&t->shape, &tensors[i].tensor.shape));
        ck_assert_uint_eq(t->bytes, tensors[i].tensor.bytes);
        ck_assert(memcmp(t->data, tensors[i].tensor.data, t->bytes) == 0);
    }
    ck_assert_ptr_null(sf_safetensors_find(file, "b"));
    ck_assert_str_eq(sf_safetensors_path(file), path);
    sf_safetensors_close(file);
}
END_TEST

START_TEST(writing_refuses_bytes_that_do_not_fill_the_shape)
{
    static const float a[2];
    const struct sf_named_tensor t = {"w", {SF_F32, {1, {3}}, a, sizeof a}};
    struct sf_err err = {0};
    const char *path = scout_scratch_path("unfilled.safetensors");
    assert_fails(sf_safetensors_write(path, &t, 1, &err), SF_EINVAL,
                 "unfilled.safetensors: w: 8 bytes do not fill its shape", err);
    ck_assert(!sf_file_exists(path));
}
END_TEST

static const struct {
    const char *header;
    int64_t claimed;
    uint64_t data_bytes;
    int code;
    const char *message;
} bad[] = {
    {"{}", 3, 0, SF_EFORMAT, "header of 3 bytes, but only 2 follow"},
    {"{}", 100000001, 0, SF_EFORMAT, "header of 100000001 bytes, the format allows 100000000"},
    {"{}", INT64_MAX, 0, SF_EFORMAT, "the format allows"},
    {"[]", -1, 0, SF_EFORMAT, "does not start with '{'"},
    {"", -1, 0, SF_EFORMAT, "does not start with '{'"},
    {"{\"a\"", -1, 0, SF_EFORMAT, "malformed JSON"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     -1, 8, SF_EFORMAT, "\"a\""},
    {"{\"a\":7}", -1, 0, SF_EFORMAT, "a: described by a number"},
    {"{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, SF_EFORMAT,
     "without a name"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, SF_EFORMAT, "a: dtype is missing"},
    {"{\"a\":{\"dtype\":\"Q7\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, SF_EUNSUPPORTED,
     "a: unknown dtype \"Q7\""},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", -1, 4, SF_EFORMAT, "a: shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", -1, 4, SF_EFORMAT,
     "a: dimension 0 is -1"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", -1, 4, SF_EFORMAT,
     "not a whole number"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", -1, 4,
     SF_EUNSUPPORTED, "9 dimensions"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,4]}}", -1,
     4, SF_EFORMAT, "too large"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", -1, 4, SF_EFORMAT,
     "a: [2] f32 needs 8 bytes, its range holds 4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", -1, 4, SF_EFORMAT,
     "a: range 4..0"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", -1, 4, SF_EFORMAT,
     "a: range 0..8 lies outside the 4 bytes of data"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", -1, 4, SF_EFORMAT,
     "not a pair"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", -1, 8, SF_EFORMAT,
     "a: starts at byte 4 of the data, behind a hole"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     -1, 8, SF_EFORMAT, "b: starts at byte 4 of the data, inside another tensor"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 9, SF_EFORMAT,
     "5 bytes behind the last tensor"},
};
enum { BAD = sizeof bad / sizeof bad[0] };

START_TEST(every_broken_rule_is_named)
{
    struct sf_err err = {0};
    struct sf_safetensors *file;
    const char *path = hf_write_safetensors("bad.safetensors", bad[_i].header, bad[_i].claimed,
                                            bad[_i].data_bytes);
    assert_fails(sf_safetensors_open(&file, path, &err), bad[_i].code, bad[_i].message, err);
    ck_assert_ptr_nonnull(strstr(err.message, "bad.safetensors"));
}
END_TEST

START_TEST(pointers_of_git_lfs_are_recognised)
{
    struct sf_err err = {0};
    struct sf_safetensors *file;
    const char *path =
        hf_write_text("lfs.safetensors", "version https://git-lfs.github.com/spec/v1\n"
                                         "oid sha256:0\nsize 1\n");
    assert_fails(sf_safetensors_open(&file, path, &err), SF_EFORMAT, "Git LFS pointer", err);
}
END_TEST

/* Cut anywhere, a file is refused; nothing is read past its end (the sanitizers watch). */
START_TEST(cut_files_are_refused)
{
    static const float a[6] = {1, 2, 3, 4, 5, 6};
    const struct sf_named_tensor t = {"w", {SF_F32, {2, {2, 3}}, a, sizeof a}};
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_safetensors *file;
    char *whole;
    uint64_t bytes;
    const char *path = scout_scratch_path("whole.safetensors");
    assert_ok(sf_safetensors_write(path, &t, 1, &err), err);
    assert_ok(sf_read_file(&whole, &bytes, &arena, path, 1 << 20, &err), err);
    for (uint64_t n = 0; n < bytes; n++) {
        const char *cut = scout_scratch_path("cut.safetensors");
        assert_ok(sf_write_file(cut, whole, n, &err), err);
        ck_assert_int_eq(sf_safetensors_open(&file, cut, &err), SF_EFORMAT);
    }
    sf_arena_free(&arena);
}
END_TEST

static Suite *safetensors_suite(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *tc = tcase_create("safetensors");
    tcase_add_test(tc, what_is_written_reads_back);
    tcase_add_test(tc, writing_refuses_bytes_that_do_not_fill_the_shape);
    tcase_add_loop_test(tc, every_broken_rule_is_named, 0, BAD);
    tcase_add_test(tc, pointers_of_git_lfs_are_recognised);
    tcase_add_test(tc, cut_files_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(safetensors_suite)
