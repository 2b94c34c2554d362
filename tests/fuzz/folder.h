/* folder.h -- a folder of few files for readers that take folders. Made once in memory-backed
 * storage, its files written anew for each input. */
#ifndef SCOUT_TESTS_FUZZ_FOLDER_H
#define SCOUT_TESTS_FUZZ_FOLDER_H

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char fuzz_made[64];

static inline void fuzz_remove_folder(void)
{
    char path[320];
    DIR *folder = opendir(fuzz_made);
    for (struct dirent *e = folder ? readdir(folder) : NULL; e; e = readdir(folder)) {
        snprintf(path, sizeof path, "%s/%s", fuzz_made, e->d_name);
        unlink(path);
    }
    if (folder)
        closedir(folder);
    rmdir(fuzz_made);
}

static inline const char *fuzz_folder(void)
{
    if (fuzz_made[0])
        return fuzz_made;
    snprintf(fuzz_made, sizeof fuzz_made, "%s/scout-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(fuzz_made) || atexit(fuzz_remove_folder) != 0)
        abort();
    return fuzz_made;
}

static inline const char *fuzz_path(const char *name)
{
    static char path[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", fuzz_folder(), name);
    return path[turn];
}

static inline void fuzz_write(const char *name, const void *data, size_t bytes)
{
    FILE *file = fopen(fuzz_path(name), "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0)
        abort();
}

#endif
