#include "kernels/cuda_fault.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { ALLOC, COPY, LAUNCH, MAKE, WAIT, OTHER, ANY, LOST, KINDS };

static const char *const names[KINDS] = {"alloc", "copy",  "launch", "make",
                                         "wait",  "other", "any",    "lost"};

int sk_cuda_faults;
static const char *report;
static enum kind wanted = KINDS; /* none */
static long long at;
static atomic_llong calls[KINDS];
static atomic_bool hit;

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* `call` is the source text of the call, or "launch". */
static enum kind kind_of(const char *call)
{
    size_t name = strcspn(call, "(");
    if (starts(call, "cudaMalloc"))
        return ALLOC;
    if (starts(call, "cudaMemcpy") || starts(call, "cudaMemset"))
        return COPY;
    if (starts(call, "launch") || starts(call, "cudaGetLastError") || starts(call, "cublasGemm"))
        return LAUNCH;
    if (starts(call, "cublas"))
        return MAKE;
    const char *create = strstr(call, "Create"), *wait = strstr(call, "Synchronize");
    if (create && create < call + name)
        return MAKE;
    return wait && wait < call + name ? WAIT : OTHER;
}

static cudaError_t failure(enum kind kind)
{
    if (wanted == LOST)
        return cudaErrorDevicesUnavailable;
    if (kind == ALLOC)
        return cudaErrorMemoryAllocation;
    return kind == LAUNCH ? cudaErrorLaunchFailure : cudaErrorUnknown;
}

cudaError_t sk_cuda_count(const char *call)
{
    enum kind kind = kind_of(call);
    long long of_kind = atomic_fetch_add(&calls[kind], 1) + 1;
    long long of_any = atomic_fetch_add(&calls[ANY], 1) + 1;
    bool fails = (wanted == kind && of_kind == at) || (wanted == ANY && of_any == at) ||
                 (wanted == LOST && of_any >= at);
    if (!fails)
        return cudaSuccess;
    atomic_store(&hit, true);
    return failure(kind);
}

static void write_report(void)
{
    FILE *file = fopen(report, "w");
    if (!file)
        return;
    for (int i = 0; i <= ANY; i++)
        fprintf(file, "%s %lld\n", names[i], (long long)atomic_load(&calls[i]));
    fprintf(file, "hit %d\n", atomic_load(&hit) ? 1 : 0);
    fclose(file);
}

void sk_cuda_faults_start(void)
{
    const char *text = getenv("SCOUT_CUDA_FAULT");
    if (sk_cuda_faults)
        return;
    for (int i = 0; text && i < KINDS; i++)
        if (starts(text, names[i]) && text[strlen(names[i])] == ':') {
            wanted = (enum kind)i;
            at = atoll(text + strlen(names[i]) + 1);
        }
    report = getenv("SCOUT_CUDA_FAULT_REPORT");
    sk_cuda_faults = report || (wanted != KINDS && at > 0);
    if (report)
        atexit(write_report);
}
