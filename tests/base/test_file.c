#define _GNU_SOURCE
#include "tests/support/support.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libformat/base/file.h"

static void write_plain(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, strlen(text), f), strlen(text));
    ck_assert_int_eq(fclose(f), 0);
}

static void assert_content(const char *path, const char *want)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    char *text;
    uint64_t bytes;
    assert_ok(sf_read_file(&text, &bytes, &arena, path, 1 << 20, &err), err);
    ck_assert_str_eq(text, want);
    ck_assert_uint_eq(bytes, strlen(want));
    sf_arena_free(&arena);
}

static int entries_in(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    ck_assert_ptr_nonnull(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2; /* . and .. */
}

START_TEST(maps_a_whole_file)
{
    struct sf_err err = {0};
    struct sf_mapping map;
    const char *path = scout_scratch_path("map");
    write_plain(path, "sixteen whole by");
    assert_ok(sf_map_file(&map, path, &err), err);
    ck_assert_uint_eq(map.bytes, 16);
    ck_assert_mem_eq(map.data, "sixteen whole by", 16);
    sf_mapping_release(&map, 0, 16);
    sf_mapping_release(&map, UINT64_MAX - 5, 16);
    sf_mapping_release(&map, 4, UINT64_MAX);
    ck_assert_mem_eq(map.data, "sixteen whole by", 16);
    sf_unmap(&map);
    ck_assert_ptr_null(map.data);
    sf_unmap(&map);
}
END_TEST

START_TEST(released_pages_keep_their_bytes)
{
    struct sf_err err = {0};
    struct sf_mapping map;
    enum { N = 300000 };
    char *bytes = malloc(N);
    for (int i = 0; i < N; i++)
        bytes[i] = (char)(i * 31);
    const char *path = scout_scratch_path("pages");
    assert_ok(sf_write_file(path, bytes, N, &err), err);
    assert_ok(sf_map_file(&map, path, &err), err);
    ck_assert_mem_eq(map.data, bytes, N);
    sf_mapping_release(&map, 100, N - 200);
    ck_assert_mem_eq(map.data, bytes, N);
    sf_unmap(&map);
    free(bytes);
}
END_TEST

/* Files that were deleted and that this process still holds. */
static int held_though_deleted(void)
{
    char link[300], target[4096];
    struct dirent *entry;
    int count = 0;
    DIR *handles = opendir("/proc/self/fd");
    while (handles && (entry = readdir(handles)) != NULL) {
        snprintf(link, sizeof link, "/proc/self/fd/%s", entry->d_name);
        ssize_t n = readlink(link, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        count += strstr(target, "/vacated (deleted)") != NULL;
    }
    ck_assert_ptr_nonnull(handles);
    closedir(handles);
    return count;
}

START_TEST(a_vacated_mapping_lets_go_of_its_file)
{
    struct sf_err err = {0};
    struct sf_mapping map;
    const char *path = scout_scratch_path("vacated");
    write_plain(path, "sixteen whole by");
    assert_ok(sf_map_file(&map, path, &err), err);
    ck_assert_int_eq(unlink(path), 0);
    assert_ok(sf_mapping_vacate(&map, &err), err);
    ck_assert_int_eq(held_though_deleted(), 0);
    ck_assert_uint_eq(map.bytes, 16);
    sf_unmap(&map);
}
END_TEST

START_TEST(an_empty_file_maps_to_nothing)
{
    struct sf_err err = {0};
    struct sf_mapping map;
    const char *path = scout_scratch_path("empty");
    write_plain(path, "");
    assert_ok(sf_map_file(&map, path, &err), err);
    ck_assert(map.data == NULL && map.bytes == 0);
    sf_unmap(&map);
    assert_content(path, "");
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
    struct sf_err err = {0};
    struct sf_mapping map;
    struct sf_arena arena = {0};
    char *text;
    const char *none = scout_scratch_path("none"), *fifo = scout_scratch_path("fifo");
    assert_fails(sf_map_file(&map, none, &err), SF_ENOENT, none, err);
    assert_fails(sf_map_file(&map, scout_scratch(), &err), SF_EFORMAT, "not a regular file", err);
    assert_fails(sf_map_file(&map, "/dev/null", &err), SF_EFORMAT, "not a regular file", err);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    assert_fails(sf_map_file(&map, fifo, &err), SF_EFORMAT, "not a regular file", err);
    assert_fails(sf_read_file(&text, NULL, &arena, fifo, 10, &err), SF_EFORMAT, fifo, err);
    assert_fails(sf_read_file(&text, NULL, &arena, none, 10, &err), SF_ENOENT, none, err);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(read_file_keeps_its_limit)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    char *text;
    const char *path = scout_scratch_path("limit");
    write_plain(path, "12345678");
    assert_ok(sf_read_file(&text, NULL, &arena, path, 8, &err), err);
    ck_assert_str_eq(text, "12345678");
    assert_fails(sf_read_file(&text, NULL, &arena, path, 7, &err), SF_EFORMAT,
                 "8 bytes, more than the 7 allowed", err);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(stat_and_exists)
{
    struct sf_err err = {0};
    struct sf_file_stat st;
    const char *path = scout_scratch_path("stat");
    ck_assert(!sf_file_exists(path));
    assert_fails(sf_file_stat(&st, path, &err), SF_ENOENT, path, err);
    write_plain(path, "123");
    ck_assert(sf_file_exists(path));
    assert_ok(sf_file_stat(&st, path, &err), err);
    ck_assert(st.bytes == 3 && st.is_regular && !st.is_directory);
    assert_ok(sf_file_stat(&st, scout_scratch(), &err), err);
    ck_assert(st.is_directory && !st.is_regular);
}
END_TEST

START_TEST(nothing_stands_there_before_commit)
{
    struct sf_err err = {0};
    struct sf_out *out;
    const char *dir = scout_scratch_path("commit"), *path = scout_scratch_path("commit/a");
    assert_ok(sf_make_directory(dir, &err), err);
    assert_ok(sf_out_open(&out, path, &err), err);
    assert_ok(sf_out_append(out, "hello ", 6, &err), err);
    assert_ok(sf_out_append(out, "world", 5, &err), err);
    assert_ok(sf_out_write_at(out, "J", 1, 0, &err), err);
    char back[5];
    assert_ok(sf_out_read_at(out, back, 5, 6, &err), err);
    ck_assert_mem_eq(back, "world", 5);
    assert_fails(sf_out_read_at(out, back, 5, 7, &err), SF_EFORMAT, "ends at 11, 1 more", err);
    ck_assert(!sf_file_exists(path));
    assert_ok(sf_out_commit(out, &err), err);
    assert_content(path, "Jello world");
    ck_assert_int_eq(entries_in(dir), 1);
}
END_TEST

START_TEST(abort_leaves_what_stood_there)
{
    struct sf_err err = {0};
    struct sf_out *out;
    const char *dir = scout_scratch_path("abort"), *path = scout_scratch_path("abort/a");
    assert_ok(sf_make_directory(dir, &err), err);
    assert_ok(sf_write_file(path, "old", 3, &err), err);
    assert_ok(sf_out_open(&out, path, &err), err);
    assert_ok(sf_out_append(out, "new!", 4, &err), err);
    assert_content(path, "old");
    sf_out_abort(out);
    sf_out_abort(NULL);
    assert_content(path, "old");
    ck_assert_int_eq(entries_in(dir), 1);
    assert_ok(sf_write_file(path, "new", 3, &err), err);
    assert_content(path, "new");
}
END_TEST

/* A folder of that name cannot be removed. */
START_TEST(leftovers_of_a_killed_run_do_not_stop_us)
{
    struct sf_err err = {0};
    char left[4096];
    const char *path = scout_scratch_path("left");
    snprintf(left, sizeof left, "%s.partial-%ld", path, (long)getpid());
    ck_assert_int_eq(mkdir(left, 0700), 0);
    assert_ok(sf_write_file(path, "whole", 5, &err), err);
    assert_content(path, "whole");
    ck_assert(sf_file_exists(left));
}
END_TEST

START_TEST(bad_targets)
{
    struct sf_err err = {0};
    struct sf_out *out;
    const char *fifo = scout_scratch_path("target"), *deep = scout_scratch_path("no/such/dir/a");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    assert_fails(sf_out_open(&out, fifo, &err), SF_EINVAL, "is not a regular file", err);
    assert_fails(sf_out_open(&out, "/dev/null", &err), SF_EINVAL, "is not a regular file", err);
    assert_fails(sf_out_open(&out, scout_scratch(), &err), SF_EINVAL, "is a directory", err);
    assert_fails(sf_out_open(&out, deep, &err), SF_ENOENT, deep, err);
    assert_fails(sf_out_open(&out, "/proc/scout-x", &err), SF_ENOENT, "/proc/scout-x", err);
}
END_TEST

/* A limit on file size stands in for a full disk: the kernel answers EFBIG in its place. */
START_TEST(no_space_left)
{
    struct sf_err err = {0};
    struct sf_out *out;
    const char *dir = scout_scratch_path("full"), *path = scout_scratch_path("full/a");
    assert_ok(sf_make_directory(dir, &err), err);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit, before;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){1 << 16, before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_ok(sf_out_open(&out, path, &err), err);
    assert_fails(sf_out_reserve(out, 1 << 20, &err), SF_ENOSPC, "cannot reserve 1048576", err);
    char *block = calloc(1, 1 << 17);
    assert_fails(sf_out_append(out, block, 1 << 17, &err), SF_ENOSPC, "cannot write", err);
    sf_out_abort(out);
    assert_fails(sf_write_file(path, block, 1 << 17, &err), SF_ENOSPC, path, err);
    free(block);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0); /* without forks other tests follow */
    ck_assert_int_eq(entries_in(dir), 0);
}
END_TEST

START_TEST(reserve_sets_the_size)
{
    struct sf_err err = {0};
    struct sf_out *out;
    struct sf_file_stat st;
    const char *path = scout_scratch_path("reserve");
    assert_ok(sf_out_open(&out, path, &err), err);
    assert_ok(sf_out_reserve(out, 0, &err), err);
    assert_ok(sf_out_reserve(out, 100000, &err), err);
    assert_ok(sf_out_write_at(out, "x", 1, 99999, &err), err);
    assert_ok(sf_out_commit(out, &err), err);
    assert_ok(sf_file_stat(&st, path, &err), err);
    ck_assert_uint_eq(st.bytes, 100000);
}
END_TEST

START_TEST(directories)
{
    struct sf_err err = {0};
    const char *deep = scout_scratch_path("d/e/f/"), *file = scout_scratch_path("d/file"),
               *below = scout_scratch_path("d/file/x");
    assert_ok(sf_make_directory(deep, &err), err);
    assert_ok(sf_make_directory(deep, &err), err);
    write_plain(file, "");
    assert_fails(sf_make_directory(file, &err), SF_EINVAL, "not a directory", err);
    assert_fails(sf_make_directory(below, &err), SF_EIO, below, err);
    assert_fails(sf_make_directory("", &err), SF_EINVAL, "not a usable directory name", err);
    assert_fails(sf_make_directory("/proc/scout", &err), SF_ENOENT, "/proc/scout", err);
}
END_TEST

/* Root passes every access check, so the test becomes somebody else where it can. */
START_TEST(a_directory_of_others)
{
    struct sf_err err = {0};
    struct sf_out *out;
    const char *dir = scout_scratch_path("locked"), *path = scout_scratch_path("locked/a");
    ck_assert_int_eq(chmod(scout_scratch(), 0755), 0);
    assert_ok(sf_make_directory(dir, &err), err);
    ck_assert_int_eq(chmod(dir, 0555), 0);
    if (geteuid() == 0)
        ck_assert_int_eq(setresuid(65534, 65534, 65534), 0); /* this forked case only */
    assert_fails(sf_make_directory(dir, &err), SF_EACCES, "not writable", err);
    assert_fails(sf_make_directory(path, &err), SF_EACCES, path, err);
    assert_fails(sf_out_open(&out, path, &err), SF_EACCES, path, err);
}
END_TEST

START_TEST(paths)
{
    struct sf_arena arena = {0};
    ck_assert_str_eq(sf_path_join(&arena, "a", "b"), "a/b");
    ck_assert_str_eq(sf_path_join(&arena, "a/", "b"), "a/b");
    ck_assert_str_eq(sf_path_join(&arena, "", "b"), "/b");
    ck_assert_str_eq(sf_path_base("/x/y.scout"), "y.scout");
    ck_assert_str_eq(sf_path_base("y.scout"), "y.scout");
    ck_assert_str_eq(sf_path_base("x/"), "");
    sf_arena_free(&arena);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("file");
    TCase *t = tcase_create("file");
    tcase_add_test(t, maps_a_whole_file);
    tcase_add_test(t, released_pages_keep_their_bytes);
    tcase_add_test(t, a_vacated_mapping_lets_go_of_its_file);
    tcase_add_test(t, an_empty_file_maps_to_nothing);
    tcase_add_test(t, what_is_no_file_is_refused);
    tcase_add_test(t, read_file_keeps_its_limit);
    tcase_add_test(t, stat_and_exists);
    tcase_add_test(t, nothing_stands_there_before_commit);
    tcase_add_test(t, abort_leaves_what_stood_there);
    tcase_add_test(t, leftovers_of_a_killed_run_do_not_stop_us);
    tcase_add_test(t, bad_targets);
    tcase_add_test(t, no_space_left);
    tcase_add_test(t, reserve_sets_the_size);
    tcase_add_test(t, directories);
    tcase_add_test(t, a_directory_of_others);
    tcase_add_test(t, paths);
    suite_add_tcase(s, t);
    return s;
}
SCOUT_TEST_MAIN(suite)
