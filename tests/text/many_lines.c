#include "tests/text/many_lines.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/json.h"
#include "tests/text/fixtures.h"

static struct many_words read_words(struct sf_arena *arena, const struct sf_json *list)
{
    struct many_words w = {
        .word = sf_arena_array(arena, (uint64_t)sf_json_count(list), sizeof *w.word)};
    ck_assert_ptr_nonnull(w.word);
    for (const struct sf_json *v = sf_json_first(list); v; v = sf_json_next(v))
        ck_assert_int_eq(sf_json_as_string(&w.word[w.count++], v, "word", NULL), SF_OK);
    ck_assert_int_gt(w.count, 0);
    return w;
}

void many_lines_open(struct many_lines *lines)
{
    *lines = (struct many_lines){.random = {.state = 1}};
    lines->json = fixture_json("tests/golden/tokenizer/many_words.json");
    const struct sf_json *groups = sf_json_get(lines->json, "groups");
    lines->group =
        sf_arena_array(&lines->arena, (uint64_t)sf_json_count(groups), sizeof *lines->group);
    ck_assert_ptr_nonnull(lines->group);
    for (const struct sf_json *g = sf_json_first(groups); g; g = sf_json_next(g))
        lines->group[lines->groups++] = read_words(&lines->arena, g);
    lines->spaces = read_words(&lines->arena, sf_json_get(lines->json, "spaces"));
    lines->others = read_words(&lines->arena, sf_json_get(lines->json, "others"));
}

void many_lines_close(struct many_lines *lines)
{
    sf_json_free(lines->json);
    sf_arena_free(&lines->arena);
}

static int64_t below(struct many_lines *lines, int64_t n)
{
    return (int64_t)(scout_random_u64(&lines->random) % (uint64_t)n);
}

uint64_t many_lines_next(char text[MANY_LINES_LONGEST], struct many_lines *lines)
{
    const struct many_words *group = &lines->group[below(lines, lines->groups)];
    uint64_t bytes = 0;
    for (int64_t n = 1 + below(lines, 20); n > 0; n--) {
        int64_t kind = below(lines, 16);
        const struct many_words *w = kind < 7    ? group
                                     : kind < 13 ? &lines->spaces
                                     : kind < 15 ? &lines->others
                                                 : &lines->group[below(lines, lines->groups)];
        const char *word = w->word[below(lines, w->count)];
        uint64_t length = strlen(word);
        ck_assert_uint_lt(bytes + length, MANY_LINES_LONGEST);
        memcpy(text + bytes, word, length + 1);
        bytes += length;
    }
    return bytes;
}

uint32_t many_lines_crc(const struct sf_ids *ids)
{
    uint32_t crc = 0;
    for (int64_t i = 0; i < ids->count; i++) {
        uint32_t id = (uint32_t)ids->id[i];
        unsigned char four[4] = {(unsigned char)id, (unsigned char)(id >> 8),
                                 (unsigned char)(id >> 16), (unsigned char)(id >> 24)};
        crc = fixture_crc32(crc, four, 4);
    }
    return crc;
}

int64_t many_lines_compare(const struct sf_tokenizer *tokenizer, const char *path)
{
    struct many_lines lines;
    struct sf_tokenizer_scratch *scratch;
    struct sf_ids ids = {0};
    struct sf_err err = {0};
    char text[MANY_LINES_LONGEST];
    int64_t number = 0;
    long long count;
    unsigned crc;
    FILE *golden = fopen(path, "r");
    ck_assert_msg(golden != NULL, "%s cannot be opened", path);
    many_lines_open(&lines);
    assert_ok(sf_tokenizer_scratch_open(&scratch, tokenizer, &err), err);
    for (; fscanf(golden, "%lld %x", &count, &crc) == 2; number++) {
        uint64_t bytes = many_lines_next(text, &lines);
        ids.count = 0;
        assert_ok(sf_tokenizer_encode(&ids, tokenizer, text, bytes, false, scratch, &err), err);
        ck_assert_msg(ids.count == count && many_lines_crc(&ids) == crc,
                      "line %lld, \"%s\": %lld ids, not %lld, or other ones", (long long)number,
                      text, (long long)ids.count, count);
    }
    ck_assert(feof(golden));
    fclose(golden);
    sf_ids_free(&ids);
    sf_tokenizer_scratch_close(scratch);
    many_lines_close(&lines);
    return number;
}
