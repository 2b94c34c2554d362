/* Any bytes as a file of rows: refused with a sentence, or rows whose ids lie in the vocabulary.
 * Conversations are rendered and then refused, since there is no tokenizer. The same bytes as a chat
 * template: recognised, or refused with a sentence. */
#include "tests/fuzz/folder.h"
#include "train/data/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VOCABULARY = 100 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sft_dataset rows = {0};
    enum sf_chat_format format;
    if (sf_chat_format_recognise(&format, (const char *)data, size, &err) != SF_OK &&
        !err.message[0])
        abort();
    err = (struct sf_err){0};
    fuzz_write("rows.jsonl", data, size);
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
    if (rows.rows < 1 || rows.start[0] != 0 || rows.start[rows.rows] != rows.tokens)
        abort();
    for (int64_t r = 0; r < rows.rows; r++)
        if (sft_dataset_length(&rows, r) < 1 || sft_dataset_length(&rows, r) > rows.longest)
            abort();
    for (int64_t i = 0; i < rows.tokens; i++)
        if (rows.id[i] < 0 || rows.id[i] >= VOCABULARY ||
            (rows.target[i] != SFT_NO_TARGET &&
             (rows.target[i] < 0 || rows.target[i] >= VOCABULARY)))
            abort();
    sft_dataset_free(&rows);
    return 0;
}
