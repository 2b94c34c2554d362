#include "tests/text/fixtures.h"

#include <string.h>

#include "libformat/base/file.h"
#include "tests/support/support.h"

void fixture_open(struct fixture *f, const char *path)
{
    struct sf_err err = {0};
    char *text;
    uint64_t bytes;
    *f = (struct fixture){0};
    assert_ok(sf_read_file(&text, &bytes, &f->arena, scout_source_path(path), 1 << 26, &err), err);
    assert_ok(sf_tokenizer_open(&f->tokenizer, text, bytes, &err), err);
    assert_ok(sf_tokenizer_scratch_open(&f->scratch, f->tokenizer, &err), err);
}

void fixture_close(struct fixture *f)
{
    sf_ids_free(&f->ids);
    sf_tokenizer_scratch_close(f->scratch);
    sf_tokenizer_close(f->tokenizer);
    sf_arena_free(&f->arena);
}

void fixture_encode(struct fixture *f, const char *text, uint64_t bytes, bool add_special)
{
    struct sf_err err = {0};
    f->ids.count = 0;
    assert_ok(
        sf_tokenizer_encode(&f->ids, f->tokenizer, text, bytes, add_special, f->scratch, &err),
        err);
}

struct sf_json *fixture_json(const char *path)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct sf_json *root;
    char *text;
    uint64_t bytes;
    assert_ok(sf_read_file(&text, &bytes, &arena, scout_source_path(path), 1 << 26, &err), err);
    assert_ok(sf_json_parse(&root, text, bytes, &err), err);
    sf_arena_free(&arena);
    return root;
}

void fixture_compare(const struct sf_json *want, const struct sf_ids *got, const char *what)
{
    int64_t i = 0;
    for (const struct sf_json *v = sf_json_first(want); v; v = sf_json_next(v), i++) {
        int64_t id;
        ck_assert_int_eq(sf_json_as_int(&id, v, "id", NULL), SF_OK);
        ck_assert_msg(i < got->count, "%s: only %lld ids", what, (long long)got->count);
        ck_assert_msg(got->id[i] == id, "%s: id %lld is %d, not %lld", what, (long long)i,
                      got->id[i], (long long)id);
    }
    ck_assert_msg(i == got->count, "%s: %lld ids, not %lld", what, (long long)got->count,
                  (long long)i);
}

uint32_t fixture_crc32(uint32_t crc, const void *data, uint64_t bytes)
{
    static uint32_t table[256];
    const unsigned char *p = data;
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t r = i;
            for (int bit = 0; bit < 8; bit++)
                r = r >> 1 ^ (r & 1 ? 0xedb88320u : 0);
            table[i] = r;
        }
    crc = ~crc;
    for (uint64_t i = 0; i < bytes; i++)
        crc = table[(crc ^ p[i]) & 0xff] ^ crc >> 8;
    return ~crc;
}

uint32_t fixture_crc32_ids(uint32_t crc, const struct sf_ids *ids)
{
    for (int64_t i = 0; i < ids->count; i++) {
        unsigned char two[2] = {(unsigned char)ids->id[i], (unsigned char)(ids->id[i] >> 8)};
        crc = fixture_crc32(crc, two, 2);
    }
    return crc;
}

int fixture_utf8(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[n] | c);
    return n;
}

int fixture_note_cut(void *context, const char *piece, uint64_t bytes, struct sf_err *err)
{
    struct fixture_cuts *c = context;
    (void)piece;
    if (c->count == (int64_t)sizeof c->length || bytes > 255)
        return sf_fail(err, SF_EINVAL, "a pre-token too many or too long for this test");
    c->length[c->count++] = (unsigned char)bytes;
    return SF_OK;
}

struct sf_splitter *fixture_splitter(void)
{
    struct sf_err err = {0};
    struct sf_splitter *splitter;
    const char *pattern;
    struct sf_json *root = fixture_json("examples/tiny-scout/tokenizer.json");
    const struct sf_json *pre = sf_json_get(root, "pre_tokenizer");
    const struct sf_json *split = sf_json_first(sf_json_get(pre, "pretokenizers"));
    assert_ok(sf_json_as_string(&pattern, sf_json_get(sf_json_get(split, "pattern"), "Regex"),
                                "pattern", &err),
              err);
    assert_ok(sf_splitter_open(&splitter, pattern, &err), err);
    sf_json_free(root);
    return splitter;
}

void fixture_split(struct fixture_cuts *cuts, const struct sf_splitter *s, const char *text,
                   uint64_t bytes, struct sf_splitter_scratch *scratch)
{
    struct sf_err err = {0};
    cuts->count = 0;
    assert_ok(sf_splitter_run(s, text, bytes, scratch, fixture_note_cut, cuts, &err), err);
}
