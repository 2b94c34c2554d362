/* host_memory.h -- how much memory this process may still take: the machine's, and its cgroup's.
 *
 * A container or a batch system limits a process by cgroups (version 1 or 2), which the machine's own
 * figures do not show; a process that passes the limit is killed without a word. Page cache is given
 * back under pressure, so it does not count as used. Read anew at each call. */
#ifndef SCOUT_LIBFORMAT_BASE_HOST_MEMORY_H
#define SCOUT_LIBFORMAT_BASE_HOST_MEMORY_H

#include <stdint.h>

struct sf_host_memory {       /* all 0: unknown */
    uint64_t total_bytes;     /* of the machine, or of the tightest cgroup if that is less */
    uint64_t available_bytes; /* of it, page cache included */
    uint64_t cgroup_bytes;    /* the tightest cgroup's limit; 0: there is none */
};
/* What cannot be read is left unknown: a machine without /proc is no error. */
void sf_host_memory(struct sf_host_memory *out);
/* The same from other folders than /proc and /sys/fs/cgroup. */
void sf_host_memory_at(struct sf_host_memory *out, const char *proc, const char *cgroups);

#endif
