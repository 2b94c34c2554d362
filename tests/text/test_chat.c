/* Conversations as transformers' apply_chat_template renders them; which template is which format. */
#include "libformat/text/chat.h"

#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "tests/support/support.h"

static struct sf_arena arena;
static struct sf_chat chat;

static void setup(void)
{
    arena = (struct sf_arena){0};
    chat = (struct sf_chat){0};
}

static void teardown(void)
{
    sf_chat_free(&chat);
    sf_arena_free(&arena);
}

static char *read_file(const char *path, uint64_t *bytes)
{
    struct sf_err err = {0};
    static char *text; /* not in a frame: Check leaves by longjmp */
    assert_ok(sf_read_file(&text, bytes, &arena, scout_source_path(path), 1 << 24, &err), err);
    return text;
}

static struct sf_json *parse(const char *text)
{
    struct sf_err err = {0};
    struct sf_json *root;
    assert_ok(sf_json_parse(&root, text, strlen(text), &err), err);
    return root;
}

static const char *string_of(const struct sf_json *row, const char *key)
{
    const char *text;
    ck_assert_int_eq(sf_json_as_string(&text, sf_json_get(row, key), key, NULL), SF_OK);
    return text;
}

static void check_row(const struct sf_json *golden)
{
    const struct sf_json *row = sf_json_get(golden, "row");
    struct sf_chat_options options = {.tools = sf_json_get(row, "tools")};
    struct sf_err err = {0};
    ck_assert(sf_chat_format_from_name(&options.format, string_of(golden, "format")));
    for (int prompted = 0; prompted < 2; prompted++) {
        options.generation_prompt = prompted;
        assert_ok(sf_chat_render(&chat, sf_json_get(row, "messages"), &options, &err), err);
        ck_assert_str_eq(chat.text.at, string_of(golden, prompted ? "prompted" : "text"));
        ck_assert_uint_eq(chat.text.bytes, strlen(chat.text.at));
    }
}

START_TEST(texts_are_those_of_transformers)
{
    uint64_t bytes;
    int rows = 0;
    char *line = read_file("tests/golden/chat/chat.jsonl", &bytes);
    for (char *end; (end = strchr(line, '\n')); line = end + 1, rows++) {
        *end = 0;
        struct sf_json *golden = parse(line);
        check_row(golden);
        sf_json_free(golden);
    }
    ck_assert_int_ge(rows, 120);
}
END_TEST

START_TEST(sharegpt_says_the_same)
{
    struct sf_err err = {0};
    struct sf_chat_options options = {.format = SF_CHAT_LLAMA4, .keys = SF_CHAT_FROM_VALUE};
    struct sf_json *m =
        parse("[{\"from\":\"system\",\"value\":\" s \"},{\"from\":\"human\",\"value\":"
              "\"a\"},{\"from\":\"gpt\",\"value\":\"b\",\"weight\":1},"
              "{\"from\":\"user\",\"value\":\"c\"},{\"from\":\"assistant\",\"value\":"
              "\"d\"}]");
    assert_ok(sf_chat_render(&chat, m, &options, &err), err);
    ck_assert_str_eq(chat.text.at,
                     "<|begin_of_text|><|header_start|>system<|header_end|>\n\ns<|eot|>"
                     "<|header_start|>user<|header_end|>\n\na<|eot|>"
                     "<|header_start|>assistant<|header_end|>\n\nb<|eot|>"
                     "<|header_start|>user<|header_end|>\n\nc<|eot|>"
                     "<|header_start|>assistant<|header_end|>\n\nd<|eot|>");
    ck_assert_int_eq(chat.spans, 2);
    ck_assert_int_eq(strncmp(chat.text.at + chat.span[0].start, "b<|eot|>", 8), 0);
    ck_assert_uint_eq(chat.span[0].end - chat.span[0].start, 8);
    ck_assert_uint_eq(chat.span[1].end, chat.text.bytes);
    sf_json_free(m);
}
END_TEST

