/* Datasets: what becomes a row, what is left out, and what is refused with its place. */
#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "train/data/dataset.h"

enum { VOCABULARY = 2064 };

static struct sf_tokenizer *tokenizer;
static struct sf_err err;
static struct sft_dataset data;
static const char *files[4];

static void setup(void)
{
    struct sf_arena arena = {0};
    char *text;
    uint64_t bytes;
    assert_ok(sf_read_file(&text, &bytes, &arena,
                           scout_source_path("examples/tiny-scout/tokenizer.json"), 1 << 24, &err),
              err);
    assert_ok(sf_tokenizer_open(&tokenizer, text, bytes, &err), err);
    sf_arena_free(&arena);
    data = (struct sft_dataset){0};
}

static void teardown(void)
{
    sft_dataset_free(&data);
    sf_tokenizer_close(tokenizer);
}

static const char *put(const char *name, const char *text)
{
    const char *path = scout_scratch_path(name);
    assert_ok(sf_write_file(path, text, strlen(text), &err), err);
    return path;
}

static struct sft_dataset_config config(enum sft_text_mode mode, int64_t length, const char *first,
                                        const char *second)
{
    files[0] = first;
    files[1] = second;
    return (struct sft_dataset_config){.file = files,
                                       .files = second ? 2 : 1,
                                       .encoder.tokenizer = tokenizer,
                                       .encoder.vocabulary = VOCABULARY,
                                       .encoder.end_of_text = -1,
                                       .max_length = length,
                                       .mode = mode};
}

/* ids of a text by the tokenizer alone. */
static struct sf_ids encode(const char *text, bool special)
{
    struct sf_tokenizer_scratch *scratch;
    struct sf_ids ids = {0};
    assert_ok(sf_tokenizer_scratch_open(&scratch, tokenizer, &err), err);
    assert_ok(sf_tokenizer_encode(&ids, tokenizer, text, strlen(text), special, scratch, &err),
              err);
    sf_tokenizer_scratch_close(scratch);
    return ids;
}

START_TEST(blocks_are_cut_from_all_text)
{
    const char *a = "Call me Ishmael. Some years ago, ";
    struct sft_dataset_config c = config(
        SFT_TEXT_BLOCKS, 4, put("a.txt", a),
        put("b.jsonl", "{\"text\": \"never mind how long \"}\n\n  \r\n{\"text\":\"precisely, \"}"));
    struct sf_ids first = encode(a, false), x = encode("never mind how long ", false),
                  y = encode("precisely, ", false);
    assert_ok(sf_ids_append(&first, x.id, x.count, &err), err);
    assert_ok(sf_ids_append(&first, y.id, y.count, &err), err);
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    ck_assert_int_eq(data.rows, first.count / 4);
    ck_assert_int_eq(data.tail_tokens, first.count % 4);
    ck_assert_int_eq(data.tokens, data.rows * 4);
    ck_assert_int_eq(data.targets, data.rows * 3);
    ck_assert(memcmp(data.id, first.id, (size_t)data.tokens * 4) == 0);
    for (int64_t i = 0; i < data.tokens; i++)
        ck_assert_int_eq(data.target[i], i % 4 == 3 ? SFT_NO_TARGET : first.id[i + 1]);
    ck_assert_int_eq(data.start[data.rows], data.tokens);
    sf_ids_free(&first), sf_ids_free(&x), sf_ids_free(&y);
}
END_TEST

