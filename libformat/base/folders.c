#include "libformat/base/folders.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "libformat/base/file.h"

struct names {
    const char **name;
    int64_t count, room;
};

static int add_name(struct names *names, struct sf_arena *arena, const char *name,
                    struct sf_err *err)
{
    if (names->count == names->room) {
        int64_t room = names->room ? 2 * names->room : 16;
        const char **more = sf_arena_array(arena, (uint64_t)room, sizeof *more);
        if (!more)
            return sf_fail(err, SF_ENOMEM, "no memory for a list of files");
        if (names->count)
            memcpy(more, names->name, (size_t)names->count * sizeof *more);
        names->name = more;
        names->room = room;
    }
    char *kept = sf_arena_strdup(arena, name);
    names->name[names->count++] = kept;
    return kept ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a file's name");
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int sf_folder_list(const char *const **out, int64_t *count, struct sf_arena *arena,
                   const char *path, struct sf_err *err)
{
    struct names names = {0};
    struct dirent *entry;
    int code = SF_OK;
    DIR *folder = opendir(path);
    if (!folder)
        return sf_fail_errno(err, errno, "%s: cannot open this folder", path);
    while (!code && (errno = 0, entry = readdir(folder)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            code = add_name(&names, arena, entry->d_name, err);
    if (!code && errno)
        code = sf_fail_errno(err, errno, "%s: cannot list this folder", path);
    closedir(folder);
    if (code)
        return code;
    if (names.count)
        qsort(names.name, (size_t)names.count, sizeof *names.name, compare_names);
    *out = names.name;
    *count = names.count;
    return SF_OK;
}

int sf_folder_rename(const char *from, const char *to, struct sf_err *err)
{
    if (rename(from, to) != 0)
        return sf_fail_errno(err, errno, "%s: cannot rename to %s", from, to);
    return sf_sync_directory_of(to, err);
}

static int remove_files(const char *path, struct sf_arena *arena, struct sf_err *err)
{
    const char *const *name;
    int64_t count;
    int code = sf_folder_list(&name, &count, arena, path, err);
    for (int64_t i = 0; !code && i < count; i++) {
        const char *file = sf_path_join(arena, path, name[i]);
        if (!file)
            code = sf_fail(err, SF_ENOMEM, "no memory for a path");
        else if (unlink(file) != 0 && errno != ENOENT)
            code = sf_fail_errno(err, errno, "%s: cannot remove", file);
    }
    return code;
}

int sf_folder_remove(const char *path, struct sf_err *err)
{
    struct sf_arena arena = {0};
    if (!sf_file_exists(path))
        return SF_OK;
    int code = remove_files(path, &arena, err);
    sf_arena_free(&arena);
    if (!code && rmdir(path) != 0 && errno != ENOENT)
        code = sf_fail_errno(err, errno, "%s: cannot remove this folder", path);
    return code;
}

int sf_folder_free_bytes(uint64_t *out, const char *path, struct sf_err *err)
{
    struct statvfs disk;
    if (statvfs(path, &disk) != 0)
        return sf_fail_errno(err, errno, "%s: cannot ask for its disk's free space", path);
    *out = (uint64_t)disk.f_bavail * disk.f_frsize;
    return SF_OK;
}
