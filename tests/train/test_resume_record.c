/* resume.json: what is written is read again; what is not ours is refused. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/resume_record.h"

static struct sf_arena arena;
static struct sf_err err;

static void teardown(void)
{
    sf_arena_free(&arena);
}

static struct sft_resume_record example(void)
{
    static struct sft_kept_file files[] = {{"adapter_config.json", 12, {1, 2}},
                                           {"optimizer.bin", 1u << 30, {UINT64_MAX, 3}}};
    struct sft_resume_record r = {.state = sft_run_state_new(), .file = files, .files = 2};
    r.state.step = 7;
    r.state.tokens = 1234;
    r.state.first_loss = 5.0 / 3;
    r.state.last_loss = 1e-300;
    r.state.evaluated = 6;
    r.state.eval_last = 0.1;
    sft_facts_add(&r.run, &arena, "model", "%s", "ab\"c\n\xc3\xa9");
    sft_facts_add_double(&r.run, &arena, "learning-rate", 1.0 / 3);
    sft_facts_add(&r.place, &arena, "device", "cpu");
    return r;
}

static char *text_of(const struct sft_resume_record *r, uint64_t *bytes)
{
    char *text;
    assert_ok(sft_resume_record_write(&text, bytes, &arena, r, &err), err);
    ck_assert_uint_eq(*bytes, strlen(text));
    return text;
}

START_TEST(what_is_written_is_read)
{
    struct sft_resume_record r = example(), back;
    uint64_t bytes, again_bytes;
    char *text = text_of(&r, &bytes);
    assert_ok(sft_resume_record_read(&back, &arena, text, bytes, &err), err);
    ck_assert_int_eq(back.state.step, 7);
    ck_assert_int_eq(back.state.best_step, -1);
    ck_assert_double_eq(back.state.first_loss, 5.0 / 3);
    ck_assert_double_eq(back.state.last_loss, 1e-300);
    ck_assert(isnan(back.state.best_loss));
    ck_assert_int_eq(back.files, 2);
    ck_assert_uint_eq(back.file[1].bytes, 1u << 30);
    ck_assert_uint_eq(back.file[1].hash.low, UINT64_MAX);
    ck_assert_ptr_null(sft_facts_differences(&arena, &r.run, &back.run));
    ck_assert_str_eq(text_of(&back, &again_bytes), text);
}
END_TEST

/* One byte changed anywhere, or one lost at the end: always noticed. */
START_TEST(every_byte_counts)
{
    struct sft_resume_record r = example(), back;
    uint64_t bytes;
    char *text = text_of(&r, &bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        text[i] ^= 1;
        ck_assert_int_ne(sft_resume_record_read(&back, &arena, text, bytes, &err), SF_OK);
        text[i] ^= 1;
        ck_assert_int_ne(sft_resume_record_read(&back, &arena, text, i, &err), SF_OK);
    }
    assert_ok(sft_resume_record_read(&back, &arena, text, bytes, &err), err);
}
END_TEST

/* A record with another text in the place of `from`, its checksum right again. */
static void refused(const char *from, const char *to, int code, const char *message)
{
    struct sft_resume_record r = example(), back;
    uint64_t bytes;
    char *text = text_of(&r, &bytes), *at = strstr(text, from), *end = strstr(text, ",\"checksum");
    ck_assert_msg(at && at < end, "no %s in %s", from, text);
    char *body = sf_arena_printf(&arena, "%.*s%s%.*s", (int)(at - text), text, to,
                                 (int)(end - at - (long)strlen(from)), at + strlen(from));
    struct sf_hash128 h = sf_hash128(body, strlen(body));
    text = sf_arena_printf(&arena, "%s,\"checksum\":\"%016llx%016llx\"}\n", body,
                           (unsigned long long)h.high, (unsigned long long)h.low);
    assert_fails(sft_resume_record_read(&back, &arena, text, strlen(text), &err), code, message,
                 err);
}

START_TEST(what_makes_no_sense_is_refused)
{
    refused("scout-resume", "scout-other", SF_EFORMAT, "scout-other");
    refused("\"version\": 1", "\"version\": 2", SF_EUNSUPPORTED, "version 2");
    refused("\"step\": 7", "\"step\": -7", SF_EFORMAT, "step is -7");
    refused("\"step\": 7", "\"step\": 7.5", SF_EFORMAT, "step");
    refused("\"step\": 7", "\"step\": 5", SF_EFORMAT, "evaluated at step 6");
    refused("\"tokens\": 1234", "\"token\": 1234", SF_EFORMAT, "tokens is missing");
    refused("optimizer.bin", "../etc/passwd", SF_EFORMAT, "no plain file name");
    refused("optimizer.bin", "", SF_EFORMAT, "no plain file name");
    refused("\"bytes\": 12", "\"bytes\": -1", SF_EFORMAT, "-1 bytes");
    refused("0000000000000002", "000000000000000g", SF_EFORMAT, "no hash");
    refused("\"device\": \"cpu\"", "\"device\": 1", SF_EFORMAT, "device");
    refused("\"device\": \"cpu\"", "\"device\": \"cpu\", \"device\": \"cuda\"", SF_EFORMAT,
            "twice");
    refused("\"place\"", "\"palace\"", SF_EFORMAT, "place is no object");
}
END_TEST

START_TEST(all_that_differs_is_named)
{
    struct sft_facts was = {0}, is = {0};
    sft_facts_add(&was, &arena, "seed", "1");
    sft_facts_add(&was, &arena, "old", "x");
    sft_facts_add_double(&was, &arena, "rate", 0.1);
    sft_facts_add_double(&is, &arena, "rate", 0.1 + 1e-18);
    sft_facts_add(&is, &arena, "seed", "2");
    sft_facts_add(&is, &arena, "new", "y");
    ck_assert_str_eq(sft_facts_differences(&arena, &was, &is),
                     "seed was 1, is 2; new was nothing, is y; old was x, is nothing");
    for (int i = 0; i < 100; i++) /* lists grow */
        sft_facts_add(&is, &arena, "more", "%d", i);
    ck_assert_int_eq(is.count, 103);
}
END_TEST

START_TEST(the_start_is_no_best)
{
    struct sft_run_state s = sft_run_state_new();
    ck_assert(!sft_run_state_evaluated(&s, 1, 0));
    ck_assert_double_eq(s.eval_before, 1);
    ck_assert_int_eq(s.best_step, -1);
    s.step = 3;
    ck_assert(sft_run_state_evaluated(&s, 2, 0)); /* higher than at the start, and yet the best */
    ck_assert_int_eq(s.best_step, 3);
    ck_assert_int_eq(s.worse, 0);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("resume_record");
    TCase *tc = tcase_create("resume_record");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, what_is_written_is_read);
    tcase_add_test(tc, every_byte_counts);
    tcase_add_test(tc, what_makes_no_sense_is_refused);
    tcase_add_test(tc, all_that_differs_is_named);
    tcase_add_test(tc, the_start_is_no_best);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
