/* The calls that stand before libc's. Each asks fault_next() what happens to it; what goes through
 * goes to the kernel directly, or to the next library where it must (memory, stdio, folders). */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/fault/shim.h"

/* 64-bit systems only: there the names with 64 are the same calls. */
_Static_assert(sizeof(off_t) == 8 && sizeof(long) == 8, "a 64-bit Linux is needed");
#define SAME_AS(name) __attribute__((alias(#name)))

/* True when the call fails or the process dies; errno is set. */
static bool is_hit(enum fault_call call)
{
    struct fault f = fault_next(call);
    if (f.kind == FAULT_DIE)
        fault_die();
    if (f.kind == FAULT_ERRNO)
        errno = f.error;
    return f.kind == FAULT_ERRNO;
}

/* ---- opening ---- */

static bool is_there(const char *path)
{
    struct stat st;
    return syscall(SYS_newfstatat, AT_FDCWD, path, &st, 0) == 0;
}

static int open_file(int folder, const char *path, int flags, mode_t mode)
{
    bool watched = fault_is_watched_path(path);
    bool creates = flags & O_CREAT && !is_there(path);
    if (watched && is_hit(creates ? CALL_CREATE : CALL_OPEN))
        return -1;
    if (watched && flags & O_TRUNC && fault_power_on()) {
        int fd = (int)syscall(SYS_openat, folder, path, O_RDWR, 0);
        if (fd >= 0)
            fault_power_before_resize(fd, 0);
        if (fd >= 0)
            syscall(SYS_close, fd);
    }
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0 && watched && creates)
        fault_power_created(path);
    return fd;
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_file(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) SAME_AS(openat);

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_file(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) SAME_AS(open);

int stat(const char *path, struct stat *out)
{
    if (fault_is_watched_path(path) && is_hit(CALL_STAT))
        return -1;
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, out, 0);
}

int fstat(int fd, struct stat *out)
{
    if (fault_is_watched_fd(fd) && is_hit(CALL_STAT))
        return -1;
    return (int)syscall(SYS_newfstatat, fd, "", out, AT_EMPTY_PATH);
}
int stat64(const char *path, struct stat64 *out)
{
    return stat(path, (struct stat *)out);
}
int fstat64(int fd, struct stat64 *out)
{
    return fstat(fd, (struct stat *)out);
}

DIR *opendir(const char *path)
{
    DIR *(*next)(const char *) = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    return fault_is_watched_path(path) && is_hit(CALL_OPEN) ? NULL : next(path);
}

int flock(int fd, int operation)
{
    if (fault_is_watched_fd(fd) && is_hit(CALL_LOCK))
        return -1;
    return (int)syscall(SYS_flock, fd, operation);
}

/* ---- bytes ---- */

/* How many bytes the call may move; -1: it fails. A dying write leaves half of its bytes. */
static ssize_t allowed(enum fault_call call, int fd, size_t bytes, bool *dies)
{
    *dies = false;
    if (!fault_is_watched_fd(fd))
        return (ssize_t)bytes;
    struct fault f = fault_next(call);
    *dies = f.kind == FAULT_DIE;
    errno = f.error;
    if (f.kind == FAULT_ERRNO)
        return -1;
    return f.kind != FAULT_NONE && bytes > 1 ? (ssize_t)(bytes / 2) : (ssize_t)bytes;
}

ssize_t read(int fd, void *data, size_t bytes)
{
    bool dies;
    ssize_t n = allowed(CALL_READ, fd, bytes, &dies);
    return n < 0 ? n : syscall(SYS_read, fd, data, n);
}

ssize_t pread(int fd, void *data, size_t bytes, off_t offset)
{
    bool dies;
    ssize_t n = allowed(CALL_READ, fd, bytes, &dies);
    return n < 0 ? n : syscall(SYS_pread64, fd, data, n, offset);
}
ssize_t pread64(int fd, void *data, size_t bytes, off_t offset) SAME_AS(pread);

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    bool dies;
    ssize_t n = allowed(CALL_WRITE, fd, bytes, &dies);
    if (n >= 0 && fault_power_on() && fault_is_watched_fd(fd))
        fault_power_before_write(fd, (uint64_t)offset, (uint64_t)n);
    if (n >= 0)
        n = syscall(SYS_pwrite64, fd, data, n, offset);
    if (dies)
        fault_die();
    return n;
}
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t offset) SAME_AS(pwrite);

ssize_t write(int fd, const void *data, size_t bytes)
{
    bool dies;
    ssize_t n = allowed(CALL_WRITE, fd, bytes, &dies);
    if (n >= 0 && fault_power_on() && fault_is_watched_fd(fd)) {
        struct stat st;
        bool at_end = (syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND) != 0 &&
                      syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) == 0;
        long at = at_end ? (long)st.st_size : syscall(SYS_lseek, fd, 0, SEEK_CUR);
        fault_power_before_write(fd, at > 0 ? (uint64_t)at : 0, (uint64_t)n);
    }
    if (n >= 0)
        n = syscall(SYS_write, fd, data, n);
    if (dies)
        fault_die();
    return n;
}

