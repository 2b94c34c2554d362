/* Rows on their way into memory or into a file. */
#include <string.h>

#include "libformat/base/mem.h"
#include "libformat/text/text_buffer.h"
#include "train/data/tokens_private.h"

enum { FLUSH_TOKENS = 1 << 17 }; /* 1 MiB at a time go to a file */

struct sft_token_writer {
    struct tokens_owner *owner; /* what becomes of it */
    struct sf_out *out;         /* NULL: in memory */
    struct sf_hasher *hasher;   /* of what is in the file */
    char *path;
    struct sft_token *token; /* all of them, or those not in the file yet */
    int64_t waiting, capacity, tokens;
    struct sft_token_row *row;
    int64_t rows, row_capacity;
    struct sf_text strings;
    int64_t files, notes;
};

static int begin_file(struct sft_token_writer *w, const char *path, struct sf_err *err)
{
    static const char zero[TOKENS_HEADER_BYTES];
    void *copy;
    uint64_t bytes = strlen(path) + 1;
    int code = sf_alloc_for(&copy, bytes, "a path", err);
    if (code)
        return code;
    w->path = memcpy(copy, path, bytes);
    code = sf_hasher_open(&w->hasher, err);
    if (!code)
        code = sf_out_open(&w->out, path, err);
    return code ? code : sf_out_append(w->out, zero, sizeof zero, err);
}

int sft_token_writer_open(struct sft_token_writer **out, const char *path, struct sf_err *err)
{
    void *block;
    int code = sf_alloc_for(&block, sizeof(struct sft_token_writer), "a writer of rows", err);
    if (code)
        return code;
    struct sft_token_writer *w = block;
    code = tokens_owner_new(&w->owner, err);
    if (!code && path)
        code = begin_file(w, path, err);
    if (code)
        sft_token_writer_abort(w);
    else
        *out = w;
    return code;
}

void sft_token_writer_abort(struct sft_token_writer *w)
{
    if (!w)
        return;
    sf_out_abort(w->out);
    if (w->hasher)
        sf_hasher_close(w->hasher);
    if (w->owner)
        sft_tokens_release(&w->owner->tokens);
    sf_free(w->path);
    sf_free(w->token);
    sf_free(w->row);
    sf_text_free(&w->strings);
    sf_free(w);
}

static int append(struct sft_token_writer *w, const void *data, uint64_t bytes, struct sf_err *err)
{
    sf_hasher_add(w->hasher, data, bytes);
    return bytes ? sf_out_append(w->out, data, bytes, err) : SF_OK;
}

static int flush(struct sft_token_writer *w, struct sf_err *err)
{
    uint64_t bytes = (uint64_t)w->waiting * sizeof *w->token;
    w->waiting = 0;
    return append(w, w->token, bytes, err);
}

int sft_token_writer_row(struct sft_token_writer *w, const int32_t *id, const int32_t *label,
                         int32_t length, int32_t file, int64_t line, struct sf_err *err)
{
    struct sft_token_row row = {.start = w->tokens,
                                .length = length,
                                .file = file,
                                .line = line < INT32_MAX ? (int32_t)line : INT32_MAX};
    void *token = w->token, *rows = w->row;
    int code = sf_grow(&token, &w->capacity, w->waiting, w->waiting + length, sizeof *w->token,
                       "rows of data", err);
    w->token = token;
    if (!code)
        code = sf_grow(&rows, &w->row_capacity, w->rows, w->rows + 1, sizeof *w->row,
                       "rows of data", err);
    w->row = rows;
    if (code)
        return code;
    for (int32_t i = 0; i < length; i++) {
        w->token[w->waiting++] = (struct sft_token){id[i], label[i]};
        row.targets += i > 0 && label[i] != SFT_NO_TARGET;
    }
    w->tokens += length;
    w->row[w->rows++] = row;
    return w->out && w->waiting >= FLUSH_TOKENS ? flush(w, err) : SF_OK;
}

int64_t sft_token_writer_rows(const struct sft_token_writer *writer)
{
    return writer->rows;
}

int sft_token_writer_name(struct sft_token_writer *w, const char *name, struct sf_err *err)
{
    w->files++;
    return sf_text_add(&w->strings, name, strlen(name) + 1, err);
}

int sft_token_writer_note(struct sft_token_writer *w, const char *note, struct sf_err *err)
{
    w->notes++;
    return sf_text_add(&w->strings, note, strlen(note) + 1, err);
}

/* ---- the end ---- */

static void take_memory(struct sft_token_writer *w, const struct sft_token_counts *counts)
{
    struct tokens_owner *o = w->owner;
    o->tokens = (struct sft_tokens){.token = w->token,
                                    .row = w->row,
                                    .tokens = w->tokens,
                                    .rows = w->rows,
                                    .counts = *counts,
                                    .strings = w->strings.at ? w->strings.at : "",
                                    .files = w->files,
                                    .notes = w->notes};
    o->block[0] = w->token;
    o->block[1] = w->row;
    o->block[2] = w->strings.at;
    w->token = NULL;
    w->row = NULL;
    w->strings = (struct sf_text){0};
}

static int end_file(struct sft_token_writer *w, const struct sft_token_counts *counts,
                    struct sf_hash128 key, struct sf_err *err)
{
    struct tokens_header h;
    memset(&h, 0, sizeof h);
    int code = flush(w, err);
    if (!code)
        code = append(w, w->row, (uint64_t)w->rows * sizeof *w->row, err);
    if (!code)
        code = append(w, w->strings.at, w->strings.bytes, err);
    if (code)
        return code;
    memcpy(h.magic, TOKENS_MAGIC, sizeof h.magic);
    h.version = TOKENS_VERSION;
    h.order = TOKENS_ORDER;
    h.key = key;
    h.body = sf_hasher_digest(w->hasher);
    h.tokens = w->tokens;
    h.rows = w->rows;
    h.files = w->files;
    h.notes = w->notes;
    h.string_bytes = w->strings.bytes;
    h.counts = *counts;
    h.hash = sf_hash64(&h, offsetof(struct tokens_header, hash), 0);
    code = sf_out_write_at(w->out, &h, sizeof h, 0, err);
    if (code)
        return code;
    struct sf_out *out = w->out;
    w->out = NULL;
    return sf_out_commit(out, err);
}

int sft_token_writer_finish(struct sft_tokens **out, struct sft_token_writer *w,
                            const struct sft_token_counts *counts, struct sf_hash128 key,
                            struct sf_err *err)
{
    int code = w->out ? end_file(w, counts, key, err) : SF_OK;
    if (!code && w->path) {
        code = sft_tokens_map(out, w->path, key, INT32_MAX, err);
    } else if (!code) {
        take_memory(w, counts);
        *out = &w->owner->tokens;
        w->owner = NULL;
    }
    sft_token_writer_abort(w);
    return code;
}
