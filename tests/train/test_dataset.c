/* Datasets: what becomes a row, what is left out, and what is refused with its place. */
#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "tests/train/flat_rows.h"

enum { VOCABULARY = 2064 };

static struct sf_tokenizer *tokenizer;
static struct sf_err err;
static struct sft_dataset data;
static struct flat_rows flat;
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
    ck_assert_int_eq(data.counts.tail_tokens, first.count % 4);
    ck_assert_int_eq(data.tokens, data.rows * 4);
    ck_assert_int_eq(data.targets, data.rows * 3);
    flatten(&flat, &data);
    ck_assert(memcmp(flat.id, first.id, (size_t)data.tokens * 4) == 0);
    for (int64_t i = 0; i < data.tokens; i++)
        ck_assert_int_eq(flat.target[i], i % 4 == 3 ? SFT_NO_TARGET : first.id[i + 1]);
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
    flatten(&flat, &data);
    ck_assert(memcmp(flat.id + one.count, two.id, 6 * 4) == 0);
    ck_assert_int_eq(data.counts.truncated_rows, 1);
    ck_assert_int_eq(data.counts.truncated_tokens, two.count - 6);
    ck_assert_int_eq(data.longest, 6);
    ck_assert_int_eq(flat.target[one.count - 1], SFT_NO_TARGET);
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
    flatten(&flat, &data);
    ck_assert(memcmp(flat.id, id, sizeof id) == 0);
    ck_assert(memcmp(flat.target, target, sizeof target) == 0);
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
    ck_assert_int_eq(data.counts.tail_tokens, ids.count % 4);
    ck_assert_int_eq(end[0], blocks);
    ck_assert_int_eq(end[1], blocks + 1);
    flatten(&flat, &data);
    ck_assert_mem_eq(flat.id, ids.id, (size_t)blocks * 16);
    ck_assert_int_eq(flat.id[flat.start[blocks]], 1);
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
    flatten(&flat, &data);
    for (int i = 0; i < 7; i++)
        ck_assert_int_eq(flat.id[flat.start[i]], want[i]);
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
    ck_assert_ptr_null(data.source);
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
    ck_assert_int_eq(data.counts.truncated_rows, 6);
    ck_assert_int_eq(data.counts.truncated_tokens, 1 + 2 + 3 + 4 + 5 + 6);
    ck_assert_int_eq(data.counts.untrainable_rows, 1);
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
    ck_assert_int_eq(data.counts.long_rows, 6);
    ck_assert_int_eq(data.counts.truncated_rows, 0);
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
        sft_dataset_read(flat.id, flat.target, d, mine);
        sft_dataset_read(flat.id + 64, flat.target + 64, &all, row);
        ck_assert_mem_eq(flat.id, flat.id + 64, (size_t)length * 4);
        ck_assert_mem_eq(flat.target, flat.target + 64, (size_t)length * 4);
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
    ck_assert_int_eq(data.counts.long_rows, 1);
    ck_assert_int_eq(data.counts.untrainable_rows, 1);
    ck_assert_int_eq(data.tokens, want.count);
    flatten(&flat, &data);
    ck_assert_mem_eq(flat.id, want.id, (size_t)want.count * sizeof *want.id);
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

/* ---- many lines, on any number of threads ---- */

enum { MANY = 3000 };

/* Text and ids in turn would be two kinds: conversations of some 10 to 1,000 bytes. broken, unkind: lines
 * that are no rows; 0: none. */
static const char *many_lines(const char *name, int64_t broken, int64_t unkind)
{
    struct sf_arena arena = {0};
    struct scout_random r = {9};
    char *text = sf_arena_alloc(&arena, MANY * 1200), *at = text;
    for (int64_t i = 1; i <= MANY; i++) {
        at += sprintf(at, "{\"prompt\": \"%lld", (long long)i);
        for (uint64_t words = scout_random_u64(&r) % 100; words > 0; words--)
            at += sprintf(at, " word%d", (int)(scout_random_u64(&r) % 10));
        at += sprintf(at, "\", \"%s\": \"so it is\"}\n", i == unkind ? "response" : "completion");
        if (i == broken)
            at[-3] = 7;
        if (i % 400 == 0)
            at = stpcpy(at, "\n  \n");
    }
    const char *path = scout_scratch_path(name);
    assert_ok(sf_write_file(path, text, (uint64_t)(at - text), &err), err);
    sf_arena_free(&arena);
    return path;
}

