#include "libformat/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libformat/base/leftovers.h"
#include "libformat/base/map_guard.h"
#include "libformat/base/mem.h"

/* One read or write call moves at most this much: Linux caps a call near 2 GiB anyway. */
static const uint64_t LARGEST_CALL = 1u << 30;

static int open_regular(int *fd, struct stat *st, const char *path, struct sf_err *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return sf_fail_errno(err, errno, "%s: cannot open", path);
    int code = SF_OK;
    if (fstat(*fd, st) != 0)
        code = sf_fail_errno(err, errno, "%s: cannot stat", path);
    else if (!S_ISREG(st->st_mode))
        code = sf_fail(err, SF_EFORMAT, "%s: not a regular file", path);
    if (code != SF_OK) {
        close(*fd);
        *fd = -1;
    }
    return code;
}

static int map_open_file(struct sf_mapping *out, int fd, uint64_t bytes, const char *path,
                         struct sf_err *err)
{
    void *data = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return sf_fail_errno(err, errno, "%s: cannot map %llu bytes", path,
                             (unsigned long long)bytes);
    struct sf_mapping mapping = {.data = data, .bytes = bytes};
    int code = sf_map_guard_add(&mapping, fd, err);
    if (code != SF_OK) {
        munmap(data, (size_t)bytes);
        return sf_err_prefix(err, "%s", path);
    }
    *out = mapping;
    return SF_OK;
}

int sf_map_file(struct sf_mapping *out, const char *path, struct sf_err *err)
{
    *out = (struct sf_mapping){0};
    int fd;
    struct stat st;
    int code = open_regular(&fd, &st, path, err);
    if (code != SF_OK)
        return code;
    if (st.st_size > 0)
        code = map_open_file(out, fd, (uint64_t)st.st_size, path, err); /* the guard has fd */
    if (st.st_size <= 0 || code != SF_OK)
        close(fd);
    return code;
}

void sf_unmap(struct sf_mapping *mapping)
{
    sf_map_guard_remove(mapping);
    if (mapping->data)
        munmap((void *)(uintptr_t)mapping->data, (size_t)mapping->bytes);
    *mapping = (struct sf_mapping){0};
}

void sf_mapping_release(const struct sf_mapping *mapping, uint64_t offset, uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t from = (offset + page - 1) / page * page;
    uint64_t to = (offset + bytes) / page * page;
    if (mapping->data && to > from && to <= mapping->bytes)
        madvise((void *)(uintptr_t)(mapping->data + from), (size_t)(to - from), MADV_DONTNEED);
}

void sf_mapping_prefetch(const struct sf_mapping *mapping, uint64_t offset, uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t from = offset / page * page;
    if (mapping->data && bytes > 0 && offset + bytes <= mapping->bytes)
        madvise((void *)(uintptr_t)(mapping->data + from), (size_t)(offset + bytes - from),
                MADV_WILLNEED);
}

void sf_mapping_sparse(const struct sf_mapping *mapping)
{
    if (mapping->data)
        madvise((void *)(uintptr_t)mapping->data, (size_t)mapping->bytes, MADV_RANDOM);
}

