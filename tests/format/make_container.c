/* Writes the container fixture of the format suites to argv[1], for programs
 * that read it: the fuzzer, and the readers of tests/cli. With "set" behind it: in several files. */
#include "tests/format/container_fixture.h"

static const char *path;
static bool several;

START_TEST(write_it)
{
    if (several)
        fixture_write_set(path);
    else
        fixture_write(path);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2 && argc != 3)
        return 2;
    several = argc == 3;
    path = argv[1];
    Suite *s = suite_create("make_container");
    TCase *t = tcase_create("make_container");
    tcase_add_test(t, write_it);
    suite_add_tcase(s, t);
    return scout_test_run(s);
}
