/* jobs.h -- run a numbered list of independent jobs on some threads.
 *
 * Jobs are taken in order, each by whichever thread is free. Nothing about the result may depend on
 * which thread ran a job. When jobs fail, the error of the lowest-numbered failed job is reported,
 * and no further job is started. */
#ifndef SCOUT_LIBFORMAT_BASE_JOBS_H
#define SCOUT_LIBFORMAT_BASE_JOBS_H

#include <stdint.h>

#include "libformat/base/err.h"

/* job(context, index, worker, err): worker is 0..threads-1, for per-thread buffers. */
typedef int sf_job_fn(void *context, int64_t index, int worker, struct sf_err *err);

/* Runs job 0..count-1 on `threads` threads (1: on the caller's own). Returns when all are done. */
int sf_jobs_run(sf_job_fn *job, void *context, int64_t count, int threads, struct sf_err *err);

/* Processors this process may run on, at least 1. */
int sf_cpu_count(void);

#endif
