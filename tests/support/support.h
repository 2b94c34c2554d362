/* support.h -- what every suite needs: scratch space, fixtures, random numbers, honest comparisons.
 *
 * Include this instead of <check.h>. Suites end with SCOUT_TEST_MAIN(suite_function). */
#ifndef SCOUT_TESTS_SUPPORT_SUPPORT_H
#define SCOUT_TESTS_SUPPORT_SUPPORT_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"

/* Before suites are made: a case may take a minute (Check's own limit is 4 s, which a loaded machine
 * under sanitizers exceeds); tcase_set_timeout and CK_DEFAULT_TIMEOUT still win. */
void scout_test_prepare(void);
/* Runs the suite (in one process with CK_FORK=no), prints Check's closing line, exits 0 or 1. */
int scout_test_run(Suite *suite);
#define SCOUT_TEST_MAIN(make_suite)                                                                \
    int main(void)                                                                                 \
    {                                                                                              \
        scout_test_prepare();                                                                      \
        return scout_test_run(make_suite());                                                       \
    }

/* Asserts SF_OK and shows the message otherwise. `err` is a struct sf_err, not a pointer. */
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        int assert_ok_code = (call);                                                               \
        ck_assert_msg(assert_ok_code == SF_OK, "%s -> %s: %s", #call,                              \
                      sf_code_name(assert_ok_code), (err).message);                                \
    } while (0)
/* Asserts that the call fails with `want` and that its message contains `part`. */
#define assert_fails(call, want, part, err)                                                        \
    do {                                                                                           \
        int assert_fails_code = (call);                                                            \
        ck_assert_msg(assert_fails_code == (want), "%s -> %s: %s", #call,                          \
                      sf_code_name(assert_fails_code), (err).message);                             \
        ck_assert_msg(strstr((err).message, (part)), "%s says \"%s\", not \"%s\"", #call,          \
                      (err).message, (part));                                                      \
    } while (0)

/* A fresh directory for this test process, removed when the process that made it ends well. */
const char *scout_scratch(void);
/* scratch/name and source-tree/name; borrowed from a ring of 16 static buffers. */
const char *scout_scratch_path(const char *name);
const char *scout_source_path(const char *name);

/* splitmix64: the same numbers everywhere. */
struct scout_random {
    uint64_t state;
};
uint64_t scout_random_u64(struct scout_random *r);
double scout_random_uniform(struct scout_random *r); /* [0, 1) */
float scout_random_normal(struct scout_random *r);
void scout_random_fill(float *out, int64_t n, float scale, struct scout_random *r);

/* ||a - b|| / ||b|| in double; NaN anywhere gives NaN. */
double scout_relative_error(const float *a, const float *b, int64_t n);
/* Asserts relative error <= tolerance; the message has the worst element, its place and the share
 * of the tolerance used. */
void scout_assert_close(const char *what, const float *got, const float *want, int64_t n,
                        double tolerance);
/* NaN-fills floats so that an element nobody wrote cannot pass. */
void scout_poison(float *out, int64_t n);

#endif