static const struct {
    const char *messages, *tools, *message;
    int code;
    enum sf_chat_format format;
} bad[] = {
    {"{}", NULL, "a conversation is an object, not a list", SF_EFORMAT, SF_CHAT_LLAMA4},
    {"[]", NULL, "a conversation without messages", SF_EFORMAT, SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":\"x\"}]", NULL, "the model has no chat format",
     SF_EUNSUPPORTED, SF_CHAT_NONE},
    {"[\"x\"]", NULL, "message 0: it is a string, not an object", SF_EFORMAT, SF_CHAT_LLAMA4},
    {"[{\"content\":\"x\"}]", NULL, "message 0: it has no \"role\"", SF_EFORMAT, SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\"}]", NULL, "message 0: it has no \"content\"", SF_EFORMAT, SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":null}]", NULL, "message 0: it has no \"content\"", SF_EFORMAT,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":3}]", NULL, "its content is a number", SF_EFORMAT,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"User\",\"content\":\"x\"}]", NULL, "message 0: \"User\" is no role", SF_EFORMAT,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"role\":\"user\",\"content\":\"x\"}]", NULL, "role", SF_EFORMAT,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}"
     "]",
     NULL, "message 1: content of type \"image\": images are not trained on here", SF_EUNSUPPORTED,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":\"x\"}]}]", NULL,
     "images are not trained on here", SF_EUNSUPPORTED, SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":[{\"type\":\"audio\"}]}]", NULL, "only text is taken",
     SF_EUNSUPPORTED, SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", NULL, "has no \"text\"", SF_EFORMAT,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":[\"x\"]}]", NULL, "a part of its content", SF_EFORMAT,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\","
     "\"text\":"
     "\"b\"}]}]",
     NULL, "its content has 2 parts, of which the template takes the first alone", SF_EUNSUPPORTED,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[]}]", NULL,
     "the template would leave the message out", SF_EUNSUPPORTED, SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":\"\",\"tool_calls\":[{}]}]", NULL,
     "the role user has tool_calls", SF_EFORMAT, SF_CHAT_LLAMA4},
    {"[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"name\":\"f\"}]}]", NULL,
     "a call is no {\"function\"", SF_EFORMAT, SF_CHAT_LLAMA4},
    {"[{\"role\":\"tool\",\"content\":3}]", NULL, "its content is a number", SF_EUNSUPPORTED,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":\"x\"}]", "{}", "tools are an object, not a list", SF_EFORMAT,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"assistant\",\"content\":\"x\"}]", "[{}]", "which is no user's", SF_EFORMAT,
     SF_CHAT_LLAMA4},
    {"[{\"role\":\"system\",\"content\":\"x\"}]", "[{}]", "no user's message to put them into",
     SF_EFORMAT, SF_CHAT_LLAMA4},
    {"[{\"role\":\"user\",\"content\":\"x\"}]", "[{}]",
     "tools, which this model's template does not", SF_EUNSUPPORTED, SF_CHAT_LLAMA4_TRIMMED},
    {"[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}]", NULL,
     "its content is an array; the template takes a string here", SF_EUNSUPPORTED,
     SF_CHAT_LLAMA4_TRIMMED},
    {"[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]", NULL,
     "tool_calls, which this model's template does not know", SF_EUNSUPPORTED,
     SF_CHAT_LLAMA4_TRIMMED},
};
enum { BAD = sizeof bad / sizeof bad[0] };

START_TEST(bad_conversations_are_refused)
{
    struct sf_err err = {0};
    struct sf_json *messages = parse(bad[_i].messages);
    struct sf_json *tools = bad[_i].tools ? parse(bad[_i].tools) : NULL;
    struct sf_chat_options options = {.format = bad[_i].format, .tools = tools};
    assert_fails(sf_chat_render(&chat, messages, &options, &err), bad[_i].code, bad[_i].message,
                 err);
    sf_json_free(messages);
    sf_json_free(tools);
}
END_TEST

/* ---- which template is which ---- */

static enum sf_chat_format recognised(const char *text, uint64_t bytes)
{
    enum sf_chat_format format = SF_CHAT_NONE;
    struct sf_err err = {0};
    assert_ok(sf_chat_format_recognise(&format, text, bytes, &err), err);
    return format;
}