START_TEST(documents_are_rows_of_their_own)
{
    struct sft_dataset_config c =
        config(SFT_TEXT_DOCUMENTS, 6,
               put("d.jsonl", "{\"text\": \"one two\"}\n{\"text\": \"a much longer document than "
                              "that, cut at six tokens\", \"meta\": {\"k\": 1}}\n"),
               NULL);
    struct sf_ids one, two;
    c.encoder.add_special = true;
    one = encode("one two", true);
    two = encode("a much longer document than that, cut at six tokens", true);
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    ck_assert_int_eq(one.id[0], 2048);
    ck_assert_int_eq(data.rows, 2);
    ck_assert_int_eq(sft_dataset_length(&data, 0), one.count);
    ck_assert_int_eq(sft_dataset_length(&data, 1), 6);
    ck_assert(memcmp(data.id + one.count, two.id, 6 * 4) == 0);
    ck_assert_int_eq(data.truncated_rows, 1);
    ck_assert_int_eq(data.truncated_tokens, two.count - 6);
    ck_assert_int_eq(data.longest, 6);
    ck_assert_int_eq(data.target[one.count - 1], SFT_NO_TARGET);
    sf_ids_free(&one), sf_ids_free(&two);
}
END_TEST

START_TEST(ids_are_taken_as_they_are)
{
    struct sft_dataset_config c =
        config(SFT_TEXT_BLOCKS, 4,
               put("i.jsonl", "{\"input_ids\": [1, 2, 3], \"attention_mask\": [1,1,1]}\n"
                              "{\"input_ids\": [4, 5, 6, 7], \"labels\": [9, -100, 8, -100]}\n"),
               NULL);
    const int32_t id[] = {1, 2, 3, 4, 5, 6, 7}, target[] = {2, 3, -100, -100, 8, -100, -100};
    c.encoder.tokenizer = NULL;
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    ck_assert_int_eq(data.rows, 2);
    ck_assert(memcmp(data.id, id, sizeof id) == 0);
    ck_assert(memcmp(data.target, target, sizeof target) == 0);
    ck_assert_int_eq(data.targets, 3);
    ck_assert_int_eq(data.longest, 4);
}
END_TEST

/* Each file is of a kind of its own; text that other rows follow ends there, and its tail with it. */
START_TEST(files_of_several_kinds)
{
    const char *a = "Call me Ishmael. Some years ago, ";
    struct sft_dataset_config c =
        config(SFT_TEXT_BLOCKS, 4, put("k.txt", a),
               put("k.jsonl", "{\"input_ids\": [1, 2, 3], \"labels\": [1, -100, 3]}\n"));
    struct sf_ids ids = encode(a, false);
    int64_t end[2], blocks = ids.count / 4;
    c.file_end = end;
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    ck_assert_int_eq(data.rows, blocks + 1);
    ck_assert_int_eq(data.tail_tokens, ids.count % 4);
    ck_assert_int_eq(end[0], blocks);
    ck_assert_int_eq(end[1], blocks + 1);
    ck_assert_mem_eq(data.id, ids.id, (size_t)blocks * 16);
    ck_assert_int_eq(data.id[data.start[blocks]], 1);
    ck_assert_int_eq(data.targets, 3 * blocks + 1);
    ck_assert_int_eq(sft_dataset_length(&data, blocks), 3);
    sf_ids_free(&ids);
}
END_TEST

/* Rows that say their number: [10 * file + row, 7]. */
START_TEST(files_count_by_their_weights)
{
    struct sft_dataset_config c =
        config(SFT_TEXT_BLOCKS, 4,
               put("w0.jsonl",
                   "{\"input_ids\": [1, 7]}\n{\"input_ids\": [2, 7]}\n{\"input_ids\": [3, 7]}\n"
                   "{\"input_ids\": [4, 7]}\n"),
               put("w1.jsonl", "{\"input_ids\": [11, 7]}\n{\"input_ids\": [12, 7]}\n"));
    const int64_t order[] = {3, 5, 0, 1, 4, 2};
    const int32_t want[] = {4, 1, 11, 12, 11, 12, 12};
    int64_t end[2], taken[2];
    c.file_end = end;
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    assert_ok(sft_dataset_weigh(&data, end, (double[]){0.5, 2.5}, 2, order, taken, &err), err);
    ck_assert_int_eq(taken[0], 2);
    ck_assert_int_eq(taken[1], 5);
    ck_assert_int_eq(data.rows, 7);
    ck_assert_int_eq(data.targets, 7);
    for (int i = 0; i < 7; i++)
        ck_assert_int_eq(data.id[data.start[i]], want[i]);
    const int64_t ends[] = {2, 7};
    assert_fails(sft_dataset_weigh(&data, ends, (double[]){1, 0.05}, 2, order, taken, &err),
                 SF_EINVAL, "a weight of 0.05 leaves none of 5 rows", err);
    assert_fails(sft_dataset_weigh(&data, ends, (double[]){-1, 1}, 2, order, taken, &err),
                 SF_EINVAL, "a weight of -1", err);
}
END_TEST

