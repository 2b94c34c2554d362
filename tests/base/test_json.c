#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/json.h"
#include "libformat/base/mem.h"

static struct sf_json *parse(const char *text)
{
    struct sf_json *root;
    struct sf_err err = {0};
    assert_ok(sf_json_parse(&root, text, strlen(text), &err), err);
    return root;
}

START_TEST(reads_every_type)
{
    struct sf_json *root = parse(" {\"n\": null, \"b\": true, \"i\": -7, \"d\": 1.5e-3,\n"
                                 "\"s\": \"caf\\u00e9 \\ud83d\\udc0b\", \"a\": [1, [], {}]}\r\n");
    struct sf_err err = {0};
    int64_t i;
    double d;
    bool b;
    const char *s;
    ck_assert_int_eq(sf_json_type(root), SF_JSON_OBJECT);
    ck_assert_int_eq(sf_json_count(root), 6);
    ck_assert_int_eq(sf_json_type(sf_json_get(root, "n")), SF_JSON_NULL);
    assert_ok(sf_json_as_bool(&b, sf_json_get(root, "b"), "b", &err), err);
    assert_ok(sf_json_as_int(&i, sf_json_get(root, "i"), "i", &err), err);
    assert_ok(sf_json_as_double(&d, sf_json_get(root, "d"), "d", &err), err);
    assert_ok(sf_json_as_string(&s, sf_json_get(root, "s"), "s", &err), err);
    ck_assert(b && i == -7 && d == 1.5e-3);
    ck_assert_str_eq(s, "caf\xc3\xa9 \xf0\x9f\x90\x8b");
    const struct sf_json *a = sf_json_get(root, "a");
    ck_assert_int_eq(sf_json_count(a), 3);
    ck_assert_ptr_null(sf_json_key(sf_json_first(a)));
    ck_assert_ptr_null(sf_json_get(a, "x"));
    sf_json_free(root);
    sf_json_free(NULL);
}
END_TEST

START_TEST(members_in_file_order_and_exact)
{
    struct sf_json *root = parse("{\"b\":1,\"A\":2,\"a\":3}");
    const struct sf_json *v = sf_json_first(root);
    ck_assert_str_eq(sf_json_key(v), "b");
    ck_assert_str_eq(sf_json_key(v = sf_json_next(v)), "A");
    ck_assert_str_eq(sf_json_key(v = sf_json_next(v)), "a");
    ck_assert_ptr_null(sf_json_next(v));
    ck_assert_ptr_eq(sf_json_get(root, "a"), v);
    ck_assert_ptr_null(sf_json_get(root, "B"));
    ck_assert_ptr_null(sf_json_get(NULL, "a"));
    ck_assert_ptr_null(sf_json_first(NULL));
    sf_json_free(root);
}
END_TEST

static const struct {
    const char *text;
    uint64_t bytes; /* 0: strlen */
    const char *part;
} refused[] = {
    {"", 0, "malformed JSON"},
    {"{", 0, "malformed JSON near byte"},
    {"{\"a\": 1,}", 0, "malformed JSON near byte"},
    {"[1 2]", 0, "malformed JSON"},
    {"{a: 1}", 0, "malformed JSON"},
    {"nul", 0, "malformed JSON"},
    {"\"\\q\"", 0, "malformed JSON"},
    {"\"\\ud800\"", 0, "malformed JSON"},
    {"\"open", 0, "malformed JSON"},
    {"{} x", 0, "text behind the JSON value at byte 3"},
    {"{}{}", 0, "text behind the JSON value at byte 2"},
    {"{}\0", 3, "control character 0x00 in JSON at byte 2"},
    {"\"a\nb\"", 0, "control character 0x0a in JSON at byte 2"},
    {"[1,\x0b 2]", 0, "control character 0x0b in JSON at byte 3"},
    {"\"a\\u0000b\"", 0, "\\u0000 in a JSON string at byte 2"},
    {"\xef\xbb\xbf{}", 0, "byte-order mark"},
    {"\"\xff\"", 0, "not UTF-8 at byte 1"},
    {"\"\xed\xa0\x80\"", 0, "not UTF-8 at byte 1"},
};

