/* Every code point of Unicode in four contexts: pre-tokens and ids as `tokenizers` has them. */
#include "libformat/text/splitter.h"

#include <stdio.h>
#include <string.h>

#include "tests/support/support.h"
#include "tests/text/fixtures.h"

static const char *const contexts[] = {"a%b", "%A%a1%", "  %% %\n", "x'%1'%L%/\r"};

/* The context with the code point in place of each %; returns the bytes. */
static uint64_t fill(char *out, const char *context, uint32_t code_point)
{
    char one[4], *start = out;
    int n = fixture_utf8(one, code_point);
    for (; *context; context++) {
        if (*context != '%') {
            *out++ = *context;
            continue;
        }
        memcpy(out, one, (size_t)n);
        out += n;
    }
    return (uint64_t)(out - start);
}

static void check_block(uint32_t start, const uint32_t want[5], const struct sf_splitter *splitter,
                        struct sf_splitter_scratch *scratch, struct fixture *f)
{
    struct fixture_cuts cuts;
    char text[64];
    for (int k = 0; k < 4; k++) {
        uint32_t crc = 0;
        for (uint32_t c = start; c < start + 256; c++) {
            uint64_t bytes = fill(text, contexts[k], c);
            fixture_split(&cuts, splitter, text, bytes, scratch);
            cuts.length[cuts.count++] = 0;
            crc = fixture_crc32(crc, cuts.length, (uint64_t)cuts.count);
        }
        ck_assert_msg(crc == want[k], "U+%04X..%04X in \"%s\": pre-tokens differ", start,
                      start + 255, contexts[k]);
    }
    uint32_t crc = 0;
    for (uint32_t c = start; c < start + 256; c++) {
        fixture_encode(f, text, fill(text, contexts[3], c), false);
        crc = fixture_crc32_ids(crc, &f->ids);
    }
    ck_assert_msg(crc == want[4], "U+%04X..%04X: ids differ", start, start + 255);
}

START_TEST(every_code_point)
{
    struct sf_err err = {0};
    struct fixture f;
    struct sf_splitter *splitter = fixture_splitter();
    struct sf_splitter_scratch *scratch;
    uint32_t start, want[5];
    int64_t blocks = 0;
    assert_ok(sf_splitter_scratch_open(&scratch, &err), err);
    fixture_open(&f, "examples/tiny-scout/tokenizer.json");
    FILE *golden = fopen(scout_source_path("tests/golden/tokenizer/code_points.txt"), "r");
    ck_assert_ptr_nonnull(golden);
    while (fscanf(golden, "%x %x %x %x %x %x", &start, &want[0], &want[1], &want[2], &want[3],
                  &want[4]) == 6) {
        check_block(start, want, splitter, scratch, &f);
        blocks++;
    }
    fclose(golden);
    ck_assert_int_eq(blocks, (0x110000 - 0x800) / 256);
    fixture_close(&f);
    sf_splitter_scratch_close(scratch);
    sf_splitter_close(splitter);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("code_points");
    TCase *c = tcase_create("golden");
    tcase_set_timeout(c, 400);
    tcase_add_test(c, every_code_point);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
