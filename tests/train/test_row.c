/* Rows as tokens and labels: transformers' ids and masks, TRL's completions, every kind, every refusal. */
#include "train/data/row.h"

#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/jobs.h"
#include "tests/support/support.h"

static struct sf_arena arena;
static struct sft_row_encoder encoder;
static struct sft_row_tokens tokens;

static char *read_file(const char *path, uint64_t *bytes)
{
    struct sf_err err = {0};
    char *text;
    assert_ok(sf_read_file(&text, bytes, &arena, scout_source_path(path), 1 << 24, &err), err);
    return text;
}

static void open_encoder(const char *json)
{
    struct sf_err err = {0};
    struct sf_tokenizer *tokenizer;
    assert_ok(sf_tokenizer_open(&tokenizer, json, strlen(json), &err), err);
    encoder = (struct sft_row_encoder){.tokenizer = tokenizer,
                                       .vocabulary = 2064,
                                       .chat = SF_CHAT_LLAMA4,
                                       .add_special = true,
                                       .end_of_text = sf_tokenizer_id(tokenizer, "<|eot|>")};
    assert_ok(sft_row_tokens_open(&tokens, &encoder, &err), err);
}

static void setup(void)
{
    uint64_t bytes;
    arena = (struct sf_arena){0};
    open_encoder(read_file("examples/tiny-scout/tokenizer.json", &bytes));
}

static void close_encoder(void)
{
    union {
        const struct sf_tokenizer *read;
        struct sf_tokenizer *owned;
    } tokenizer = {encoder.tokenizer};
    sft_row_tokens_close(&tokens);
    sf_tokenizer_close(tokenizer.owned);
}

static void teardown(void)
{
    close_encoder();
    sf_arena_free(&arena);
}

static struct sf_json *parse(const char *text)
{
    struct sf_err err = {0};
    struct sf_json *root;
    assert_ok(sf_json_parse(&root, text, strlen(text), &err), err);
    return root;
}

static void encode(const struct sf_json *row)
{
    struct sf_err err = {0};
    assert_ok(sft_row_encode(&tokens, &encoder, row, &err), err);
    ck_assert_int_eq(tokens.id.count, tokens.label.count);
}

static void encode_line(const char *line)
{
    struct sf_json *row = parse(line);
    encode(row);
    sf_json_free(row);
}

static void compare_ids(const struct sf_json *want, const char *what)
{
    int64_t i = 0, id;
    for (const struct sf_json *v = sf_json_first(want); v; v = sf_json_next(v), i++) {
        ck_assert_int_eq(sf_json_as_int(&id, v, "id", NULL), SF_OK);
        ck_assert_msg(i < tokens.id.count && tokens.id.id[i] == id, "%s: token %d", what, (int)i);
    }
    ck_assert_msg(i == tokens.id.count, "%s: %d tokens, not %d", what, (int)tokens.id.count,
                  (int)i);
}

/* Trained are exactly the places of `want`. */
static void compare_trained(const struct sf_json *want, const char *what)
{
    const struct sf_json *next = sf_json_first(want);
    int64_t trained = 0;
    for (int64_t i = 0; i < tokens.id.count; i++) {
        int64_t place = -1;
        if (next)
            ck_assert_int_eq(sf_json_as_int(&place, next, "place", NULL), SF_OK);
        int32_t label = place == i ? tokens.id.id[i] : SFT_NO_TARGET;
        ck_assert_msg(tokens.label.id[i] == label, "%s: label %d is %d, not %d", what, (int)i,
                      (int)tokens.label.id[i], (int)label);
        trained += place == i && i > 0;
        next = place == i ? sf_json_next(next) : next;
    }
    ck_assert_ptr_null(next);
    ck_assert_int_eq(tokens.trained, trained);
}

static int check_chat(const struct sf_json *golden, const char *line)
{
    const struct sf_json *row = sf_json_get(golden, "row"),
                         *trained = sf_json_get(golden, "trained");
    const char *format;
    ck_assert_int_eq(sf_json_as_string(&format, sf_json_get(golden, "format"), "format", NULL), 0);
    ck_assert(sf_chat_format_from_name(&encoder.chat, format));
    encoder.train_on = SFT_TRAIN_ON_DEFAULT;
    encode(row);
    compare_ids(sf_json_get(golden, "ids"), line);
    compare_trained(trained, line);
    encoder.train_on = SFT_TRAIN_ON_ASSISTANT;
    encode(row);
    compare_trained(trained, line);
    encoder.train_on = SFT_TRAIN_ON_LAST;
    encode(row);
    compare_trained(sf_json_get(golden, "last"), line);
    encoder.train_on = SFT_TRAIN_ON_ALL;
    encode(row);
    ck_assert_mem_eq(tokens.id.id, tokens.label.id, (size_t)tokens.id.count * 4);
    return sf_json_count(trained) > 0;
}

