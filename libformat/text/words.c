#include "libformat/text/words.h"

#include <assert.h>
#include <string.h>

#include "libformat/base/mem.h"

uint64_t sf_words_hash(const void *data, uint64_t bytes)
{
    const unsigned char *p = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (uint64_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h ^ h >> 29; /* the low bits choose the slot: let the high ones have a say */
}

int sf_words_init(struct sf_words *words, int64_t count, struct sf_err *err)
{
    assert(count >= 0);
    uint64_t slots = 16;
    while (slots < (uint64_t)count * 2)
        slots *= 2;
    void *block;
    int code = sf_alloc_for(&block, slots * sizeof *words->slot, "token table", err);
    if (code != SF_OK)
        return code;
    *words = (struct sf_words){.slot = block, .mask = slots - 1};
    return SF_OK;
}

void sf_words_free(struct sf_words *words)
{
    sf_free(words->slot);
    *words = (struct sf_words){0};
}

/* The slot that holds the string, or the free one where it belongs. */
static struct sf_word *slot_of(const struct sf_words *words, const char *text, uint64_t bytes)
{
    uint64_t i = sf_words_hash(text, bytes) & words->mask;
    while (words->slot[i].text &&
           (words->slot[i].bytes != bytes || memcmp(words->slot[i].text, text, bytes) != 0))
        i = (i + 1) & words->mask;
    return &words->slot[i];
}

int sf_words_add(struct sf_words *words, const char *text, uint32_t bytes, int32_t id,
                 struct sf_err *err)
{
    struct sf_word *slot = slot_of(words, text, bytes);
    if (slot->text)
        return sf_fail(err, SF_EFORMAT, "token \"%s\" stands twice (ids %d and %d)", text, slot->id,
                       id);
    *slot = (struct sf_word){.text = text, .bytes = bytes, .id = id};
    return SF_OK;
}

int32_t sf_words_find(const struct sf_words *words, const char *text, uint64_t bytes)
{
    if (!words->slot)
        return -1;
    const struct sf_word *slot = slot_of(words, text, bytes);
    return slot->text ? slot->id : -1;
}