static struct sft_dataset_config many_config(const char *path, int threads)
{
    struct sft_dataset_config c = config(SFT_TEXT_DOCUMENTS, 200, path, NULL);
    c.threads = threads;
    c.too_long = SFT_LONG_SKIP;
    return c;
}

static void assert_same(const struct sft_dataset *a, const struct sft_dataset *b)
{
    ck_assert_int_eq(a->rows, b->rows);
    ck_assert_int_eq(a->targets, b->targets);
    ck_assert_int_eq(a->source->tokens, b->source->tokens);
    ck_assert_mem_eq(a->source->token, b->source->token,
                     (size_t)a->source->tokens * sizeof *a->source->token);
    ck_assert_mem_eq(a->source->row, b->source->row,
                     (size_t)a->source->rows * sizeof *a->source->row);
    ck_assert_mem_eq(&a->counts, &b->counts, sizeof a->counts);
    ck_assert_int_eq(a->source->notes, b->source->notes);
    for (int64_t i = 0; i < a->source->files + a->source->notes; i++)
        ck_assert_str_eq(sft_tokens_string(a->source, i), sft_tokens_string(b->source, i));
}

static int64_t progress_calls, notes_told;
static uint64_t progress_done, progress_bytes;

static void on_progress(void *context, uint64_t done, uint64_t bytes)
{
    (void)context;
    ck_assert_uint_ge(done, progress_done);
    progress_done = done;
    progress_bytes = bytes;
    progress_calls++;
}

static void on_note(void *context, const char *text)
{
    (void)context;
    notes_told += strstr(text, "row of") != NULL;
}

START_TEST(threads_change_nothing)
{
    const char *path = many_lines("many.jsonl", 0, 0);
    struct sft_dataset_config c = many_config(path, 1);
    struct sft_dataset other;
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    ck_assert_int_gt(data.rows, MANY / 2);
    ck_assert_int_eq(data.rows + data.counts.long_rows, MANY);
    ck_assert_int_gt(data.counts.long_rows, 9);
    ck_assert_int_eq(data.source->notes, SFT_NOTES_MOST);
    for (int threads = 2; threads <= 7; threads += 5) {
        progress_calls = 0;
        progress_done = 0;
        c = many_config(path, threads);
        c.on_progress = on_progress;
        assert_ok(sft_dataset_open(&other, &c, &err), err);
        assert_same(&other, &data);
        ck_assert_uint_eq(progress_done, progress_bytes);
        ck_assert_int_ge(progress_calls, 1);
        sft_dataset_free(&other);
    }
}
END_TEST

/* Lines of one job, of neighbours, and far apart: the first one counts. */
START_TEST(the_first_bad_line_is_told_whatever_the_threads)
{
    static const int64_t pair[][2] = {{2, 3}, {3, 2}, {MANY, 7}, {150, 1900}, {1900, 150}};
    char part[32];
    for (size_t i = 0; i < sizeof pair / sizeof pair[0]; i++) {
        const char *path = many_lines("bad.jsonl", pair[i][0], pair[i][1]);
        int64_t first = pair[i][0] < pair[i][1] ? pair[i][0] : pair[i][1];
        first += first / 400 * 2 - (first % 400 == 0 ? 2 : 0); /* blank lines */
        snprintf(part, sizeof part, "bad.jsonl: line %lld: ", (long long)first);
        for (int threads = 1; threads <= 8; threads += 7) {
            struct sft_dataset_config c = many_config(path, threads);
            assert_fails(sft_dataset_open(&data, &c, &err), SF_EFORMAT, part, err);
        }
    }
}
END_TEST

/* ---- the cache ---- */

static bool stop(void)
{
    return true;
}