static const struct {
    const char *text, *message;
    int code;
} bad[] = {
    {"{\"text\": \"a b\"}\n{\"text\": 3}", "bad.jsonl: line 2: text", SF_EFORMAT},
    {"{\"text\": \"a b\"}\n{\"text\": ", "bad.jsonl: line 2: ", SF_EFORMAT},
    {"\n{\"txt\": \"a\"}", "line 2: a row has text, input_ids", SF_EFORMAT},
    {"[1]", "line 1: a row is", SF_EFORMAT},
    {"{\"text\": \"a\", \"input_ids\": [1]}", "a row of text and of input_ids", SF_EFORMAT},
    {"{\"text\": \"a\", \"labels\": [1]}", "a row of text with labels", SF_EFORMAT},
    {"{\"text\": \"a b\"}\n{\"input_ids\": [1, 2]}", "line 2: a row of input_ids, but line 1 of",
     SF_EFORMAT},
    {"{\"input_ids\": [1, 2]}\n{\"text\": \"a b\"}", "line 2: a row of text, but line 1 of",
     SF_EFORMAT},
    {"{\"input_ids\": [1, 2064]}", "line 1: token 1 has id 2064", SF_EFORMAT},
    {"{\"input_ids\": [1, -1]}", "input_ids[1] is -1", SF_EFORMAT},
    {"{\"input_ids\": [1, 2.5]}", "element 1: ", SF_EFORMAT},
    {"{\"input_ids\": 7}", "input_ids is", SF_EFORMAT},
    {"{\"input_ids\": [1, 2], \"labels\": [1]}", "1 labels for 2", SF_EFORMAT},
    {"{\"input_ids\": [1, 2], \"labels\": [1, 3000]}", "labels[1] is 3000", SF_EFORMAT},
    {"{\"input_ids\": [1, 2], \"labels\": [1, -100]}", "line 1: a row of 2 tokens without any",
     SF_EFORMAT},
    {"{\"input_ids\": [1]}", "a row of 1 tokens without any", SF_EFORMAT},
    {"{\"input_ids\": []}", "a row of 0 tokens without any", SF_EFORMAT},
    {"{\"input_ids\": [1, 2], \"attention_mask\": [0, 1]}", "attention_mask[0] is 0",
     SF_EUNSUPPORTED},
    {"{\"input_ids\": [1, 2, 3, 4, 5]}", "5 input_ids, more than", SF_EFORMAT},
    {"{\"text\": \"a b\"}\n{\"text\": \"\"}", "line 2: a document of 0 tokens", SF_EFORMAT},
    {"{\"text\": \"\xff\"}", "line 1: ", SF_EFORMAT},
    {"", "bad.jsonl: the dataset is empty", SF_EINVAL},
    {"\n \n", "bad.jsonl: the dataset is empty", SF_EINVAL},
};

START_TEST(bad_lines_are_refused)
{
    struct sft_dataset_config c =
        config(SFT_TEXT_DOCUMENTS, 4, put("bad.jsonl", bad[_i].text), NULL);
    assert_fails(sft_dataset_open(&data, &c, &err), bad[_i].code, bad[_i].message, err);
    ck_assert_ptr_null(data.id);
}
END_TEST

static char notes[4096];

static void keep_note(void *context, const char *text)
{
    (void)context;
    snprintf(notes + strlen(notes), sizeof notes - strlen(notes), "%s\n", text);
}