START_TEST(conversations_are_those_of_transformers)
{
    uint64_t bytes;
    int rows = 0, trained = 0;
    char *line = read_file("tests/golden/chat/chat.jsonl", &bytes);
    for (char *end; (end = strchr(line, '\n')); line = end + 1, rows++) {
        *end = 0;
        struct sf_json *golden = parse(line);
        trained += check_chat(golden, line);
        sf_json_free(golden);
    }
    ck_assert_int_ge(rows, 120);
    ck_assert_int_ge(trained, 110);
}
END_TEST

static char *replace(const char *text, const char *here, const char *with)
{
    const char *at = strstr(text, here);
    ck_assert_ptr_nonnull(at);
    size_t before = (size_t)(at - text);
    char *out = sf_arena_alloc(&arena, strlen(text) + strlen(with) + 1);
    ck_assert_ptr_nonnull(out);
    memcpy(out, text, before);
    strcpy(stpcpy(out + before, with), at + strlen(here));
    return out;
}

/* The tokenizer that make_chat_vectors.py makes in with_longer_line_ends. */
static char *longer_line_ends(void)
{
    uint64_t bytes;
    char *json = read_file("examples/tiny-scout/tokenizer.json", &bytes);
    json = replace(json,
                   "\"\xc4\xa0"
                   "comb\"",
                   "\"\\u010a\\u010a\"");
    json = replace(json,
                   "\"\xc4\xa0"
                   "exped\"",
                   "\"\\u010a\\u010a\\u010a\"");
    char *last = NULL;
    for (char *at = json; (at = strstr(at, "\"\xc4\xa0"
                                           "com\""));
         at++)
        last = at;
    ck_assert_ptr_nonnull(last);
    *last = 0;
    return sf_arena_printf(&arena, "%s\"\\u010a\",\"\\u010a\"],[\"\\u010a\\u010a\",\"\\u010a\"]]}}",
                           json);
}

/* A token of three line ends begins in the header and ends in the turn: it is trained. */
START_TEST(tokens_that_begin_in_the_header)
{
    uint64_t bytes;
    int64_t straddling = 0;
    close_encoder();
    open_encoder(longer_line_ends());
    char *line = read_file("tests/golden/chat/straddle.jsonl", &bytes);
    for (char *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        struct sf_json *golden = parse(line);
        check_chat(golden, line);
        encoder.train_on = SFT_TRAIN_ON_DEFAULT;
        encode(sf_json_get(golden, "row"));
        for (int64_t i = 1; i < tokens.id.count; i++)
            straddling += tokens.id.id[i] == 2047 && tokens.label.id[i] == 2047 &&
                          tokens.label.id[i - 1] == SFT_NO_TARGET;
        sf_json_free(golden);
    }
    ck_assert_int_eq(straddling, 2);
}
END_TEST

START_TEST(completions_are_those_of_trl)
{
    uint64_t bytes;
    int rows = 0;
    char *line = read_file("tests/golden/chat/completions.jsonl", &bytes);
    for (char *end; (end = strchr(line, '\n')); line = end + 1, rows++) {
        *end = 0;
        struct sf_json *golden = parse(line);
        int64_t untrained;
        ck_assert_int_eq(
            sf_json_as_int(&untrained, sf_json_get(golden, "untrained"), "untrained", NULL), 0);
        encode(sf_json_get(golden, "row"));
        compare_ids(sf_json_get(golden, "ids"), line);
        for (int64_t i = 0; i < tokens.id.count; i++)
            ck_assert_msg(tokens.label.id[i] == (i < untrained ? SFT_NO_TARGET : tokens.id.id[i]),
                          "%s: label %d", line, (int)i);
        sf_json_free(golden);
    }
    ck_assert_int_ge(rows, 15);
}
END_TEST

/* A copy of ids and labels, to compare two rows with. */
struct copy {
    struct sf_ids id, label;
};

static struct copy copy_of(const char *line)
{
    struct copy c = {0};
    encode_line(line);
    ck_assert_int_eq(sf_ids_append(&c.id, tokens.id.id, tokens.id.count, NULL), SF_OK);
    ck_assert_int_eq(sf_ids_append(&c.label, tokens.label.id, tokens.label.count, NULL), SF_OK);
    return c;
}

static void assert_same(const char *line, const char *other)
{
    struct copy a = copy_of(line), b = copy_of(other);
    ck_assert_int_eq(a.id.count, b.id.count);
    ck_assert_mem_eq(a.id.id, b.id.id, (size_t)a.id.count * 4);
    ck_assert_mem_eq(a.label.id, b.label.id, (size_t)a.id.count * 4);
    sf_ids_free(&a.id);
    sf_ids_free(&a.label);
    sf_ids_free(&b.id);
    sf_ids_free(&b.label);
}

