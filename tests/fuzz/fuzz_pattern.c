/* Any bytes as the pattern that a tokenizer splits at: refused with a sentence, or rewritten. A table of
 * all code points is made for each, so this is slow. */
#include <stddef.h>
#include <stdlib.h>

#include "libformat/text/pattern.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_pattern pattern;
    const char *text = sf_arena_strndup(&arena, (const char *)data, size);
    if (!text || (sf_pattern_rewrite(&pattern, text, &arena, &err) != SF_OK && !err.message[0]))
        abort();
    sf_arena_free(&arena);
    return 0;
}
