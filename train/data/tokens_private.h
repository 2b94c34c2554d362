/* tokens_private.h -- what tokens.c and token_file.c share. */
#ifndef SCOUT_TRAIN_DATA_TOKENS_PRIVATE_H
#define SCOUT_TRAIN_DATA_TOKENS_PRIVATE_H

#include "libformat/base/file.h"
#include "train/data/tokens.h"

struct tokens_owner {
    struct sft_tokens tokens; /* first: what the others see */
    int64_t users;
    void *block[3]; /* in memory: tokens, rows, strings */
    struct sf_mapping mapping;
    char *path; /* of the mapping */
};

/* The header of a file, padded with zeros to HEADER_BYTES; numbers as the machine has them. */
enum { TOKENS_HEADER_BYTES = 4096, TOKENS_VERSION = 1 };
struct tokens_header {
    char magic[8];           /* "SCTOKENS" */
    uint32_t version, order; /* TOKENS_VERSION, TOKENS_ORDER */
    struct sf_hash128 key, body;
    int64_t tokens, rows, files, notes;
    uint64_t string_bytes;
    struct sft_token_counts counts;
    uint64_t hash; /* of all before it */
};
static const uint32_t TOKENS_ORDER = 0x01020304;
static const char TOKENS_MAGIC[8] = {'S', 'C', 'T', 'O', 'K', 'E', 'N', 'S'};

/* A zeroed owner with one user. */
int tokens_owner_new(struct tokens_owner **out, struct sf_err *err);

#endif
