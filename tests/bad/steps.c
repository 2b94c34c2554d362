/* Stands before libc; compiled without coverage, sanitizers and builtins. */
#include "tests/bad/steps.h"

#include <stdatomic.h>
#include <stddef.h>

static atomic_ullong steps;

uint64_t steps_so_far(void)
{
    return atomic_load(&steps);
}

static void count(size_t n)
{
    atomic_fetch_add_explicit(&steps, n, memory_order_relaxed);
}

void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
    count(1);
}

static int compare(const unsigned char *a, const unsigned char *b, size_t most, int text)
{
    size_t i = 0;
    while (i < most && a[i] == b[i] && (!text || a[i]))
        i++;
    count(i + 1);
    return i < most ? a[i] - b[i] : 0;
}

int strcmp(const char *a, const char *b);
int strcmp(const char *a, const char *b)
{
    return compare((const unsigned char *)a, (const unsigned char *)b, SIZE_MAX, 1);
}

int strncmp(const char *a, const char *b, size_t n);
int strncmp(const char *a, const char *b, size_t n)
{
    return compare((const unsigned char *)a, (const unsigned char *)b, n, 1);
}

int memcmp(const void *a, const void *b, size_t n);
int memcmp(const void *a, const void *b, size_t n)
{
    return compare(a, b, n, 0);
}

void *memchr(const void *data, int byte, size_t n);
void *memchr(const void *data, int byte, size_t n)
{
    const unsigned char *p = data;
    size_t i = 0;
    while (i < n && p[i] != (unsigned char)byte)
        i++;
    count(i + 1);
    return i < n ? (void *)(uintptr_t)(p + i) : NULL;
}