START_TEST(a_cache_gives_the_same_rows_again)
{
    const char *path = many_lines("cached.jsonl", 0, 0), *cache = scout_scratch_path("c.tokens");
    struct sft_dataset_config c = many_config(path, 2);
    struct sft_dataset other;
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    c.cache = cache;
    c.cache_identity = "this model";
    c.on_note = on_note;
    c.interrupted = stop;
    assert_fails(sft_dataset_open(&other, &c, &err), SF_EINTERRUPTED, "stopped", err);
    ck_assert(!sf_file_exists(cache));
    c.interrupted = NULL;
    for (int time = 0; time < 2; time++) { /* made, then found; the notes are told both times */
        notes_told = 0;
        assert_ok(sft_dataset_open(&other, &c, &err), err);
        ck_assert_int_eq(other.cached, time == 1);
        ck_assert_int_eq(notes_told, SFT_NOTES_MOST);
        assert_same(&other, &data);
        assert_ok(sft_tokens_check(other.source, &err), err);
        sft_dataset_free(&other);
    }
}
END_TEST

/* Whatever the tokens follow from is in the key. */
START_TEST(another_option_or_file_makes_it_anew)
{
    const char *path = put("k.jsonl", "{\"prompt\": \"a\", \"completion\": \"b c d\"}\n");
    const char *same = put("l.jsonl", "{\"prompt\": \"a\", \"completion\": \"b c d\"}\n");
    struct sft_dataset_config c = many_config(path, 1), changed;
    int64_t end[1] = {0};
    c.cache = scout_scratch_path("k.tokens");
    for (int i = 0; i < 12; i++) {
        assert_ok(sft_dataset_open(&data, &c, &err), err);
        sft_dataset_free(&data);
        changed = c;
        const char *name = same;
        changed.max_length += i == 0;
        changed.mode = i == 1 ? SFT_TEXT_BLOCKS : c.mode;
        changed.too_long = i == 2 ? SFT_LONG_TRUNCATE : c.too_long;
        changed.untrainable = i == 3 ? SFT_UNTRAINABLE_SKIP : c.untrainable;
        changed.file_end = i == 4 ? end : NULL;
        changed.encoder.vocabulary += i == 5;
        changed.encoder.train_on = i == 6 ? SFT_TRAIN_ON_ALL : c.encoder.train_on;
        changed.encoder.add_special = i == 7;
        changed.encoder.end_of_text = i == 8 ? 5 : -1;
        changed.cache_identity = i == 9 ? "another" : NULL;
        changed.file = i == 10 ? &name : c.file;
        if (i == 11)
            put("k.jsonl", "{\"prompt\": \"a\", \"completion\": \"b c e\"}\n");
        assert_ok(sft_dataset_open(&data, &changed, &err), err);
        ck_assert_msg(!data.cached, "change %d", i);
        sft_dataset_free(&data);
        assert_ok(sft_dataset_open(&data, &changed, &err), err);
        ck_assert(data.cached);
        sft_dataset_free(&data);
    }
}
END_TEST

START_TEST(a_damaged_cache_is_told_and_made_anew)
{
    const char *path = many_lines("d.jsonl", 0, 0), *cache = scout_scratch_path("d.tokens");
    struct sft_dataset_config c = many_config(path, 2);
    struct sf_arena arena = {0};
    char *bytes;
    uint64_t count;
    c.cache = cache;
    assert_ok(sft_dataset_open(&data, &c, &err), err);
    assert_ok(sf_read_file(&bytes, &count, &arena, cache, 1 << 26, &err), err);
    bytes[count / 2] ^= 1;
    assert_ok(sf_write_file(cache, bytes, count, &err), err);
    struct sft_dataset other;
    assert_ok(sft_dataset_open(&other, &c, &err), err);
    ck_assert(!other.cached);
    assert_same(&other, &data);
    sft_dataset_free(&other);
    assert_ok(sft_dataset_open(&other, &c, &err), err);
    ck_assert(other.cached);
    sft_dataset_free(&other);
    sf_arena_free(&arena);
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
    tcase_add_test(tc, threads_change_nothing);
    tcase_add_test(tc, the_first_bad_line_is_told_whatever_the_threads);
    tcase_add_test(tc, a_cache_gives_the_same_rows_again);
    tcase_add_test(tc, another_option_or_file_makes_it_anew);
    tcase_add_test(tc, a_damaged_cache_is_told_and_made_anew);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
