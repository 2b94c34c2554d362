#include "libformat/base/arena.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/mem.h"

enum { ARENA_ALIGN = 16, ARENA_FIRST_CHUNK = 16 << 10, ARENA_LARGEST_STEP = 8 << 20 };

struct sf_arena_chunk {
    struct sf_arena_chunk *next;
    uint64_t size; /* of data */
    uint64_t used;
    uint64_t pad; /* keeps data on ARENA_ALIGN */
    unsigned char data[];
};

static struct sf_arena_chunk *add_chunk(struct sf_arena *arena, uint64_t bytes)
{
    uint64_t size = arena->chunks ? arena->chunks->size * 2 : ARENA_FIRST_CHUNK;
    if (size > ARENA_LARGEST_STEP)
        size = ARENA_LARGEST_STEP;
    if (size < bytes)
        size = bytes;
    uint64_t total;
    if (!sf_add(&total, size, sizeof(struct sf_arena_chunk)))
        return NULL;
    struct sf_arena_chunk *chunk = sf_alloc_lazy(total);
    if (!chunk)
        return NULL;
    chunk->size = size;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    return chunk;
}

void *sf_arena_alloc(struct sf_arena *arena, uint64_t bytes)
{
    uint64_t need;
    if (!sf_align_up(&need, bytes ? bytes : 1, ARENA_ALIGN))
        return NULL;
    struct sf_arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < need)
        chunk = add_chunk(arena, need);
    if (!chunk)
        return NULL;
    void *ptr = chunk->data + chunk->used;
    chunk->used += need;
    arena->used_bytes += need;
    return ptr;
}

void *sf_arena_array(struct sf_arena *arena, uint64_t count, uint64_t size)
{
    uint64_t bytes;
    return sf_mul(&bytes, count, size) ? sf_arena_alloc(arena, bytes) : NULL;
}

char *sf_arena_strndup(struct sf_arena *arena, const char *text, uint64_t bytes)
{
    uint64_t total;
    char *copy = sf_add(&total, bytes, 1) ? sf_arena_alloc(arena, total) : NULL;
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

char *sf_arena_strdup(struct sf_arena *arena, const char *text)
{
    return sf_arena_strndup(arena, text, strlen(text));
}

char *sf_arena_printf(struct sf_arena *arena, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = n < 0 ? NULL : sf_arena_alloc(arena, (uint64_t)n + 1);
    if (text)
        vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text;
}

void sf_arena_reset(struct sf_arena *arena)
{
    struct sf_arena_chunk *keep = NULL;
    for (struct sf_arena_chunk *c = arena->chunks; c; c = c->next)
        if (!keep || c->size > keep->size)
            keep = c;
    for (struct sf_arena_chunk *c = arena->chunks, *next; c; c = next) {
        next = c->next;
        if (c != keep)
            sf_free(c);
    }
    if (keep) {
        memset(keep->data, 0, keep->used);
        keep->used = 0;
        keep->next = NULL;
    }
    arena->chunks = keep;
    arena->used_bytes = 0;
}

void sf_arena_free(struct sf_arena *arena)
{
    for (struct sf_arena_chunk *c = arena->chunks, *next; c; c = next) {
        next = c->next;
        sf_free(c);
    }
    *arena = (struct sf_arena){0};
}