/* What somebody else might do. */
static void cut_in_half(int fd)
{
    struct stat st;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) == 0)
        syscall(SYS_truncate, link, st.st_size / 2);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    void *(*next)(void *, size_t, int, int, int, off_t) =
        (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
    struct fault fault = {FAULT_NONE, 0};
    if (fd >= 0 && fault_is_watched_fd(fd))
        fault = fault_next(CALL_MMAP);
    if (fault.kind == FAULT_ERRNO) {
        errno = fault.error;
        return MAP_FAILED;
    }
    if (fault.kind == FAULT_SHRINK)
        cut_in_half(fd);
    return next(at, bytes, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) SAME_AS(mmap);

int ftruncate(int fd, off_t bytes)
{
    bool watched = fault_is_watched_fd(fd);
    if (watched && is_hit(CALL_TRUNCATE))
        return -1;
    if (watched)
        fault_power_before_resize(fd, (uint64_t)bytes);
    return (int)syscall(SYS_ftruncate, fd, bytes);
}
int ftruncate64(int fd, off_t bytes) SAME_AS(ftruncate);

int posix_fallocate(int fd, off_t offset, off_t bytes)
{
    int (*next)(int, off_t, off_t) =
        (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, "posix_fallocate");
    bool watched = fault_is_watched_fd(fd);
    if (watched && is_hit(CALL_RESERVE))
        return errno;
    struct stat st;
    if (watched && syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) == 0 &&
        st.st_size < offset + bytes)
        fault_power_before_resize(fd, (uint64_t)(offset + bytes));
    return next(fd, offset, bytes);
}
int posix_fallocate64(int fd, off_t offset, off_t bytes) SAME_AS(posix_fallocate);

/* ---- what makes it last ---- */

/* The disk itself is left in peace: what "lasts" is the undo log's affair. */
static int sync_file(int fd)
{
    bool watched = fault_is_watched_fd(fd);
    if (watched && is_hit(CALL_FSYNC))
        return -1;
    if (watched)
        fault_power_synced(fd);
    return 0;
}

int fsync(int fd)
{
    return sync_file(fd);
}

int fdatasync(int fd)
{
    return sync_file(fd);
}

/* ---- names ---- */

int rename(const char *from, const char *to)
{
    bool watched = fault_is_watched_path(to);
    if (watched && is_hit(CALL_RENAME))
        return -1;
    if (watched)
        fault_power_before_rename(from, to);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int remove_name(const char *path, int flags)
{
    bool watched = fault_is_watched_path(path);
    if (watched && is_hit(CALL_UNLINK))
        return -1;
    if (watched && !flags)
        fault_power_before_unlink(path);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
}

int unlink(const char *path)
{
    return remove_name(path, 0);
}

int rmdir(const char *path)
{
    return remove_name(path, AT_REMOVEDIR);
}

int mkdir(const char *path, mode_t mode)
{
    bool watched = fault_is_watched_path(path);
    if (watched && is_hit(CALL_MKDIR))
        return -1;
    int code = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (code == 0 && watched)
        fault_power_made_directory(path);
    return code;
}

/* ---- stdio, whose own writes do not pass here: its calls count as a whole ---- */

FILE *fopen(const char *path, const char *mode)
{
    FILE *(*next)(const char *, const char *) =
        (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen");
    bool creates = mode[0] != 'r';
    return fault_is_watched_path(path) && is_hit(creates ? CALL_CREATE : CALL_OPEN)
               ? NULL
               : next(path, mode);
}
FILE *fopen64(const char *path, const char *mode) SAME_AS(fopen);

int fflush(FILE *file)
{
    int (*next)(FILE *) = (int (*)(FILE *))dlsym(RTLD_NEXT, "fflush");
    return file && fault_is_watched_fd(fileno(file)) && is_hit(CALL_WRITE) ? EOF : next(file);
}

/* ---- memory: the program's own aligned_alloc and calloc, which only libformat/base/mem.c calls ---- */

static uintptr_t program_begin, program_end; /* the first object of the list is the program */

static int note_first(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size, (void)context;
    program_begin = UINTPTR_MAX;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        uintptr_t end = begin + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type != PT_LOAD)
            continue;
        program_begin = begin < program_begin ? begin : program_begin;
        program_end = end > program_end ? end : program_end;
    }
    return 1;
}

__attribute__((constructor)) static void find_program(void)
{
    dl_iterate_phdr(note_first, NULL);
}

static bool allocation_fails(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    return at >= program_begin && at < program_end && is_hit(CALL_ALLOC);
}

void *aligned_alloc(size_t align, size_t bytes)
{
    void *(*next)(size_t, size_t) = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "aligned_alloc");
    return allocation_fails(__builtin_return_address(0)) ? NULL : next(align, bytes);
}

/* The search for the next calloc may want a little of it itself: that comes from here, for good. */
void *calloc(size_t count, size_t bytes)
{
    static void *(*next)(size_t, size_t);
    static bool searching;
    static _Alignas(16) char early[8192];
    static size_t used;
    if (!next && searching) {
        size_t need = (count * bytes + 15) / 16 * 16;
        used += need;
        return used <= sizeof early ? early + used - need : NULL;
    }
    if (!next) {
        searching = true;
        next = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
        searching = false;
    }
    return allocation_fails(__builtin_return_address(0)) ? NULL : next(count, bytes);
}
