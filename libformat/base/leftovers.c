#include "libformat/base/leftovers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libformat/base/file.h"

bool sf_leftover_hold(int fd)
{
    struct stat st;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return errno != EWOULDBLOCK;
    return fstat(fd, &st) != 0 || st.st_nlink > 0;
}

/* BASE.partial-<digits>, perhaps .<digits>: the names that sf_out_open gives. */
static bool is_temporary(const char *name, const char *base)
{
    static const char mark[] = ".partial-";
    size_t n = strlen(base), digits;
    if (strncmp(name, base, n) != 0 || strncmp(name + n, mark, sizeof mark - 1) != 0)
        return false;
    name += n + sizeof mark - 1;
    name += digits = strspn(name, "0123456789");
    if (digits > 0 && *name == '.')
        name += 1 + (digits = strspn(name + 1, "0123456789"));
    return digits > 0 && *name == 0;
}

/* The lock first, then the name once more: it may be another file's by now. */
static void remove_if_dead(const char *path)
{
    struct stat held, named;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    if (fstat(fd, &held) == 0 && S_ISREG(held.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
        stat(path, &named) == 0 && named.st_ino == held.st_ino && named.st_dev == held.st_dev)
        unlink(path);
    close(fd);
}

void sf_leftovers_remove(const char *path)
{
    char file[PATH_MAX];
    const char *base = sf_path_base(path);
    size_t n = (size_t)(base - path);
    if (n + 2 > sizeof file)
        return;
    memcpy(file, n ? path : ".", n ? n : 1);
    file[n ? n : 1] = 0;
    DIR *folder = opendir(file);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (is_temporary(entry->d_name, base) &&
            snprintf(file + n, sizeof file - n, "%s", entry->d_name) < (int)(sizeof file - n))
            remove_if_dead(file);
    closedir(folder);
}
