/* fixtures.h -- tokenizers, golden vectors and a checksum for the suites of this folder. */
#ifndef SCOUT_TESTS_TEXT_FIXTURES_H
#define SCOUT_TESTS_TEXT_FIXTURES_H

#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/json.h"
#include "libformat/text/splitter.h"
#include "libformat/text/tokenizer.h"

struct fixture {
    struct sf_arena arena;
    struct sf_tokenizer *tokenizer;
    struct sf_tokenizer_scratch *scratch;
    struct sf_ids ids; /* of the last fixture_encode */
};
/* Opens the tokenizer.json at a path below the source tree; asserts. */
void fixture_open(struct fixture *f, const char *path);
void fixture_close(struct fixture *f);
void fixture_encode(struct fixture *f, const char *text, uint64_t bytes, bool add_special);

/* A golden JSON file below the source tree; the caller frees it. */
struct sf_json *fixture_json(const char *path);
/* Asserts that an array of numbers is ids[0..count); `what` names it. */
void fixture_compare(const struct sf_json *want, const struct sf_ids *got, const char *what);

/* CRC-32 as zlib counts it; starts with 0. */
uint32_t fixture_crc32(uint32_t crc, const void *data, uint64_t bytes);
/* The same over ids, two bytes each, little-endian. */
uint32_t fixture_crc32_ids(uint32_t crc, const struct sf_ids *ids);

struct fixture_cuts { /* lengths of pre-tokens */
    int64_t count;
    unsigned char length[1024];
};
/* The splitter of examples/tiny-scout's pattern; the caller closes it. */
struct sf_splitter *fixture_splitter(void);
/* Pre-tokens of at most 255 bytes; asserts. */
void fixture_split(struct fixture_cuts *cuts, const struct sf_splitter *splitter, const char *text,
                   uint64_t bytes, struct sf_splitter_scratch *scratch);
/* An sf_piece_fn over a struct fixture_cuts. */
int fixture_note_cut(void *cuts, const char *piece, uint64_t bytes, struct sf_err *err);

/* UTF-8 of a code point; returns the bytes. */
int fixture_utf8(char out[4], uint32_t code_point);

#endif
