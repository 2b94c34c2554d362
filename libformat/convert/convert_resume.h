/* convert_resume.h -- what stands in a conversion's journal, written and taken up again.
 *
 * Three steps: match (is this the conversion that the journal tells of?), take up (mark what is
 * done, check that the sources are still those), record (after each sync). Main thread only, but
 * record, which one thread at a time may call. */
#ifndef SCOUT_LIBFORMAT_CONVERT_CONVERT_RESUME_H
#define SCOUT_LIBFORMAT_CONVERT_CONVERT_RESUME_H

#include "libformat/convert/convert.h"
#include "libformat/convert/convert_work.h"

/* SF_EINVAL, with the difference, when the journal was begun for something else. An empty journal
 * matches everything. */
int sf_resume_match(struct sf_journal *journal, struct sf_work *work,
                    const struct sf_convert_options *options, struct sf_err *err);

/* Marks recorded units and pieces done and restores their checksums, or, where the
 * journal speaks of more payload than the `standing` bytes, begins the journal anew. A shard whose date
 * changed is read again as far as it was used: SF_EINVAL if it is not what it was. Units whose
 * shards are not there wait, where the options say so; else that is SF_ENOENT. */
int sf_resume_take_up(struct sf_work *work, struct sf_journal *journal, struct sf_writer *writer,
                      uint64_t standing, const struct sf_convert_options *options,
                      struct sf_err *err);

/* The errors of all rows, where everything is done and nothing need be taken up. */
int sf_resume_recall(struct sf_work *work, const struct sf_journal *journal, struct sf_err *err);

/* A unit that is synced, and the pieces read with it, become part of the journal (not yet synced).
 */
int sf_resume_record(struct sf_journal *journal, const struct sf_work *work,
                     const struct sf_writer *writer, const struct sf_unit *unit,
                     struct sf_err *err);

#endif
