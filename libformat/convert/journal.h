/* journal.h -- what a conversion has done so far, beside its output as `path` + ".journal".
 *
 * Records are added and synced after what they speak of is safe in the partial file, so whatever
 * the journal says is true after any crash. A torn last record is forgotten at open. The open
 * journal is also the lock: one process per output. Not thread-safe. */
#ifndef SCOUT_LIBFORMAT_CONVERT_JOURNAL_H
#define SCOUT_LIBFORMAT_CONVERT_JOURNAL_H

#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/hf/hf_index.h"

enum sf_journal_type { /* number; data */
                       SF_JOURNAL_HEAD =
                           1, /* 0; text: what this conversion is, see convert_resume.c */
                       SF_JOURNAL_SHARD =
                           2, /* shard; as sf_journal_add_shard writes it. The last one counts. */
                       SF_JOURNAL_PIECE = 3, /* piece; its hash */
                       SF_JOURNAL_UNIT =
                           4, /* unit; errors of its tensors, checksums of its chunks */
                       SF_JOURNAL_FINISHED =
                           5,              /* 0; nothing: all units are there, the rename follows */
                       SF_JOURNAL_FILE = 6 /* 0; hash and name of a file that is carried */
};

struct sf_journal_record {
    uint32_t type;
    uint64_t number;
    const unsigned char *data; /* the journal's */
    uint64_t bytes;
};

struct sf_journal;

/* SF_EACCES while another process converts to `path`. */
int sf_journal_open(struct sf_journal **out, const char *path, struct sf_err *err);
/* The records that stood there at open, in order. */
int64_t sf_journal_count(const struct sf_journal *journal);
const struct sf_journal_record *sf_journal_at(const struct sf_journal *journal, int64_t i);
const struct sf_journal_record *sf_journal_find(const struct sf_journal *journal, uint32_t type);
/* The shards among them. */
const struct sf_hf_memory *sf_journal_shards(int64_t *count, const struct sf_journal *journal);

/* Reads again what stands in the journal now: everything above is as if it had just been opened, and
 * what was borrowed is gone. Nothing may be waiting for a sync. */
int sf_journal_reload(struct sf_journal *journal, struct sf_err *err);

/* Records wait in memory for the next sync, which writes them all. */
int sf_journal_add(struct sf_journal *journal, uint32_t type, uint64_t number, const void *data,
                   uint64_t bytes, struct sf_err *err);
int sf_journal_add_shard(struct sf_journal *journal, int64_t number,
                         const struct sf_hf_shard *shard, struct sf_err *err);
/* Of a SHARD record: when the file was last changed. */
int64_t sf_journal_shard_modified_ns(const struct sf_journal_record *record);
int sf_journal_sync(struct sf_journal *journal, struct sf_err *err);
/* Forgets everything. */
int sf_journal_clear(struct sf_journal *journal, struct sf_err *err);
/* Ends the lock; an empty journal is removed. NULL is welcome. */
void sf_journal_close(struct sf_journal *journal);

#endif
