/* gpu_suite.h -- the main of a suite that needs a GPU: without one it is skipped (ctest's status 77),
 * which only tests labelled gpu may be. */
#ifndef SCOUT_TESTS_SUPPORT_GPU_SUITE_H
#define SCOUT_TESTS_SUPPORT_GPU_SUITE_H

#include <stdio.h>
#include <stdlib.h>

#include "kernels/device.h"
#include "tests/support/support.h"

enum { SCOUT_NO_GPU = 77 };

/* Opens device 0 into *device, runs the suite in this process, closes the device. */
static inline int scout_gpu_test_run(struct sk_device **device, Suite *(*make_suite)(void))
{
    struct sf_err err = {0};
    setenv("CK_FORK", "no", 1); /* a CUDA context does not survive fork */
    if (sk_device_open(device, 0, &err) != SF_OK) {
        printf("skipped: %s\n", err.message);
        return SCOUT_NO_GPU;
    }
    int status = scout_test_run(make_suite());
    sk_device_close(*device);
    return status;
}

#endif
