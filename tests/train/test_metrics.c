/* Rows of metrics, as JSON and as TensorBoard's events; the count of operations. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "tests/train/tiny.h"
#include "train/event_file.h"
#include "train/flops.h"
#include "train/metrics.h"

static struct sf_arena arena;
static struct sf_err err;

static void teardown(void)
{
    sf_arena_free(&arena);
}

static struct sft_metrics_step example(int64_t step)
{
    return (struct sft_metrics_step){.step = step,
                                     .epoch = 0.5,
                                     .loss = 1.0 / 3,
                                     .grad_norm = 2,
                                     .learning_rate = 1e-4,
                                     .seconds = 0.25,
                                     .tokens = 100,
                                     .targets = 90,
                                     .flops = 4e9,
                                     .matmul_rate = 32e9,
                                     .memory_bytes = 1u << 20};
}

START_TEST(a_row_is_read_as_it_was_written)
{
    struct sft_metrics_step step = example(7);
    struct sft_metric_row row, back;
    char *text;
    uint64_t bytes;
    step.skipped = true;
    step.loss = NAN;
    sft_metric_row_of_step(&row, &step, 1234.5);
    assert_ok(sft_metric_row_write(&text, &bytes, &arena, &row, &err), err);
    ck_assert_str_eq(text, "{\"step\": 7, \"epoch\": 0.5, \"loss\": null, \"grad_norm\": 2, "
                           "\"learning_rate\": 0.0001, \"skipped\": true, \"tokens\": 100, "
                           "\"targets\": 90, \"seconds\": 0.25, \"tokens_per_second\": 400, "
                           "\"model_flops_per_second\": 16000000000, \"matmul_share\": 0.5, "
                           "\"memory_bytes\": 1048576, \"time\": 1234.5}");
    assert_ok(sft_metric_row_read(&back, &arena, text, bytes, &err), err);
    ck_assert_int_eq(back.count, row.count);
    for (int i = 0; i < row.count; i++) {
        ck_assert_str_eq(back.item[i].name, row.item[i].name);
        if (isnan(row.item[i].value))
            ck_assert(isnan(back.item[i].value));
        else
            ck_assert_double_eq(back.item[i].value, row.item[i].value);
    }
    assert_fails(sft_metric_row_read(&back, &arena, "[1]", 3, &err), SF_EFORMAT, "no row", err);
    ck_assert_int_ne(sft_metric_row_read(&back, &arena, "{\"a\": \"b\"}", 10, &err), SF_OK);
    ck_assert_int_ne(sft_metric_row_read(&back, &arena, "{\"a\": 1", 7, &err), SF_OK);
}
END_TEST

/* ---- TensorBoard ---- */

START_TEST(checksums_are_those_of_iscsi)
{
    unsigned char zeros[32] = {0}, rising[32];
    for (int i = 0; i < 32; i++)
        rising[i] = (unsigned char)i;
    ck_assert_uint_eq(sft_crc32c("123456789", 9), 0xe3069283u);
    ck_assert_uint_eq(sft_crc32c(zeros, 32), 0x8a9136aau); /* RFC 3720, B.4 */
    ck_assert_uint_eq(sft_crc32c(rising, 32), 0x46dd794eu);
    ck_assert_uint_eq(sft_crc32c("", 0), 0);
}
END_TEST

static const unsigned char *check_record(const unsigned char *at, uint64_t *bytes)
{
    uint32_t crc[2] = {sft_crc32c(at, 8), 0};
    *bytes = sf_get_u64(at);
    crc[1] = sft_crc32c(at + 12, *bytes);
    for (int i = 0; i < 2; i++)
        crc[i] = (crc[i] >> 15 | crc[i] << 17) + 0xa282ead8u;
    ck_assert_uint_eq(sf_get_u32(at + 8), crc[0]);
    ck_assert_uint_eq(sf_get_u32(at + 12 + *bytes), crc[1]);
    return at + 12;
}

