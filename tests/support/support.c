#define _GNU_SOURCE
#include "tests/support/support.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch[64];
static pid_t scratch_owner;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)st, (void)type, (void)walk;
    return remove(path);
}

static void remove_scratch(void)
{
    if (scratch[0] && getpid() == scratch_owner)
        nftw(scratch, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *scout_scratch(void)
{
    if (!scratch[0]) {
        strcpy(scratch, "/tmp/scout-test-XXXXXX");
        if (!mkdtemp(scratch)) {
            perror("mkdtemp");
            exit(1);
        }
        scratch_owner = getpid();
        atexit(remove_scratch);
    }
    return scratch;
}

static const char *join(const char *dir, const char *name)
{
    static char ring[16][4096];
    static int next;
    char *path = ring[next++ % 16];
    snprintf(path, sizeof ring[0], "%s/%s", dir, name);
    return path;
}

const char *scout_scratch_path(const char *name)
{
    return join(scout_scratch(), name);
}

const char *scout_source_path(const char *name)
{
    const char *root = getenv("SCOUT_SOURCE_DIR");
    return join(root ? root : SCOUT_SOURCE_DIR, name);
}

void scout_test_prepare(void)
{
    setenv("CK_DEFAULT_TIMEOUT", "60", 0);
}

int scout_test_run(Suite *suite)
{
    scout_scratch(); /* made here, so that forked cases share it and only the parent removes it */
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

uint64_t scout_random_u64(struct scout_random *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double scout_random_uniform(struct scout_random *r)
{
    return (double)(scout_random_u64(r) >> 11) * 0x1p-53;
}

float scout_random_normal(struct scout_random *r)
{
    double u = scout_random_uniform(r) + 0x1p-54, v = scout_random_uniform(r);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

void scout_random_fill(float *out, int64_t n, float scale, struct scout_random *r)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = scale * scout_random_normal(r);
}

double scout_relative_error(const float *a, const float *b, int64_t n)
{
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - b[i];
        diff += d * d;
        norm += (double)b[i] * b[i];
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

void scout_assert_close(const char *what, const float *got, const float *want, int64_t n,
                        double tolerance)
{
    double error = scout_relative_error(got, want, n);
    int64_t worst = 0;
    for (int64_t i = 1; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= fabs((double)got[worst] - want[worst])))
            worst = i;
    ck_assert_msg(error <= tolerance,
                  "%s: relative error %.3g, %.1f times the tolerance %.3g; worst element %lld: got "
                  "%.9g, want %.9g",
                  what, error, error / tolerance, tolerance, (long long)worst, got[worst],
                  want[worst]);
}

void scout_poison(float *out, int64_t n)
{
    memset(out, 0xff, (size_t)n * sizeof *out);
}
