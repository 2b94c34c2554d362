/* resume_record.h -- resume.json of a checkpoint: what run this is, where it stands, and the hash of
 * every other file of the checkpoint. On disk: spec/resume.md.
 *
 * Facts are names and values as text, in a fixed order. Those of the run decide what it computes: a
 * run goes on only where all of them are equal. Those of the place (device, libraries, version) only
 * decide the last bits. Strings and lists live in the caller's arena. */
#ifndef SCOUT_TRAIN_RESUME_RECORD_H
#define SCOUT_TRAIN_RESUME_RECORD_H

#include "libformat/base/arena.h"
#include "libformat/codec/frame.h"
#include "train/run_state.h"

struct sft_fact {
    const char *name, *value;
};
struct sft_facts {
    struct sft_fact *fact;
    int64_t count, room;
    bool failed; /* out of memory while adding */
};
/* Formats the value; strings are copied. */
void sft_facts_add(struct sft_facts *facts, struct sf_arena *arena, const char *name,
                   const char *fmt, ...) SF_PRINTF(4, 5);
/* The shortest decimal that reads back as the same double. */
void sft_facts_add_double(struct sft_facts *facts, struct sf_arena *arena, const char *name,
                          double value);
/* What differs, as text: "learning-rate was 0.001, is 0.002; seed was 42, is 43". NULL: nothing. A
 * fact that one of them lacks counts as "nothing". */
const char *sft_facts_differences(struct sf_arena *arena, const struct sft_facts *was,
                                  const struct sft_facts *is);

struct sft_kept_file {
    const char *name;
    uint64_t bytes;
    struct sf_hash128 hash; /* XXH3-128 */
};

struct sft_resume_record {
    struct sft_run_state state;
    struct sft_facts run, place;
    struct sft_kept_file *file;
    int64_t files;
};

enum { SFT_RESUME_VERSION = 1, SFT_RESUME_MOST_BYTES = 16 << 20, SFT_RESUME_MOST_FILES = 64 };

/* The text of resume.json in `arena`. */
int sft_resume_record_write(char **text, uint64_t *bytes, struct sf_arena *arena,
                            const struct sft_resume_record *record, struct sf_err *err);
/* SF_EDAMAGED: its checksum does not match. SF_EFORMAT: not a record. SF_EUNSUPPORTED: of a newer
 * version. Names of files are plain names, never paths. */
int sft_resume_record_read(struct sft_resume_record *out, struct sf_arena *arena, const char *text,
                           uint64_t bytes, struct sf_err *err);

#endif
