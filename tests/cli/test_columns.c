/* Tables: alignment, fitting a terminal, escaping. */
#include "tools/columns.h"

#include <stdlib.h>
#include <string.h>

#include "libformat/base/mem.h"
#include "tests/support/support.h"

static const struct column heads[] = {{"n", true, false, 0},
                                      {"size", true, false, 2},
                                      {"who", false, false, 1},
                                      {"name", false, true, 3}};

static void fill(struct columns *c, struct sf_arena *arena)
{
    columns_begin(c, arena, heads, 4);
    for (int i = 0; i < 2; i++) {
        columns_cell(c, "%d", i ? 1234 : 5);
        columns_cell(c, "%s", i ? "1.0 kB" : "\xc3\xa9"); /* one character, two bytes */
        columns_cell(c, "%s", i ? "b" : "abc");
        columns_cell(c, "model.layers.%d.self_attn.q_proj.weight", i);
    }
}

/* What the table prints; the caller frees it. */
static char *printed(const struct columns *c, int indent, int width)
{
    struct sf_err err = {0};
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    ck_assert_ptr_nonnull(out);
    assert_ok(columns_print(c, out, indent, width, &err), err);
    fclose(out);
    return text;
}

static void assert_prints(int indent, int width, const char *want)
{
    struct sf_arena arena = {0};
    struct columns c;
    fill(&c, &arena);
    char *got = printed(&c, indent, width);
    ck_assert_msg(strcmp(got, want) == 0, "width %d prints\n%snot\n%s", width, got, want);
    free(got);
    sf_arena_free(&arena);
}

START_TEST(in_full_without_a_terminal)
{
    assert_prints(0, 0,
                  "   n    size  who  name\n"
                  "   5       \xc3\xa9  abc  model.layers.0.self_attn.q_proj.weight\n"
                  "1234  1.0 kB  b    model.layers.1.self_attn.q_proj.weight\n");
    assert_prints(2, 200,
                  "     n    size  who  name\n"
                  "     5       \xc3\xa9  abc  model.layers.0.self_attn.q_proj.weight\n"
                  "  1234  1.0 kB  b    model.layers.1.self_attn.q_proj.weight\n");
}
END_TEST

START_TEST(names_are_cut_at_the_front)
{
    assert_prints(0, 45,
                  "   n    size  who  name\n"
                  "   5       \xc3\xa9  abc  ...self_attn.q_proj.weight\n"
                  "1234  1.0 kB  b    ...self_attn.q_proj.weight\n");
}
END_TEST

START_TEST(columns_are_left_out_by_rank)
{
    assert_prints(0, 34,
                  "   n    size  who\n"
                  "   5       \xc3\xa9  abc\n"
                  "1234  1.0 kB  b\n");
    assert_prints(0, 12, "   n  who\n   5  abc\n1234  b\n");
    assert_prints(0, 3, "   n\n   5\n1234\n"); /* what is always shown, is */
}
END_TEST

START_TEST(no_line_is_wider_than_the_terminal)
{
    struct sf_arena arena = {0};
    struct columns c;
    fill(&c, &arena);
    for (int width = 8; width < 80; width++) {
        char *text = printed(&c, 2, width);
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
            int n = 0;
            for (const char *p = line; *p; p++)
                n += (*p & 0xc0) != 0x80;
            ck_assert_msg(n <= width, "width %d: \"%s\" takes %d", width, line, n);
        }
        free(text);
    }
    sf_arena_free(&arena);
}
END_TEST

static const struct {
    const char *text, *want;
} escapes[] = {
    {"plain name.0", "plain name.0"},
    {"\x1b[31mred", "\\x1b[31mred"},
    {"a\nb\tc\x7f", "a\\x0a"
                    "b\\x09"
                    "c\\x7f"},
    {"\xc3\xa9tage", "\xc3\xa9tage"},
    {"\xc2\x9b"
     "31m",
     "\\x9b"
     "31m"},
    {"\xe2\x80\xae"
     "gpj.exe",
     "\\u202e"
     "gpj.exe"},
    {"\xe2\x81\xa6"
     "x\xe2\x81\xa9",
     "\\u2066"
     "x\\u2069"},
    {"\xe2\x80\x94 dash", "\xe2\x80\x94 dash"},
    {"\xff\x1b", "\\xff\\x1b"},
    {"", ""},
};

START_TEST(names_are_escaped)
{
    struct sf_arena arena = {0};
    ck_assert_str_eq(columns_escape(&arena, escapes[_i].text), escapes[_i].want);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(numbers_have_commas)
{
    struct sf_arena arena = {0};
    ck_assert_str_eq(columns_number(&arena, 0), "0");
    ck_assert_str_eq(columns_number(&arena, 999), "999");
    ck_assert_str_eq(columns_number(&arena, 1000), "1,000");
    ck_assert_str_eq(columns_number(&arena, UINT64_MAX), "18,446,744,073,709,551,615");
    sf_arena_free(&arena);
}
END_TEST

START_TEST(no_memory_is_an_error)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct columns c;
    columns_begin(&c, &arena, heads, 4);
    sf_alloc_fail_after(1);
    columns_cell(&c, "x");
    assert_fails(columns_print(&c, stderr, 0, 0, &err), SF_ENOMEM, "cannot allocate a table", err);
    sf_arena_free(&arena);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("columns");
    TCase *c = tcase_create("tables");
    tcase_add_test(c, in_full_without_a_terminal);
    tcase_add_test(c, names_are_cut_at_the_front);
    tcase_add_test(c, columns_are_left_out_by_rank);
    tcase_add_test(c, no_line_is_wider_than_the_terminal);
    tcase_add_loop_test(c, names_are_escaped, 0, sizeof escapes / sizeof escapes[0]);
    tcase_add_test(c, numbers_have_commas);
    tcase_add_test(c, no_memory_is_an_error);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
