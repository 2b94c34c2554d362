/* Jobs that write one number without a lock: what the thread sanitizer must find (tsan.sh), or it
 * finds nothing at all. */
#include <stdio.h>

#include "libformat/base/jobs.h"

static volatile int64_t sum; /* volatile: each addition is one */

static int add(void *context, int64_t index, int worker, struct sf_err *err)
{
    (void)context, (void)worker, (void)err;
    for (int i = 0; i < 200000; i++) /* long enough for jobs to overlap */
        sum = sum + index;
    return SF_OK;
}

int main(void)
{
    struct sf_err err = {0};
    int code = sf_jobs_run(add, NULL, 64, 4, &err);
    printf("%lld\n", (long long)sum);
    return code ? 1 : 0;
}
