/* Ids as Hugging Face's `tokenizers` gives them: golden files, decoding, queries, long texts. */
#include "libformat/text/tokenizer.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/jobs.h"
#include "libformat/base/mem.h"
#include "libformat/hf/safetensors.h"
#include "tests/support/support.h"
#include "tests/text/fixtures.h"

static const char TINY[] = "examples/tiny-scout/tokenizer.json";

/* decode(ids), special tokens kept, is `text`. Where ids cut a character, `tokenizers` shows U+FFFD
 * and we give the bytes: nothing to compare. */
static void assert_decodes(struct fixture *f, const char *text, const char *what)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    char *back;
    uint64_t bytes;
    assert_ok(sf_tokenizer_decode(&back, &bytes, f->tokenizer, f->ids.id, f->ids.count, false,
                                  &arena, &err),
              err);
    bool whole = sf_utf8_valid(back, bytes, NULL) || !strstr(text, "\xef\xbf\xbd");
    ck_assert_msg(!whole || (bytes == strlen(text) && memcmp(back, text, bytes) == 0),
                  "%s: decodes to \"%s\"", what, back);
    sf_arena_free(&arena);
}

START_TEST(lines_of_tiny_scout)
{
    struct fixture f;
    struct sf_json *lines = fixture_json("tests/golden/tokenizer/lines.json");
    int64_t number = 0;
    fixture_open(&f, TINY);
    for (const struct sf_json *l = sf_json_first(lines); l; l = sf_json_next(l), number++) {
        const struct sf_json *text = sf_json_first(l), *ids = sf_json_next(sf_json_next(text));
        const char *t;
        char what[64];
        snprintf(what, sizeof what, "line %lld", (long long)number);
        ck_assert_int_eq(sf_json_as_string(&t, text, "text", NULL), SF_OK);
        fixture_encode(&f, t, strlen(t), false);
        fixture_compare(ids, &f.ids, what);
        assert_decodes(&f, t, what);
    }
    ck_assert_int_gt(number, 400);
    sf_json_free(lines);
    fixture_close(&f);
}
END_TEST

static const char *const variants[] = {"gpt2", "splits", "whole"};

START_TEST(lines_of_other_tokenizers)
{
    struct fixture f;
    char path[128], what[96];
    snprintf(path, sizeof path, "tests/golden/tokenizer/%s_tokenizer.json", variants[_i]);
    fixture_open(&f, path);
    snprintf(path, sizeof path, "tests/golden/tokenizer/%s_lines.json", variants[_i]);
    struct sf_json *lines = fixture_json(path);
    int64_t number = 0;
    for (const struct sf_json *l = sf_json_first(lines); l; l = sf_json_next(l), number++) {
        const struct sf_json *text = sf_json_first(l), *ids = sf_json_next(text);
        const char *t;
        snprintf(what, sizeof what, "%s line %lld", variants[_i], (long long)number);
        ck_assert_int_eq(sf_json_as_string(&t, text, "text", NULL), SF_OK);
        fixture_encode(&f, t, strlen(t), true);
        fixture_compare(sf_json_next(ids), &f.ids, what);
        fixture_encode(&f, t, strlen(t), false);
        fixture_compare(ids, &f.ids, what);
        ck_assert_int_eq(sf_json_as_string(&t, sf_json_next(sf_json_next(ids)), "decoded", NULL),
                         SF_OK);
        assert_decodes(&f, t, what);
    }
    ck_assert_int_gt(number, 100);
    sf_json_free(lines);
    fixture_close(&f);
}
END_TEST

static void assert_moby(struct fixture *f, const struct sf_json *want)
{
    int64_t count, crc;
    ck_assert_int_eq(sf_json_as_int(&count, sf_json_get(want, "count"), "count", NULL), SF_OK);
    ck_assert_int_eq(sf_json_as_int(&crc, sf_json_get(want, "crc32"), "crc32", NULL), SF_OK);
    ck_assert_int_eq(f->ids.count, count);
    ck_assert_int_eq(count, 416922);
    ck_assert_int_eq(fixture_crc32_ids(0, &f->ids), crc);
    struct sf_ids first = {.id = f->ids.id, .count = 1024};
    fixture_compare(sf_json_get(want, "first"), &first, "moby.txt");
}

/* The ids that the reference training run saw: the first 1024, and the last 64 rows of 256. */
static void assert_training_tokens(const struct fixture *f)
{
    struct sf_err err = {0};
    struct sf_safetensors *file;
    const char *path = scout_source_path("tests/golden/training/tokens.safetensors");
    assert_ok(sf_safetensors_open(&file, path, &err), err);
    const struct sf_tensor *first = sf_safetensors_find(file, "first_1024_ids");
    const struct sf_tensor *rows = sf_safetensors_find(file, "eval_blocks");
    ck_assert(first && first->dtype == SF_I32 && first->bytes == 1024 * 4);
    ck_assert(rows && rows->dtype == SF_I32 && rows->bytes == 64 * 256 * 4);
    ck_assert_mem_eq(f->ids.id, first->data, 1024 * 4);
    int64_t end = f->ids.count / 256 * 256;
    ck_assert_mem_eq(f->ids.id + end - 64 * 256, rows->data, 64 * 256 * 4);
    sf_safetensors_close(file);
}

