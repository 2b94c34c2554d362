/* convert_fault.h -- a shard that cannot be read while it is mapped gives a sentence, not a crash.
 *
 * The system says so by SIGBUS: the file was cut, or the disk fails. The process ends with exit
 * status 1; what the journal holds is kept, as after any death. */
#ifndef SCOUT_TOOLS_CONVERT_FAULT_H
#define SCOUT_TOOLS_CONVERT_FAULT_H

#include "libformat/hf/hf_index.h"

/* From now on faults are looked up in `index`, until the next call; NULL: in none. */
void fault_explain(const char *program, const struct sf_hf_index *index);

#endif
