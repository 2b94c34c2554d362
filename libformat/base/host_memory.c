#include "libformat/base/host_memory.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"

enum { FILE_MOST = 1 << 14 };

struct text {    /* a file of the kernel's: its size is told as 0 */
    char *bytes; /* [FILE_MOST + 1] */
    uint64_t used;
};

static int take_text(void *context, const void *data, uint64_t bytes, struct sf_err *err)
{
    struct text *text = context;
    uint64_t room = FILE_MOST - text->used, n = bytes < room ? bytes : room;
    (void)err;
    memcpy(text->bytes + text->used, data, n);
    text->used += n;
    return SF_OK;
}

/* NULL when there is no such file; what is longer than any of these is cut. */
static const char *read_text(struct sf_arena *arena, const char *path)
{
    struct sf_err ignored = {0};
    struct text text = {.bytes = sf_arena_alloc(arena, FILE_MOST + 1)};
    if (!path || !text.bytes || sf_file_scan(path, take_text, &text, &ignored))
        return NULL;
    text.bytes[text.used] = '\0';
    return text.bytes;
}

/* The number behind `name` at the start of a line; 0 where it is not. */
static uint64_t number_of(const char *text, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0)
            return strtoull(line + length, NULL, 10);
    }
    return 0;
}

/* ---- cgroups ---- */

struct cgroups {            /* the names that one version of them uses */
    const char *controller; /* as /proc/self/cgroup lists it */
    const char *folder, *limit, *used, *cache;
};
static const struct cgroups versions[] = {
    {"", "", "memory.max", "memory.current", "file "},
    {"memory", "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache "}};

/* One group's limit takes what is available down to what it leaves. */
static void apply_group(struct sf_host_memory *out, struct sf_arena *arena,
                        const struct cgroups *version, const char *folder)
{
    const char *limit = read_text(arena, sf_arena_printf(arena, "%s/%s", folder, version->limit));
    const char *used = read_text(arena, sf_arena_printf(arena, "%s/%s", folder, version->used));
    const char *stat = read_text(arena, sf_arena_printf(arena, "%s/memory.stat", folder));
    if (!limit || !used || *limit < '0' || *limit > '9') /* "max" is none */
        return;
    uint64_t bytes = strtoull(limit, NULL, 10), taken = strtoull(used, NULL, 10);
    uint64_t cache = stat ? number_of(stat, version->cache) : 0;
    if (bytes >= out->total_bytes) /* version 1 says "none" by a huge number */
        return;
    taken -= cache < taken ? cache : taken;
    uint64_t left = taken < bytes ? bytes - taken : 0;
    out->total_bytes = out->cgroup_bytes = bytes;
    out->available_bytes = left < out->available_bytes ? left : out->available_bytes;
}

/* The process's group and all above it. Inside a container the path may be one of the host's: then
 * the folder's own top is what there is. */
static void apply_groups(struct sf_host_memory *out, struct sf_arena *arena,
                         const struct cgroups *version, const char *cgroups, char *path)
{
    for (;;) {
        char *slash = strrchr(path, '/');
        apply_group(out, arena, version,
                    sf_arena_printf(arena, "%s%s%s", cgroups, version->folder,
                                    strcmp(path, "/") == 0 ? "" : path));
        if (!slash || strcmp(path, "/") == 0)
            return;
        slash[slash == path] = '\0';
    }
}

/* "4:memory,hugetlb:/a/b": the path of the line that has this controller; NULL if none has. */
static char *path_of(struct sf_arena *arena, const char *list, const char *controller)
{
    size_t length = strlen(controller);
    for (const char *line = list; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            return NULL;
        for (const char *at = names + 1; at <= path; at++) {
            bool begins = at == names + 1 || at[-1] == ',';
            if (begins && strncmp(at, controller, length) == 0 &&
                (at[length] == ',' || at + length == path))
                return sf_arena_strndup(arena, path + 1, strcspn(path + 1, "\n"));
        }
    }
    return NULL;
}

/* ---- all of it ---- */

void sf_host_memory_at(struct sf_host_memory *out, const char *proc, const char *cgroups)
{
    struct sf_arena arena = {0};
    *out = (struct sf_host_memory){0};
    const char *machine = read_text(&arena, sf_arena_printf(&arena, "%s/meminfo", proc));
    const char *groups = read_text(&arena, sf_arena_printf(&arena, "%s/self/cgroup", proc));
    if (machine) {
        out->total_bytes = number_of(machine, "MemTotal:") << 10;
        out->available_bytes = number_of(machine, "MemAvailable:") << 10;
    }
    if (out->total_bytes == 0 || out->available_bytes == 0)
        *out = (struct sf_host_memory){0}; /* a group's limit says little without them */
    for (int v = 0; groups && out->total_bytes && v < 2; v++) {
        char *path = path_of(&arena, groups, versions[v].controller);
        if (path)
            apply_groups(out, &arena, &versions[v], cgroups, path);
    }
    sf_arena_free(&arena);
}

void sf_host_memory(struct sf_host_memory *out)
{
    sf_host_memory_at(out, "/proc", "/sys/fs/cgroup");
}
