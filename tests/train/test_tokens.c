/* Rows in memory and in a file: the same; and a file that is not what was written is never believed. */
#include "tests/support/support.h"

#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "train/data/tokens.h"

enum { VOCABULARY = 1000 };

static struct sf_err err;
static const struct sf_hash128 key = {1, 2}, other_key = {1, 3};
static const struct sft_token_counts counts = {1, 2, 3, 4, 5};

/* `rows` rows of up to `longest` tokens, every third label not trained. */
static int write_rows(struct sft_tokens **out, const char *path, int64_t rows, int32_t longest)
{
    struct sft_token_writer *w = NULL;
    struct scout_random r = {(uint64_t)rows};
    int32_t id[1000], label[1000];
    int code = sft_token_writer_open(&w, path, &err);
    if (!code)
        code = sft_token_writer_name(w, "a.jsonl", &err);
    if (!code)
        code = sft_token_writer_name(w, "b.jsonl", &err);
    for (int64_t row = 0; !code && row < rows; row++) {
        int32_t length = 1 + (int32_t)(scout_random_u64(&r) % (uint64_t)longest);
        for (int32_t i = 0; i < length; i++) {
            id[i] = (int32_t)(scout_random_u64(&r) % VOCABULARY);
            label[i] = i % 3 == 2 ? SFT_NO_TARGET : id[i];
        }
        code = sft_token_writer_row(w, id, label, length, row % 2 ? 1 : 0, row + 1, &err);
    }
    if (!code)
        code = sft_token_writer_note(w, "told", &err);
    if (!code)
        return sft_token_writer_finish(out, w, &counts, key, &err);
    sft_token_writer_abort(w);
    return code;
}

static void assert_same(const struct sft_tokens *a, const struct sft_tokens *b)
{
    ck_assert_int_eq(a->tokens, b->tokens);
    ck_assert_int_eq(a->rows, b->rows);
    ck_assert_mem_eq(a->token, b->token, (size_t)a->tokens * sizeof *a->token);
    ck_assert_mem_eq(a->row, b->row, (size_t)a->rows * sizeof *a->row);
    ck_assert_mem_eq(&a->counts, &b->counts, sizeof a->counts);
    ck_assert_int_eq(a->files, 2);
    ck_assert_int_eq(b->notes, 1);
    for (int64_t i = 0; i < 3; i++)
        ck_assert_str_eq(sft_tokens_string(a, i), sft_tokens_string(b, i));
}

START_TEST(a_file_holds_what_memory_holds)
{
    static const int64_t rows[] = {1, 7, 900}; /* the last goes to the file in several pieces */
    const char *path = scout_scratch_path("t.tokens");
    for (int i = 0; i < 3; i++) {
        struct sft_tokens *memory, *file, *again;
        assert_ok(write_rows(&memory, NULL, rows[i], 1000), err);
        assert_ok(write_rows(&file, path, rows[i], 1000), err);
        assert_ok(sft_tokens_map(&again, path, key, VOCABULARY, &err), err);
        assert_same(memory, file);
        assert_same(memory, again);
        ck_assert_str_eq(sft_tokens_string(memory, 2), "told");
        int64_t targets = 0, counted = 0;
        for (int64_t row = 0; row < again->rows; row++) {
            counted += again->row[row].targets;
            for (int32_t k = 1; k < again->row[row].length; k++)
                targets += again->token[again->row[row].start + k].label != SFT_NO_TARGET;
        }
        ck_assert_int_eq(counted, targets);
        sft_tokens_share(again);
        sft_tokens_release(again);
        assert_ok(sft_tokens_check(again, &err), err);
        sft_tokens_release(again);
        sft_tokens_release(file);
        sft_tokens_release(memory);
    }
}
END_TEST

START_TEST(another_key_is_another_file)
{
    const char *path = scout_scratch_path("k.tokens");
    struct sft_tokens *t;
    assert_ok(write_rows(&t, path, 5, 9), err);
    sft_tokens_release(t);
    assert_fails(sft_tokens_map(&t, path, other_key, VOCABULARY, &err), SF_ENOENT,
                 "k.tokens: made of other data", err);
    assert_fails(sft_tokens_map(&t, scout_scratch_path("none"), key, VOCABULARY, &err), SF_ENOENT,
                 "none", err);
    assert_fails(sft_tokens_map(&t, path, key, 10, &err), SF_EDAMAGED, "has id ", err);
}
END_TEST

