/* check_vocabulary DIR -- a tokenizer of any size against what `tokenizers` said of it, and its speed.
 *
 * DIR comes from real_vocabulary.py: tokenizer.json, many_lines.txt, code_points.txt (CRC-32 of the
 * ids of 256 code points in four contexts), texts.txt (file, ids, CRC-32 for each whole text).
 * Exit 0 when every id is equal, the file is read in at most one second of processor time and ordinary
 * text is encoded at 5 MB/s or more. Not a test of the suite: it needs a file that is not ours. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "libformat/base/file.h"
#include "tests/text/fixtures.h"
#include "tests/text/many_lines.h"

static const char *folder;
static struct sf_tokenizer *tokenizer;

static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const char *in_folder(const char *name)
{
    static char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    ck_assert(n > 0 && n < (int)sizeof path);
    return path;
}

static char *read_text(uint64_t *bytes, struct sf_arena *arena, const char *path)
{
    struct sf_err err = {0};
    char *text;
    assert_ok(sf_read_file(&text, bytes, arena, path, 1u << 30, &err), err);
    return text;
}

START_TEST(file_is_read_in_a_second)
{
    double seconds = processor_seconds();
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    uint64_t bytes;
    char *json = read_text(&bytes, &arena, in_folder("tokenizer.json"));
    assert_ok(sf_tokenizer_open(&tokenizer, json, bytes, &err), err);
    sf_arena_free(&arena);
    seconds = processor_seconds() - seconds;
    printf("tokenizer.json: %.1f MB, %lld ids, read in %.3f s\n", (double)bytes / 1e6,
           (long long)sf_tokenizer_vocabulary(tokenizer), seconds);
    ck_assert_msg(seconds <= 1, "%.3f s", seconds);
}
END_TEST

START_TEST(lines_are_equal)
{
    printf("lines: %lld equal\n",
           (long long)many_lines_compare(tokenizer, in_folder("many_lines.txt")));
}
END_TEST

/* Ids of the code point in each context, one list. */
static void encode_contexts(struct sf_ids *ids, uint32_t c, struct sf_tokenizer_scratch *scratch)
{
    static const char *const contexts[] = {"a%b", "%A%a1%", "  %% %\n", "x'%1'%L%/\r"};
    struct sf_err err = {0};
    char text[64], one[4];
    int n = fixture_utf8(one, c);
    for (int k = 0; k < 4; k++) {
        uint64_t bytes = 0;
        for (const char *p = contexts[k]; *p; p++) {
            memcpy(text + bytes, *p == '%' ? one : p, *p == '%' ? (size_t)n : 1);
            bytes += *p == '%' ? (uint64_t)n : 1;
        }
        assert_ok(sf_tokenizer_encode(ids, tokenizer, text, bytes, false, scratch, &err), err);
    }
}

START_TEST(code_points_are_equal)
{
    struct sf_tokenizer_scratch *scratch;
    struct sf_ids ids = {0};
    struct sf_err err = {0};
    unsigned start, crc, blocks = 0;
    FILE *golden = fopen(in_folder("code_points.txt"), "r");
    ck_assert_ptr_nonnull(golden);
    assert_ok(sf_tokenizer_scratch_open(&scratch, tokenizer, &err), err);
    for (; fscanf(golden, "%x %x", &start, &crc) == 2; blocks++) {
        ids.count = 0;
        for (unsigned c = start; c < start + 256; c++)
            encode_contexts(&ids, c, scratch);
        ck_assert_msg(many_lines_crc(&ids) == crc, "U+%04X..%04X: ids differ", start, start + 255);
    }
    fclose(golden);
    ck_assert_uint_eq(blocks, (0x110000 - 0x800) / 256);
    printf("code points: %u equal in four contexts\n", blocks * 256);
    sf_ids_free(&ids);
    sf_tokenizer_scratch_close(scratch);
}
END_TEST

/* Encodes a file with a fresh scratch, so that nothing is remembered; returns MB a second. */
static double check_text(const char *name, int64_t count, uint32_t crc)
{
    struct sf_tokenizer_scratch *scratch;
    struct sf_arena arena = {0};
    struct sf_ids ids = {0};
    struct sf_err err = {0};
    uint64_t bytes;
    char *text = read_text(&bytes, &arena, in_folder(name));
    assert_ok(sf_tokenizer_scratch_open(&scratch, tokenizer, &err), err);
    double seconds = processor_seconds();
    assert_ok(sf_tokenizer_encode(&ids, tokenizer, text, bytes, false, scratch, &err), err);
    seconds = processor_seconds() - seconds;
    ck_assert_msg(ids.count == count && many_lines_crc(&ids) == crc,
                  "%s: %lld ids, not %lld, or other ones", name, (long long)ids.count,
                  (long long)count);
    sf_ids_free(&ids);
    sf_tokenizer_scratch_close(scratch);
    sf_arena_free(&arena);
    return (double)bytes / 1e6 / seconds;
}

START_TEST(texts_are_equal_and_fast)
{
    char name[64];
    long long count;
    unsigned crc, texts = 0;
    FILE *golden = fopen(in_folder("texts.txt"), "r");
    ck_assert_ptr_nonnull(golden);
    for (; fscanf(golden, "%63s %lld %x", name, &count, &crc) == 3; texts++) {
        double rate = check_text(name, count, crc);
        printf("%-20s %8lld ids equal, %6.1f MB/s\n", name, count, rate);
        bool ordinary = strncmp(name, "line_", 5) != 0;
        ck_assert_msg(rate >= (ordinary ? 5 : 1), "%s: %.1f MB/s", name, rate);
    }
    fclose(golden);
    ck_assert_uint_gt(texts, 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("vocabulary");
    TCase *c = tcase_create("real");
    tcase_set_timeout(c, 600);
    tcase_add_test(c, file_is_read_in_a_second);
    tcase_add_test(c, lines_are_equal);
    tcase_add_test(c, code_points_are_equal);
    tcase_add_test(c, texts_are_equal_and_fast);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: check_vocabulary DIR\n");
        return 2;
    }
    folder = argv[1];
    SRunner *runner = srunner_create(suite());
    srunner_set_fork_status(runner, CK_NOFORK); /* one tokenizer for all */
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    sf_tokenizer_close(tokenizer);
    return failed ? 1 : 0;
}
