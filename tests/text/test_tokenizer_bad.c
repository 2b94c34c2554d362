/* What a tokenizer.json may not say: each is one change to a file that is taken. */
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/text/tokenizer.h"
#include "tests/support/support.h"
#include "tests/text/fixtures.h"

static const struct {
    const char *from, *to;
    int code;
    const char *says;
} changes[] = {
    {"\"truncation\":null", "\"truncation\":{\"max_length\":4}", SF_EUNSUPPORTED,
     "truncation is set; only null"},
    {"\"padding\":null", "\"padding\":{}", SF_EUNSUPPORTED, "padding is set"},
    {"\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}", SF_EUNSUPPORTED,
     "normalizer is set"},
    {"\"normalizer\":null", "\"surprise\":1", SF_EUNSUPPORTED, "\"surprise\" is not known"},
    {"\"normalizer\":null", "\"normalizer\":null,\"model\":{}", SF_EFORMAT, "stands twice"},
    {"\"single_word\":false", "\"single_word\":true", SF_EUNSUPPORTED,
     "added_tokens, entry 0: single_word is true"},
    {"\"lstrip\":false", "\"lstrip\":true", SF_EUNSUPPORTED, "lstrip is true"},
    {"\"rstrip\":false", "\"rstrip\":true", SF_EUNSUPPORTED, "rstrip is true"},
    {"\"special\":true", "\"special\":1", SF_EFORMAT, "special is a number, not a boolean"},
    {"\"content\":\"<s>\"", "\"content\":\"\"", SF_EUNSUPPORTED, "content is empty"},
    {"\"content\":\"<s>\"", "\"content\":\"</s>\"", SF_EFORMAT, "stands twice"},
    {"\"id\":460", "\"id\":461", SF_EUNSUPPORTED, "\"<s>\" has id 461, but is token 460"},
    {"\"behavior\":\"Isolated\"", "\"behavior\":\"Removed\"", SF_EUNSUPPORTED,
     "behavior \"Removed\""},
    {"\"invert\":false", "\"invert\":true", SF_EUNSUPPORTED, "invert is true"},
    {"\"Regex\":", "\"String\":", SF_EFORMAT, "pattern.Regex is missing"},
    {"\\\\p{N}|", "\\\\p{Greek}|", SF_EUNSUPPORTED, "pre_tokenizer: split pattern, byte"},
    {"\"add_prefix_space\":false", "\"add_prefix_space\":true", SF_EUNSUPPORTED,
     "add_prefix_space is true"},
    {"\"use_regex\":false", "\"use_regex\":true", SF_EUNSUPPORTED, "its own regex"},
    {"\"type\":\"Sequence\",\"pretokenizers\"", "\"type\":\"Whitespace\",\"pretokenizers\"",
     SF_EUNSUPPORTED, "type \"Whitespace\""},
    {"\"type\":\"Split\"", "\"type\":\"Digits\"", SF_EUNSUPPORTED, "one Split and one ByteLevel"},
    {"\"type\":\"TemplateProcessing\"", "\"type\":\"BertProcessing\"", SF_EUNSUPPORTED,
     "post_processor: part of type \"BertProcessing\""},
    {"\"SpecialToken\":{\"id\":\"<s>\"", "\"SpecialToken\":{\"id\":\"<t>\"", SF_EFORMAT,
     "special_tokens has no ids for \"<t>\""},
    {"\"ids\":[460]", "\"ids\":[999]", SF_EFORMAT, "\"<s>\" has id 999, which is no token"},
    {"\"Sequence\":{\"id\":\"A\"", "\"Sequence\":{\"id\":\"B\"", SF_EUNSUPPORTED, "text \"B\""},
    {"\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"WordPiece\"", SF_EUNSUPPORTED,
     "decoder of type \"WordPiece\""},
    {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", SF_EUNSUPPORTED, "model.type is \"Unigram\""},
    {"\"dropout\":null", "\"dropout\":0.1", SF_EUNSUPPORTED, "model.dropout is set"},
    {"\"unk_token\":null", "\"unk_token\":\"!\"", SF_EUNSUPPORTED, "model.unk_token is set"},
    {"\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", SF_EUNSUPPORTED,
     "model.end_of_word_suffix is set"},
    {"\"byte_fallback\":false", "\"byte_fallback\":true", SF_EUNSUPPORTED, "byte_fallback is true"},
    {"\"fuse_unk\":false", "\"fuse_all\":false", SF_EUNSUPPORTED, "model.fuse_all is not known"},
    {"\"!\":0,", "\"!\":1,", SF_EFORMAT, "both have id 1"},
    {"\"!\":0,", "\"!\":-1,", SF_EFORMAT, "has id -1, not 0..4194303"},
    {"\"!\":0,", "\"!\":0.5,", SF_EFORMAT, "not a whole number"},
    {"\"!\":0,", "\"!!\":0,", SF_EUNSUPPORTED, "no token \"!\" for byte 0x21"},
    {"\"!\":0,", "\"!\":0,\"!\":470,", SF_EFORMAT, "token \"!\" stands twice (ids 0 and 470)"},
    {"[\"h\",\"e\"]", "[\"h\",\"e\",\"e\"]", SF_EFORMAT, "not a pair of strings"},
    {"[\"h\",\"e\"]", "[\"h\",\"!!\"]", SF_EFORMAT, "\"!!\" is not in the vocabulary"},
    {"[\"h\",\"e\"]", "[\"!\",\"!\"]", SF_EFORMAT, "\"!!\" is not in the vocabulary"},
    {"[\"h\",\"e\"]", "\"h e e\"", SF_EFORMAT, "is not two tokens with one space between"},
    {"\"merges\":", "\"mergers\":", SF_EUNSUPPORTED, "model.mergers is not known"},
};

/* The good file with the first `from` replaced by `to`, in `arena`. */
static char *changed(const char *from, const char *to, struct sf_arena *arena)
{
    struct sf_err err = {0};
    char *text;
    const char *path = scout_source_path("tests/golden/tokenizer/splits_tokenizer.json");
    assert_ok(sf_read_file(&text, NULL, arena, path, 1 << 20, &err), err);
    char *at = strstr(text, from);
    ck_assert_msg(at, "the file has no %s", from);
    return sf_arena_printf(arena, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

START_TEST(one_change_is_refused)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct sf_tokenizer *t = NULL;
    char *json = changed(changes[_i].from, changes[_i].to, &arena);
    assert_fails(sf_tokenizer_open(&t, json, strlen(json), &err), changes[_i].code,
                 changes[_i].says, err);
    ck_assert_ptr_null(t);
    sf_arena_free(&arena);
}
END_TEST

START_TEST(other_files_are_refused)
{
    struct sf_err err = {0};
    struct sf_tokenizer *t = NULL;
    assert_fails(sf_tokenizer_open(&t, "[]", 2, &err), SF_EFORMAT, "not a JSON object", err);
    assert_fails(sf_tokenizer_open(&t, "{}", 2, &err), SF_EUNSUPPORTED, "decoder is missing", err);
    assert_fails(sf_tokenizer_open(&t, "{", 1, &err), SF_EFORMAT, "malformed JSON", err);
    ck_assert_ptr_null(t);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("tokenizer_bad");
    TCase *c = tcase_create("refused");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, one_change_is_refused, 0, sizeof changes / sizeof changes[0]);
    tcase_add_test(c, other_files_are_refused);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
