/* image.h -- the frozen weights of a model as kernels want them: role -> struct sk_matrix.
 *
 * On the CPU the views point straight into the container's mapping: NF4 stays NF4 and is expanded a
 * tile at a time by the kernels. Nothing is copied. Under CUDA they point into the block that
 * device_image.h fills (backend.h brings the two together). A view is asked for each time it is
 * used and never stored, so that an image may move its experts about.
 *
 * Life: opened over a map that outlives it; closed before that. Threads: read-only once open. */
#ifndef SCOUT_TRAIN_IMAGE_H
#define SCOUT_TRAIN_IMAGE_H

#include "kernels/matrix.h"
#include "libformat/base/err.h"
#include "libformat/container/container_map.h"
#include "libformat/tensor/model_spec.h"

struct sft_image;

/* Views over a container, every weight that text training of `spec` reads.
 * SF_ENOENT: a tensor is missing. SF_EFORMAT: one has another shape than the config says.
 * SF_EUNSUPPORTED: an encoding or block size no kernel reads. The message names the tensor. */
int sft_image_open(struct sft_image **out, const struct sf_map *map,
                   const struct sf_model_spec *spec, struct sf_err *err);
void sft_image_close(struct sft_image *image); /* NULL is welcome */

/* The matrix of `role`; for an expert's part the whole layer's [experts], role.expert ignored. */
const struct sk_matrix *sft_image_matrices(const struct sft_image *image, struct sf_role role);

/* The same with the bytes somewhere else: `at` gives the place of a payload address (of `role`'s
 * tensor) as kernels see it, NULL (SF_EUNSUPPORTED) where it is not. */
typedef const void *sft_image_at_fn(void *context, struct sf_role role, uint64_t address);
int sft_image_open_at(struct sft_image **out, const struct sf_map *map,
                      const struct sf_model_spec *spec, sft_image_at_fn *at, void *context,
                      struct sf_err *err);

/* Views from anywhere: `view` is called once for every role (experts one by one) and fills *out,
 * whose memory must outlive the image. rows and cols are checked against `spec`. */
typedef int sft_image_view_fn(struct sk_matrix *out, void *context, struct sf_role role,
                              struct sf_err *err);
int sft_image_open_views(struct sft_image **out, const struct sf_model_spec *spec,
                         sft_image_view_fn *view, void *context, struct sf_err *err);

#endif
