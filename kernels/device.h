/* device.h -- one CUDA device: memory, pinned host memory, and lanes that copy to it. The one door
 * to the CUDA runtime for C code; kernels (.cu) sit behind headers of their own.
 *
 * Every failed call becomes an sf_err with the call's name and CUDA's sentence (SF_ECUDA; SF_ENOMEM
 * when memory ran out). Only built where a CUDA toolkit is found. Life: open a device, then what
 * belongs to it; close in reverse. Threads: any thread may allocate; a lane belongs to one thread. */
#ifndef SCOUT_KERNELS_DEVICE_H
#define SCOUT_KERNELS_DEVICE_H

#include <stdint.h>

#include "libformat/base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sk_device;

struct sk_device_info {
    char name[256];
    int major, minor; /* compute capability */
    int multiprocessors;
    uint64_t total_bytes, free_bytes; /* free: at the time of asking */
};

/* SF_ECUDA in one sentence when there is no driver, no such device, or the driver or the card is
 * older than what this program was built for. */
int sk_device_open(struct sk_device **out, int ordinal, struct sf_err *err);
void sk_device_close(struct sk_device *device); /* NULL is welcome */
int sk_device_info(struct sk_device_info *out, const struct sk_device *device, struct sf_err *err);
/* Makes the calling thread use this device: once per thread before its first other call. */
int sk_device_enter(const struct sk_device *device, struct sf_err *err);
/* Waits for all work on the device. */
int sk_device_wait(const struct sk_device *device, struct sf_err *err);

/* Device memory on 256 bytes, contents undefined. `what` names it in the error. */
int sk_device_alloc(void **out, uint64_t bytes, const char *what, struct sf_err *err);
void sk_device_free(void *memory); /* NULL is welcome */
/* Waiting copies, for small things. */
int sk_device_write(void *device_memory, const void *host, uint64_t bytes, struct sf_err *err);
int sk_device_read(void *host, const void *device_memory, uint64_t bytes, struct sf_err *err);

/* A lane: a stream and two pinned slots. Fill a slot, send it, fill the other meanwhile. */
struct sk_lane;
int sk_lane_open(struct sk_lane **out, uint64_t slot_bytes, struct sf_err *err);
void sk_lane_close(struct sk_lane *lane); /* NULL is welcome */
/* The slot that is free next; waits until its last copy is done. */
int sk_lane_slot(void **out, struct sk_lane *lane, struct sf_err *err);
/* Starts the copy of that slot's first `bytes` to device memory. */
int sk_lane_send(struct sk_lane *lane, void *device_memory, uint64_t bytes, struct sf_err *err);
/* Waits until everything sent has arrived. */
int sk_lane_wait(struct sk_lane *lane, struct sf_err *err);

#ifdef __cplusplus
}
#endif

#endif
