#include "libformat/base/map_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libformat/base/mem.h"

enum { SLOTS = 64 };

/* The handler reads the list without a lock: blocks are only ever added, and a slot's `begin`, set
 * last and cleared first, says whether the rest counts. */
struct slot {
    atomic_uintptr_t begin; /* 0: free */
    atomic_uintptr_t end;
    atomic_bool lost;
    int fd;
};

struct block {
    _Atomic(struct block *) next;
    struct slot slot[SLOTS];
};

static struct block first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of adding and removing */
static struct sigaction before;
static uintptr_t page_bytes;

static struct slot *find(uintptr_t address)
{
    for (struct block *b = &first; b; b = atomic_load(&b->next))
        for (int i = 0; i < SLOTS; i++) {
            uintptr_t begin = atomic_load(&b->slot[i].begin);
            if (begin && address >= begin && address < atomic_load(&b->slot[i].end))
                return &b->slot[i];
        }
    return NULL;
}

/* Only calls that may be made in a handler: atomics without locks, mmap (a bare system call on
 * every system that we run on), sigaction. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    int kept = errno;
    uintptr_t address = (uintptr_t)info->si_addr / page_bytes * page_bytes;
    struct slot *s = info->si_code == BUS_ADRERR ? find((uintptr_t)info->si_addr) : NULL;
    (void)number, (void)context;
    if (s) {
        atomic_store(&s->lost, true);
        void *at = (void *)address;
        if (mmap(at, atomic_load(&s->end) - address, PROT_READ,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
            s = NULL;
    }
    if (!s)
        sigaction(SIGBUS, &before, NULL); /* the access is made again, and is theirs */
    errno = kept;
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
}

void sf_map_guard_install(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
}

static struct slot *free_slot(void)
{
    for (struct block *b = &first;; b = atomic_load(&b->next)) {
        for (int i = 0; i < SLOTS; i++)
            if (!atomic_load(&b->slot[i].begin))
                return &b->slot[i];
        if (!atomic_load(&b->next)) {
            struct block *grown = sf_alloc(sizeof *grown);
            if (!grown)
                return NULL;
            atomic_store(&b->next, grown);
        }
    }
}

int sf_map_guard_add(const struct sf_mapping *mapping, int fd, struct sf_err *err)
{
    pthread_mutex_lock(&lock);
    struct slot *s = free_slot();
    if (s) {
        s->fd = fd;
        atomic_store(&s->lost, false);
        atomic_store(&s->end, (uintptr_t)mapping->data + mapping->bytes);
        atomic_store(&s->begin, (uintptr_t)mapping->data);
    }
    pthread_mutex_unlock(&lock);
    return s ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a guard over a mapped file");
}

void sf_map_guard_remove(const struct sf_mapping *mapping)
{
    pthread_mutex_lock(&lock);
    struct slot *s = mapping->data ? find((uintptr_t)mapping->data) : NULL;
    int fd = s ? s->fd : -1;
    if (s)
        atomic_store(&s->begin, 0);
    pthread_mutex_unlock(&lock);
    if (fd >= 0)
        close(fd);
}

int sf_mapping_check(const struct sf_mapping *mapping, const char *name, struct sf_err *err)
{
    struct stat st;
    const struct slot *s = mapping->data ? find((uintptr_t)mapping->data) : NULL;
    if (!s)
        return SF_OK;
    if (fstat(s->fd, &st) != 0)
        return sf_fail_errno(err, errno, "%s: cannot stat", name);
    if (st.st_size >= 0 && (uint64_t)st.st_size < mapping->bytes)
        return sf_fail(err, SF_EIO, "%s: became shorter while it was read: %lld bytes of %llu",
                       name, (long long)st.st_size, (unsigned long long)mapping->bytes);
    if (atomic_load(&s->lost))
        return sf_fail(err, SF_EIO, "%s: a part of it could not be read, or was cut off meanwhile",
                       name);
    return SF_OK;
}