/* Rows of 2 to 10 ids, and one that says nothing. */
static const char *uneven(void)
{
    static char text[1024];
    text[0] = '\0';
    for (int length = 2; length < 11; length++) {
        strcat(text, "{\"input_ids\": [7");
        for (int i = 1; i < length; i++)
            strcat(text, ", 8");
        strcat(text, "]}\n");
    }
    strcat(text, "{\"input_ids\": [5, 6], \"labels\": [-100, -100]}\n");
    return put("uneven.jsonl", text);
}

START_TEST(rows_that_do_not_fit_are_counted_and_told)
{
    struct sft_dataset_config c = config(SFT_TEXT_DOCUMENTS, 4, uneven(), NULL);
    c.untrainable = SFT_UNTRAINABLE_SKIP;
    c.on_note = keep_note;
    c.too_long = SFT_LONG_TRUNCATE;
    notes[0] = '\0';
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    ck_assert_int_eq(data.rows, 9);
    ck_assert_int_eq(data.truncated_rows, 6);
    ck_assert_int_eq(data.truncated_tokens, 1 + 2 + 3 + 4 + 5 + 6);
    ck_assert_int_eq(data.untrainable_rows, 1);
    ck_assert_int_eq(data.tokens, 2 + 3 + 7 * 4);
    ck_assert_ptr_nonnull(
        strstr(notes, "uneven.jsonl: line 4: a row of 5 tokens is too long and cut\n"));
    ck_assert_ptr_nonnull(strstr(notes, "line 8: a row of 9 tokens is too long and cut; others"));
    ck_assert_ptr_null(strstr(notes, "line 9: "));
    ck_assert_ptr_nonnull(strstr(notes, "line 10: a row of 2 tokens has nothing to be trained on"));
    sft_dataset_free(&data);

    c.too_long = SFT_LONG_SKIP;
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    ck_assert_int_eq(data.rows, 3);
    ck_assert_int_eq(data.long_rows, 6);
    ck_assert_int_eq(data.truncated_rows, 0);
    sft_dataset_free(&data);

    c.too_long = SFT_LONG_ERROR;
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EFORMAT,
                 "uneven.jsonl: line 4: 5 input_ids, more than", err);
    c.too_long = SFT_LONG_TRUNCATE;
    c.untrainable = SFT_UNTRAINABLE_ERROR;
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EFORMAT, "uneven.jsonl: line 10: ", err);
    c.too_long = SFT_LONG_SKIP;
    c.untrainable = SFT_UNTRAINABLE_SKIP;
    c.max_length = 2;
    files[0] = put("all.jsonl", "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [1]}\n");
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EINVAL, "every row is left out", err);
}
END_TEST

START_TEST(a_split_moves_rows_and_nothing_else)
{
    struct sft_dataset_config c = config(SFT_TEXT_DOCUMENTS, 4, uneven(), NULL);
    struct sft_dataset all, held;
    const int64_t order[] = {6, 0, 3, 1, 2};
    c.too_long = SFT_LONG_TRUNCATE;
    c.untrainable = SFT_UNTRAINABLE_SKIP;
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    assert_ok(sft_dataset_open(&all, &c, &err), err);
    assert_ok(sft_dataset_split(&held, &data, order, 3, &err), err);
    ck_assert_int_eq(held.rows, 3);
    ck_assert_int_eq(data.rows, all.rows - 3);
    ck_assert_int_eq(held.tokens + data.tokens, all.tokens);
    ck_assert_int_eq(held.targets + data.targets, all.targets);
    int64_t at[2] = {0, 0};
    for (int64_t row = 0; row < all.rows; row++) {
        bool is_held = row == 0 || row == 3 || row == 6;
        const struct sft_dataset *d = is_held ? &held : &data;
        int64_t mine = at[is_held]++, length = sft_dataset_length(&all, row);
        ck_assert_int_eq(sft_dataset_length(d, mine), length);
        ck_assert_mem_eq(d->id + d->start[mine], all.id + all.start[row], (size_t)length * 4);
        ck_assert_mem_eq(d->target + d->start[mine], all.target + all.start[row],
                         (size_t)length * 4);
    }
    sft_dataset_free(&held);
    assert_fails(sft_dataset_split(&held, &data, order, 0, &err), SF_EINVAL, "0 of 6 rows", err);
    assert_fails(sft_dataset_split(&held, &data, order, 6, &err), SF_EINVAL, "6 of 6 rows", err);
    ck_assert_int_eq(data.rows, 6);
    sft_dataset_free(&all);
}
END_TEST

