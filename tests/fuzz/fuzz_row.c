/* Any bytes as one row of a data file, conversations with their tools among them, in every format and
 * with every choice of what is trained: refused with a sentence, or ids of the vocabulary and labels
 * that agree with them. The tokenizer is the file that SCOUT_FUZZ_TOKENIZER names. */
#include <stdint.h>
#include <stdlib.h>

#include "libformat/base/file.h"
#include "train/data/row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LARGEST_TOKENIZER = 1 << 20, WAYS = 3 };

static struct sft_row_encoder encoder[WAYS];
static struct sft_row_tokens tokens[WAYS];

static void open_tokenizer(void)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_tokenizer *tokenizer;
    char *text;
    uint64_t bytes;
    const char *path = getenv("SCOUT_FUZZ_TOKENIZER");
    if (!path || sf_read_file(&text, &bytes, &arena, path, LARGEST_TOKENIZER, &err) != SF_OK ||
        sf_tokenizer_open(&tokenizer, text, bytes, &err) != SF_OK)
        abort();
    sf_arena_free(&arena);
    encoder[0] = (struct sft_row_encoder){.chat = SF_CHAT_LLAMA4, .add_special = true};
    encoder[1] =
        (struct sft_row_encoder){.chat = SF_CHAT_LLAMA4_TRIMMED, .train_on = SFT_TRAIN_ON_LAST};
    encoder[2] = (struct sft_row_encoder){.chat = SF_CHAT_NONE, .train_on = SFT_TRAIN_ON_ALL};
    for (int i = 0; i < WAYS; i++) {
        encoder[i].tokenizer = tokenizer;
        encoder[i].vocabulary = sf_tokenizer_vocabulary(tokenizer);
        encoder[i].end_of_text = i - 1;
        if (sft_row_tokens_open(&tokens[i], &encoder[i], &err) != SF_OK)
            abort();
    }
}

static void check(const struct sft_row_tokens *row, int64_t vocabulary)
{
    if (row->id.count != row->label.count)
        abort();
    for (int64_t i = 0; i < row->id.count; i++) {
        int32_t id = row->id.id[i], label = row->label.id[i];
        if (id < 0 || id >= vocabulary ||
            (label != SFT_NO_TARGET && (label < 0 || label >= vocabulary)))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sf_json *row;
    if (!encoder[0].tokenizer)
        open_tokenizer();
    if (sf_json_parse(&row, (const char *)data, size, &err) != SF_OK) {
        if (!err.message[0])
            abort();
        return 0;
    }
    for (int i = 0; i < WAYS; i++) {
        err = (struct sf_err){0};
        if (sft_row_encode(&tokens[i], &encoder[i], row, &err) == SF_OK)
            check(&tokens[i], encoder[i].vocabulary);
        else if (!err.message[0])
            abort();
    }
    sf_json_free(row);
    return 0;
}