/* Byte for byte: what tests/train/check_events.py has read with TensorBoard's own reader. */
START_TEST(an_event_as_tensorboard_reads_it)
{
    static const unsigned char wanted[] = {
        0x09, 0,    0,    0,   0,    0,   0,   0xf8, 0x3f,      /* wall_time 1.5 */
        0x10, 0xac, 0x02,                                       /* step 300 */
        0x2a, 34,                                               /* summary */
        0x0a, 17,   0x0a, 10,  't',  'r', 'a', 'i',  'n',  '/', /* value, tag */
        'l',  'o',  's',  's', 0x15, 0,   0,   0x00, 0x3f,      /* 0.5 */
        0x0a, 13,   0x0a, 6,   'e',  'v', 'a', 'l',  '/',  'x', 0x15, 0, 0, 0x80, 0x3f};
    struct sft_metric_row row = {
        .item = {{"step", 300}, {"loss", 0.5}, {"none", NAN}, {"eval_x", 1}, {"time", 1.5}},
        .count = 5};
    const char *path = scout_scratch_path("events");
    struct sft_event_file *file;
    char *data;
    uint64_t bytes, record;
    assert_ok(sft_event_file_open(&file, path, &err), err);
    assert_ok(sft_event_file_add(file, &row, &err), err);
    sft_event_file_close(file);
    assert_ok(sf_read_file(&data, &bytes, &arena, path, 1 << 20, &err), err);
    const unsigned char *at = check_record((const unsigned char *)data, &record);
    ck_assert(memcmp(at + 9,
                     "\x1a\x0d"
                     "brain.Event:2",
                     15) == 0);
    ck_assert_uint_eq(record, 24);
    at = check_record(at + record + 4, &record);
    ck_assert_uint_eq(record, sizeof wanted);
    ck_assert(memcmp(at, wanted, record) == 0);
    ck_assert_ptr_eq(at + record + 4, (const unsigned char *)data + bytes);
}
END_TEST

/* A resumed run's events are those of its rows, whatever stood there. */
START_TEST(events_follow_the_rows)
{
    const char *directory = scout_scratch_path("run"), *kept = scout_scratch_path("kept");
    struct sft_metrics *metrics;
    uint64_t once, twice;
    char *text, *events[2];
    assert_ok(sf_make_directory(directory, &err), err);
    for (int way = 0; way < 2; way++) {
        assert_ok(sft_metrics_open(&metrics, directory, way ? kept : NULL, &err), err);
        struct sft_metrics_step step = example(way + 1);
        if (!way) {
            assert_ok(sft_metrics_step(metrics, &step, &err), err);
            assert_ok(sf_read_file(&text, &once, &arena, sft_metrics_path(metrics), 1 << 20, &err),
                      err);
            assert_ok(sf_write_file(kept, text, once, &err), err);
            step.step = 99; /* behind the checkpoint */
            assert_ok(sft_metrics_step(metrics, &step, &err), err);
        }
        sft_metrics_close(metrics);
        assert_ok(sf_read_file(&events[way], way ? &twice : &once, &arena,
                               sf_path_join(&arena, directory, "events.out.tfevents.scout"),
                               1 << 20, &err),
                  err);
    }
    ck_assert_uint_lt(twice, once);
    ck_assert(memcmp(events[0], events[1], twice) == 0);
}
END_TEST

/* ---- operations ---- */

/* One layer of each kind, by hand. */
START_TEST(operations_are_those_of_the_formula)
{
    static const int64_t length[] = {5, 11};
    struct tiny t;
    struct sft_batch batch;
    tiny_open(&t, 1);
    tiny_batch(&batch, &t, length, 2, 3);
    double attention = 64 * 64 + 2 * 32 * 64 + 64 * 64; /* q, k and v, o */
    double experts = attention + 3 * 80 * 64 * 2 + 4 * 64, dense = attention + 3 * 112 * 64;
    double weights = 2 * experts + 2 * dense, lora = 0, targets = 0;
    double full = 15 + 66, chunked = 15 + 36 + 6;    /* 11 tokens in chunks of 8 */
    for (int64_t i = 0; i < t.lora.modules - 1; i++) /* the last is lm_head's */
        lora += 4.0 * (double)(t.lora.module[i].in + t.lora.module[i].out);
    for (int i = 0; i < 16; i++)
        targets += batch.targets[i] >= 0;
    double want = 4 * 16 * weights + 12 * 64 * (2 * full + 2 * chunked) + 4 * targets * 64 * 96 +
                  6 * 16 * lora + 6 * targets * 4 * (64 + 96);
    ck_assert_double_eq(sft_training_flops(&t.spec, &t.lora, &batch), want);
    tiny_close(&t);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("metrics");
    TCase *tc = tcase_create("metrics");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, a_row_is_read_as_it_was_written);
    tcase_add_test(tc, checksums_are_those_of_iscsi);
    tcase_add_test(tc, an_event_as_tensorboard_reads_it);
    tcase_add_test(tc, events_follow_the_rows);
    tcase_add_test(tc, operations_are_those_of_the_formula);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
