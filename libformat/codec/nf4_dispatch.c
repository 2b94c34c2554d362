#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/codec/nf4.h"
#include "libformat/codec/nf4_kernels.h"

#define TABLE(path)                                                                                \
    {                                                                                              \
        .name = #path, .tops = sf_nf4_tops_##path, .tops_down = sf_nf4_tops_down_##path,           \
        .codes = sf_nf4_codes_##path, .errors = sf_nf4_errors_##path,                              \
        .decode = sf_nf4_decode_##path, .turn = sf_nf4_turn_##path,                                \
        .nearest = sf_nf4_nearest_##path, .search = sf_nf4_search_##path                           \
    }

/* Best first. */
static const struct sf_nf4_kernels tables[] = {
#if defined(__x86_64__)
    TABLE(avx512),
    TABLE(avx2),
#elif defined(__aarch64__)
    TABLE(neon),
#endif
    TABLE(portable),
};
enum { TABLES = sizeof tables / sizeof tables[0] };

static bool processor_has(const char *name)
{
#if defined(__x86_64__)
    if (strcmp(name, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (strcmp(name, "avx2") == 0)
        return __builtin_cpu_supports("avx2");
#endif
    (void)name; /* the rest every processor of its kind has */
    return true;
}

/* NULL name: the best. NULL result: no such set, or not on this processor. */
static const struct sf_nf4_kernels *find(const char *name)
{
    for (int i = 0; i < TABLES; i++)
        if ((!name || strcmp(name, tables[i].name) == 0) && processor_has(tables[i].name))
            return &tables[i];
    return NULL;
}

/* What SCOUT_NF4 asks for; NULL: nothing. */
static const char *asked_for(void)
{
    const char *name = getenv("SCOUT_NF4");
    return name && *name ? name : NULL;
}

int sf_nf4_check_choice(struct sf_err *err)
{
    char names[64] = "";
    size_t used = 0;
    if (find(asked_for()))
        return SF_OK;
    for (int i = 0; i < TABLES && used < sizeof names; i++)
        if (processor_has(tables[i].name))
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "",
                                     tables[i].name);
    return sf_fail(err, SF_EINVAL, "SCOUT_NF4=%s: this processor has %s", asked_for(), names);
}

/* Threads that meet an empty pointer at once all store the same thing. */
static _Atomic(const struct sf_nf4_kernels *) chosen;

const struct sf_nf4_kernels *sf_nf4_kernels(void)
{
    const struct sf_nf4_kernels *now = atomic_load_explicit(&chosen, memory_order_acquire);
    if (now)
        return now;
    now = find(asked_for());
    now = now ? now : find(NULL);
    atomic_store_explicit(&chosen, now, memory_order_release);
    return now;
}

bool sf_nf4_use(const char *path)
{
    const struct sf_nf4_kernels *want = find(path);
    if (want)
        atomic_store_explicit(&chosen, want, memory_order_release);
    return want != NULL;
}

const char *sf_nf4_path(void)
{
    return sf_nf4_kernels()->name;
}