int sf_mapping_reserve(struct sf_mapping *out, uint64_t bytes, struct sf_err *err)
{
    *out = (struct sf_mapping){0};
    if (bytes == 0)
        return SF_OK;
    void *data =
        mmap(NULL, (size_t)bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
        return sf_fail_errno(err, errno, "cannot reserve %llu addresses",
                             (unsigned long long)bytes);
    *out = (struct sf_mapping){.data = data, .bytes = bytes};
    return SF_OK;
}

int sf_mapping_vacate(const struct sf_mapping *mapping, struct sf_err *err)
{
    sf_map_guard_remove(mapping); /* its handle, too, keeps a deleted file's space */
    if (mapping->data &&
        mmap((void *)(uintptr_t)mapping->data, (size_t)mapping->bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return sf_fail_errno(err, errno, "cannot vacate %llu addresses",
                             (unsigned long long)mapping->bytes);
    return SF_OK;
}

static int read_fully(int fd, void *data, uint64_t bytes, uint64_t offset, const char *path,
                      struct sf_err *err)
{
    unsigned char *dst = data;
    for (uint64_t done = 0; done < bytes;) {
        uint64_t want = bytes - done < LARGEST_CALL ? bytes - done : LARGEST_CALL;
        ssize_t n = pread(fd, dst + done, (size_t)want, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sf_fail_errno(err, errno, "%s: cannot read %llu bytes at %llu", path,
                                 (unsigned long long)want, (unsigned long long)(offset + done));
        if (n == 0)
            return sf_fail(err, SF_EFORMAT, "%s: ends at %llu, %llu more bytes expected", path,
                           (unsigned long long)(offset + done), (unsigned long long)(bytes - done));
        done += (uint64_t)n;
    }
    return SF_OK;
}

int sf_read_file(char **out, uint64_t *bytes, struct sf_arena *arena, const char *path,
                 uint64_t limit, struct sf_err *err)
{
    int fd;
    struct stat st;
    int code = open_regular(&fd, &st, path, err);
    if (code != SF_OK)
        return code;
    uint64_t size = (uint64_t)st.st_size;
    char *text = NULL;
    if (size > limit) {
        code = sf_fail(err, SF_EFORMAT, "%s: %llu bytes, more than the %llu allowed here", path,
                       (unsigned long long)size, (unsigned long long)limit);
    } else if (!(text = sf_arena_alloc(arena, size + 1))) {
        code = sf_fail(err, SF_ENOMEM, "%s: cannot allocate %llu bytes", path,
                       (unsigned long long)size + 1);
    } else {
        code = read_fully(fd, text, size, 0, path, err);
    }
    close(fd);
    if (code == SF_OK) {
        *out = text;
        if (bytes)
            *bytes = size;
    }
    return code;
}

static int scan_open(int fd, void *block, uint64_t room, const char *path,
                     int (*take)(void *, const void *, uint64_t, struct sf_err *), void *context,
                     struct sf_err *err)
{
    for (;;) {
        ssize_t n = read(fd, block, (size_t)room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sf_fail_errno(err, errno, "%s: cannot read", path);
        if (n == 0)
            return SF_OK;
        int code = take(context, block, (uint64_t)n, err);
        if (code != SF_OK)
            return code;
    }
}

int sf_file_scan(const char *path,
                 int (*take)(void *context, const void *data, uint64_t bytes, struct sf_err *err),
                 void *context, struct sf_err *err)
{
    const uint64_t room = 4u << 20;
    struct stat st;
    void *block;
    int fd, code = open_regular(&fd, &st, path, err);
    if (code != SF_OK)
        return code;
    code = sf_alloc_for(&block, room, "reading a file", err);
    if (code == SF_OK) {
        code = scan_open(fd, block, room, path, take, context, err);
        sf_free(block);
    }
    close(fd);
    return code;
}

int sf_file_stat(struct sf_file_stat *out, const char *path, struct sf_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return sf_fail_errno(err, errno, "%s: cannot stat", path);
    *out = (struct sf_file_stat){.bytes = (uint64_t)st.st_size,
                                 .modified_ns =
                                     (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
                                 .is_directory = S_ISDIR(st.st_mode),
                                 .is_regular = S_ISREG(st.st_mode)};
    return SF_OK;
}

bool sf_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

/* ---- writing ---- */

struct sf_out {
    int fd;
    bool resumable;
    uint64_t appended; /* where sf_out_append goes on */
    char *path;
    char *partial;
    struct sf_arena arena;
};

/* Another process may have our number (in another container), or have left a file of our name that
 * cannot be removed. */
static int create_partial(struct sf_out *o, struct sf_err *err)
{
    enum { TRIES = 100 };
    int failed = ENOMEM;
    sf_leftovers_remove(o->path);
    for (int i = 0; i < TRIES; i++) {
        o->partial = i ? sf_arena_printf(&o->arena, "%s.partial-%ld.%d", o->path, (long)getpid(), i)
                       : sf_arena_printf(&o->arena, "%s.partial-%ld", o->path, (long)getpid());
        if (!o->partial)
            return sf_fail(err, SF_ENOMEM, "%s: cannot allocate its name", o->path);
        o->fd = open(o->partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (o->fd >= 0 && sf_leftover_hold(o->fd))
            return SF_OK;
        failed = o->fd < 0 ? errno : EEXIST;
        if (o->fd >= 0)
            close(o->fd);
        o->fd = -1;
        if (failed != EEXIST)
            break;
    }
    return sf_fail_errno(err, failed, "%s: cannot create", o->partial);
}

/* Renaming over a device or a pipe would replace it: /dev/null is no output file. */
static int check_target(const char *path, struct sf_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0 || S_ISREG(st.st_mode))
        return SF_OK;
    return sf_fail(err, SF_EINVAL, "%s: is %s", path,
                   S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
}

static int create_out(struct sf_out **out, const char *path, struct sf_err *err)
{
    struct sf_out *o = sf_alloc(sizeof *o);
    if (!o)
        return sf_fail(err, SF_ENOMEM, "%s: cannot allocate a file handle", path);
    o->fd = -1;
    o->path = sf_arena_strdup(&o->arena, path);
    *out = o;
    return o->path ? check_target(path, err)
                   : sf_fail(err, SF_ENOMEM, "%s: cannot allocate its name", path);
}

static void free_out(struct sf_out *o)
{
    if (!o)
        return;
    if (o->fd >= 0)
        close(o->fd);
    sf_arena_free(&o->arena);
    sf_free(o);
}

int sf_out_open(struct sf_out **out, const char *path, struct sf_err *err)
{
    struct sf_out *o = NULL;
    int code = create_out(&o, path, err);
    if (code == SF_OK)
        code = create_partial(o, err);
    if (code != SF_OK) {
        free_out(o);
        return code;
    }
    *out = o;
    return SF_OK;
}

static int open_resumable(struct sf_out *o, uint64_t *bytes, struct sf_err *err)
{
    struct stat st;
    o->partial = sf_arena_printf(&o->arena, "%s.partial", o->path);
    if (!o->partial)
        return sf_fail(err, SF_ENOMEM, "%s: cannot allocate its name", o->path);
    int code = check_target(o->partial, err);
    if (code != SF_OK)
        return code;
    o->resumable = true;
    o->fd = open(o->partial, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (o->fd < 0)
        return sf_fail_errno(err, errno, "%s: cannot create", o->partial);
    if (fstat(o->fd, &st) != 0)
        return sf_fail_errno(err, errno, "%s: cannot stat", o->partial);
    *bytes = (uint64_t)st.st_size;
    return sf_sync_directory_of(o->partial, err);
}

int sf_out_resume(struct sf_out **out, uint64_t *bytes, const char *path, struct sf_err *err)
{
    struct sf_out *o = NULL;
    int code = create_out(&o, path, err);
    if (code == SF_OK)
        code = open_resumable(o, bytes, err);
    if (code != SF_OK) {
        free_out(o);
        return code;
    }
    *out = o;
    return SF_OK;
}

int sf_out_truncate(struct sf_out *out, uint64_t bytes, struct sf_err *err)
{
    if (ftruncate(out->fd, (off_t)bytes) != 0)
        return sf_fail_errno(err, errno, "%s: cannot set its size to %llu", out->partial,
                             (unsigned long long)bytes);
    return SF_OK;
}

int sf_out_rename_to(struct sf_out *out, const char *path, struct sf_err *err)
{
    out->path = sf_arena_strdup(&out->arena, path);
    return out->path ? check_target(path, err)
                     : sf_fail(err, SF_ENOMEM, "%s: cannot allocate its name", path);
}

int sf_out_sync(struct sf_out *out, struct sf_err *err)
{
    if (fdatasync(out->fd) != 0)
        return sf_fail_errno(err, errno, "%s: cannot sync", out->partial);
    return SF_OK;
}

int sf_out_reserve(struct sf_out *out, uint64_t bytes, struct sf_err *err)
{
    if (bytes == 0)
        return SF_OK;
    int code;
    do
        code = posix_fallocate(out->fd, 0, (off_t)bytes);
    while (code == EINTR);
    if (code == EINVAL || code == EOPNOTSUPP) /* a file system without fallocate: find out later */
        code = ftruncate(out->fd, (off_t)bytes) == 0 ? 0 : errno;
    if (code != 0)
        return sf_fail_errno(err, code, "%s: cannot reserve %llu bytes", out->partial,
                             (unsigned long long)bytes);
    return SF_OK;
}

int sf_out_write_at(struct sf_out *out, const void *data, uint64_t bytes, uint64_t offset,
                    struct sf_err *err)
{
    const unsigned char *src = data;
    for (uint64_t done = 0; done < bytes;) {
        uint64_t want = bytes - done < LARGEST_CALL ? bytes - done : LARGEST_CALL;
        ssize_t n = pwrite(out->fd, src + done, (size_t)want, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return sf_fail_errno(err, n < 0 ? errno : EIO, "%s: cannot write %llu bytes at %llu",
                                 out->partial, (unsigned long long)want,
                                 (unsigned long long)(offset + done));
        done += (uint64_t)n;
    }
    return SF_OK;
}

int sf_out_append(struct sf_out *out, const void *data, uint64_t bytes, struct sf_err *err)
{
    int code = sf_out_write_at(out, data, bytes, out->appended, err);
    if (code == SF_OK)
        out->appended += bytes;
    return code;
}

int sf_out_read_at(struct sf_out *out, void *data, uint64_t bytes, uint64_t offset,
                   struct sf_err *err)
{
    return read_fully(out->fd, data, bytes, offset, out->partial, err);
}

int sf_link_target(char **out, struct sf_arena *arena, const char *path, struct sf_err *err)
{
    struct stat st;
    *out = NULL;
    if (lstat(path, &st) != 0)
        return sf_fail_errno(err, errno, "%s: cannot stat", path);
    if (!S_ISLNK(st.st_mode))
        return SF_OK;
    char *real = realpath(path, NULL);
    if (!real)
        return sf_fail_errno(err, errno, "%s: cannot follow", path);
    *out = sf_arena_strdup(arena, real);
    free(real);
    return *out ? SF_OK : sf_fail(err, SF_ENOMEM, "%s: no memory for its target", path);
}

int sf_remove_file(const char *path, struct sf_err *err)
{
    return unlink(path) == 0 ? SF_OK : sf_fail_errno(err, errno, "%s: cannot remove", path);
}

int sf_rename_file(const char *from, const char *to, struct sf_err *err)
{
    if (rename(from, to) != 0)
        return sf_fail_errno(err, errno, "%s: cannot rename to %s", from, to);
    return sf_sync_directory_of(to, err);
}

int sf_sync_directory_of(const char *path, struct sf_err *err)
{
    char dir[PATH_MAX];
    const char *base = sf_path_base(path);
    size_t n = (size_t)(base - path);
    if (n >= sizeof dir)
        return sf_fail(err, SF_EINVAL, "%s: the path is too long", path);
    memcpy(dir, path, n);
    dir[n] = 0;
    int fd = open(n ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return sf_fail_errno(err, errno, "%s: cannot open its directory", path);
    int code = SF_OK;
    if (fsync(fd) != 0 && errno != EINVAL) /* EINVAL: a file system that cannot sync directories */
        code = sf_fail_errno(err, errno, "%s: cannot sync its directory", path);
    close(fd);
    return code;
}

int sf_out_commit(struct sf_out *out, struct sf_err *err)
{
    int code = SF_OK;
    if (fsync(out->fd) != 0)
        code = sf_fail_errno(err, errno, "%s: cannot sync", out->partial);
    else if (rename(out->partial, out->path) != 0)
        code = sf_fail_errno(err, errno, "%s: cannot rename to %s", out->partial, out->path);
    if (code == SF_OK)
        code = sf_sync_directory_of(out->path, err);
    else if (!out->resumable)
        unlink(out->partial);
    free_out(out);
    return code;
}

void sf_out_keep(struct sf_out *out)
{
    free_out(out);
}

void sf_out_abort(struct sf_out *out)
{
    if (!out)
        return;
    unlink(out->partial);
    free_out(out);
}

int sf_write_file(const char *path, const void *data, uint64_t bytes, struct sf_err *err)
{
    struct sf_out *out;
    int code = sf_out_open(&out, path, err);
    if (code != SF_OK)
        return code;
    code = sf_out_append(out, data, bytes, err);
    if (code != SF_OK) {
        sf_out_abort(out);
        return code;
    }
    return sf_out_commit(out, err);
}

/* A new folder survives a power failure only once its parent is synced. */
static int make_one(const char *path, struct sf_err *err)
{
    if (mkdir(path, 0777) == 0)
        return sf_sync_directory_of(path, err);
    return errno == EEXIST ? SF_OK : sf_fail_errno(err, errno, "%s: cannot create directory", path);
}

int sf_make_directory(const char *path, struct sf_err *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return sf_fail(err, SF_EINVAL, "\"%s\": not a usable directory name", path);
    memcpy(part, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if ((part[i] != '/' && part[i] != 0) || part[i - 1] == '/')
            continue;
        char kept = part[i];
        part[i] = 0;
        int code = make_one(part, err);
        if (code != SF_OK)
            return code;
        part[i] = kept;
    }
    struct stat st;
    if (stat(path, &st) != 0)
        return sf_fail_errno(err, errno, "%s: cannot stat", path);
    if (!S_ISDIR(st.st_mode))
        return sf_fail(err, SF_EINVAL, "%s: exists and is not a directory", path);
    if (access(path, W_OK | X_OK) != 0)
        return sf_fail_errno(err, errno, "%s: directory is not writable", path);
    return SF_OK;
}

char *sf_path_join(struct sf_arena *arena, const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return sf_arena_printf(arena, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

const char *sf_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
