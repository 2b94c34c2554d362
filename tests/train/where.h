/* where.h -- the same suite on the processor and, built with SCOUT_TEST_CUDA, on a GPU (skipped where
 * there is none). Bars differ: float32 meets the references to rounding, bfloat16 to what it costs. */
#ifndef SCOUT_TESTS_TRAIN_WHERE_H
#define SCOUT_TESTS_TRAIN_WHERE_H

#include "train/backend.h"

#ifdef SCOUT_TEST_CUDA
#include "tests/support/gpu_suite.h"

static const enum sft_device_kind where = SFT_DEVICE_CUDA;
static struct sk_device *where_device;
#define WHERE_MAIN(suite)                                                                          \
    int main(void)                                                                                 \
    {                                                                                              \
        return scout_gpu_test_run(&where_device, suite);                                           \
    }
#define WHERE(cpu, cuda) (cuda)
#else
static const enum sft_device_kind where = SFT_DEVICE_CPU;
#define WHERE_MAIN(suite) SCOUT_TEST_MAIN(suite)
#define WHERE(cpu, cuda) (cpu)
#endif

#endif
