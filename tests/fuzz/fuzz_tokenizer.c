/* Any bytes as tokenizer.json: refused with a sentence, or a tokenizer that encodes. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const struct sf_tokenizer *tokenizer, const char *text, uint64_t bytes)
{
    struct sf_err err = {0};
    struct sf_tokenizer_scratch *scratch;
    struct sf_ids ids = {0};
    if (sf_tokenizer_scratch_open(&scratch, tokenizer, &err) != SF_OK)
        return;
    sf_tokenizer_encode(&ids, tokenizer, text, bytes, true, scratch, &err);
    for (int64_t i = 0; i < ids.count; i++)
        if (ids.id[i] < 0 || ids.id[i] >= sf_tokenizer_vocabulary(tokenizer))
            abort();
    sf_ids_free(&ids);
    sf_tokenizer_scratch_close(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] =
        "Call me Ishmael.\n\n  Some years 1851 ago--caf\xc3\xa9 \xf0\x9f\x90\x8b";
    struct sf_err err = {0};
    struct sf_tokenizer *tokenizer;
    if (sf_tokenizer_open(&tokenizer, (const char *)data, size, &err) != SF_OK) {
        if (!err.message[0])
            abort();
        return 0;
    }
    encode(tokenizer, text, sizeof text - 1);
    encode(tokenizer, (const char *)data, size);
    sf_tokenizer_close(tokenizer);
    return 0;
}
