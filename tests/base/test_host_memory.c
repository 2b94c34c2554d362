#include "libformat/base/host_memory.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "libformat/base/file.h"
#include "tests/support/support.h"

static struct sf_arena arena;

/* Writes a file below the scratch folder, making the folders on the way. */
static void put(const char *name, const char *text)
{
    struct sf_err err = {0};
    char *path = sf_arena_strdup(&arena, scout_scratch_path(name));
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0777);
        *slash = '/';
    }
    assert_ok(sf_write_file(path, text, strlen(text), &err), err);
}

static struct sf_host_memory look(const char *name)
{
    struct sf_host_memory memory;
    const char *root = sf_arena_strdup(&arena, scout_scratch_path(name));
    sf_host_memory_at(&memory, sf_arena_printf(&arena, "%s/proc", root),
                      sf_arena_printf(&arena, "%s/cgroup", root));
    return memory;
}

static const char machine[] = "MemTotal:       1000 kB\nMemFree: 5 kB\nMemAvailable:    800 kB\n";

START_TEST(a_machine_without_cgroups)
{
    put("host_memory/a/proc/meminfo", machine);
    struct sf_host_memory m = look("host_memory/a");
    ck_assert_uint_eq(m.total_bytes, 1000 << 10);
    ck_assert_uint_eq(m.available_bytes, 800 << 10);
    ck_assert_uint_eq(m.cgroup_bytes, 0);
}
END_TEST

START_TEST(the_tightest_group_of_version_2_counts_without_its_cache)
{
    put("host_memory/b/proc/meminfo", machine);
    put("host_memory/b/proc/self/cgroup", "0::/outer/inner\n");
    put("host_memory/b/cgroup/outer/memory.max", "400000\n");
    put("host_memory/b/cgroup/outer/memory.current", "350000\n");
    put("host_memory/b/cgroup/outer/memory.stat", "anon 100000\nfile 250000\nfile_dirty 9\n");
    put("host_memory/b/cgroup/outer/inner/memory.max", "max\n");
    put("host_memory/b/cgroup/outer/inner/memory.current", "1\n");
    struct sf_host_memory m = look("host_memory/b");
    ck_assert_uint_eq(m.cgroup_bytes, 400000);
    ck_assert_uint_eq(m.total_bytes, 400000);
    ck_assert_uint_eq(m.available_bytes, 300000);
}
END_TEST

START_TEST(version_1_and_a_path_that_is_the_hosts)
{
    put("host_memory/c/proc/meminfo", machine);
    put("host_memory/c/proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/docker/0123\n0::/\n");
    put("host_memory/c/cgroup/memory/memory.limit_in_bytes", "500000\n");
    put("host_memory/c/cgroup/memory/memory.usage_in_bytes", "600000\n");
    put("host_memory/c/cgroup/memory/memory.stat", "cache 1\ntotal_cache 50000\n");
    struct sf_host_memory m = look("host_memory/c");
    ck_assert_uint_eq(m.cgroup_bytes, 500000);
    ck_assert_uint_eq(m.available_bytes, 0);
    put("host_memory/c/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    m = look("host_memory/c");
    ck_assert_uint_eq(m.cgroup_bytes, 0);
    ck_assert_uint_eq(m.available_bytes, 800 << 10);
}
END_TEST

/* "No limit" of version 1 is a huge number, which only the machine's own size tells from a limit. */
START_TEST(groups_without_the_machine_say_nothing)
{
    put("host_memory/d/proc/self/cgroup", "4:memory:/\n");
    put("host_memory/d/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("host_memory/d/cgroup/memory/memory.usage_in_bytes", "600000\n");
    struct sf_host_memory m = look("host_memory/d");
    ck_assert_uint_eq(m.total_bytes, 0);
    ck_assert_uint_eq(m.cgroup_bytes, 0);
    put("host_memory/d/proc/meminfo", "MemTotal:       1000 kB\n"); /* of an old kernel */
    m = look("host_memory/d");
    ck_assert_uint_eq(m.total_bytes, 0);
}
END_TEST

START_TEST(nothing_is_known_and_here_something_is)
{
    struct sf_host_memory m = look("host_memory/none");
    ck_assert_uint_eq(m.total_bytes, 0);
    sf_host_memory(&m);
    ck_assert_uint_gt(m.total_bytes, 64 << 20);
    ck_assert_uint_le(m.available_bytes, m.total_bytes);
}
END_TEST

static Suite *host_memory_suite(void)
{
    Suite *suite = suite_create("host_memory");
    TCase *tc = tcase_create("host_memory");
    tcase_add_test(tc, a_machine_without_cgroups);
    tcase_add_test(tc, the_tightest_group_of_version_2_counts_without_its_cache);
    tcase_add_test(tc, version_1_and_a_path_that_is_the_hosts);
    tcase_add_test(tc, groups_without_the_machine_say_nothing);
    tcase_add_test(tc, nothing_is_known_and_here_something_is);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(host_memory_suite)
