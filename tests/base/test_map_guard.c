#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libformat/base/map_guard.h"
#include "tests/support/support.h"

enum { PAGES = 16 };

static long page;
static struct sf_mapping map;
static struct sf_err err;
static const char *path;

static void make(void)
{
    page = sysconf(_SC_PAGESIZE);
    path = scout_scratch_path("file");
    char *bytes = malloc((size_t)(PAGES * page));
    memset(bytes, 7, (size_t)(PAGES * page));
    err = (struct sf_err){0};
    assert_ok(sf_write_file(path, bytes, (uint64_t)(PAGES * page), &err), err);
    free(bytes);
    sf_map_guard_install();
    assert_ok(sf_map_file(&map, path, &err), err);
}

static void done(void)
{
    sf_unmap(&map);
}

static void *sum_up(void *out)
{
    int64_t sum = 0;
    for (uint64_t i = 0; i < map.bytes; i++)
        sum += map.data[i];
    *(int64_t *)out = sum;
    return NULL;
}

START_TEST(an_unchanged_file_is_fine)
{
    int64_t sum;
    sum_up(&sum);
    ck_assert_int_eq(sum, 7 * PAGES * page);
    assert_ok(sf_mapping_check(&map, "file", &err), err);
}
END_TEST

START_TEST(a_cut_file_reads_as_zero_and_is_an_error)
{
    int64_t sum;
    ck_assert_int_eq(truncate(path, 4 * page), 0);
    sum_up(&sum);
    ck_assert_int_eq(sum, 7 * 4 * page);
    assert_fails(sf_mapping_check(&map, "file", &err), SF_EIO, "file: became shorter", err);
    ck_assert_int_eq(truncate(path, PAGES * page), 0); /* as long again, and still wrong */
    assert_fails(sf_mapping_check(&map, "file", &err), SF_EIO, "file: a part of it", err);
}
END_TEST

START_TEST(a_cut_within_the_last_page_is_an_error)
{
    int64_t sum;
    ck_assert_int_eq(truncate(path, PAGES * page - 1), 0);
    sum_up(&sum); /* no signal: the rest of the page is zero */
    assert_fails(sf_mapping_check(&map, "file", &err), SF_EIO, "65535 bytes of 65536", err);
}
END_TEST

START_TEST(many_threads_may_be_hit_at_once)
{
    enum { THREADS = 8 };
    pthread_t thread[THREADS];
    int64_t sum[THREADS];
    ck_assert_int_eq(truncate(path, page), 0);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, sum_up, &sum[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(thread[i], NULL), 0);
        ck_assert_int_eq(sum[i], 7 * page);
    }
    assert_fails(sf_mapping_check(&map, "file", &err), SF_EIO, "became shorter", err);
}
END_TEST

START_TEST(other_mappings_are_not_touched)
{
    enum { MANY = 200 }; /* more than one block of slots */
    struct sf_mapping other[MANY];
    int64_t sum;
    const char *name = scout_scratch_path("other");
    assert_ok(sf_write_file(name, "abcdefgh", 8, &err), err);
    for (int i = 0; i < MANY; i++)
        assert_ok(sf_map_file(&other[i], name, &err), err);
    ck_assert_int_eq(truncate(path, 0), 0);
    sum_up(&sum);
    ck_assert_int_eq(sum, 0);
    for (int i = 0; i < MANY; i++) {
        ck_assert_mem_eq(other[i].data, "abcdefgh", 8);
        assert_ok(sf_mapping_check(&other[i], "other", &err), err);
        sf_unmap(&other[i]);
    }
    assert_fails(sf_mapping_check(&map, "file", &err), SF_EIO, "0 bytes of 65536", err);
}
END_TEST

/* What is not ours ends the process, as it did before. */
START_TEST(a_foreign_bus_error_still_kills)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        FILE *file = tmpfile();
        volatile char *at = mmap(NULL, (size_t)page, PROT_READ, MAP_SHARED, fileno(file), 0);
        alarm(10);
        _exit(freopen("/dev/null", "w", stderr) && at[0] == 0 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(!(WIFEXITED(status) && WEXITSTATUS(status) == 0));
    ck_assert(!(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("map_guard");
    TCase *t = tcase_create("map_guard");
    tcase_add_checked_fixture(t, make, done);
    tcase_add_test(t, an_unchanged_file_is_fine);
    tcase_add_test(t, a_cut_file_reads_as_zero_and_is_an_error);
    tcase_add_test(t, a_cut_within_the_last_page_is_an_error);
    tcase_add_test(t, many_threads_may_be_hit_at_once);
    tcase_add_test(t, other_mappings_are_not_touched);
    tcase_add_test(t, a_foreign_bus_error_still_kills);
    suite_add_tcase(s, t);
    return s;
}

SCOUT_TEST_MAIN(suite)