START_TEST(moby_dick)
{
    struct fixture f;
    struct sf_err err = {0};
    struct sf_json *want = fixture_json("tests/golden/tokenizer/moby.json");
    char *text;
    uint64_t bytes;
    fixture_open(&f, TINY);
    assert_ok(sf_read_file(&text, &bytes, &f.arena, scout_source_path("examples/data/moby.txt"),
                           1 << 26, &err),
              err);
    fixture_encode(&f, text, bytes, false);
    assert_moby(&f, want);
    assert_training_tokens(&f);
    fixture_encode(&f, text, bytes, false); /* again, out of the cache */
    assert_moby(&f, want);
    assert_decodes(&f, text, "moby.txt");
    fixture_encode(&f, text, bytes, true);
    ck_assert_int_eq(f.ids.count, 416923);
    ck_assert_int_eq(f.ids.id[0], 2048);
    sf_json_free(want);
    fixture_close(&f);
}
END_TEST

/* ---- one text, many threads ---- */

struct shared {
    const struct sf_tokenizer *tokenizer;
    const char *text;
    uint64_t bytes;
    uint32_t crc[8];
};

static int encode_job(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct shared *s = context;
    struct sf_tokenizer_scratch *scratch;
    struct sf_ids ids = {0};
    (void)worker;
    int code = sf_tokenizer_scratch_open(&scratch, s->tokenizer, err);
    if (code != SF_OK)
        return code;
    code = sf_tokenizer_encode(&ids, s->tokenizer, s->text, s->bytes, false, scratch, err);
    uint32_t sum = 0;
    for (int64_t i = 0; i < ids.count; i++)
        sum = sum * 31 + (uint32_t)ids.id[i];
    s->crc[index] = sum;
    sf_ids_free(&ids);
    sf_tokenizer_scratch_close(scratch);
    return code;
}

START_TEST(threads_share_a_tokenizer)
{
    struct fixture f;
    struct sf_err err = {0};
    struct shared s = {0};
    char *text;
    fixture_open(&f, TINY);
    assert_ok(sf_read_file(&text, &s.bytes, &f.arena, scout_source_path("examples/data/moby.txt"),
                           1 << 26, &err),
              err);
    s.text = text;
    s.bytes = 100000;
    s.tokenizer = f.tokenizer;
    assert_ok(sf_jobs_run(encode_job, &s, 8, 4, &err), err);
    for (int i = 1; i < 8; i++)
        ck_assert_uint_eq(s.crc[i], s.crc[0]);
    ck_assert_uint_ne(s.crc[0], 0);
    fixture_close(&f);
}
END_TEST

/* ---- long single lines: quadratic work would run into the test's time limit ---- */

static const struct {
    const char *unit, *before, *behind;
} long_lines[] = {
    {"\xe4\xb8\xad", "", ""},
    {"A", "", ""},
    {" ", "", "x"},
    {" ", "\n", "x"},
    {"\n", "", ""},
    {"\n ", "", ""},
    {"a", "", ""},
    {"\xcc\x81", "", ""},
    {"A", "\xe4\xb8\xad", ""},
    {"!", "", ""},
    {"/", "!", ""},
    {"1", "", ""},
    {"<|begin_of_text|", "", ""},
    {"<", "", ""},
    {"the", "", ""},
    {"'s", "", ""},
    {"A\xca\xb0", "", ""},
    {"\t \xe3\x80\x80", "", "."},
};

START_TEST(long_lines_take_linear_time)
{
    struct fixture f;
    enum { BYTES = 1 << 20 };
    size_t unit = strlen(long_lines[_i].unit), n = 0;
    fixture_open(&f, TINY);
    char *text = sf_arena_alloc(&f.arena, BYTES + 64);
    ck_assert_ptr_nonnull(text);
    n += (size_t)sprintf(text, "%s", long_lines[_i].before);
    for (; n + unit < BYTES; n += unit)
        memcpy(text + n, long_lines[_i].unit, unit);
    strcpy(text + n, long_lines[_i].behind);
    fixture_encode(&f, text, strlen(text), false);
    assert_decodes(&f, text, "long line");
    fixture_close(&f);
}
END_TEST

/* ---- bytes, queries, decoding ---- */

