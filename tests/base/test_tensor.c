#include "tests/support/support.h"

#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/tensor/dtype.h"
#include "libformat/tensor/tensor.h"

START_TEST(dtype_table)
{
    static const struct {
        enum sf_dtype dtype;
        int number;
        uint64_t bytes;
        const char *name, *safetensors;
    } rows[] = {
        {SF_U8, 1, 1, "u8", "U8"},
        {SF_I8, 2, 1, "i8", "I8"},
        {SF_I16, 3, 2, "i16", "I16"},
        {SF_I32, 4, 4, "i32", "I32"},
        {SF_I64, 5, 8, "i64", "I64"},
        {SF_F16, 6, 2, "f16", "F16"},
        {SF_BF16, 7, 2, "bf16", "BF16"},
        {SF_F32, 8, 4, "f32", "F32"},
        {SF_F64, 9, 8, "f64", "F64"},
        {SF_BOOL, 10, 1, "bool", "BOOL"},
        {SF_F8_E4M3, 11, 1, "f8_e4m3", "F8_E4M3"},
        {SF_F8_E5M2, 12, 1, "f8_e5m2", "F8_E5M2"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ck_assert_int_eq((int)rows[i].dtype, rows[i].number);
        ck_assert_uint_eq(sf_dtype_bytes(rows[i].dtype), rows[i].bytes);
        ck_assert_str_eq(sf_dtype_name(rows[i].dtype), rows[i].name);
        ck_assert_str_eq(sf_dtype_safetensors_name(rows[i].dtype), rows[i].safetensors);
        ck_assert_int_eq((int)sf_dtype_from_safetensors(rows[i].safetensors), rows[i].number);
    }
}
END_TEST

START_TEST(unknown_dtypes)
{
    static const int bad[] = {-1, 0, 13, 255, 1 << 30};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_uint_eq(sf_dtype_bytes((enum sf_dtype)bad[i]), 0);
        ck_assert_str_eq(sf_dtype_name((enum sf_dtype)bad[i]), "?");
    }
    static const char *const names[] = {"", "?", "bf16", "BF16 ", "F8_E8M0", "C64"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_int_eq((int)sf_dtype_from_safetensors(names[i]), SF_DTYPE_NONE);
}
END_TEST

START_TEST(counts_and_bytes)
{
    int64_t n;
    uint64_t bytes;
    ck_assert(sf_shape_count(&n, &(struct sf_shape){0}) && n == 1);
    ck_assert(sf_shape_count(&n, &(struct sf_shape){3, {16, 5120, 16384}}) && n == 1342177280);
    ck_assert(sf_shape_count(&n, &(struct sf_shape){2, {0, 7}}) && n == 0);
    ck_assert(sf_shape_bytes(&bytes, &(struct sf_shape){2, {3, 5}}, SF_BF16) && bytes == 30);
    ck_assert(sf_shape_count(&n, &(struct sf_shape){2, {INT64_MAX, 1}}) && n == INT64_MAX);
}
END_TEST

START_TEST(counts_that_do_not_fit)
{
    int64_t n = 5;
    uint64_t bytes = 5;
    ck_assert(!sf_shape_count(&n, &(struct sf_shape){2, {3, -1}}));
    ck_assert(!sf_shape_count(&n, &(struct sf_shape){2, {INT64_MAX, 2}}));
    ck_assert(!sf_shape_count(&n, &(struct sf_shape){3, {1 << 30, 1 << 30, 1 << 30}}));
    ck_assert(!sf_shape_count(&n, &(struct sf_shape){1, {INT64_MIN}}));
    ck_assert(!sf_shape_bytes(&bytes, &(struct sf_shape){1, {INT64_MAX}}, SF_F32));
    ck_assert(n == 5 && bytes == 5);
}
END_TEST

START_TEST(equality)
{
    struct sf_shape a = {2, {3, 4}}, b = {2, {3, 4, 9}}, c = {3, {3, 4, 1}}, d = {2, {4, 3}};
    ck_assert(sf_shape_equal(&a, &b)); /* what lies behind the rank does not count */
    ck_assert(!sf_shape_equal(&a, &c));
    ck_assert(!sf_shape_equal(&a, &d));
}
END_TEST

START_TEST(formats)
{
    char text[SF_SHAPE_TEXT];
    ck_assert_str_eq(sf_shape_format(text, &(struct sf_shape){3, {16, 5120, 16384}}),
                     "[16, 5120, 16384]");
    ck_assert_str_eq(sf_shape_format(text, &(struct sf_shape){0}), "[]");
    struct sf_shape longest = {.rank = SF_MAX_RANK};
    for (int i = 0; i < SF_MAX_RANK; i++)
        longest.dim[i] = INT64_MIN;
    ck_assert_uint_eq(strlen(sf_shape_format(text, &longest)), 8 * 20 + 7 * 2 + 2);
}
END_TEST

START_TEST(bytes_are_little_endian_anywhere)
{
    unsigned char raw[9] = {0xee, 0x01, 0x82, 0x03, 0x84, 0x05, 0x86, 0x07, 0x88};
    ck_assert_uint_eq(sf_get_u16(raw + 1), 0x8201);
    ck_assert_uint_eq(sf_get_u32(raw + 1), 0x84038201u);
    ck_assert_uint_eq(sf_get_u64(raw + 1), UINT64_C(0x8807860584038201));
    unsigned char out[9];
    memset(out, 0xee, sizeof out);
    sf_put_u64(out + 1, UINT64_C(0x8807860584038201));
    ck_assert_mem_eq(out, raw, sizeof raw);
    sf_put_u32(out + 1, 0x84038201u);
    sf_put_u16(out + 5, 0x8605);
    ck_assert_mem_eq(out, raw, sizeof raw);
    sf_put_f32(out, -1.5f);
    ck_assert_mem_eq(out, "\x00\x00\xc0\xbf", 4);
    ck_assert(sf_get_f32(out) == -1.5f);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("tensor");
    TCase *t = tcase_create("tensor");
    tcase_add_test(t, dtype_table);
    tcase_add_test(t, unknown_dtypes);
    tcase_add_test(t, counts_and_bytes);
    tcase_add_test(t, counts_that_do_not_fit);
    tcase_add_test(t, equality);
    tcase_add_test(t, formats);
    tcase_add_test(t, bytes_are_little_endian_anywhere);
    suite_add_tcase(s, t);
    return s;
}
SCOUT_TEST_MAIN(suite)