START_TEST(kinds_that_say_the_same)
{
    const char *messages =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Add.\\n1 2\"},{\"role\":"
        "\"assistant\",\"content\":\"3\"}]}";
    assert_same(
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"Add.\\n1 2\"},{\"from\":\"gpt\","
        "\"value\":\"3\"}]}",
        messages);
    assert_same("{\"instruction\":\"Add.\",\"input\":\"1 2\",\"output\":\"3\"}", messages);
    assert_same(
        "{\"prompt\":[{\"role\":\"user\",\"content\":\"Add.\\n1 2\"}],\"completion\":[{\"role\":"
        "\"assistant\",\"content\":\"3\"}]}",
        messages);
    assert_same("{\"instruction\":\"Add.\\n1 2\",\"input\":\"\",\"output\":\"3\"}", messages);
    assert_same("{\"instruction\":\"Add.\\n1 2\",\"output\":\"3\",\"id\":4}", messages);
    encoder.chat = SF_CHAT_NONE;
    assert_same("{\"instruction\":\"Add.\",\"input\":\"1 2\",\"output\":\"3\"}",
                "{\"prompt\":\"Below is an instruction that describes a task, paired with an input "
                "that provides further context. Write a response that appropriately completes the "
                "request.\\n\\n### Instruction:\\nAdd.\\n\\n### Input:\\n1 2\\n\\n### "
                "Response:\\n\",\"completion\":\"3\"}");
    assert_same(
        "{\"instruction\":\"Add.\",\"input\":null,\"output\":\"3\"}",
        "{\"prompt\":\"Below is an instruction that describes a task. Write a response that "
        "appropriately completes the request.\\n\\n### Instruction:\\nAdd.\\n\\n### "
        "Response:\\n\",\"completion\":\"3\"}");
}
END_TEST

START_TEST(texts_and_ids)
{
    encode_line("{\"text\":\"the whale\"}");
    ck_assert_int_eq(tokens.kind, SFT_ROW_TEXT);
    ck_assert_int_eq(tokens.id.id[0], 2048);
    ck_assert_mem_eq(tokens.id.id, tokens.label.id, (size_t)tokens.id.count * 4);
    ck_assert_int_eq(tokens.trained, tokens.id.count - 1);
    encode_line("{\"input_ids\":[5,6,7],\"labels\":[5,-100,7]}");
    ck_assert_int_eq(tokens.id.count, 3);
    ck_assert_int_eq(tokens.label.id[1], SFT_NO_TARGET);
    ck_assert_int_eq(tokens.trained, 1); /* nothing comes before the first */
    encode_line("{\"input_ids\":[5,6],\"labels\":[-100,-100]}");
    ck_assert_int_eq(tokens.trained, 0);
    encode_line("{\"input_ids\":[]}");
    ck_assert_int_eq(tokens.id.count, 0);
    encoder.train_on = SFT_TRAIN_ON_ALL;
    encode_line("{\"prompt\":\"a\",\"completion\":\"b\"}");
    ck_assert_mem_eq(tokens.id.id, tokens.label.id, (size_t)tokens.id.count * 4);
}
END_TEST

static const struct {
    const char *row, *message;
    int code;
} bad[] = {
    {"[]", "a row is an array, not an object", SF_EFORMAT},
    {"{}", "this one's keys: none", SF_EFORMAT},
    {"{\"txt\":1,\"id\":2}", "this one's keys: txt, id", SF_EFORMAT},
    {"{\"prompt\":\"a\"}", "this one's keys: prompt", SF_EFORMAT},
    {"{\"text\":\"a\",\"messages\":[]}", "a row of text and of messages", SF_EFORMAT},
    {"{\"prompt\":\"a\",\"completion\":\"b\",\"text\":\"c\"}",
     "a row of text and of prompt and completion", SF_EFORMAT},
    {"{\"text\":3}", "text", SF_EFORMAT},
    {"{\"text\":\"a\",\"labels\":[1]}", "labels belong to input_ids", SF_EFORMAT},
    {"{\"prompt\":[],\"completion\":\"b\"}", "prompt", SF_EFORMAT},
    {"{\"prompt\":[{\"role\":\"user\",\"content\":\"a\"}],\"completion\":\"b\"}",
     "prompt and completion: a conversation is a string", SF_EFORMAT},
    {"{\"prompt\":[{\"role\":\"user\",\"content\":\"a\"}],\"completion\":[{\"role\":\"user\","
     "\"content\":\"b\"}]}",
     "the completion does not begin with what the assistant says", SF_EFORMAT},
    {"{\"prompt\":\"a\",\"completion\":[]}", "completion", SF_EFORMAT},
    {"{\"instruction\":\"a\",\"input\":4,\"output\":\"b\"}", "input", SF_EFORMAT},
    {"{\"input_ids\":[1,2064]}", "token 1 has id 2064, outside the model's vocabulary", SF_EFORMAT},
    {"{\"input_ids\":[1],\"labels\":[2064]}", "labels[0] is 2064", SF_EFORMAT},
    {"{\"input_ids\":[1],\"labels\":[1,2]}", "2 labels for 1 input_ids", SF_EFORMAT},
    {"{\"input_ids\":[-1]}", "input_ids[0] is -1", SF_EFORMAT},
    {"{\"input_ids\":[1],\"attention_mask\":[0]}", "attention_mask[0] is 0", SF_EUNSUPPORTED},
    {"{\"messages\":\"x\"}", "a conversation is a string", SF_EFORMAT},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
     "message 0: content of type \"image\"", SF_EUNSUPPORTED},
};
enum { BAD = sizeof bad / sizeof bad[0] };

