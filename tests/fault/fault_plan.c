/* Which call is hit: counts eligible calls over all threads. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/fault/shim.h"

struct mode {
    const char *name;
    struct fault fault;
    unsigned calls; /* bit per enum fault_call */
};

enum {
    CHANGES = 1 << CALL_CREATE | 1 << CALL_WRITE | 1 << CALL_FSYNC | 1 << CALL_RENAME |
              1 << CALL_UNLINK | 1 << CALL_MKDIR | 1 << CALL_TRUNCATE | 1 << CALL_RESERVE,
    NEEDS_SPACE =
        1 << CALL_CREATE | 1 << CALL_WRITE | 1 << CALL_RENAME | 1 << CALL_MKDIR | 1 << CALL_RESERVE,
    MAY_BE_INTERRUPTED = 1 << CALL_READ | 1 << CALL_WRITE | 1 << CALL_RESERVE,
    ANY_FILE_CALL = (1 << CALL_ALLOC) - 1
};

static const struct mode modes[] = {
    {"eio", {FAULT_ERRNO, EIO}, ANY_FILE_CALL},
    {"enospc", {FAULT_ERRNO, ENOSPC}, NEEDS_SPACE},
    {"short", {FAULT_SHORT, 0}, 1 << CALL_READ | 1 << CALL_WRITE},
    {"eintr", {FAULT_ERRNO, EINTR}, MAY_BE_INTERRUPTED},
    {"alloc", {FAULT_ERRNO, ENOMEM}, 1 << CALL_ALLOC},
    {"shrink", {FAULT_SHRINK, 0}, 1 << CALL_MMAP}, /* right after it was mapped */
    {"kill", {FAULT_DIE, 0}, CHANGES},
    {"power", {FAULT_DIE, 0}, CHANGES},
    {"power-data", {FAULT_DIE, 0}, CHANGES},
};
static const char *const names[CALL_COUNT] = {"open",   "create",   "stat",   "read",   "write",
                                              "mmap",   "fsync",    "rename", "unlink", "mkdir",
                                              "resize", "allocate", "lock",   "memory"};

static struct {
    const char *folder;
    size_t folder_length;
    struct mode mode;
    bool from_then_on, power, power_names;
    long at;
    char report[PATH_MAX];
} plan;

static atomic_long seen;
static atomic_int hit = -1;

__attribute__((constructor)) static void read_plan(void)
{
    const char *mode = getenv("SCOUT_FAULT_MODE"), *at = getenv("SCOUT_FAULT_AT");
    const char *report = getenv("SCOUT_FAULT_REPORT");
    plan.folder = getenv("SCOUT_FAULT_FOLDER");
    plan.folder_length = plan.folder ? strlen(plan.folder) : 0;
    plan.at = at ? atol(at) : 0;
    snprintf(plan.report, sizeof plan.report, "%s", report ? report : "");
    for (size_t i = 0; mode && i < sizeof modes / sizeof modes[0]; i++) {
        size_t n = strlen(modes[i].name);
        if (strncmp(mode, modes[i].name, n) != 0 || (mode[n] && strcmp(mode + n, "+") != 0))
            continue;
        plan.mode = modes[i];
        plan.from_then_on = mode[n] == '+';
        plan.power_names = strcmp(modes[i].name, "power") == 0;
        plan.power = plan.power_names || strcmp(modes[i].name, "power-data") == 0;
    }
}

static void write_report(void)
{
    char line[64];
    int n = snprintf(line, sizeof line, "%ld %s\n", atomic_load(&seen),
                     atomic_load(&hit) < 0 ? "-" : names[atomic_load(&hit)]);
    if (!plan.report[0])
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, plan.report, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd >= 0) {
        syscall(SYS_write, fd, line, (size_t)n);
        syscall(SYS_close, fd);
    }
}

/* The power may also fail right after a run that said it had succeeded. */
__attribute__((destructor)) static void at_exit(void)
{
    if (plan.power)
        fault_power_lose();
    write_report();
}

void fault_die(void)
{
    if (plan.power)
        fault_power_lose();
    write_report();
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

bool fault_power_on(void)
{
    return plan.power;
}

bool fault_power_names_too(void)
{
    return plan.power_names;
}

bool fault_is_watched_path(const char *path)
{
    char whole[PATH_MAX];
    if (!plan.folder)
        return false;
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole))
            return false;
        size_t n = strlen(whole);
        snprintf(whole + n, sizeof whole - n, "/%s", path);
        path = whole;
    }
    return strncmp(path, plan.folder, plan.folder_length) == 0 && path[plan.folder_length] == '/';
}

bool fault_is_watched_fd(int fd)
{
    char link[64], path[PATH_MAX];
    if (!plan.folder || fd < 0)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (n <= 0)
        return false;
    path[n] = 0;
    return fault_is_watched_path(path);
}

struct fault fault_next(enum fault_call call)
{
    struct fault none = {FAULT_NONE, 0};
    if (!(plan.mode.calls >> call & 1))
        return none;
    long n = atomic_fetch_add(&seen, 1) + 1;
    if (n != plan.at && !(plan.from_then_on && plan.at > 0 && n > plan.at))
        return none;
    atomic_store(&hit, (int)call);
    return plan.mode.fault;
}
