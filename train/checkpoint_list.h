/* checkpoint_list.h -- the checkpoints of an output folder: which is the newest whole one, which go. */
#ifndef SCOUT_TRAIN_CHECKPOINT_LIST_H
#define SCOUT_TRAIN_CHECKPOINT_LIST_H

#include "train/checkpoint.h"

/* What a run may find in its output folder. */
enum sft_output_mode {
    SFT_OUTPUT_NEW,       /* nothing of a run */
    SFT_OUTPUT_OVERWRITE, /* anything: it is replaced */
    SFT_OUTPUT_RESUME     /* checkpoints, or nothing yet */
};

struct sft_checkpoint_list {
    int64_t *step; /* [count], ascending; folders named checkpoint-<step> */
    int64_t count;
};
/* In `arena`. A folder that is not there has none. */
int sft_checkpoint_list(struct sft_checkpoint_list *out, struct sf_arena *arena,
                        const char *directory, struct sf_err *err);
/* "directory/checkpoint-7"; NULL: no memory. */
char *sft_checkpoint_folder(struct sf_arena *arena, const char *directory, int64_t step);

/* Makes the folder and sees that it can be written to: before any work. SF_EINVAL when it holds an
 * adapter or checkpoints and the mode does not allow for them. */
int sft_checkpoint_prepare(const char *directory, enum sft_output_mode mode, struct sf_err *err);

/* Who is told of a checkpoint that is not whole: one sentence. */
typedef void (*sft_checkpoint_note)(void *context, const char *text);
/* Reads the newest whole checkpoint; *folder is NULL when the folder holds none at all. Others are
 * passed over, each with a note. SF_EDAMAGED: there are some, but none is whole. */
int sft_checkpoint_newest(struct sft_resume_record *out, const char **folder,
                          struct sf_arena *arena, const char *directory, sft_checkpoint_note note,
                          void *context, struct sf_err *err);
/* Before a run writes: those behind `step` become checkpoint-<n>.damaged, what a killed process left
 * half written goes. Step -1: all checkpoints go as well (an earlier run is replaced). */
int sft_checkpoint_clear(const char *directory, int64_t step, struct sf_err *err);
/* Removes the oldest until `limit` are left (0: any number), but never `newest` nor `best`. */
int sft_checkpoint_rotate(const char *directory, int64_t limit, int64_t newest, int64_t best,
                          struct sf_err *err);

#endif
