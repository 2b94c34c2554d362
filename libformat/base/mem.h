/* mem.h -- the one door to the heap, and size arithmetic that cannot wrap.
 *
 * Every allocation of the project goes through sf_alloc, so that tests can make the n-th one fail.
 * Byte sizes are uint64_t, counts int64_t; a product of numbers that came from a file goes through
 * sf_mul / sf_add, which say no instead of wrapping. */
#ifndef SCOUT_LIBFORMAT_BASE_MEM_H
#define SCOUT_LIBFORMAT_BASE_MEM_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Zeroed memory on `SF_ALLOC_ALIGN` bytes, or NULL. `bytes` 0 gives a valid pointer. Thread-safe.
 * The caller frees with sf_free. */
enum { SF_ALLOC_ALIGN = 64 };
void *sf_alloc(uint64_t bytes);
/* The same on 16 bytes only; a large one costs nothing where it is not touched. Also for sf_free. */
void *sf_alloc_lazy(uint64_t bytes);
void sf_free(void *ptr); /* NULL is welcome */

/* All of these bytes will be written, now: pages are asked for at once, not one fault each. A hint;
 * nothing is lost where the system does not take it. */
void sf_will_write(void *ptr, uint64_t bytes);

/* sf_alloc with the error filled in: "cannot allocate N bytes for <what>". */
int sf_alloc_for(void **out, uint64_t bytes, const char *what, struct sf_err *err);

/* A list that grows: room for `want` things of `each` bytes, twice as many as before when it has to move,
 * with the first `count` in it. An empty list is NULL with capacity 0. On failure all is as it was. */
int sf_grow(void **list, int64_t *capacity, int64_t count, int64_t want, uint64_t each,
            const char *what, struct sf_err *err);

/* Makes the n-th following sf_alloc fail (1 = the next), once; 0 switches this off. Tests only. */
void sf_alloc_fail_after(int64_t n);
/* Bytes asked of this door so far, by all threads. Tests take differences. */
uint64_t sf_alloc_bytes(void);
/* Requests that got nothing so far. What went on without, knows by a difference that something of it
 * may be missing. */
uint64_t sf_alloc_failures(void);

/* *out = a op b; false (and *out untouched) when the result does not fit. */
static inline bool sf_mul(uint64_t *out, uint64_t a, uint64_t b)
{
    uint64_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool sf_add(uint64_t *out, uint64_t a, uint64_t b)
{
    uint64_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

/* Rounds up to a multiple of `align`, a power of two; false when it does not fit. */
static inline bool sf_align_up(uint64_t *out, uint64_t value, uint64_t align)
{
    uint64_t r;
    if (!sf_add(&r, value, align - 1))
        return false;
    *out = r & ~(align - 1);
    return true;
}

#ifdef __cplusplus
}
#endif

#endif
