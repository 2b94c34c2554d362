#define _GNU_SOURCE
#include "libformat/base/jobs.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "libformat/base/mem.h"

struct job_queue {
    pthread_mutex_t lock;
    sf_job_fn *job;
    void *context;
    int64_t next, count;
    int64_t failed_index; /* lowest failed job so far; count if none */
    struct sf_err failure;
};

struct worker {
    struct job_queue *queue;
    int number;
    pthread_t thread;
};

static int64_t take_job(struct job_queue *q)
{
    pthread_mutex_lock(&q->lock);
    int64_t index = q->failed_index < q->count ? q->count : q->next;
    if (index < q->count)
        q->next++;
    pthread_mutex_unlock(&q->lock);
    return index;
}

static void report_failure(struct job_queue *q, int64_t index, const struct sf_err *err)
{
    pthread_mutex_lock(&q->lock);
    if (index < q->failed_index) {
        q->failed_index = index;
        q->failure = *err;
    }
    pthread_mutex_unlock(&q->lock);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct job_queue *q = w->queue;
    for (int64_t i; (i = take_job(q)) < q->count;) {
        struct sf_err err = {0};
        int code = q->job(q->context, i, w->number, &err);
        if (code != SF_OK) {
            err.code = code;
            report_failure(q, i, &err);
        }
    }
    return NULL;
}

int sf_jobs_run(sf_job_fn *job, void *context, int64_t count, int threads, struct sf_err *err)
{
    if (threads > count)
        threads = (int)count;
    if (threads < 1)
        threads = 1;
    struct job_queue q = {.job = job, .context = context, .count = count, .failed_index = count};
    pthread_mutex_init(&q.lock, NULL);
    struct worker self = {.queue = &q};
    struct worker *others = threads > 1 ? sf_alloc(sizeof *others * (uint64_t)(threads - 1)) : NULL;
    int started = 0;
    /* Fewer threads than asked for is slower, never wrong: the caller's own thread always works. */
    for (int i = 0; others && i < threads - 1; i++) {
        others[i] = (struct worker){.queue = &q, .number = i + 1};
        if (pthread_create(&others[i].thread, NULL, work, &others[i]) != 0)
            break;
        started++;
    }
    work(&self);
    for (int i = 0; i < started; i++)
        pthread_join(others[i].thread, NULL);
    sf_free(others);
    pthread_mutex_destroy(&q.lock);
    if (q.failed_index == count)
        return SF_OK;
    if (err)
        *err = q.failure;
    return q.failure.code;
}

int sf_cpu_count(void)
{
    cpu_set_t set;
    long n;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    else /* more processors than cpu_set_t has bits */
        n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}
