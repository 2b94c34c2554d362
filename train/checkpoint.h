/* checkpoint.h -- where a run writes: the adapter as it stands, and the folder for it. */
#ifndef SCOUT_TRAIN_CHECKPOINT_H
#define SCOUT_TRAIN_CHECKPOINT_H

#include <stdbool.h>

#include "libformat/adapter/adapter_file.h"
#include "train/lora.h"

struct sft_checkpoint {
    const char *directory; /* of the run */
    const char *base_model;
    enum sf_adapter_prefix prefix;
    const struct sf_model_spec *spec;
};

/* Makes the folder and sees that it can be written to: before any work. SF_EINVAL when an adapter
 * is there already and `overwrite` is not set. */
int sft_checkpoint_prepare(const char *directory, bool overwrite, struct sf_err *err);
/* The adapter into the folder itself (step 0), or into checkpoint-<step>/ below. */
int sft_checkpoint_write(const struct sft_checkpoint *checkpoint, struct sft_lora *lora,
                         int64_t step, struct sf_err *err);

#endif