/* A bit of each byte; behind the 136 of the header there is room that nobody reads. */
START_TEST(no_changed_byte_is_believed)
{
    const char *path = scout_scratch_path("x.tokens");
    struct sf_arena arena = {0};
    struct sft_tokens *t;
    char *bytes;
    uint64_t count, tried = 0;
    assert_ok(write_rows(&t, path, 40, 30), err);
    sft_tokens_release(t);
    assert_ok(sf_read_file(&bytes, &count, &arena, path, 1 << 20, &err), err);
    for (uint64_t i = 0; i < count; i += i >= 200 && i < 4095 ? 4096 - i : 1) {
        bytes[i] ^= (char)(1 << (i % 8));
        assert_ok(sf_write_file(path, bytes, count, &err), err);
        int code = sft_tokens_map(&t, path, key, VOCABULARY, &err);
        ck_assert_msg(code == SF_EDAMAGED || code == SF_EFORMAT || code == SF_ENOENT ||
                          (code == SF_OK && i >= 136 && i < 4096),
                      "byte %llu: %d", (unsigned long long)i, code);
        if (code == SF_OK)
            sft_tokens_release(t);
        tried++;
        bytes[i] ^= (char)(1 << (i % 8));
    }
    ck_assert_uint_gt(tried, 2000);
    for (uint64_t less = 0; less < count; less += less < 5000 ? 501 : 37) {
        assert_ok(sf_write_file(path, bytes, less, &err), err);
        ck_assert_int_ne(sft_tokens_map(&t, path, key, VOCABULARY, &err), SF_OK);
    }
    sf_arena_free(&arena);
}
END_TEST

/* Hashes that are right do not make it right: a header of one's own is easily made. */
START_TEST(right_hashes_do_not_make_rows_right)
{
    const char *path = scout_scratch_path("h.tokens");
    struct sft_token_writer *w;
    struct sft_tokens *t;
    static const int32_t id[] = {1, 2, 2000}, label[] = {1, -7, 2};
    for (int i = 0; i < 3; i++) {
        assert_ok(sft_token_writer_open(&w, path, &err), err);
        assert_ok(sft_token_writer_name(w, "a", &err), err);
        assert_ok(sft_token_writer_row(w, id, i == 0 ? label : id, i == 1 ? 3 : 2, i == 2 ? 1 : 0,
                                       1, &err),
                  err);
        int code = sft_token_writer_finish(&t, w, &counts, key, &err); /* reads it, too */
        if (code == SF_OK) {
            sft_tokens_release(t);
            code = sft_tokens_map(&t, path, key, VOCABULARY, &err);
        }
        ck_assert_int_eq(code, SF_EDAMAGED);
    }
}
END_TEST

START_TEST(without_memory_or_folder_nothing_is_left)
{
    const char *path = scout_scratch_path("m.tokens");
    struct sft_tokens *t;
    int failures = 0, code = SF_ENOMEM;
    while (code) {
        sf_alloc_fail_after(failures + 1);
        code = write_rows(&t, path, 50, 1000);
        sf_alloc_fail_after(0);
        ck_assert(code == SF_OK || code == SF_ENOMEM);
        ck_assert_msg(code == SF_OK || failures > 8 || !sf_file_exists(path), "%d", failures);
        failures += code != SF_OK;
    }
    ck_assert_int_gt(failures, 6);
    sft_tokens_release(t);
    ck_assert_int_ne(write_rows(&t, scout_scratch_path("no/such/m.tokens"), 5, 9), SF_OK);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("tokens");
    TCase *tc = tcase_create("tokens");
    tcase_add_test(tc, a_file_holds_what_memory_holds);
    tcase_add_test(tc, another_key_is_another_file);
    tcase_add_test(tc, no_changed_byte_is_believed);
    tcase_add_test(tc, right_hashes_do_not_make_rows_right);
    tcase_add_test(tc, without_memory_or_folder_nothing_is_left);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
