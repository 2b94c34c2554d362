#include "libformat/base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static atomic_llong fail_after; /* 0: never */
static atomic_ullong asked;     /* bytes */
static atomic_ullong failures;  /* requests */

void sf_alloc_fail_after(int64_t n)
{
    atomic_store(&fail_after, n);
}

uint64_t sf_alloc_bytes(void)
{
    return atomic_load(&asked);
}

uint64_t sf_alloc_failures(void)
{
    return atomic_load(&failures);
}

static void *count_failure(void *ptr)
{
    if (!ptr)
        atomic_fetch_add(&failures, 1);
    return ptr;
}

static bool must_fail(uint64_t bytes)
{
    atomic_fetch_add_explicit(&asked, bytes, memory_order_relaxed);
    if (atomic_load_explicit(&fail_after, memory_order_relaxed) <= 0)
        return false;
    return atomic_fetch_sub(&fail_after, 1) == 1;
}

void *sf_alloc(uint64_t bytes)
{
    uint64_t rounded;
    if (!sf_align_up(&rounded, bytes ? bytes : 1, SF_ALLOC_ALIGN) || rounded > SIZE_MAX / 2)
        return count_failure(NULL);
    void *ptr = must_fail(rounded) ? NULL : aligned_alloc(SF_ALLOC_ALIGN, rounded);
    if (ptr)
        memset(ptr, 0, rounded);
    return count_failure(ptr);
}

/* calloc knows that fresh pages are zero already. */
void *sf_alloc_lazy(uint64_t bytes)
{
    bool none = bytes > SIZE_MAX / 2 || must_fail(bytes);
    return count_failure(none ? NULL : calloc(1, bytes ? (size_t)bytes : 1));
}

void sf_will_write(void *ptr, uint64_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)ptr;
    uintptr_t first = (begin + page - 1) & ~(page - 1), end = (begin + bytes) & ~(page - 1);
    if (end > first)
        madvise((unsigned char *)ptr + (first - begin), end - first, MADV_POPULATE_WRITE);
#else
    (void)ptr, (void)bytes;
#endif
}

void sf_free(void *ptr)
{
    free(ptr);
}

int sf_alloc_for(void **out, uint64_t bytes, const char *what, struct sf_err *err)
{
    *out = sf_alloc(bytes);
    if (*out)
        return SF_OK;
    return sf_fail(err, SF_ENOMEM, "cannot allocate %llu bytes for %s", (unsigned long long)bytes,
                   what);
}

int sf_grow(void **list, int64_t *capacity, int64_t count, int64_t want, uint64_t each,
            const char *what, struct sf_err *err)
{
    enum { LEAST = 64 };
    int64_t room = *capacity <= INT64_MAX / 2 ? *capacity * 2 : INT64_MAX;
    uint64_t bytes;
    void *larger;
    if (want <= *capacity)
        return SF_OK;
    room = room < want ? want : room;
    room = room < LEAST ? LEAST : room;
    if (!sf_mul(&bytes, (uint64_t)room, each))
        return sf_fail(err, SF_ENOMEM, "%lld entries are too many for %s", (long long)want, what);
    int code = sf_alloc_for(&larger, bytes, what, err);
    if (code != SF_OK)
        return code;
    if (count > 0)
        memcpy(larger, *list, (uint64_t)count * each);
    sf_free(*list);
    *list = larger;
    *capacity = room;
    return SF_OK;
}
