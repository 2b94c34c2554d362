/* Edits to a good file of tokens, with its hashes made right again: refused with a sentence, or every row
 * and string that it promises can be read. An input is a list of edits of 5 bytes, position (u32) and
 * value; positions run over the header's used part and the body. An odd number of bytes: not repaired. */
#include <string.h>

#include "libformat/base/bytes.h"
#include "tests/fuzz/folder.h"
#include "train/data/tokens_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { EDIT_BYTES = 5, MOST = 16384, VOCABULARY = 50 };

static const struct sf_hash128 key = {1, 2};
static unsigned char good[MOST];
static uint64_t bytes;

static void make_good(void)
{
    static const struct sft_token_counts counts = {1, 2, 3, 4, 5};
    static const int32_t id[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sft_token_writer *w;
    struct sft_tokens *tokens;
    char *file;
    const char *path = fuzz_path("good.tokens");
    if (sft_token_writer_open(&w, path, &err) || sft_token_writer_name(w, "a.jsonl", &err) ||
        sft_token_writer_row(w, id, id, 9, 0, 1, &err) ||
        sft_token_writer_row(w, id, id, 4, -1, 2, &err) ||
        sft_token_writer_row(w, id, id, 1, 0, 3, &err) || sft_token_writer_note(w, "told", &err) ||
        sft_token_writer_finish(&tokens, w, &counts, key, &err) ||
        sf_read_file(&file, &bytes, &arena, path, MOST, &err))
        abort();
    memcpy(good, file, bytes);
    sft_tokens_release(tokens);
    sf_arena_free(&arena);
}

static void edit(unsigned char *file, const uint8_t *data, size_t size)
{
    uint64_t body = bytes - TOKENS_HEADER_BYTES, range = sizeof(struct tokens_header) + body;
    for (; size >= EDIT_BYTES; data += EDIT_BYTES, size -= EDIT_BYTES) {
        uint64_t at = sf_get_u32(data) % range;
        if (at >= sizeof(struct tokens_header))
            at += TOKENS_HEADER_BYTES - sizeof(struct tokens_header);
        file[at] = data[4];
    }
}

static void repair(unsigned char *file)
{
    struct tokens_header h;
    memcpy(&h, file, sizeof h);
    h.body = sf_hash128(file + TOKENS_HEADER_BYTES, bytes - TOKENS_HEADER_BYTES);
    h.hash = sf_hash64(&h, offsetof(struct tokens_header, hash), 0);
    memcpy(file, &h, sizeof h);
}

static void read_all(const struct sft_tokens *t)
{
    int64_t tokens = 0;
    for (int64_t row = 0; row < t->rows; row++) {
        const struct sft_token_row *r = &t->row[row];
        for (int32_t i = 0; i < r->length; i++, tokens++) {
            struct sft_token token = t->token[r->start + i];
            if (token.id < 0 || token.id >= VOCABULARY || token.label >= VOCABULARY)
                abort();
        }
        if (r->file >= 0 && strlen(sft_tokens_string(t, r->file)) > MOST)
            abort();
    }
    if (tokens != t->tokens || strlen(sft_tokens_string(t, t->files + t->notes - 1)) > MOST)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char file[MOST];
    struct sf_err err = {0};
    struct sft_tokens *tokens;
    if (!bytes)
        make_good();
    memcpy(file, good, bytes);
    edit(file, data, size);
    if (size % 2 == 0)
        repair(file);
    fuzz_write("m.tokens", file, bytes - (size % 7 == 3 ? size % bytes : 0));
    if (sft_tokens_map(&tokens, fuzz_path("m.tokens"), key, VOCABULARY, &err) == SF_OK) {
        read_all(tokens);
        sft_tokens_release(tokens);
    } else if (!err.message[0]) {
        abort();
    }
    return 0;
}