START_TEST(text_that_is_not_utf8_is_refused)
{
    struct fixture f;
    struct sf_err err = {0};
    fixture_open(&f, TINY);
    assert_fails(sf_tokenizer_encode(&f.ids, f.tokenizer, "ab\xff", 3, false, f.scratch, &err),
                 SF_EFORMAT, "text is not UTF-8 at byte 2", err);
    assert_fails(
        sf_tokenizer_encode(&f.ids, f.tokenizer, "\xed\xa0\x80", 3, false, f.scratch, &err),
        SF_EFORMAT, "at byte 0", err);
    ck_assert_int_eq(f.ids.count, 0);
    fixture_close(&f);
}
END_TEST

START_TEST(queries)
{
    struct fixture f;
    fixture_open(&f, TINY);
    ck_assert_int_eq(sf_tokenizer_vocabulary(f.tokenizer), 2064);
    ck_assert_str_eq(sf_tokenizer_token(f.tokenizer, 2056), "<|eot|>");
    ck_assert_str_eq(sf_tokenizer_token(f.tokenizer, 0), "!");
    ck_assert_ptr_null(sf_tokenizer_token(f.tokenizer, 2064));
    ck_assert_ptr_null(sf_tokenizer_token(f.tokenizer, -1));
    ck_assert_int_eq(sf_tokenizer_id(f.tokenizer, "<|eot|>"), 2056);
    ck_assert_int_eq(sf_tokenizer_id(f.tokenizer, "!"), 0);
    ck_assert_int_eq(sf_tokenizer_id(f.tokenizer, "no such token"), -1);
    ck_assert(sf_tokenizer_is_special(f.tokenizer, 2048));
    ck_assert(!sf_tokenizer_is_special(f.tokenizer, 7));
    ck_assert(!sf_tokenizer_is_special(f.tokenizer, 99999));
    fixture_close(&f);
}
END_TEST

START_TEST(decoding)
{
    struct fixture f;
    struct sf_err err = {0};
    char *text;
    uint64_t bytes;
    const char chat[] = "<|begin_of_text|>caf\xc3\xa9<|eot|>";
    fixture_open(&f, TINY);
    fixture_encode(&f, chat, sizeof chat - 1, false);
    assert_ok(sf_tokenizer_decode(&text, &bytes, f.tokenizer, f.ids.id, f.ids.count, true, &f.arena,
                                  &err),
              err);
    ck_assert_str_eq(text, "caf\xc3\xa9");
    ck_assert_uint_eq(bytes, 5);
    assert_ok(sf_tokenizer_decode(&text, &bytes, f.tokenizer, NULL, 0, true, &f.arena, &err), err);
    ck_assert_str_eq(text, "");
    int32_t beyond[] = {3, 2064};
    assert_fails(sf_tokenizer_decode(&text, NULL, f.tokenizer, beyond, 2, true, &f.arena, &err),
                 SF_EINVAL, "id 2064 (number 1) is no token", err);
    fixture_close(&f);
}
END_TEST

START_TEST(no_memory_anywhere_is_an_error)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    char *json;
    uint64_t bytes;
    const char *path = scout_source_path("tests/golden/tokenizer/splits_tokenizer.json");
    assert_ok(sf_read_file(&json, &bytes, &arena, path, 1 << 26, &err), err);
    int code = SF_ENOMEM;
    int64_t n = 1;
    for (; code == SF_ENOMEM; n++) {
        struct sf_tokenizer *t = NULL;
        struct sf_tokenizer_scratch *scratch = NULL;
        struct sf_ids ids = {0};
        sf_alloc_fail_after(n);
        code = sf_tokenizer_open(&t, json, bytes, &err);
        if (code == SF_OK)
            code = sf_tokenizer_scratch_open(&scratch, t, &err);
        if (code == SF_OK)
            code = sf_tokenizer_encode(&ids, t, "over the sea", 12, true, scratch, &err);
        sf_ids_free(&ids);
        sf_tokenizer_scratch_close(scratch);
        sf_tokenizer_close(t);
    }
    sf_alloc_fail_after(0);
    ck_assert_msg(code == SF_OK, "%s", err.message);
    ck_assert_int_gt(n, 10);
    sf_arena_free(&arena);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("tokenizer");
    TCase *c = tcase_create("golden");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, lines_of_tiny_scout);
    tcase_add_loop_test(c, lines_of_other_tokenizers, 0, 3);
    tcase_add_test(c, moby_dick);
    tcase_add_test(c, threads_share_a_tokenizer);
    tcase_add_loop_test(c, long_lines_take_linear_time, 0,
                        sizeof long_lines / sizeof long_lines[0]);
    suite_add_tcase(s, c);
    c = tcase_create("calls");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, text_that_is_not_utf8_is_refused);
    tcase_add_test(c, queries);
    tcase_add_test(c, decoding);
    tcase_add_test(c, no_memory_anywhere_is_an_error);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
