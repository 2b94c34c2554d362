#include "libformat/base/leftovers.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "tests/support/support.h"

static struct sf_err err;

static void make(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static bool is_there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static const char *name_of(char out[4096], const char *path, long number)
{
    snprintf(out, 4096, "%s.partial-%ld", path, number);
    return out;
}

START_TEST(only_what_is_ours_and_dead)
{
    static const char *const dead[] = {".partial-1", ".partial-123456", ".partial-77.12"};
    static const char *const other[] = {".partial",       ".partial-",   ".partial-x",
                                        ".partial-1x",    ".partial-1.", ".partial-1.2x",
                                        ".partial-1.2.3", "x.partial-1"};
    char file[4096];
    const char *path = scout_scratch_path("only/file"), *folder = scout_scratch_path("only");
    assert_ok(sf_make_directory(folder, &err), err);
    for (size_t i = 0; i < sizeof dead / sizeof *dead; i++) {
        snprintf(file, sizeof file, "%s%s", path, dead[i]);
        make(file);
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        snprintf(file, sizeof file, "%s%s", path, other[i]);
        make(file);
    }
    sf_leftovers_remove(path);
    for (size_t i = 0; i < sizeof dead / sizeof *dead; i++) {
        snprintf(file, sizeof file, "%s%s", path, dead[i]);
        ck_assert_msg(!is_there(file), "%s is still there", file);
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        snprintf(file, sizeof file, "%s%s", path, other[i]);
        ck_assert_msg(is_there(file), "%s was removed", file);
    }
}
END_TEST

/* A link may lead to somebody's file; a pipe would keep us waiting. */
START_TEST(only_files)
{
    char link[4096], pipe[4096];
    const char *path = scout_scratch_path("kinds"), *target = scout_scratch_path("target");
    make(target);
    ck_assert_int_eq(symlink(target, name_of(link, path, 1)), 0);
    ck_assert_int_eq(mkfifo(name_of(pipe, path, 2), 0600), 0);
    sf_leftovers_remove(path);
    ck_assert(is_there(link) && is_there(pipe) && is_there(target));
    sf_leftovers_remove(scout_scratch_path("no/such/folder"));
}
END_TEST

START_TEST(what_is_being_written_stays)
{
    char mine[4096], next[4096];
    const char *path = scout_scratch_path("held");
    struct sf_out *first, *second;
    assert_ok(sf_out_open(&first, path, &err), err);
    assert_ok(sf_out_append(first, "first", 5, &err), err);
    assert_ok(sf_out_open(&second, path, &err), err);
    assert_ok(sf_out_append(second, "second", 6, &err), err);
    snprintf(next, sizeof next, "%s.1", name_of(mine, path, (long)getpid()));
    ck_assert(is_there(mine) && is_there(next));
    assert_ok(sf_out_commit(second, &err), err);
    assert_ok(sf_out_commit(first, &err), err);
    ck_assert(!is_there(mine) && !is_there(next));
}
END_TEST

START_TEST(the_next_writer_removes_what_was_killed)
{
    char left[4096];
    const char *path = scout_scratch_path("killed");
    struct sf_out *out;
    pid_t child = fork();
    if (child == 0) {
        _exit(sf_out_open(&out, path, &err) == SF_OK && sf_out_append(out, "x", 1, &err) == SF_OK
                  ? 0
                  : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ck_assert(is_there(name_of(left, path, (long)child)));
    assert_ok(sf_write_file(path, "whole", 5, &err), err);
    ck_assert(!is_there(left));
}
END_TEST

/* Removed between its opening and its lock: the writer must take another. */
START_TEST(a_removed_file_is_not_held)
{
    const char *path = scout_scratch_path("gone");
    int fd = open(path, O_RDWR | O_CREAT, 0600), other = open(path, O_RDWR);
    ck_assert(fd >= 0 && other >= 0);
    ck_assert(sf_leftover_hold(fd));
    ck_assert(!sf_leftover_hold(other));
    close(fd);
    unlink(path);
    ck_assert(!sf_leftover_hold(other));
    close(other);
}
END_TEST

static Suite *leftovers_suite(void)
{
    Suite *suite = suite_create("leftovers");
    TCase *tc = tcase_create("leftovers");
    tcase_add_test(tc, only_what_is_ours_and_dead);
    tcase_add_test(tc, only_files);
    tcase_add_test(tc, what_is_being_written_stays);
    tcase_add_test(tc, the_next_writer_removes_what_was_killed);
    tcase_add_test(tc, a_removed_file_is_not_held);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(leftovers_suite)
