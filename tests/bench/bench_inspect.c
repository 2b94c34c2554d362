/* bench_inspect -- what a look at a container costs: time, and bytes that had to come from the disk.
 *   bench_inspect SCOUT_INSPECT MODEL.scout
 *
 * Each view is run as a user would, its output thrown away. Read: pages of the file in the page cache
 * after one run that began with none of them there, so it counts what the kernel read ahead, too.
 * Time: the median of 21 runs after that, processor time (user and system) and wall clock, from fork
 * to exit: loading the program is in it. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libformat/base/clock.h"

enum { RUNS = 21, MOST_ARGS = 6 };

static double processor_seconds(const struct rusage *r)
{
    return (double)r->ru_utime.tv_sec + (double)r->ru_stime.tv_sec +
           1e-6 * (double)(r->ru_utime.tv_usec + r->ru_stime.tv_usec);
}

/* false: it could not be run, or did not exit with 0. */
static int run_once(double *wall, double *processor, char *const *argv)
{
    struct rusage usage;
    int status;
    double began = sf_clock_seconds();
    pid_t child = fork();
    if (child == 0) {
        int out = open("/dev/null", O_WRONLY);
        if (out < 0 || dup2(out, 1) < 0)
            _exit(127);
        execv(argv[0], argv);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child)
        return 0;
    *wall = sf_clock_seconds() - began;
    *processor = processor_seconds(&usage);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Bytes of the file that are in the page cache; -1 when that cannot be told. */
static double cached_bytes(int fd, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page, there = 0;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char *in = malloc(pages);
    int known = map != MAP_FAILED && in && mincore(map, bytes, in) == 0;
    for (size_t i = 0; known && i < pages; i++)
        there += in[i] & 1;
    free(in);
    if (map != MAP_FAILED)
        munmap(map, bytes);
    return known ? (double)(there * page) : -1;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int measure(int fd, size_t bytes, const char *name, char *const *argv)
{
    double wall[RUNS], processor[RUNS], cold_wall, cold;
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    double before = cached_bytes(fd, bytes);
    if (!run_once(&cold_wall, &cold, argv))
        return 0;
    double read = cached_bytes(fd, bytes) - before;
    for (int i = 0; i < RUNS; i++)
        if (!run_once(&wall[i], &processor[i], argv))
            return 0;
    qsort(wall, RUNS, sizeof *wall, compare);
    qsort(processor, RUNS, sizeof *processor, compare);
    printf("%-26s %9.3f %12.2f %10.2f %10.2f\n", name, read / (1 << 20), 1e3 * processor[RUNS / 2],
           1e3 * wall[RUNS / 2], 1e3 * cold_wall);
    return 1;
}

int main(int argc, char **argv)
{
    static const char *const views[][MOST_ARGS] = {{"--help"},
                                                   {"summary", "@"},
                                                   {"tensors", "@"},
                                                   {"tensors", "@", "--tree"},
                                                   {"layout", "@"},
                                                   {"experts", "@"},
                                                   {"provenance", "@"},
                                                   {"summary", "@", "--json"},
                                                   {"tensors", "@", "--json"}};
    struct stat stat;
    int fd = argc == 3 ? open(argv[2], O_RDONLY) : -1;
    if (fd < 0 || fstat(fd, &stat) != 0) {
        fprintf(stderr, "usage: bench_inspect SCOUT_INSPECT MODEL.scout\n");
        return 2;
    }
    printf("%s: %.2f GB\n%-26s %9s %12s %10s %10s\n", argv[2], 1e-9 * (double)stat.st_size, "view",
           "MiB read", "ms of work", "ms warm", "ms cold");
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) {
        char *args[MOST_ARGS + 2] = {argv[1]}, name[64] = "";
        int n = 1, at = 0;
        for (int k = 0; k < MOST_ARGS && views[i][k]; k++) {
            int model = views[i][k][0] == '@';
            args[n++] = model ? argv[2] : (char *)(uintptr_t)views[i][k];
            at += snprintf(name + at, sizeof name - (size_t)at, "%s%s", k && !model ? " " : "",
                           model ? "" : views[i][k]);
        }
        if (!measure(fd, (size_t)stat.st_size, name, args)) {
            fprintf(stderr, "bench_inspect: %s failed\n", name);
            return 1;
        }
    }
    return 0;
}
