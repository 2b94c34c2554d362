/* 10,300 lines in many scripts, emoji and broken spacing: ids as `tokenizers` has them. */
#include "tests/text/many_lines.h"

#include "tests/text/fixtures.h"

START_TEST(lines_of_many_scripts)
{
    struct fixture f;
    fixture_open(&f, "examples/tiny-scout/tokenizer.json");
    int64_t lines =
        many_lines_compare(f.tokenizer, scout_source_path("tests/golden/tokenizer/many_lines.txt"));
    ck_assert_int_eq(lines, 10300);
    fixture_close(&f);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("many_lines");
    TCase *c = tcase_create("golden");
    tcase_add_test(c, lines_of_many_scripts);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
