/* expect.h -- what the tensors of shards will be that are still being downloaded.
 *
 * Names stand in the checkpoint's index, shapes follow from the config, and every weight is
 * supposed to have the dtype that the config names (bf16 if it names none). So all addresses are
 * known before the first shard is there. Of tensors that text training does not use nothing can be
 * told: they come last in the file, and wait until they are known (convert_plan.h). */
#ifndef SCOUT_LIBFORMAT_CONVERT_EXPECT_H
#define SCOUT_LIBFORMAT_CONVERT_EXPECT_H

#include "libformat/hf/hf_index.h"
#include "libformat/tensor/model_spec.h"

/* For an index opened with `expect`, before a plan is built from it. */
int sf_expect_suppose(struct sf_hf_index *index, const struct sf_model_spec *spec,
                      struct sf_err *err);
enum sf_dtype sf_expect_dtype(const struct sf_model_spec *spec);

#endif
