/* tokens.h -- the rows of data files as tokens with labels: in memory, or in a file that is mapped, so
 * that data may be larger than memory.
 *
 * Written once, row by row; then read-only. Who is given one shares it (sft_tokens_share) and lets go of
 * it (sft_tokens_release); the last one ends it.
 *
 * The file is a cache for the machine that made it, numbers as that machine has them:
 *     header of 4096 bytes: magic, version, key, counts, hashes of header and body
 *     body: struct sft_token [tokens], struct sft_token_row [rows], strings (names of files, notes)
 * It is put in place whole (libformat/base/file.h), and believed only if hashes, sizes, rows and ids are
 * right. Threads: reading from any; sharing and releasing from one. */
#ifndef SCOUT_TRAIN_DATA_TOKENS_H
#define SCOUT_TRAIN_DATA_TOKENS_H

#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/codec/frame.h"
#include "train/data/row.h"

struct sft_token {
    int32_t id;
    int32_t label; /* the id where it is trained, else SFT_NO_TARGET */
};

struct sft_token_row {
    int64_t start;   /* its first token */
    int32_t length;  /* tokens, at least 1 */
    int32_t targets; /* labels other than SFT_NO_TARGET behind the first token */
    int32_t file;    /* of the names; -1: in several, text end to end */
    int32_t line; /* from 1; 0: not lines of rows; the last of them stands for those behind 2^31 */
};

struct sft_token_counts {
    int64_t tail_tokens;                      /* text left over behind the last row */
    int64_t truncated_rows, truncated_tokens; /* rows cut, tokens cut off */
    int64_t long_rows, untrainable_rows;      /* left out: too long, nothing to train on */
};

struct sft_tokens {
    const struct sft_token *token;   /* [tokens]; NULL: lengths alone, for a plan */
    const struct sft_token_row *row; /* [rows] */
    int64_t tokens, rows;
    struct sft_token_counts counts;
    const char *strings; /* names of `files` files, then `notes` sentences, a NUL behind each */
    int64_t files, notes;
};

void sft_tokens_share(struct sft_tokens *tokens);
void sft_tokens_release(struct sft_tokens *tokens); /* NULL is welcome */
/* String `index` of strings: files first, then notes. */
const char *sft_tokens_string(const struct sft_tokens *tokens, int64_t index);
/* SF_EIO when it is in a file that was cut short meanwhile: what was read of it is not to be trusted. */
int sft_tokens_check(const struct sft_tokens *tokens, struct sf_err *err);

/* `rows` rows of `length` tokens that nobody will look at. */
int sft_tokens_of_lengths(struct sft_tokens **out, int64_t rows, int64_t length,
                          struct sf_err *err);

/* Maps a file that was written under this key; ids are below `vocabulary`. SF_ENOENT: there is none, or
 * it is of another key or version. SF_EDAMAGED, SF_EFORMAT: it is damaged, the message says where. */
int sft_tokens_map(struct sft_tokens **out, const char *path, struct sf_hash128 key,
                   int64_t vocabulary, struct sf_err *err);

/* ---- writing ---- */

struct sft_token_writer;
/* Into a file at `path`; NULL: into memory. */
int sft_token_writer_open(struct sft_token_writer **out, const char *path, struct sf_err *err);
/* Adds a row: id[i], label[i] for i < length. */
int sft_token_writer_row(struct sft_token_writer *writer, const int32_t *id, const int32_t *label,
                         int32_t length, int32_t file, int64_t line, struct sf_err *err);
int64_t sft_token_writer_rows(const struct sft_token_writer *writer);
/* Names of files, all of them, before any note. */
int sft_token_writer_name(struct sft_token_writer *writer, const char *name, struct sf_err *err);
int sft_token_writer_note(struct sft_token_writer *writer, const char *note, struct sf_err *err);
/* The rows; the writer is gone, whether or not there is an error. */
int sft_token_writer_finish(struct sft_tokens **out, struct sft_token_writer *writer,
                            const struct sft_token_counts *counts, struct sf_hash128 key,
                            struct sf_err *err);
void sft_token_writer_abort(struct sft_token_writer *writer); /* NULL is welcome */

#endif
