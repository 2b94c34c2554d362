/* Any bytes as a file of rows: refused with a sentence, or rows whose ids lie in the vocabulary.
 * Conversations are rendered and then refused, since there is no tokenizer. The same bytes as a chat
 * template: recognised, or refused with a sentence. */
#include "libformat/base/file.h"
#include "tests/fuzz/folder.h"
#include "train/data/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VOCABULARY = 100, LONGEST_ROW = 8, LARGEST_TOKENIZER = 1 << 20 };

static int64_t noted;

static void note(void *context, const char *text)
{
    (void)context;
    noted += text[0] != 0;
}

/* With a tokenizer, what is too long cut or left out, and the bytes as plain text as well. */
static void try_texts(const uint8_t *data, size_t size)
{
    static struct sf_tokenizer *tokenizer;
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    char *text;
    uint64_t bytes;
    const char *path = getenv("SCOUT_FUZZ_TOKENIZER");
    if (!tokenizer &&
        (!path || sf_read_file(&text, &bytes, &arena, path, LARGEST_TOKENIZER, &err) != SF_OK ||
         sf_tokenizer_open(&tokenizer, text, bytes, &err) != SF_OK))
        abort();
    sf_arena_free(&arena);
    fuzz_write("rows.txt", data, size);
    for (int way = 0; way < 4; way++) {
        struct sft_dataset rows = {0};
        const char *name = fuzz_path(way == 1 ? "rows.txt" : "rows.jsonl");
        struct sft_dataset_config config = {
            .file = &name,
            .files = 1,
            .encoder = {.tokenizer = tokenizer,
                        .vocabulary = sf_tokenizer_vocabulary(tokenizer) - (way == 3),
                        .chat = SF_CHAT_LLAMA4,
                        .end_of_text = -1},
            .max_length = LONGEST_ROW,
            .mode = way % 2 ? SFT_TEXT_BLOCKS : SFT_TEXT_DOCUMENTS,
            .too_long = way == 2 ? SFT_LONG_SKIP : SFT_LONG_TRUNCATE,
            .untrainable = SFT_UNTRAINABLE_SKIP,
            .on_note = note};
        err = (struct sf_err){0};
        if (sft_dataset_open(&rows, &config, &err) != SF_OK && !err.message[0])
            abort();
        if (rows.longest > LONGEST_ROW)
            abort();
        sft_dataset_free(&rows);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sft_dataset rows = {0};
    enum sf_chat_format format;
    if (sf_chat_format_recognise(&format, (const char *)data, size, &err) != SF_OK &&
        !err.message[0])
        abort();
    err = (struct sf_err){0};
    if (sf_chat_format_from_name(&format, sf_chat_format_name(SF_CHAT_LLAMA4)) !=
            (format == SF_CHAT_LLAMA4) ||
        sf_chat_format_from_name(&format, "no such"))
        abort();
    fuzz_write("rows.jsonl", data, size);
    if (size % 16 == 0) /* slow: tables of a tokenizer are made for each */
        try_texts(data, size);
    const char *name = fuzz_path("rows.jsonl");
    struct sft_dataset_config config = {.file = &name,
                                        .files = 1,
                                        .encoder.vocabulary = VOCABULARY,
                                        .encoder.chat = SF_CHAT_LLAMA4,
                                        .max_length = 16,
                                        .mode = SFT_TEXT_DOCUMENTS};
    if (sft_dataset_open(&rows, &config, &err) != SF_OK) {
        if (!err.message[0])
            abort();
        sft_dataset_free(&rows);
        return 0;
    }
    int64_t tokens = 0;
    for (int64_t r = 0; r < rows.rows; r++) {
        int32_t id[16], target[16];
        int64_t length = sft_dataset_length(&rows, r);
        if (length < 1 || length > rows.longest || length > 16)
            abort();
        sft_dataset_read(id, target, &rows, r);
        for (int64_t i = 0; i < length; i++)
            if (id[i] < 0 || id[i] >= VOCABULARY ||
                (target[i] != SFT_NO_TARGET && (target[i] < 0 || target[i] >= VOCABULARY)))
                abort();
        tokens += length;
    }
    if (rows.rows < 1 || tokens != rows.tokens)
        abort();
    sft_dataset_free(&rows);
    return 0;
}