START_TEST(refuses)
{
    struct sf_json *root;
    struct sf_err err = {0};
    uint64_t bytes = refused[_i].bytes ? refused[_i].bytes : strlen(refused[_i].text);
    /* On the heap and without a NUL, so that reading beyond the end shows. */
    char *text = malloc(bytes ? bytes : 1);
    memcpy(text, refused[_i].text, bytes);
    root = (struct sf_json *)text; /* must not be left for sf_json_free */
    assert_fails(sf_json_parse(&root, text, bytes, &err), SF_EFORMAT, refused[_i].part, err);
    ck_assert_ptr_null(root);
    free(text);
}
END_TEST

START_TEST(an_escaped_backslash_is_no_escape)
{
    struct sf_json *root = parse("\"a\\\\u0000\"");
    struct sf_err err = {0};
    const char *s;
    assert_ok(sf_json_as_string(&s, root, "s", &err), err);
    ck_assert_str_eq(s, "a\\u0000");
    sf_json_free(root);
}
END_TEST

START_TEST(depth_is_bounded)
{
    char text[2 * SF_JSON_DEPTH + 8];
    struct sf_json *root;
    struct sf_err err = {0};
    for (int depth = SF_JSON_DEPTH; depth <= SF_JSON_DEPTH + 1; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        int code = sf_json_parse(&root, text, (uint64_t)depth * 2, &err);
        ck_assert_int_eq(code, depth == SF_JSON_DEPTH ? SF_OK : SF_EFORMAT);
        if (code == SF_OK)
            sf_json_free(root);
    }
    ck_assert_ptr_nonnull(strstr(err.message, "deeper than 64 levels at byte 64"));
    char wide[512] = "[";
    for (int i = 0; i < 100; i++)
        strcat(wide, "[],");
    strcat(wide, "\"[[[\"]");
    sf_json_free(parse(wide));
}
END_TEST

START_TEST(integers_are_exact)
{
    static const struct {
        const char *text;
        int64_t value; /* 0: refused */
    } cases[] = {{"9007199254740991", 9007199254740991},
                 {"-9007199254740991", -9007199254740991},
                 {"9007199254740992", 0},
                 {"9007199254740993", 0},
                 {"1e3", 1000},
                 {"1.5", 0},
                 {"1e300", 0},
                 {"1e999", 0},
                 {"-1e999", 0},
                 {"7.0", 7}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sf_json *root = parse(cases[i].text);
        struct sf_err err = {0};
        int64_t got = 0;
        int code = sf_json_as_int(&got, root, "n", &err);
        ck_assert_msg(code == (cases[i].value ? SF_OK : SF_EFORMAT) && got == cases[i].value, "%s",
                      cases[i].text);
        sf_json_free(root);
    }
}
END_TEST

START_TEST(getters_name_what_is_wrong)
{
    struct sf_json *root = parse("{\"a\": [], \"n\": 1, \"s\": \"x\", \"big\": 1e999}");
    struct sf_err err = {0};
    int64_t i;
    double d;
    bool b;
    const char *s;
    assert_fails(sf_json_as_int(&i, sf_json_get(root, "a"), "a", &err), SF_EFORMAT,
                 "a is an array, not a number", err);
    assert_fails(sf_json_as_int(&i, sf_json_get(root, "zz"), "x.zz", &err), SF_EFORMAT,
                 "x.zz is missing", err);
    assert_fails(sf_json_as_bool(&b, sf_json_get(root, "n"), "n", &err), SF_EFORMAT,
                 "n is a number, not a boolean", err);
    assert_fails(sf_json_as_string(&s, sf_json_get(root, "n"), "n", &err), SF_EFORMAT,
                 "n is a number, not a string", err);
    assert_fails(sf_json_as_double(&d, sf_json_get(root, "s"), "s", &err), SF_EFORMAT,
                 "s is a string, not a number", err);
    assert_fails(sf_json_as_double(&d, sf_json_get(root, "big"), "big", &err), SF_EFORMAT,
                 "big is too large", err);
    sf_json_free(root);
}
END_TEST

START_TEST(double_keys)
{
    struct sf_err err = {0};
    struct sf_json *root = parse("{\"a\":1,\"b\":{\"x\":1,\"x\":2},\"c\":3}");
    assert_ok(sf_json_check_unique(root, &err), err);
    assert_fails(sf_json_check_unique(sf_json_get(root, "b"), &err), SF_EFORMAT,
                 "key \"x\" stands twice", err);
    sf_alloc_fail_after(1);
    assert_fails(sf_json_check_unique(root, &err), SF_ENOMEM, "JSON keys", err);
    sf_json_free(root);
    root = parse("{}");
    assert_ok(sf_json_check_unique(root, &err), err);
    sf_json_free(root);
}
END_TEST

