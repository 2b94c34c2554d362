/* arena.h -- memory that lives and dies together.
 *
 * One arena per lifetime, named for it (`run`, `batch`). Allocation bumps a pointer in chunks taken
 * from sf_alloc; nothing is freed one by one. An arena parameter in a signature means "the result
 * lives there". Threads: one arena is used by one thread at a time.
 * Life: `struct sf_arena a = {0};` is ready; sf_arena_free ends it and leaves it ready again. */
#ifndef SCOUT_LIBFORMAT_BASE_ARENA_H
#define SCOUT_LIBFORMAT_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "libformat/base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sf_arena_chunk;
struct sf_arena {
    struct sf_arena_chunk *chunks; /* newest first */
    uint64_t used_bytes;           /* handed out since the last reset, padding included */
};

/* Zeroed memory on 16 bytes, or NULL when there is none. */
void *sf_arena_alloc(struct sf_arena *arena, uint64_t bytes);
/* `count` elements of `size` bytes; NULL as well when the product does not fit 64 bits. */
void *sf_arena_array(struct sf_arena *arena, uint64_t count, uint64_t size);
/* A copy of text[0..bytes) with a NUL behind it; NULL when there is no memory. */
char *sf_arena_strndup(struct sf_arena *arena, const char *text, uint64_t bytes);
char *sf_arena_strdup(struct sf_arena *arena, const char *text);
char *sf_arena_printf(struct sf_arena *arena, const char *fmt, ...) SF_PRINTF(2, 3);

/* Forgets every allocation but keeps the memory for reuse (the largest chunk). */
void sf_arena_reset(struct sf_arena *arena);
void sf_arena_free(struct sf_arena *arena);

#ifdef __cplusplus
}
#endif

#endif