START_TEST(bad_rows_are_refused)
{
    struct sf_err err = {0};
    struct sf_json *row = parse(bad[_i].row);
    assert_fails(sft_row_encode(&tokens, &encoder, row, &err), bad[_i].code, bad[_i].message, err);
    sf_json_free(row);
}
END_TEST

START_TEST(parts_that_are_not_there)
{
    struct sf_err err = {0};
    struct sf_json *row = parse("{\"text\":\"a\"}");
    encoder.train_on = SFT_TRAIN_ON_ASSISTANT;
    assert_fails(sft_row_encode(&tokens, &encoder, row, &err), SF_EINVAL,
                 "a row of text has no part that an assistant said", err);
    encoder.train_on = SFT_TRAIN_ON_DEFAULT;
    const struct sf_tokenizer *tokenizer = encoder.tokenizer;
    encoder.tokenizer = NULL;
    assert_fails(sft_row_encode(&tokens, &encoder, row, &err), SF_EUNSUPPORTED,
                 "carries no tokenizer.json", err);
    sf_json_free(row);
    encode_line("{\"input_ids\":[1,2]}");
    ck_assert_int_eq(tokens.trained, 1);
    encoder.tokenizer = tokenizer;
}
END_TEST

/* ---- many threads, one encoder ---- */

struct crowd {
    struct sf_json *row;
    int64_t trained[8];
};

static int encode_job(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct crowd *c = context;
    struct sft_row_tokens mine;
    (void)worker;
    int code = sft_row_tokens_open(&mine, &encoder, err);
    for (int i = 0; !code && i < 20; i++)
        code = sft_row_encode(&mine, &encoder, c->row, err);
    c->trained[index] = mine.trained;
    sft_row_tokens_close(&mine);
    return code;
}

START_TEST(threads_share_an_encoder)
{
    struct sf_err err = {0};
    struct crowd c = {.row =
                          parse("{\"messages\":[{\"role\":\"user\",\"content\":\"Who?\"},{\"role\":"
                                "\"assistant\",\"content\":\"Call me Ishmael.\"}]}")};
    encode(c.row);
    ck_assert_int_gt(tokens.trained, 3);
    assert_ok(sf_jobs_run(encode_job, &c, 8, 4, &err), err);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(c.trained[i], tokens.trained);
    sf_json_free(c.row);
}
END_TEST

START_TEST(a_model_without_a_format)
{
    struct sf_err err = {0};
    struct sf_json *chat = parse("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    struct sf_json *alpaca = parse("{\"instruction\":\"x\",\"output\":\"y\"}");
    encoder.chat = SF_CHAT_NONE;
    assert_fails(sft_row_encode(&tokens, &encoder, chat, &err), SF_EUNSUPPORTED,
                 "a conversation, but the model has no chat format", err);
    assert_ok(sft_row_encode(&tokens, &encoder, alpaca, &err), err);
    encoder.no_chat = "its template is odd";
    assert_fails(sft_row_encode(&tokens, &encoder, chat, &err), SF_EUNSUPPORTED,
                 "a conversation, but its template is odd", err);
    assert_fails(sft_row_encode(&tokens, &encoder, alpaca, &err), SF_EUNSUPPORTED,
                 "instruction and output, but its template is odd", err);
    sf_json_free(chat);
    sf_json_free(alpaca);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("row");
    TCase *c = tcase_create("rows");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, conversations_are_those_of_transformers);
    tcase_add_test(c, tokens_that_begin_in_the_header);
    tcase_add_test(c, completions_are_those_of_trl);
    tcase_add_test(c, kinds_that_say_the_same);
    tcase_add_test(c, texts_and_ids);
    tcase_add_loop_test(c, bad_rows_are_refused, 0, BAD);
    tcase_add_test(c, parts_that_are_not_there);
    tcase_add_test(c, a_model_without_a_format);
    tcase_add_test(c, threads_share_an_encoder);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
