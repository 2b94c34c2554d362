/* checkpoint.h -- one checkpoint folder: an adapter that PEFT loads, and what a run needs to go on.
 *
 *     adapter_model.safetensors, adapter_config.json   the adapter
 *     optimizer.bin                                    its moments, as they lie in the block
 *     metrics.jsonl                                    the rows so far
 *     resume.json                                      state, facts, the hash of each file above
 *
 * A folder appears under its name whole or not at all: it is written as NAME.partial, every file and
 * the folder itself synced, then renamed. On disk: spec/resume.md. */
#ifndef SCOUT_TRAIN_CHECKPOINT_H
#define SCOUT_TRAIN_CHECKPOINT_H

#include "libformat/adapter/adapter_file.h"
#include "train/lora.h"
#include "train/resume_record.h"

struct sft_checkpoint {    /* what every checkpoint of a run has in common */
    const char *directory; /* of the run */
    const char *base_model;
    enum sf_adapter_prefix prefix;
    enum sf_adapter_layout layout; /* of routed experts */
    const struct sf_model_spec *spec;
};

/* The adapter alone into `directory`: PEFT's two files. */
int sft_checkpoint_write_adapter(const struct sft_checkpoint *checkpoint, const char *directory,
                                 struct sft_lora *lora, struct sf_err *err);
/* directory/checkpoint-<step>, in the place of one that is there. `record` without its files;
 * `metrics`: the file whose rows go with it. The adapter must be allocated for training. */
int sft_checkpoint_write(const struct sft_checkpoint *checkpoint, struct sft_lora *lora,
                         const struct sft_resume_record *record, const char *metrics,
                         struct sf_err *err);
/* Reads resume.json in `folder` and compares every file it names, size and hash.
 * SF_ENOENT: no resume.json. SF_EDAMAGED, SF_EFORMAT name the file. */
int sft_checkpoint_read(struct sft_resume_record *out, struct sf_arena *arena, const char *folder,
                        struct sf_err *err);
/* Parameters into the adapter's block. */
int sft_checkpoint_load_adapter(struct sft_lora *lora, const struct sft_checkpoint *checkpoint,
                                const char *folder, struct sf_err *err);
/* Parameters and moments: an adapter as it was when `folder` was written. */
int sft_checkpoint_load(struct sft_lora *lora, const struct sft_checkpoint *checkpoint,
                        const char *folder, struct sf_err *err);

#endif
