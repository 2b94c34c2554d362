/* many_lines.h -- lines of text in many scripts, put together from words by fixed random numbers,
 * as tests/golden/tokenizer/make_many_lines.py puts them together. */
#ifndef SCOUT_TESTS_TEXT_MANY_LINES_H
#define SCOUT_TESTS_TEXT_MANY_LINES_H

#include "libformat/text/tokenizer.h"
#include "tests/support/support.h"

enum { MANY_LINES_LONGEST = 4096 };

struct many_words { /* strings of one list of many_words.json */
    const char **word;
    int64_t count;
};
struct many_lines {
    struct sf_arena arena;
    struct sf_json *json;
    struct many_words *group, spaces, others;
    int64_t groups;
    struct scout_random random;
};
/* From many_words.json; asserts. The first line comes next. */
void many_lines_open(struct many_lines *lines);
void many_lines_close(struct many_lines *lines);
/* The next line; returns its bytes. */
uint64_t many_lines_next(char text[MANY_LINES_LONGEST], struct many_lines *lines);

/* CRC-32 of ids, four bytes each, little-endian. */
uint32_t many_lines_crc(const struct sf_ids *ids);
/* Encodes the lines that the golden file at `path` has counts and checksums of; asserts that they are
 * equal and returns how many lines there were. */
int64_t many_lines_compare(const struct sf_tokenizer *tokenizer, const char *path);

#endif
