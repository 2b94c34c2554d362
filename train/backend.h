/* backend.h -- where a run computes: the processor, or one CUDA device that holds the weights.
 *
 * A backend is an op table with its context, and for a device the block of weights, loaded straight
 * from the container and checked where it lies (device_image.h). Open finds the device; load brings
 * the weights; views of them are what the step runs on. Embedding rows stay in the container's
 * mapping on the host.
 *
 * Life: close after everything that computes with it. A backend for planning knows its table and
 * touches no device. Threads: one caller. */
#ifndef SCOUT_TRAIN_BACKEND_H
#define SCOUT_TRAIN_BACKEND_H

#include "kernels/ops.h"
#include "libformat/container/container_map.h"
#include "train/image.h"

enum sft_device_kind { SFT_DEVICE_AUTO, SFT_DEVICE_CPU, SFT_DEVICE_CUDA };
/* "auto", "cpu", "cuda". */
bool sft_device_from_name(enum sft_device_kind *out, const char *name);

struct sft_backend_info {
    const char *name;                 /* "NVIDIA H100 80GB HBM3", "cpu" */
    const char *library;              /* whose products they are; NULL while planning */
    uint64_t total_bytes, free_bytes; /* of the device when it was opened; 0 on the CPU */
    uint64_t library_bytes;           /* taken of the device by then, the workspace included */
    uint64_t workspace_bytes;         /* device memory that the context was given: cuda_ctx.h */
};

struct sft_backend;

/* AUTO: the first CUDA device if there is one that can run this build, else the processor; why not a
 * device is then in `reason` (may be NULL; SF_OK where nothing went wrong). CUDA in a build without
 * it is SF_EUNSUPPORTED. `planning`: nothing is allocated on a device, and CUDA needs none. */
int sft_backend_open(struct sft_backend **out, enum sft_device_kind kind, int threads,
                     bool planning, struct sf_err *reason, struct sf_err *err);
void sft_backend_close(struct sft_backend *backend); /* NULL is welcome */

const struct sk_ops *sft_backend_ops(const struct sft_backend *backend);
struct sk_ctx *sft_backend_ctx(struct sft_backend *backend);
const struct sft_backend_info *sft_backend_info(const struct sft_backend *backend);

/* Bytes in use on the device, by everybody; on the CPU the most this process has had. 0: unknown. */
uint64_t sft_backend_memory(const struct sft_backend *backend);

struct sft_load_seconds {
    uint64_t bytes;                     /* copied to the device; 0 on the CPU */
    double fill_seconds, check_seconds; /* the check runs on the device, behind the fill */
};
/* Weights, as views. On a device they are loaded and every checksum is compared there: SF_EDAMAGED
 * names the place. On the CPU and for planning the views are the mapping's, unchecked. *seconds and
 * on_progress may be NULL. The image is closed before the backend, the map after both. */
int sft_backend_load(struct sft_image **out, struct sft_backend *backend, const struct sf_map *map,
                     const struct sf_model_spec *spec, struct sft_load_seconds *seconds,
                     void (*on_progress)(void *context, uint64_t done, uint64_t total),
                     void *context, struct sf_err *err);

#endif
