#include "libformat/base/append_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"

struct sf_append_file {
    struct sf_arena arena;
    char *path;
    int fd;
    uint64_t bytes;
};

/* Opens and locks. *again: the holder before us removed the file under our hands. */
static int open_locked(struct sf_append_file *f, bool *again, struct sf_err *err)
{
    struct stat ours, theirs;
    *again = false;
    f->fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    if (f->fd < 0)
        return sf_fail_errno(err, errno, "%s: cannot create", f->path);
    if (fstat(f->fd, &ours) != 0)
        return sf_fail_errno(err, errno, "%s: cannot stat", f->path);
    if (!S_ISREG(ours.st_mode))
        return sf_fail(err, SF_EINVAL, "%s: not a regular file", f->path);
    if (flock(f->fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return sf_fail(err, SF_EACCES, "%s: another process is at work with it", f->path);
        return sf_fail_errno(err, errno, "%s: cannot lock", f->path);
    }
    *again =
        stat(f->path, &theirs) != 0 || theirs.st_ino != ours.st_ino || theirs.st_dev != ours.st_dev;
    if (fstat(f->fd, &ours) != 0) /* the size counts from the lock on */
        return sf_fail_errno(err, errno, "%s: cannot stat", f->path);
    f->bytes = (uint64_t)ours.st_size;
    return SF_OK;
}

int sf_append_file_open(struct sf_append_file **out, const char *path, struct sf_err *err)
{
    enum { TRIES = 100 };
    struct sf_append_file *f = sf_alloc(sizeof *f);
    if (!f)
        return sf_fail(err, SF_ENOMEM, "%s: cannot allocate a file handle", path);
    bool again = true;
    int code = SF_OK;
    f->fd = -1;
    if (!(f->path = sf_arena_strdup(&f->arena, path)))
        code = sf_fail(err, SF_ENOMEM, "%s: cannot allocate its name", path);
    for (int i = 0; i < TRIES && code == SF_OK && again; i++) {
        if (f->fd >= 0)
            close(f->fd);
        code = open_locked(f, &again, err);
    }
    if (code == SF_OK && again)
        code = sf_fail(err, SF_EIO, "%s: appears and vanishes", path);
    if (code == SF_OK && (code = sf_sync_directory_of(path, err)) != SF_OK && f->bytes == 0)
        unlink(path); /* ours, and nothing yet */
    if (code != SF_OK) {
        sf_append_file_close(f);
        return code;
    }
    *out = f;
    return SF_OK;
}

uint64_t sf_append_file_bytes(const struct sf_append_file *file)
{
    return file->bytes;
}

int sf_append_file_read(unsigned char **out, struct sf_append_file *f, struct sf_arena *arena,
                        uint64_t limit, struct sf_err *err)
{
    if (f->bytes > limit)
        return sf_fail(err, SF_EFORMAT, "%s: %llu bytes, more than the %llu allowed here", f->path,
                       (unsigned long long)f->bytes, (unsigned long long)limit);
    unsigned char *data = sf_arena_alloc(arena, f->bytes + 1);
    if (!data)
        return sf_fail(err, SF_ENOMEM, "%s: cannot allocate %llu bytes", f->path,
                       (unsigned long long)f->bytes + 1);
    for (uint64_t done = 0; done < f->bytes;) {
        ssize_t n = pread(f->fd, data + done, (size_t)(f->bytes - done), (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return sf_fail_errno(err, n < 0 ? errno : EIO, "%s: cannot read at %llu", f->path,
                                 (unsigned long long)done);
        done += (uint64_t)n;
    }
    *out = data;
    return SF_OK;
}

int sf_append_file_cut(struct sf_append_file *f, uint64_t bytes, struct sf_err *err)
{
    if (bytes >= f->bytes)
        return SF_OK;
    if (ftruncate(f->fd, (off_t)bytes) != 0)
        return sf_fail_errno(err, errno, "%s: cannot cut to %llu bytes", f->path,
                             (unsigned long long)bytes);
    f->bytes = bytes;
    return SF_OK;
}

static int put(struct sf_append_file *f, const void *data, uint64_t bytes, struct sf_err *err)
{
    const unsigned char *src = data;
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = pwrite(f->fd, src + done, (size_t)(bytes - done), (off_t)(f->bytes + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return sf_fail_errno(err, n < 0 ? errno : EIO, "%s: cannot write %llu bytes at %llu",
                                 f->path, (unsigned long long)(bytes - done),
                                 (unsigned long long)(f->bytes + done));
        done += (uint64_t)n;
    }
    return SF_OK;
}

int sf_append_file_add(struct sf_append_file *f, const void *data, uint64_t bytes,
                       struct sf_err *err)
{
    int code = put(f, data, bytes, err);
    if (code == SF_OK)
        f->bytes += bytes;
    else if (ftruncate(f->fd, (off_t)f->bytes) != 0)
        sf_err_prefix(err, "a torn end is left");
    return code;
}

int sf_append_file_sync(struct sf_append_file *f, struct sf_err *err)
{
    if (fdatasync(f->fd) != 0)
        return sf_fail_errno(err, errno, "%s: cannot sync", f->path);
    return SF_OK;
}

void sf_append_file_close(struct sf_append_file *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    sf_arena_free(&f->arena);
    sf_free(f);
}

void sf_append_file_remove(struct sf_append_file *f)
{
    unlink(f->path);
    sf_append_file_close(f);
}
