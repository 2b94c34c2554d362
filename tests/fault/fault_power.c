/* An undo log of everything that no fsync has made durable. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/fault/shim.h"

enum undo_kind { UNDO_BYTES, UNDO_SIZE, UNDO_CREATE, UNDO_RENAME, UNDO_UNLINK, UNDO_MKDIR };

struct undo {
    struct undo *older;
    enum undo_kind kind;
    dev_t device;
    ino_t inode; /* of the file, or of the directory whose entry it is */
    bool durable;
    int fd; /* bytes and size: the file */
    uint64_t offset, bytes;
    unsigned char *data;
    char from[PATH_MAX], to[PATH_MAX], kept[PATH_MAX]; /* kept: a link to what was replaced */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct undo *newest;
static int links;

static int stat_fd(struct stat *out, int fd)
{
    return (int)syscall(SYS_newfstatat, fd, "", out, AT_EMPTY_PATH);
}

static struct undo *add(enum undo_kind kind, const struct stat *st)
{
    struct undo *u = calloc(1, sizeof *u);
    if (!u)
        abort();
    u->kind = kind;
    u->device = st->st_dev;
    u->inode = st->st_ino;
    u->fd = -1;
    u->older = newest;
    newest = u;
    return u;
}

static int second_handle(int fd)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return (int)syscall(SYS_openat, AT_FDCWD, link, O_RDWR | O_CLOEXEC, 0);
}

static void add_size(int fd, const struct stat *st)
{
    struct undo *u = add(UNDO_SIZE, st);
    u->fd = second_handle(fd);
    u->bytes = (uint64_t)st->st_size;
}

static void add_bytes(int fd, const struct stat *st, uint64_t offset, uint64_t bytes)
{
    uint64_t size = (uint64_t)st->st_size, end = offset + bytes < size ? offset + bytes : size;
    if (end <= offset)
        return;
    struct undo *u = add(UNDO_BYTES, st);
    u->fd = second_handle(fd);
    u->offset = offset;
    u->bytes = end - offset;
    if (!(u->data = malloc(u->bytes)) ||
        syscall(SYS_pread64, u->fd, u->data, u->bytes, offset) != (long)u->bytes)
        abort();
}

void fault_power_before_write(int fd, uint64_t offset, uint64_t bytes)
{
    struct stat st;
    pthread_mutex_lock(&lock);
    if (fault_power_on() && stat_fd(&st, fd) == 0) {
        add_bytes(fd, &st, offset, bytes);
        if (offset + bytes > (uint64_t)st.st_size)
            add_size(fd, &st);
    }
    pthread_mutex_unlock(&lock);
}

void fault_power_before_resize(int fd, uint64_t bytes)
{
    struct stat st;
    pthread_mutex_lock(&lock);
    if (fault_power_on() && stat_fd(&st, fd) == 0) {
        add_bytes(fd, &st, bytes, (uint64_t)st.st_size);
        add_size(fd, &st);
    }
    pthread_mutex_unlock(&lock);
}

void fault_power_synced(int fd)
{
    struct stat st;
    pthread_mutex_lock(&lock);
    if (fault_power_on() && stat_fd(&st, fd) == 0)
        for (struct undo *u = newest; u; u = u->older)
            if (u->device == st.st_dev && u->inode == st.st_ino)
                u->durable = true;
    pthread_mutex_unlock(&lock);
}

/* ---- names ---- */

static struct undo *add_name(enum undo_kind kind, const char *path)
{
    struct stat st = {0};
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    syscall(SYS_newfstatat, AT_FDCWD, slash ? folder : ".", &st, 0);
    struct undo *u = add(kind, &st);
    snprintf(u->from, sizeof u->from, "%s", path);
    return u;
}

static void keep_link(struct undo *u, const char *path)
{
    const char *trash = getenv("SCOUT_FAULT_TRASH");
    snprintf(u->kept, sizeof u->kept, "%s/%ld-%d", trash ? trash : ".", (long)getpid(), links++);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, u->kept, 0) != 0)
        u->kept[0] = 0; /* there was nothing */
}

static void name_changed(enum undo_kind kind, const char *path, const char *to)
{
    if (!fault_power_names_too())
        return;
    pthread_mutex_lock(&lock);
    struct undo *u = add_name(kind, path);
    if (to)
        snprintf(u->to, sizeof u->to, "%s", to);
    if (kind == UNDO_RENAME)
        keep_link(u, to);
    if (kind == UNDO_UNLINK)
        keep_link(u, path);
    pthread_mutex_unlock(&lock);
}

void fault_power_created(const char *path)
{
    name_changed(UNDO_CREATE, path, NULL);
}

void fault_power_before_rename(const char *from, const char *to)
{
    name_changed(UNDO_RENAME, from, to);
}

void fault_power_before_unlink(const char *path)
{
    name_changed(UNDO_UNLINK, path, NULL);
}

void fault_power_made_directory(const char *path)
{
    name_changed(UNDO_MKDIR, path, NULL);
}

/* ---- the loss ---- */

static void move(const char *from, const char *to)
{
    syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static void undo_one(const struct undo *u)
{
    char away[PATH_MAX];
    switch (u->kind) {
    case UNDO_BYTES:
        syscall(SYS_pwrite64, u->fd, u->data, u->bytes, u->offset);
        break;
    case UNDO_SIZE:
        syscall(SYS_ftruncate, u->fd, u->bytes);
        break;
    case UNDO_CREATE:
        syscall(SYS_unlinkat, AT_FDCWD, u->from, 0);
        break;
    case UNDO_RENAME:
        move(u->to, u->from);
        if (u->kept[0])
            move(u->kept, u->to);
        break;
    case UNDO_UNLINK:
        if (u->kept[0])
            move(u->kept, u->from);
        break;
    case UNDO_MKDIR: /* with all that is in it */
        snprintf(away, sizeof away, "%s/%ld-dir-%d", getenv("SCOUT_FAULT_TRASH"), (long)getpid(),
                 links++);
        move(u->from, away);
        break;
    }
}

void fault_power_lose(void)
{
    pthread_mutex_lock(&lock); /* for good: the machine is off */
    for (const struct undo *u = newest; u; u = u->older)
        if (!u->durable)
            undo_one(u);
}
