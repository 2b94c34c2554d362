/* convert_finish.h -- the end of a conversion: commit, and reading back what stands there then.
 * Private to libformat/convert. `path` is that of the whole, as in convert.h. */
#ifndef SCOUT_LIBFORMAT_CONVERT_CONVERT_FINISH_H
#define SCOUT_LIBFORMAT_CONVERT_CONVERT_FINISH_H

#include "libformat/convert/convert.h"
#include "libformat/convert/convert_work.h"

/* SF_EINVAL when the first file of several will not hold all that it must: said before hours of
 * work. */
int sf_finish_check_room(const struct sf_convert_plan *plan,
                         const struct sf_convert_options *options, struct sf_err *err);

/* Says so in the journal first. The writer is gone either way. */
int sf_finish_commit(struct sf_writer *writer, struct sf_work *work, struct sf_journal *journal,
                     const struct sf_convert_options *options, struct sf_err *err);

/* Killed between the last rename and the end of reading back: all is done but that. */
bool sf_finish_is_committed(const struct sf_work *work, const struct sf_journal *journal,
                            const char *path);
/* Killed amid the renames: takes those back that were. */
int sf_finish_take_back(const struct sf_work *work, const struct sf_journal *journal,
                        const char *path, struct sf_err *err);

/* As a stranger would: header, index, every checksum. What does not read back is removed, or, where
 * `keep` says that sources are gone, put away as ".damaged". *there: something stands at its name. */
int sf_finish_read_back(bool *there, const struct sf_work *work, const char *path, int threads,
                        bool keep, struct sf_err *err);

#endif
