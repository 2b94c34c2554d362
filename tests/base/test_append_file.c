#include "tests/support/support.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libformat/base/append_file.h"
#include "libformat/base/file.h"

START_TEST(what_was_added_is_there_again)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_append_file *f;
    unsigned char *data;
    const char *path = scout_scratch_path("log");
    assert_ok(sf_append_file_open(&f, path, &err), err);
    ck_assert_uint_eq(sf_append_file_bytes(f), 0);
    assert_ok(sf_append_file_add(f, "one", 3, &err), err);
    assert_ok(sf_append_file_add(f, "two", 3, &err), err);
    assert_ok(sf_append_file_sync(f, &err), err);
    sf_append_file_close(f);
    assert_ok(sf_append_file_open(&f, path, &err), err);
    ck_assert_uint_eq(sf_append_file_bytes(f), 6);
    assert_ok(sf_append_file_cut(f, 4, &err), err);
    assert_ok(sf_append_file_add(f, "!", 1, &err), err);
    assert_ok(sf_append_file_read(&data, f, &arena, 5, &err), err);
    ck_assert(memcmp(data, "onet!", 5) == 0);
    assert_fails(sf_append_file_read(&data, f, &arena, 4, &err), SF_EFORMAT, "5 bytes, more", err);
    sf_append_file_remove(f);
    ck_assert(!sf_file_exists(path));
    sf_arena_free(&arena);
}
END_TEST

START_TEST(only_one_process_at_a_time)
{
    struct sf_err err = {0};
    struct sf_append_file *f, *g;
    const char *path = scout_scratch_path("held");
    assert_ok(sf_append_file_open(&f, path, &err), err);
    assert_fails(sf_append_file_open(&g, path, &err), SF_EACCES, "another process", err);
    pid_t child = fork();
    if (child == 0)
        _exit(sf_append_file_open(&g, path, &err) == SF_EACCES ? 0 : 1);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    sf_append_file_close(f);
    assert_ok(sf_append_file_open(&g, path, &err), err);
    sf_append_file_remove(g);
}
END_TEST

START_TEST(only_regular_files)
{
    struct sf_err err = {0};
    struct sf_append_file *f;
    const char *path = scout_scratch_path("pipe");
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    assert_fails(sf_append_file_open(&f, path, &err), SF_EINVAL, "not a regular file", err);
    assert_fails(sf_append_file_open(&f, scout_scratch_path("no/such"), &err), SF_ENOENT,
                 "no/such: cannot create", err);
}
END_TEST

static Suite *append_file_suite(void)
{
    Suite *suite = suite_create("append_file");
    TCase *tc = tcase_create("append_file");
    tcase_add_test(tc, what_was_added_is_there_again);
    tcase_add_test(tc, only_one_process_at_a_time);
    tcase_add_test(tc, only_regular_files);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(append_file_suite)
