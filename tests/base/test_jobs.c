#define _GNU_SOURCE
#include "tests/support/support.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/jobs.h"

enum { JOBS = 500 };

struct tally {
    atomic_int runs[JOBS];
    atomic_int busy[64]; /* is this worker number in use right now? */
    int threads;
    int64_t fail_from, slow_failure;
};

static int count_job(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct tally *t = context;
    (void)err;
    ck_assert_int_ge(worker, 0);
    ck_assert_int_lt(worker, t->threads);
    ck_assert_int_eq(atomic_fetch_add(&t->busy[worker], 1), 0);
    atomic_fetch_add(&t->runs[index], 1);
    atomic_fetch_sub(&t->busy[worker], 1);
    return SF_OK;
}

START_TEST(every_job_runs_once)
{
    for (int threads = -1; threads <= 9; threads++) {
        struct tally t = {.threads = threads < 1 ? 1 : threads};
        struct sf_err err = {0};
        assert_ok(sf_jobs_run(count_job, &t, JOBS, threads, &err), err);
        for (int i = 0; i < JOBS; i++)
            ck_assert_int_eq(atomic_load(&t.runs[i]), 1);
    }
}
END_TEST

START_TEST(few_or_no_jobs)
{
    struct sf_err err = {0};
    for (int count = 0; count < 3; count++) {
        struct tally t = {.threads = 8};
        assert_ok(sf_jobs_run(count_job, &t, count, 8, &err), err);
        for (int i = 0; i < JOBS; i++)
            ck_assert_int_eq(atomic_load(&t.runs[i]), i < count);
    }
}
END_TEST

/* The job `slow_failure` fails late, those from `fail_from` on at once. */
static int failing_job(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct tally *t = context;
    (void)worker;
    atomic_fetch_add(&t->runs[index], 1);
    if (index == t->slow_failure) {
        usleep(100000);
        return sf_fail(err, SF_EFORMAT, "job %d", (int)index);
    }
    return index >= t->fail_from ? sf_fail(err, SF_EIO, "job %d", (int)index) : SF_OK;
}

START_TEST(the_lowest_failure_is_reported)
{
    for (int threads = 1; threads <= 4; threads++) {
        struct tally t = {.threads = threads, .slow_failure = 20, .fail_from = 21};
        struct sf_err err = {0};
        assert_fails(sf_jobs_run(failing_job, &t, JOBS, threads, &err), SF_EFORMAT, "job 20", err);
        ck_assert_int_eq(err.code, SF_EFORMAT);
        int ran = 0;
        for (int i = 0; i < JOBS; i++)
            ran += atomic_load(&t.runs[i]);
        ck_assert_int_ge(ran, 21);
        ck_assert_int_lt(ran, 21 + threads); /* after a failure no job is started */
        ck_assert_int_eq(sf_jobs_run(failing_job, &t, JOBS, threads, NULL), SF_EFORMAT);
    }
}
END_TEST

START_TEST(cpu_count)
{
    cpu_set_t all, one;
    ck_assert_int_eq(sched_getaffinity(0, sizeof all, &all), 0);
    ck_assert_int_eq(sf_cpu_count(), CPU_COUNT(&all));
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    ck_assert_int_eq(sf_cpu_count(), 1);
    sched_setaffinity(0, sizeof all, &all);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("jobs");
    TCase *t = tcase_create("jobs");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, every_job_runs_once);
    tcase_add_test(t, few_or_no_jobs);
    tcase_add_test(t, the_lowest_failure_is_reported);
    tcase_add_test(t, cpu_count);
    suite_add_tcase(s, t);
    return s;
}
SCOUT_TEST_MAIN(suite)
