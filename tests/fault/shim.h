/* shim.h -- the two halves of the preload shim: which call fails (fault_plan.c), and what a power
 * failure takes away (fault_power.c). shim.c holds the calls that stand before libc's.
 *
 * Set by environment variables, read once:
 *   SCOUT_FAULT_FOLDER  only calls on files below this absolute folder count
 *   SCOUT_FAULT_MODE    eio enospc short eintr alloc shrink kill power power-data; a trailing "+" (eio+)
 *                       makes every call from the n-th on fail; anything else only counts
 *   SCOUT_FAULT_AT      n, from 1
 *   SCOUT_FAULT_REPORT  a file that gets "<eligible calls seen> <call that was hit or ->" at the end
 *   SCOUT_FAULT_TRASH   power modes: a folder on the same file system for what renames replace */
#ifndef SCOUT_TESTS_FAULT_SHIM_H
#define SCOUT_TESTS_FAULT_SHIM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum fault_call {
    CALL_OPEN,
    CALL_CREATE, /* an open that may create */
    CALL_STAT,
    CALL_READ,
    CALL_WRITE,
    CALL_MMAP,
    CALL_FSYNC,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_MKDIR,
    CALL_TRUNCATE,
    CALL_RESERVE,
    CALL_LOCK,
    CALL_ALLOC,
    CALL_COUNT
};

enum fault_kind { FAULT_NONE, FAULT_ERRNO, FAULT_SHORT, FAULT_SHRINK, FAULT_DIE };
struct fault {
    enum fault_kind kind;
    int error;
};

/* What happens to this call, which counts if `eligible` for the mode. */
struct fault fault_next(enum fault_call call);
/* Does a call on this file count? */
bool fault_is_watched_fd(int fd);
bool fault_is_watched_path(const char *path);
/* SIGKILL, after the report; in power modes after the loss. Does not return. */
void fault_die(void) __attribute__((noreturn));

/* ---- power failure: told before (or after) each change, as the name says ---- */
bool fault_power_on(void);
bool fault_power_names_too(void); /* power; power-data keeps renames and new names */
void fault_power_before_write(int fd, uint64_t offset, uint64_t bytes);
void fault_power_before_resize(int fd, uint64_t bytes);
void fault_power_synced(int fd); /* a file or a directory */
void fault_power_created(const char *path);
void fault_power_before_rename(const char *from, const char *to);
void fault_power_before_unlink(const char *path);
void fault_power_made_directory(const char *path);
void fault_power_lose(void); /* everything that was not synced */

#endif
