#include "tests/support/support.h"

#include <string.h>

#include "libformat/base/utf8_check.h"

/* The encoder of RFC 3629, written the other way round: what it makes is all that is valid. */
static int encode(char *out, uint32_t c)
{
    if (c < 0x80)
        return out[0] = (char)c, 1;
    if (c < 0x800)
        return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 63)),
               out[2] = (char)(0x80 | (c & 63)), 3;
    return out[0] = (char)(0xf0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 63)),
           out[2] = (char)(0x80 | (c >> 6 & 63)), out[3] = (char)(0x80 | (c & 63)), 4;
}

START_TEST(every_code_point)
{
    char text[5] = {0};
    for (uint32_t c = 0; c < 0x110000; c++) {
        int n = encode(text, c);
        bool surrogate = c >= 0xd800 && c < 0xe000;
        if (sf_utf8_length(text, 4) != (surrogate ? 0 : n) || sf_utf8_length(text, n - 1u) != 0)
            ck_abort_msg("U+%04X", c);
    }
}
END_TEST

/* Of all pairs and triples of bytes, as many are valid as there are code points to encode. */
START_TEST(nothing_else)
{
    int64_t two = 0, three = 0;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        char text[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
        three += sf_utf8_length(text, 3) == 3;
        two += text[2] == 0 && sf_utf8_length(text, 2) == 2;
    }
    ck_assert_int_eq(two, 0x800 - 0x80);
    ck_assert_int_eq(three, 0x10000 - 0x800 - 0x800);
}
END_TEST

START_TEST(the_bad_byte_is_named)
{
    static const struct {
        const char *text;
        uint64_t bytes, bad;
    } cases[] = {
        {"abc\xff", 4, 3},
        {"\xc0\x80", 2, 0},         /* overlong NUL */
        {"a\xe0\x80\x80", 4, 1},    /* overlong */
        {"\xed\xa0\x80", 3, 0},     /* surrogate */
        {"\xf4\x90\x80\x80", 4, 0}, /* above U+10FFFF */
        {"\xf5\x80\x80\x80", 4, 0},
        {"\xe2\x82", 2, 0},     /* cut off */
        {"\xc3\xa9\xa9", 3, 2}, /* stray continuation */
        {"\xf0\x9f\x90\x8bx\x80", 6, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t bad = 99;
        ck_assert_msg(!sf_utf8_valid(cases[i].text, cases[i].bytes, &bad), "case %zu", i);
        ck_assert_uint_eq(bad, cases[i].bad);
        ck_assert(!sf_utf8_valid(cases[i].text, cases[i].bytes, NULL));
    }
    ck_assert(sf_utf8_valid("", 0, NULL));
    ck_assert(sf_utf8_valid("a\0b", 3, NULL));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("utf8_check");
    TCase *t = tcase_create("utf8");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, every_code_point);
    tcase_add_test(t, nothing_else);
    tcase_add_test(t, the_bad_byte_is_named);
    suite_add_tcase(s, t);
    return s;
}
SCOUT_TEST_MAIN(suite)
