/* What decides the tokens of a dataset, as one hash. */
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/map_guard.h"
#include "train/data/dataset_private.h"

enum { TOKENIZED_AS = 2 }; /* raised when the same data and options give other tokens than before */

static void add_string(struct sf_hasher *hasher, const char *text)
{
    sf_hasher_add(hasher, text ? text : "", text ? strlen(text) + 1 : 1);
}

static void add_options(struct sf_hasher *hasher, const struct sft_dataset_config *c)
{
    const struct sft_row_encoder *e = &c->encoder;
    const int64_t number[] = {
        TOKENIZED_AS,   c->files,          c->max_length,        c->mode,
        c->too_long,    c->untrainable,    c->file_end != NULL,  e->tokenizer != NULL,
        e->vocabulary,  (int64_t)e->chat,  (int64_t)e->train_on, e->add_special,
        e->end_of_text, e->no_chat != NULL};
    sf_hasher_add(hasher, number, sizeof number);
    add_string(hasher, c->cache_identity);
}

static int add_file(struct sf_hasher *hasher, const struct sft_dataset_config *c, int64_t i,
                    struct sf_err *err)
{
    struct sf_mapping file;
    if (c->interrupted && c->interrupted())
        return sf_fail(err, SF_EINTERRUPTED, "stopped before reading %s", c->file[i]);
    int code = sf_map_file(&file, c->file[i], err);
    if (code)
        return code;
    add_string(hasher, c->file[i]);
    sf_hasher_add(hasher, &file.bytes, sizeof file.bytes);
    if (file.bytes)
        sf_hasher_add(hasher, file.data, file.bytes);
    code = sf_mapping_check(&file, c->file[i], err);
    sf_unmap(&file);
    return code;
}

int dataset_key(struct sf_hash128 *out, const struct sft_dataset_config *config, struct sf_err *err)
{
    struct sf_hasher *hasher;
    int code = sf_hasher_open(&hasher, err);
    if (code)
        return code;
    add_options(hasher, config);
    for (int64_t i = 0; !code && i < config->files; i++)
        code = add_file(hasher, config, i, err);
    *out = sf_hasher_digest(hasher);
    sf_hasher_close(hasher);
    return code;
}
