#include "kernels/device.h"

#include <string.h>

#include "kernels/cuda_call.h"
#include "libformat/base/mem.h"

enum { SLOTS = 2 };

struct sk_device {
    int ordinal;
};

struct sk_lane {
    cudaStream_t stream;
    cudaEvent_t sent[SLOTS];
    unsigned char *slot[SLOTS];
    int next;
};

/* The driver and the card must be able to run what was compiled in: an empty kernel tells. */
static __global__ void nothing(void)
{
}

static int check_device(int ordinal, struct sf_err *err)
{
    int count = 0, driver = 0, runtime = 0;
    cudaError_t result;
    SK_CUDA_TRY(result, cudaGetDeviceCount(&count));
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return sf_fail(err, SF_ECUDA, "no NVIDIA driver on this machine");
    if (result == cudaErrorInsufficientDriver)
        return sf_fail(err, SF_ECUDA,
                       "the NVIDIA driver speaks CUDA %d.%d, this program was built with %d.%d",
                       driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (result != cudaSuccess || count == 0)
        return sf_fail(err, SF_ECUDA, "no CUDA device: %s", cudaGetErrorString(result));
    if (ordinal < 0 || ordinal >= count)
        return sf_fail(err, SF_ECUDA, "no CUDA device %d, there are %d", ordinal, count);
    SK_CUDA(cudaSetDevice(ordinal), err);
    nothing<<<1, 1>>>();
    SK_CUDA_TRY(result, cudaGetLastError());
    cudaDeviceProp p;
    if (result == cudaSuccess)
        return SF_OK;
    SK_CUDA(cudaGetDeviceProperties(&p, ordinal), err);
    return sf_fail(err, SF_ECUDA, "%s (compute capability %d.%d) cannot run this build: %s", p.name,
                   p.major, p.minor, cudaGetErrorString(result));
}

extern "C" int sk_device_open(struct sk_device **out, int ordinal, struct sf_err *err)
{
    sk_cuda_faults_start();
    int code = check_device(ordinal, err);
    if (code != SF_OK)
        return code;
    struct sk_device *device = (struct sk_device *)sf_alloc(sizeof *device);
    if (!device)
        return sf_fail(err, SF_ENOMEM, "no memory for a device handle");
    device->ordinal = ordinal;
    *out = device;
    return SF_OK;
}

extern "C" void sk_device_close(struct sk_device *device)
{
    sf_free(device);
}

extern "C" int sk_device_info(struct sk_device_info *out, const struct sk_device *device,
                              struct sf_err *err)
{
    cudaDeviceProp p;
    size_t free_bytes, total_bytes;
    SK_CUDA(cudaGetDeviceProperties(&p, device->ordinal), err);
    SK_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes), err);
    memset(out, 0, sizeof *out);
    strncpy(out->name, p.name, sizeof out->name - 1);
    out->major = p.major;
    out->minor = p.minor;
    out->multiprocessors = p.multiProcessorCount;
    out->total_bytes = total_bytes;
    out->free_bytes = free_bytes;
    return SF_OK;
}

extern "C" int sk_device_enter(const struct sk_device *device, struct sf_err *err)
{
    SK_CUDA(cudaSetDevice(device->ordinal), err);
    return SF_OK;
}

extern "C" int sk_device_wait(const struct sk_device *device, struct sf_err *err)
{
    (void)device;
    SK_CUDA(cudaDeviceSynchronize(), err);
    return SF_OK;
}

extern "C" int sk_device_alloc(void **out, uint64_t bytes, const char *what, struct sf_err *err)
{
    cudaError_t result;
    SK_CUDA_TRY(result, cudaMalloc(out, bytes ? bytes : 1));
    if (result == cudaSuccess)
        return SF_OK;
    cudaGetLastError(); /* a failed allocation leaves the device as it was */
    return sf_fail(err, sk_cuda_code(result),
                   "cannot allocate %llu bytes of device memory for %s: %s",
                   (unsigned long long)bytes, what, cudaGetErrorString(result));
}

extern "C" void sk_device_free(void *memory)
{
    cudaFree(memory);
}

extern "C" int sk_device_write(void *device_memory, const void *host, uint64_t bytes,
                               struct sf_err *err)
{
    /* From pageable memory the call alone returns when the bytes are staged: other streams would
     * race with their way to the device. */
    SK_CUDA(cudaMemcpy(device_memory, host, bytes, cudaMemcpyHostToDevice), err);
    SK_CUDA(cudaStreamSynchronize(cudaStreamLegacy), err);
    return SF_OK;
}

extern "C" int sk_device_read(void *host, const void *device_memory, uint64_t bytes,
                              struct sf_err *err)
{
    SK_CUDA(cudaMemcpy(host, device_memory, bytes, cudaMemcpyDeviceToHost), err);
    return SF_OK;
}

/* ---- lanes ---- */

static int fill_lane(struct sk_lane *lane, uint64_t slot_bytes, struct sf_err *err)
{
    SK_CUDA(cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking), err);
    for (int i = 0; i < SLOTS; i++) {
        SK_CUDA(cudaEventCreateWithFlags(&lane->sent[i], cudaEventDisableTiming), err);
        SK_CUDA(cudaMallocHost((void **)&lane->slot[i], slot_bytes), err);
    }
    return SF_OK;
}

extern "C" int sk_lane_open(struct sk_lane **out, uint64_t slot_bytes, struct sf_err *err)
{
    struct sk_lane *lane = (struct sk_lane *)sf_alloc(sizeof *lane);
    if (!lane)
        return sf_fail(err, SF_ENOMEM, "no memory for a copy lane");
    int code = fill_lane(lane, slot_bytes, err);
    if (code != SF_OK) {
        sk_lane_close(lane);
        return code;
    }
    *out = lane;
    return SF_OK;
}

extern "C" void sk_lane_close(struct sk_lane *lane)
{
    if (!lane)
        return;
    if (lane->stream)
        cudaStreamSynchronize(lane->stream);
    for (int i = 0; i < SLOTS; i++) {
        if (lane->sent[i])
            cudaEventDestroy(lane->sent[i]);
        cudaFreeHost(lane->slot[i]);
    }
    if (lane->stream)
        cudaStreamDestroy(lane->stream);
    sf_free(lane);
}

extern "C" int sk_lane_slot(void **out, struct sk_lane *lane, struct sf_err *err)
{
    SK_CUDA(cudaEventSynchronize(lane->sent[lane->next]), err); /* never recorded: no wait */
    *out = lane->slot[lane->next];
    return SF_OK;
}

extern "C" int sk_lane_send(struct sk_lane *lane, void *device_memory, uint64_t bytes,
                            struct sf_err *err)
{
    int i = lane->next;
    SK_CUDA(
        cudaMemcpyAsync(device_memory, lane->slot[i], bytes, cudaMemcpyHostToDevice, lane->stream),
        err);
    SK_CUDA(cudaEventRecord(lane->sent[i], lane->stream), err);
    lane->next = (i + 1) % SLOTS;
    return SF_OK;
}

extern "C" int sk_lane_wait(struct sk_lane *lane, struct sf_err *err)
{
    SK_CUDA(cudaStreamSynchronize(lane->stream), err);
    return SF_OK;
}
