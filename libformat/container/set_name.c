#include "libformat/container/set_name.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"

static const char SUFFIX[] = ".scout";
enum { TAIL_TEXT = 64, TAIL_LENGTH = sizeof "-00001-of-00003.scout" - 1 };

static const char *tail_of(char text[TAIL_TEXT], int64_t file, int64_t files)
{
    snprintf(text, TAIL_TEXT, "-%05lld-of-%05lld%s", (long long)file, (long long)files, SUFFIX);
    return text;
}

/* Length of `path` without ".scout". */
static size_t stem_length(const char *path)
{
    size_t n = strlen(path), suffix = sizeof SUFFIX - 1;
    return n > suffix && strcmp(path + n - suffix, SUFFIX) == 0 ? n - suffix : n;
}

char *sf_set_name(struct sf_arena *arena, const char *path, int64_t file, int64_t files)
{
    char tail[TAIL_TEXT];
    if (files <= 1)
        return sf_arena_strdup(arena, path);
    return sf_arena_printf(arena, "%.*s%s", (int)stem_length(path), path,
                           tail_of(tail, file, files));
}

char *sf_set_sibling(struct sf_arena *arena, const char *first, int64_t file, int64_t files)
{
    char tail[TAIL_TEXT];
    size_t n = strlen(first), m = strlen(tail_of(tail, 1, files));
    if (n <= m || strcmp(first + n - m, tail) != 0)
        return NULL;
    return sf_arena_printf(arena, "%.*s%s", (int)(n - m), first, tail_of(tail, file, files));
}

/* "-00001-of-" with five digits of any number, and nothing else. */
static bool is_first_tail(const char *text)
{
    static const char digits[] = "0123456789";
    const char *number = text + sizeof "-00001-of-" - 1;
    return strlen(text) == TAIL_LENGTH && strncmp(text, "-00001-of-", 10) == 0 &&
           strspn(number, digits) == 5 && strcmp(number + 5, SUFFIX) == 0;
}

char *sf_set_find_first(struct sf_arena *arena, const char *path)
{
    const char *base = sf_path_base(path);
    size_t stem = stem_length(base);
    char *found = NULL, *dir = sf_arena_printf(arena, "%.*s", (int)(base - path), path);
    DIR *folder = dir ? opendir(*dir ? dir : ".") : NULL;
    for (struct dirent *e; folder && !found && (e = readdir(folder));)
        if (strncmp(e->d_name, base, stem) == 0 && is_first_tail(e->d_name + stem))
            found = sf_arena_printf(arena, "%s%s", dir, e->d_name);
    if (folder)
        closedir(folder);
    return found;
}