static void write_sample(struct sf_json_writer *w)
{
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "s\"", "q\" b\\ n\n t\t \x7f \xc3\xa9 \xff");
    sf_json_write_int(w, "i", INT64_MIN);
    sf_json_write_array(w, "a");
    sf_json_write_bool(w, NULL, true);
    sf_json_write_null(w, NULL);
    sf_json_write_object(w, NULL);
    sf_json_write_end(w, '}');
    sf_json_write_end(w, ']');
    sf_json_write_double(w, "d", 0.1);
    sf_json_write_double(w, "nan", NAN);
    sf_json_write_end(w, '}');
}

START_TEST(writes_one_line_or_many)
{
    static const char *const want[2] = {
        "{\"s\\\"\": \"q\\\" b\\\\ n\\n t\\u0009 \\u007f \xc3\xa9 \xef\xbf\xbd\", "
        "\"i\": -9223372036854775808, \"a\": [true, null, {}], \"d\": 0.1, \"nan\": null}",
        "{\n  \"s\\\"\": \"q\\\" b\\\\ n\\n t\\u0009 \\u007f \xc3\xa9 \xef\xbf\xbd\",\n"
        "  \"i\": -9223372036854775808,\n  \"a\": [\n    true,\n    null,\n    {}\n  ],\n"
        "  \"d\": 0.1,\n  \"nan\": null\n}"};
    for (int i = 0; i < 2; i++) {
        struct sf_arena arena = {0};
        struct sf_json_writer w;
        struct sf_err err = {0};
        char *text;
        uint64_t bytes;
        sf_json_write_begin(&w, &arena, 2 * i);
        write_sample(&w);
        assert_ok(sf_json_write_finish(&text, &bytes, &w, &err), err);
        ck_assert_str_eq(text, want[i]);
        ck_assert_uint_eq(bytes, strlen(text));
        sf_json_free(parse(text));
        sf_arena_free(&arena);
    }
}
END_TEST

START_TEST(doubles_read_back_the_same)
{
    struct scout_random r = {7};
    for (int i = 0; i < 5000; i++) {
        uint64_t bits = scout_random_u64(&r);
        double d, back;
        memcpy(&d, &bits, sizeof d);
        if (!isfinite(d))
            continue;
        struct sf_arena arena = {0};
        struct sf_json_writer w;
        struct sf_err err = {0};
        char *text;
        sf_json_write_begin(&w, &arena, 0);
        sf_json_write_double(&w, NULL, d);
        assert_ok(sf_json_write_finish(&text, NULL, &w, &err), err);
        struct sf_json *root = parse(text);
        assert_ok(sf_json_as_double(&back, root, "d", &err), err);
        ck_assert_msg(memcmp(&back, &d, sizeof d) == 0, "%a -> %s -> %a", d, text, back);
        sf_json_free(root);
        sf_arena_free(&arena);
    }
}
END_TEST

START_TEST(a_writer_without_memory_fails_once_at_the_end)
{
    struct sf_arena arena = {0};
    struct sf_json_writer w;
    struct sf_err err = {0};
    char *text;
    sf_json_write_begin(&w, &arena, 0);
    sf_alloc_fail_after(1);
    write_sample(&w);
    assert_fails(sf_json_write_finish(&text, NULL, &w, &err), SF_ENOMEM, "JSON text", err);
    sf_arena_free(&arena);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("json");
    TCase *t = tcase_create("json");
    tcase_add_test(t, reads_every_type);
    tcase_add_test(t, members_in_file_order_and_exact);
    tcase_add_loop_test(t, refuses, 0, (int)(sizeof refused / sizeof *refused));
    tcase_add_test(t, an_escaped_backslash_is_no_escape);
    tcase_add_test(t, depth_is_bounded);
    tcase_add_test(t, integers_are_exact);
    tcase_add_test(t, getters_name_what_is_wrong);
    tcase_add_test(t, double_keys);
    tcase_add_test(t, writes_one_line_or_many);
    tcase_add_test(t, doubles_read_back_the_same);
    tcase_add_test(t, a_writer_without_memory_fails_once_at_the_end);
    suite_add_tcase(s, t);
    return s;
}
SCOUT_TEST_MAIN(suite)
