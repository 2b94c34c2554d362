/* Pre-tokens: lines, patterns that are taken, and patterns that are refused. */
#include "libformat/text/splitter.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/support.h"
#include "tests/text/fixtures.h"

START_TEST(lines)
{
    struct sf_err err = {0};
    struct sf_splitter *splitter = fixture_splitter();
    struct sf_splitter_scratch *scratch;
    struct sf_json *golden = fixture_json("tests/golden/tokenizer/lines.json");
    int64_t number = 0;
    assert_ok(sf_splitter_scratch_open(&scratch, &err), err);
    for (const struct sf_json *l = sf_json_first(golden); l; l = sf_json_next(l), number++) {
        const char *text;
        const struct sf_json *want = sf_json_next(sf_json_first(l));
        struct sf_ids lengths = {0};
        ck_assert_int_eq(sf_json_as_string(&text, sf_json_first(l), "text", NULL), SF_OK);
        const struct sf_json *long_piece = sf_json_first(want);
        int64_t length = 0;
        while (long_piece && sf_json_as_int(&length, long_piece, "n", NULL) == SF_OK &&
               length < 256)
            long_piece = sf_json_next(long_piece);
        if (long_piece)
            continue; /* a pre-token above 255 bytes: its ids are compared in test_tokenizer */
        struct fixture_cuts cuts;
        fixture_split(&cuts, splitter, text, strlen(text), scratch);
        for (int64_t i = 0; i < cuts.count; i++) {
            int32_t n = cuts.length[i];
            assert_ok(sf_ids_append(&lengths, &n, 1, &err), err);
        }
        char what[64];
        snprintf(what, sizeof what, "pre-tokens of line %lld", (long long)number);
        fixture_compare(want, &lengths, what);
        sf_ids_free(&lengths);
    }
    sf_json_free(golden);
    sf_splitter_scratch_close(scratch);
    sf_splitter_close(splitter);
}
END_TEST

/* ---- patterns ---- */

static void assert_split(const char *pattern, const char *text, const char *want)
{
    struct sf_err err = {0};
    struct sf_splitter *splitter;
    struct sf_splitter_scratch *scratch;
    struct fixture_cuts cuts;
    char got[256] = "";
    assert_ok(sf_splitter_open(&splitter, pattern, &err), err);
    assert_ok(sf_splitter_scratch_open(&scratch, &err), err);
    fixture_split(&cuts, splitter, text, strlen(text), scratch);
    for (int64_t i = 0; i < cuts.count; i++)
        sprintf(got + strlen(got), i ? " %d" : "%d", cuts.length[i]);
    ck_assert_msg(strcmp(got, want) == 0, "%s on \"%s\": %s, not %s", pattern, text, got, want);
    sf_splitter_scratch_close(scratch);
    sf_splitter_close(splitter);
}

START_TEST(patterns_that_are_taken)
{
    assert_split("b", "abcb", "1 1 1 1"); /* gaps are pieces */
    assert_split("[a-c]+", "xxabcyy", "2 3 2");
    assert_split("[^a-c]+", "xxabcyy", "2 3 2");
    assert_split("[\\]x-]+", "a]-xa", "1 3 1");
    assert_split("(?i:sk)", "\xc5\xbf\xe2\x84\xaaSKa", "5 2 1"); /* long s, Kelvin sign */
    assert_split("(?:ab|a(?=c))", "abac", "2 1 1");
    assert_split("a{2,3}", "aaaaa", "3 2");
    assert_split("a+?", "aaa", "1 1 1");
    assert_split("a++a|a", "aaa", "1 1 1"); /* possessive: the first way never matches */
    assert_split("\\P{L}+", "ab12", "2 2");
    assert_split("\\S+\\s?\\D\\d", "ab 1c2", "4 2");
    assert_split("[\xc3\xa9-\xc3\xab]", "e\xc3\xaa", "1 2");
    assert_split("(a|b)c", "abcac", "1 2 2");
}
END_TEST

static const struct {
    const char *pattern, *says;
} refused[] = {
    {"a*", "empty"},
    {"a.b", "byte 1"},
    {"^a", "byte 0"},
    {"a$", "byte 1"},
    {"\\bx", "escape"},
    {"\\w+", "escape"},
    {"\\p{Han}", "category"},
    {"\\pL", "category"},
    {"\\p{L", "category"},
    {"[a[b]]", "class inside a class"},
    {"[a&&b]", "class inside a class"},
    {"[]", "empty class"},
    {"[ab", "class without its end"},
    {"[z-a]", "range"},
    {"[a-\\d]", "range"},
    {"[\\d-a]", "range"},
    {"(?<=a)b", "group"},
    {"(?>a)", "group"},
    {"(a", "'(' without ')'"},
    {"a)", "')' without '('"},
    {"a{,3}", "repetition"},
    {"a{1,2}+", "repetition"},
    {"a{1,2}?", "repetition"},
    {"a{2}{3}", "repetition"},
    {"a+{2}", "repetition of a repetition"},
    {"(?i:st)", "st"},
    {"(?i:[a-z])", "case-insensitive class"},
    {"(?i:\xc3\xa9)", "outside ASCII"},
    {"+a", "split pattern"},
    {"\\", "escape"},
};

START_TEST(patterns_that_are_refused)
{
    struct sf_err err = {0};
    struct sf_splitter *splitter = NULL;
    int code = sf_splitter_open(&splitter, refused[_i].pattern, &err);
    ck_assert_msg(code == SF_EUNSUPPORTED || code == SF_EFORMAT, "%s is taken",
                  refused[_i].pattern);
    ck_assert_msg(strstr(err.message, refused[_i].says), "%s: %s", refused[_i].pattern,
                  err.message);
    ck_assert_ptr_null(splitter);
}
END_TEST

START_TEST(a_runaway_pattern_is_stopped)
{
    struct sf_err err = {0};
    struct sf_splitter *splitter;
    struct sf_splitter_scratch *scratch;
    struct fixture_cuts cuts = {0};
    char text[64];
    memset(text, 'a', sizeof text);
    memcpy(text + sizeof text - 2, "cb", 2); /* a b there is, but never behind an a */
    assert_ok(sf_splitter_open(&splitter, "(?:a+)+b", &err), err);
    assert_ok(sf_splitter_scratch_open(&scratch, &err), err);
    assert_fails(
        sf_splitter_run(splitter, text, sizeof text, scratch, fixture_note_cut, &cuts, &err),
        SF_EUNSUPPORTED, "gives up at character 0 of 64", err);
    sf_splitter_scratch_close(scratch);
    sf_splitter_close(splitter);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("splitter");
    TCase *c = tcase_create("golden");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, lines);
    suite_add_tcase(s, c);
    c = tcase_create("patterns");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, patterns_that_are_taken);
    tcase_add_loop_test(c, patterns_that_are_refused, 0, sizeof refused / sizeof refused[0]);
    tcase_add_test(c, a_runaway_pattern_is_stopped);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
