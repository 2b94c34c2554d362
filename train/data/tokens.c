#include "train/data/tokens.h"

#include <string.h>

#include "libformat/base/map_guard.h"
#include "libformat/base/mem.h"
#include "train/data/tokens_private.h"

int tokens_owner_new(struct tokens_owner **out, struct sf_err *err)
{
    void *block;
    int code = sf_alloc_for(&block, sizeof(struct tokens_owner), "rows of data", err);
    if (code)
        return code;
    *out = block;
    (*out)->users = 1;
    return SF_OK;
}

static struct tokens_owner *owner_of(const struct sft_tokens *tokens)
{
    return (struct tokens_owner *)(uintptr_t)tokens; /* its first member */
}

void sft_tokens_share(struct sft_tokens *tokens)
{
    owner_of(tokens)->users++;
}

void sft_tokens_release(struct sft_tokens *tokens)
{
    struct tokens_owner *o = tokens ? owner_of(tokens) : NULL;
    if (!o || --o->users > 0)
        return;
    for (int i = 0; i < 3; i++)
        sf_free(o->block[i]);
    sf_unmap(&o->mapping);
    sf_free(o->path);
    sf_free(o);
}

const char *sft_tokens_string(const struct sft_tokens *tokens, int64_t index)
{
    const char *at = tokens->strings;
    for (; index > 0; index--)
        at += strlen(at) + 1;
    return at;
}

int sft_tokens_check(const struct sft_tokens *tokens, struct sf_err *err)
{
    const struct tokens_owner *o = owner_of(tokens);
    return o->mapping.data ? sf_mapping_check(&o->mapping, o->path, err) : SF_OK;
}

int sft_tokens_of_lengths(struct sft_tokens **out, int64_t rows, int64_t length, struct sf_err *err)
{
    struct tokens_owner *o;
    int code = tokens_owner_new(&o, err);
    if (code)
        return code;
    code = sf_alloc_for(&o->block[1], (uint64_t)rows * sizeof(struct sft_token_row), "rows", err);
    if (code) {
        sft_tokens_release(&o->tokens);
        return code;
    }
    struct sft_token_row *row = o->block[1];
    for (int64_t i = 0; i < rows; i++)
        row[i] = (struct sft_token_row){.start = i * length,
                                        .length = (int32_t)length,
                                        .targets = (int32_t)length - 1,
                                        .file = -1};
    o->tokens =
        (struct sft_tokens){.row = row, .rows = rows, .tokens = rows * length, .strings = ""};
    *out = &o->tokens;
    return SF_OK;
}
