#include "tests/support/support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

START_TEST(fail_fills_everything)
{
    struct sf_err err = {0};
    ck_assert_int_eq(sf_fail(&err, SF_EFORMAT, "%s holds %d bytes", "a.bin", 7), SF_EFORMAT);
    ck_assert_int_eq(err.code, SF_EFORMAT);
    ck_assert_int_eq(err.sys_errno, 0);
    ck_assert_int_eq(err.line, __LINE__ - 3);
    ck_assert_ptr_nonnull(strstr(err.file, "test_err.c"));
    ck_assert_str_eq(err.message, "a.bin holds 7 bytes");
}
END_TEST

START_TEST(null_err_is_welcome)
{
    ck_assert_int_eq(sf_fail(NULL, SF_EINVAL, "unseen"), SF_EINVAL);
    ck_assert_int_eq(sf_fail_errno(NULL, ENOSPC, "unseen"), SF_ENOSPC);
    sf_err_prefix(NULL, "unseen");
}
END_TEST

START_TEST(errno_becomes_a_code)
{
    static const struct {
        int sys_errno, code;
    } cases[] = {{ENOENT, SF_ENOENT}, {EACCES, SF_EACCES}, {EPERM, SF_EACCES}, {EROFS, SF_EACCES},
                 {ENOSPC, SF_ENOSPC}, {EDQUOT, SF_ENOSPC}, {EFBIG, SF_ENOSPC}, {ENOMEM, SF_ENOMEM},
                 {EIO, SF_EIO},       {EBADF, SF_EIO}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sf_err err = {0};
        assert_fails(sf_fail_errno(&err, cases[i].sys_errno, "x: cannot open"), cases[i].code,
                     strerror(cases[i].sys_errno), err);
        ck_assert_int_eq(err.sys_errno, cases[i].sys_errno);
        ck_assert_int_eq(strncmp(err.message, "x: cannot open: ", 16), 0);
    }
}
END_TEST

START_TEST(prefixes_read_from_the_outside_in)
{
    struct sf_err err = {0};
    sf_fail(&err, SF_EFORMAT, "needs %d bytes", 8);
    sf_err_prefix(&err, "layer %d", 3);
    ck_assert_int_eq(sf_err_prefix(&err, "m.scout"), SF_EFORMAT);
    ck_assert_str_eq(err.message, "m.scout: layer 3: needs 8 bytes");
}
END_TEST

START_TEST(a_message_may_quote_itself)
{
    struct sf_err err = {0};
    sf_fail(&err, SF_EIO, "inner");
    sf_fail(&err, SF_EIO, "outer (%s)", err.message);
    ck_assert_str_eq(err.message, "outer (inner)");
}
END_TEST

START_TEST(control_characters_are_escaped)
{
    struct sf_err err = {0};
    sf_fail(&err, SF_EFORMAT, "%s", "a\x1b[31mb\nc\x7f \xc2\x9b \xff\xc3 caf\xc3\xa9");
    ck_assert_str_eq(err.message, "a\\x1b[31mb\\x0ac\\x7f \\xc2\\x9b \\xff\\xc3 caf\xc3\xa9");
}
END_TEST

/* The cut falls on every place in a character in turn. */
START_TEST(long_messages_are_cut_between_characters)
{
    for (int shift = 0; shift < 8; shift++) {
        char text[3000];
        memset(text, 'x', (size_t)shift);
        for (int i = shift; i + 4 < (int)sizeof text; i += 4)
            memcpy(text + i, "\xf0\x9f\x90\x8b", 5);
        struct sf_err err = {0};
        sf_fail(&err, SF_EFORMAT, "%s", text);
        size_t n = strlen(err.message);
        ck_assert_uint_lt(n, sizeof err.message);
        ck_assert_uint_gt(n, sizeof err.message - 12);
        ck_assert_str_eq(err.message + n - 3, "...");
        ck_assert_uint_eq((n - 3 - (size_t)shift) % 4, 0);
    }
}
END_TEST

START_TEST(escapes_never_overflow)
{
    char text[1100];
    memset(text, 1, sizeof text - 1);
    text[sizeof text - 1] = 0;
    struct sf_err err = {0};
    sf_fail(&err, SF_EFORMAT, "%s", text);
    ck_assert_uint_lt(strlen(err.message), sizeof err.message);
    ck_assert_str_eq(err.message + strlen(err.message) - 7, "\\x01...");
}
END_TEST

START_TEST(every_code_has_a_name)
{
    for (int code = SF_EINTERRUPTED; code <= SF_OK; code++) {
        ck_assert_str_ne(sf_code_name(code), "SF_E?");
        ck_assert_str_ne(sf_code_sentence(code), "unknown error");
    }
    ck_assert_str_eq(sf_code_name(SF_EINTERRUPTED - 1), "SF_E?");
    ck_assert_str_eq(sf_code_name(1), "SF_E?");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("err");
    TCase *t = tcase_create("err");
    tcase_add_test(t, fail_fills_everything);
    tcase_add_test(t, null_err_is_welcome);
    tcase_add_test(t, errno_becomes_a_code);
    tcase_add_test(t, prefixes_read_from_the_outside_in);
    tcase_add_test(t, a_message_may_quote_itself);
    tcase_add_test(t, control_characters_are_escaped);
    tcase_add_test(t, long_messages_are_cut_between_characters);
    tcase_add_test(t, escapes_never_overflow);
    tcase_add_test(t, every_code_has_a_name);
    suite_add_tcase(s, t);
    return s;
}
SCOUT_TEST_MAIN(suite)
