#include "tests/support/support.h"

#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/folders.h"

static struct sf_err err;

static void make(const char *name)
{
    assert_ok(sf_make_directory(scout_scratch_path(name), &err), err);
}

static void put(const char *name)
{
    assert_ok(sf_write_file(scout_scratch_path(name), name, strlen(name), &err), err);
}

START_TEST(names_come_sorted)
{
    struct sf_arena arena = {0};
    const char *const *name;
    int64_t count;
    make("list/b");
    put("list/c");
    put("list/a");
    assert_ok(sf_folder_list(&name, &count, &arena, scout_scratch_path("list"), &err), err);
    ck_assert_int_eq(count, 3);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(name[i][0], 'a' + i);
    make("list/b/none");
    assert_ok(sf_folder_list(&name, &count, &arena, scout_scratch_path("list/b/none"), &err), err);
    ck_assert_int_eq(count, 0);
    assert_fails(sf_folder_list(&name, &count, &arena, scout_scratch_path("nowhere"), &err),
                 SF_ENOENT, "nowhere", err);
    ck_assert_int_ne(sf_folder_list(&name, &count, &arena, scout_scratch_path("list/a"), &err),
                     SF_OK);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(a_folder_takes_a_name)
{
    make("from");
    put("from/x");
    assert_ok(sf_folder_rename(scout_scratch_path("from"), scout_scratch_path("to"), &err), err);
    ck_assert(sf_file_exists(scout_scratch_path("to/x")));
    make("from");
    ck_assert_int_ne(sf_folder_rename(scout_scratch_path("from"), scout_scratch_path("to"), &err),
                     SF_OK);
    ck_assert(sf_file_exists(scout_scratch_path("to/x")));
}
END_TEST

START_TEST(a_folder_goes_but_not_what_is_below_it)
{
    make("old");
    put("old/x");
    put("old/y");
    assert_ok(sf_folder_remove(scout_scratch_path("old"), &err), err);
    ck_assert(!sf_file_exists(scout_scratch_path("old")));
    assert_ok(sf_folder_remove(scout_scratch_path("old"), &err), err);
    make("deep/below");
    put("deep/below/kept");
    ck_assert_int_ne(sf_folder_remove(scout_scratch_path("deep"), &err), SF_OK);
    ck_assert(sf_file_exists(scout_scratch_path("deep/below/kept")));
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("folders");
    TCase *tc = tcase_create("folder");
    tcase_add_test(tc, names_come_sorted);
    tcase_add_test(tc, a_folder_takes_a_name);
    tcase_add_test(tc, a_folder_goes_but_not_what_is_below_it);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