/* The same template as transformers' converter has it: line ends inside strings, empty lines. */
static char *respaced(const char *text)
{
    char *out = sf_arena_alloc(&arena, 4 * strlen(text) + 1), *to = out;
    ck_assert_ptr_nonnull(out);
    for (; *text; text++) {
        if (text[0] == '\\' && text[1] == 'n') {
            *to++ = '\n';
            text++;
        } else if (*text == '\n') {
            to = stpcpy(to, " \n\n ");
        } else {
            *to++ = *text;
        }
    }
    *to = 0;
    return out;
}

START_TEST(templates_are_recognised)
{
    uint64_t bytes;
    char *full = read_file("tests/golden/chat/llama4.jinja", &bytes);
    ck_assert_int_eq(recognised(full, bytes), SF_CHAT_LLAMA4);
    char *other = respaced(full);
    ck_assert_uint_ne(strlen(other), bytes);
    ck_assert_int_eq(recognised(other, strlen(other)), SF_CHAT_LLAMA4);
    char *tiny = read_file("examples/tiny-scout/chat_template.jinja", &bytes);
    ck_assert_int_eq(recognised(tiny, bytes), SF_CHAT_LLAMA4_TRIMMED);
}
END_TEST

/* One letter or blank that counts. */
START_TEST(other_templates_are_not)
{
    struct sf_err err = {0};
    enum sf_chat_format format = SF_CHAT_NONE;
    uint64_t bytes;
    char *full = read_file("tests/golden/chat/llama4.jinja", &bytes);
    const char *change[][2] = {{"|trim", "|trin"},
                               {"<|eot|>", "<|eom|>"},
                               {"{{- system", "{{ system"},
                               {"with its", "with  its"},
                               {"#}\n{%- if m", "#}\n.{%- if m"}};
    for (size_t i = 0; i < sizeof change / sizeof change[0]; i++) {
        char *copy = sf_arena_alloc(&arena, bytes + 16), *at = strstr(full, change[i][0]);
        ck_assert(copy && at);
        size_t before = (size_t)(at - full);
        memcpy(copy, full, before);
        char *to = stpcpy(copy + before, change[i][1]);
        strcpy(to, at + strlen(change[i][0]));
        assert_fails(sf_chat_format_recognise(&format, copy, strlen(copy), &err), SF_EUNSUPPORTED,
                     "a chat template", err);
    }
    assert_fails(sf_chat_format_recognise(&format, "", 0, &err), SF_EUNSUPPORTED, "(0 bytes", err);
    assert_fails(sf_chat_format_recognise(&format, "{{ 'a", 5, &err), SF_EUNSUPPORTED, "5 bytes",
                 err);
    ck_assert_int_eq(format, SF_CHAT_NONE);
}
END_TEST

START_TEST(names_of_formats)
{
    enum sf_chat_format format;
    ck_assert(sf_chat_format_from_name(&format, "llama4"));
    ck_assert_int_eq(format, SF_CHAT_LLAMA4);
    ck_assert_str_eq(sf_chat_format_name(SF_CHAT_LLAMA4_TRIMMED), "llama4-trimmed");
    ck_assert(!sf_chat_format_from_name(&format, "llama3"));
}
END_TEST

START_TEST(no_memory_anywhere_is_an_error)
{
    struct sf_err err = {0};
    struct sf_json *m =
        parse("[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":"
              "\"y\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{}}}]}]");
    struct sf_chat_options options = {.format = SF_CHAT_LLAMA4};
    int code = SF_ENOMEM;
    int64_t n = 1;
    for (; code == SF_ENOMEM; n++) {
        struct sf_chat other = {0};
        sf_alloc_fail_after(n);
        code = sf_chat_render(&other, m, &options, &err);
        sf_chat_free(&other);
    }
    sf_alloc_fail_after(0);
    ck_assert_msg(code == SF_OK, "%s", err.message);
    ck_assert_int_gt(n, 2);
    sf_json_free(m);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("chat");
    TCase *c = tcase_create("golden");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, texts_are_those_of_transformers);
    tcase_add_test(c, sharegpt_says_the_same);
    tcase_add_loop_test(c, bad_conversations_are_refused, 0, BAD);
    tcase_add_test(c, templates_are_recognised);
    tcase_add_test(c, other_templates_are_not);
    tcase_add_test(c, names_of_formats);
    tcase_add_test(c, no_memory_anywhere_is_an_error);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
