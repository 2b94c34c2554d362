#include "libformat/base/watch.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/inotify.h>
#endif

#include "libformat/base/arena.h"
#include "libformat/base/mem.h"

struct seen {
    struct seen *next;
    const char *name;
    bool whole; /* renamed, and not written to since */
};

struct sf_watch {
    struct sf_arena arena;
    struct seen *seen;
    int fd; /* -1: nothing can be seen here */
};

#ifdef __linux__
static int open_events(const char *directory)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd >= 0 && inotify_add_watch(fd, directory,
                                     IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE |
                                         IN_MODIFY | IN_ONLYDIR) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* A rename that cannot be remembered for lack of memory was not seen: the safe side. */
static void note(struct sf_watch *w, const char *name, bool whole)
{
    struct seen *s = w->seen;
    while (s && strcmp(s->name, name) != 0)
        s = s->next;
    if (!s && !whole)
        return;
    if (!s && (s = sf_arena_alloc(&w->arena, sizeof *s)) != NULL &&
        (s->name = sf_arena_strdup(&w->arena, name)) != NULL) {
        s->next = w->seen;
        w->seen = s;
    }
    if (s && s->name)
        s->whole = whole;
}

static void take_events(struct sf_watch *w)
{
    _Alignas(struct inotify_event) char block[8192];
    ssize_t n;
    while (w->fd >= 0 && (n = read(w->fd, block, sizeof block)) > 0) {
        for (char *at = block; at < block + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(const void *)at;
            if (e->mask & IN_Q_OVERFLOW) /* something was lost: what, nobody knows */
                for (struct seen *s = w->seen; s; s = s->next)
                    s->whole = false;
            else if (e->len > 0)
                note(w, e->name, (e->mask & IN_MOVED_TO) != 0);
            at += sizeof *e + e->len;
        }
    }
}
#else
static int open_events(const char *directory)
{
    (void)directory;
    return -1;
}

static void take_events(struct sf_watch *w)
{
    (void)w;
}
#endif

int sf_watch_open(struct sf_watch **out, const char *directory, struct sf_err *err)
{
    struct sf_watch *w = sf_alloc(sizeof *w);
    if (!w)
        return sf_fail(err, SF_ENOMEM, "%s: no memory to watch it", directory);
    w->fd = open_events(directory);
    *out = w;
    return SF_OK;
}

void sf_watch_wait(struct sf_watch *watch, double seconds)
{
    struct pollfd p = {.fd = watch->fd, .events = POLLIN}; /* -1: poll only waits */
    poll(&p, 1, (int)(seconds * 1000));
    take_events(watch);
}

bool sf_watch_saw(struct sf_watch *watch, const char *name)
{
    take_events(watch);
    for (const struct seen *s = watch->seen; s; s = s->next)
        if (strcmp(s->name, name) == 0)
            return s->whole;
    return false;
}

void sf_watch_close(struct sf_watch *watch)
{
    if (!watch)
        return;
    if (watch->fd >= 0)
        close(watch->fd);
    sf_arena_free(&watch->arena);
    sf_free(watch);
}
