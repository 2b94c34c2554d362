/* device_image.h -- the resident part of a container in one block of device memory, checked there.
 *
 * Extents that training needs on the device (layers, experts, head, codebooks) are copied as they lie,
 * one after the other; nothing is staged in another precision. Worker threads read pieces of the file
 * into small pinned slots while earlier slots are still on their way. Then every chunk is hashed in
 * device memory and compared with the container's checksums: disk, bus and memory are covered.
 *
 * Life: opened from a map that outlives it; device memory is freed at close. Device memory during the
 * load is what stays after it, plus one hash per chunk. Its functions are built only with CUDA. */
#ifndef SCOUT_TRAIN_DEVICE_IMAGE_H
#define SCOUT_TRAIN_DEVICE_IMAGE_H

#include <stdbool.h>

#include "kernels/device.h"
#include "libformat/container/container_check.h"

struct sft_device_image;

struct sft_load_options {
    int threads;         /* readers; 0: all processors, at most SFT_LOAD_THREADS_MOST */
    uint64_t slot_bytes; /* pinned bytes of one slot, two a thread; 0: 2 MiB */
    bool skip_check;     /* for measuring what the check costs; damage goes unnoticed */
    void (*on_progress)(void *context, uint64_t done,
                        uint64_t total); /* caller's thread; or NULL */
    void *context;
};
enum { SFT_LOAD_THREADS_MOST = 32, SFT_LOAD_SLOT_BYTES = 2 << 20 };
/* Host memory that is pinned while such a load lasts; threads above 0. */
static inline uint64_t sft_load_ring_bytes(int threads, uint64_t slot_bytes)
{
    int readers = threads < SFT_LOAD_THREADS_MOST ? threads : SFT_LOAD_THREADS_MOST;
    return 2 * (uint64_t)readers * (slot_bytes ? slot_bytes : (uint64_t)SFT_LOAD_SLOT_BYTES);
}

struct sft_load_report {
    uint64_t bytes;                     /* resident */
    double fill_seconds, check_seconds; /* the check starts when the fill is done */
};

/* SF_ENOMEM: the device has no room (the message has both numbers). SF_EDAMAGED: a chunk does not
 * match; the message names it by layer, expert and tensor. *report may be NULL. */
int sft_device_image_open(struct sft_device_image **out, const struct sf_map *map,
                          const struct sk_device *device, const struct sft_load_options *options,
                          struct sft_load_report *report, struct sf_err *err);
void sft_device_image_close(struct sft_device_image *image); /* NULL is welcome */

/* Device address of a payload address; NULL where the extent is not resident. */
void *sft_device_image_at(const struct sft_device_image *image, uint64_t address);
uint64_t sft_device_image_bytes(const struct sft_device_image *image);

#endif