START_TEST(documents_follow_the_same_rules)
{
    struct sft_dataset_config c = config(
        SFT_TEXT_DOCUMENTS, 4,
        put("d.jsonl", "{\"text\": \"one two three four five six seven\"}\n{\"text\": \"\"}\n"
                       "{\"text\": \"a b\"}\n"),
        NULL);
    c.too_long = SFT_LONG_SKIP;
    c.untrainable = SFT_UNTRAINABLE_SKIP;
    struct sf_ids want = encode("a b", false);
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    ck_assert_int_eq(data.rows, 1);
    ck_assert_int_eq(data.long_rows, 1);
    ck_assert_int_eq(data.untrainable_rows, 1);
    ck_assert_int_eq(data.tokens, want.count);
    ck_assert_mem_eq(data.id, want.id, (size_t)want.count * sizeof *want.id);
    sf_ids_free(&want);
}
END_TEST

START_TEST(bad_files_are_refused)
{
    struct sft_dataset_config c = config(SFT_TEXT_BLOCKS, 4, put("x.txt", "good \xc3("), NULL);
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EFORMAT, "x.txt: ", err);
    ck_assert_ptr_nonnull(strstr(err.message, "5")); /* the offset */
    c = config(SFT_TEXT_BLOCKS, 4, put("x.csv", "a,b"), NULL);
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EINVAL, ".txt or .jsonl", err);
    c = config(SFT_TEXT_BLOCKS, 4, put("empty.txt", ""), NULL);
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EINVAL, "the dataset is empty", err);
    c = config(SFT_TEXT_BLOCKS, 4, scout_scratch_path("none.txt"), NULL);
    assert_fails(sft_dataset_open(&data, &c, &err), SF_ENOENT, "none.txt", err);
    c = config(SFT_TEXT_BLOCKS, 400, put("short.txt", "a b c"), NULL);
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EINVAL, "make no row of 400", err);
    c = config(SFT_TEXT_BLOCKS, 1, put("short.txt", "a b c"), NULL);
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EINVAL, "rows of 1", err);
    c = config(SFT_TEXT_BLOCKS, 2, put("t.txt", "a b c"), NULL);
    c.encoder.tokenizer = NULL;
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EUNSUPPORTED, "no tokenizer.json", err);
    c = config(SFT_TEXT_BLOCKS, 2, put("t.txt", "a b <|image|>"), NULL);
    c.encoder.vocabulary = 2050;
    assert_fails(sft_dataset_open(&data, &c, &err), SF_EFORMAT, "outside the model's vocabulary",
                 err);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("dataset");
    TCase *tc = tcase_create("dataset");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, blocks_are_cut_from_all_text);
    tcase_add_test(tc, documents_are_rows_of_their_own);
    tcase_add_test(tc, ids_are_taken_as_they_are);
    tcase_add_test(tc, files_of_several_kinds);
    tcase_add_test(tc, files_count_by_their_weights);
    tcase_add_loop_test(tc, bad_lines_are_refused, 0, sizeof bad / sizeof bad[0]);
    tcase_add_test(tc, rows_that_do_not_fit_are_counted_and_told);
    tcase_add_test(tc, a_split_moves_rows_and_nothing_else);
    tcase_add_test(tc, documents_follow_the_same_rules);
    tcase_add_test(tc, bad_files_are_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
