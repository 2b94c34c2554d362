#include "libformat/text/text_buffer.h"

#include <string.h>

#include "libformat/base/mem.h"

static int grow(struct sf_text *text, uint64_t bytes, struct sf_err *err)
{
    uint64_t wanted = text->capacity ? text->capacity : 256;
    void *bigger;
    while (wanted < bytes && wanted <= UINT64_MAX / 2)
        wanted *= 2;
    int code = sf_alloc_for(&bigger, wanted, "a text", err);
    if (code)
        return code;
    if (text->bytes)
        memcpy(bigger, text->at, text->bytes);
    sf_free(text->at);
    text->at = bigger;
    text->capacity = wanted;
    return SF_OK;
}

int sf_text_add(struct sf_text *text, const char *more, uint64_t bytes, struct sf_err *err)
{
    uint64_t end;
    if (!sf_add(&end, text->bytes, bytes) || end == UINT64_MAX)
        return sf_fail(err, SF_ENOMEM, "a text of more than %llu bytes",
                       (unsigned long long)text->bytes);
    if (end + 1 > text->capacity) {
        int code = grow(text, end + 1, err);
        if (code)
            return code;
    }
    if (bytes)
        memcpy(text->at + text->bytes, more, bytes);
    text->bytes = end;
    text->at[end] = 0;
    return SF_OK;
}

int sf_text_add_string(struct sf_text *text, const char *more, struct sf_err *err)
{
    return sf_text_add(text, more, strlen(more), err);
}

void sf_text_free(struct sf_text *text)
{
    sf_free(text->at);
    *text = (struct sf_text){0};
}
