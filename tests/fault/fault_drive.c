/* Runs one tool on the tiny model again and again, each time with another call failing, and judges
 * what is left: success with the right bytes, or one sentence and exit status 1 with nothing wrong
 * left behind. After a kill the same command is run again and must end with the right bytes.
 *   fault_drive SCENE SHIM BIN_DIR SOURCE_DIR SCRATCH_DIR PER_MODE [SEED [SHARD/SHARDS]]
 * PER_MODE faults of each mode, one at random from each of as many stretches of the run; 0: the first
 * 500 and 500 of those behind. SEED, else $SCOUT_SEED, else the clock chooses; it is printed. Of SHARDS
 * processes with one seed and folders of their own each takes every SHARDS-th fault: SHARD from 0.
 * SIGTERM and SIGINT end it behind the fault in hand, with the table so far and exit status 3. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/fault/fault_judge.h"

enum { SECONDS = 120, MOST_WORDS = 40, EVERY = 500, MOST_KILLS = 100 };

static const char *const modes[] = {"eio",    "eio+",  "enospc",    "enospc+", "short",
                                    "short+", "eintr", "alloc",     "alloc+",  "shrink",
                                    "kill",   "power", "power-data"};

static const struct scene *scene;
static const char *shim, *bin, *source, *scratch;
static uint64_t seed;
static long shard, shards = 1, turn; /* turn: faults that came up, whoever takes them */
static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    stopped = signal;
}

/* Whether the next fault is this process's. */
static bool is_mine(void)
{
    return turn++ % shards == shard && !stopped;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "fault_drive: %s, shard %ld of %ld, fault %ld: %s: %s\n", scene->name, shard,
            shards, turn, what, why);
    exit(1);
}

/* Of this seed, mode and index alone, in [0, 1): splitmix64. */
static double chance(const char *mode, long index)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15u + (uint64_t)index;
    for (; *mode; mode++)
        x = x * 31 + (unsigned char)*mode;
    for (int i = 0; i < 2; i++) {
        x += 0x9E3779B97F4A7C15u;
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
        x = (x ^ x >> 27) * 0x94D049BB133111EBu;
        x ^= x >> 31;
    }
    return (double)(x >> 11) * 0x1p-53;
}

/* ---- running ---- */

static int split(const char **word, char *text)
{
    int n = 0;
    for (char *w = strtok(text, " "); w && n < MOST_WORDS; w = strtok(NULL, " "))
        word[n++] = w;
    return n;
}

static void set_number(const char *name, long value)
{
    char text[32];
    snprintf(text, sizeof text, "%ld", value);
    setenv(name, text, 1);
}

static void become_tool(const char *more, const char *mode, long at)
{
    char program[PATH_MAX], text[1024], folder[PATH_MAX], path[PATH_MAX];
    const char *word[MOST_WORDS + 2];
    snprintf(program, sizeof program, "%s/%s", bin, scene->tool);
    snprintf(text, sizeof text, "%s %s", scene->arguments, more);
    word[0] = program;
    word[1 + split(word + 1, text)] = NULL;
    if (mode) {
        bool shrink = strcmp(mode, "shrink") == 0; /* what a tool writes is its own */
        snprintf(folder, sizeof folder, "%s/world%s", scratch, shrink ? "/in" : "");
        setenv("SCOUT_FAULT_FOLDER", folder, 1);
        setenv("SCOUT_FAULT_MODE", mode, 1);
        set_number("SCOUT_FAULT_AT", at);
        snprintf(path, sizeof path, "%s/report", scratch);
        setenv("SCOUT_FAULT_REPORT", path, 1);
        snprintf(path, sizeof path, "%s/trash", scratch);
        setenv("SCOUT_FAULT_TRASH", path, 1);
        setenv("LD_PRELOAD", shim, 1);
    }
    if (freopen("../stdout", "w", stdout) && freopen("../stderr", "w", stderr)) {
        setpgid(0, 0);  /* what stops this driver is not meant for the tool */
        alarm(SECONDS); /* a hang ends with SIGALRM */
        execv(program, (char **)(uintptr_t)word);
    }
    _exit(127);
}

static pid_t start_tool(const char *more, const char *mode, long at)
{
    remove("../report");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        become_tool(more, mode, at);
    if (child < 0)
        die("fork", strerror(errno));
    return child;
}

static int end_of(pid_t child)
{
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR)
        ;
    if (ended != child)
        die("waitpid", strerror(errno));
    return status;
}

static int run_tool(const char *more, const char *mode, long at)
{
    return end_of(start_tool(more, mode, at));
}

static void shell(const char *command)
{
    int status = system(command);
    if (status != 0)
        die(command, WIFSIGNALED(status) ? "ended by a signal" : "failed");
}

static void empty_out(void)
{
    shell("rm -rf ../trash out && mkdir out ../trash");
    if (scene->before)
        shell(scene->before);
}

static void read_report(struct outcome *o)
{
    FILE *file = fopen("../report", "r");
    if (!file || fscanf(file, "%ld %31s", &o->calls, o->hit) != 2)
        snprintf(o->hit, sizeof o->hit, "?");
    if (file)
        fclose(file);
}

/* ---- one fault ---- */

struct tally {
    long calls, injected, succeeded, refused, killed, again, lost;
};

static void lose(struct tally *t, const char *mode, long at, const struct outcome *o,
                 const char *when)
{
    long n;
    char *text = judge_read("../stderr", &n);
    t->lost++;
    printf("LOST: %s, %s at call %ld (%s)%s: %s %d; %s\n%.3000s", scene->name, mode, at, o->hit,
           when, WIFSIGNALED(o->status) ? "signal" : "exit status",
           WIFSIGNALED(o->status) ? WTERMSIG(o->status) : WEXITSTATUS(o->status), o->wrong,
           text ? text : "");
    free(text);
}

static void run_again(struct tally *t, const char *mode, long at, const struct outcome *first)
{
    struct outcome o = {0};
    snprintf(o.hit, sizeof o.hit, "%s", first->hit);
    o.status = run_tool(scene->again, NULL, 0);
    judge_run(&o, scene, !scene->leftovers_vanish);
    t->again++;
    bool good = judge_finished(&o, scene) || o.status == 0;
    if (o.wrong[0] || !good)
        lose(t, mode, at, &o, ", run again");
}

static bool ends_in_plus(const char *mode)
{
    return mode[strlen(mode) - 1] == '+';
}

/* What could not be removed may stay; convert keeps its progress. */
static bool may_leave_temporary(const struct outcome *o, const char *mode, bool dies)
{
    bool refused = WIFEXITED(o->status) && WEXITSTATUS(o->status) == 1;
    return dies || ends_in_plus(mode) || strcmp(o->hit, "unlink") == 0 ||
           strcmp(o->hit, "resize") == 0 || (refused && scene->keeps_progress);
}

static void count_end(struct tally *t, const struct outcome *o)
{
    t->succeeded += o->status == 0;
    t->refused += WIFEXITED(o->status) && WEXITSTATUS(o->status) == 1;
    t->killed += WIFSIGNALED(o->status) && WTERMSIG(o->status) == SIGKILL;
}

static void inject(struct tally *t, const char *mode, long at)
{
    struct outcome o = {0};
    bool dies = strcmp(mode, "kill") == 0 || strncmp(mode, "power", 5) == 0;
    empty_out();
    o.status = run_tool("", mode, at);
    if (strcmp(mode, "shrink") == 0)
        shell("rm -rf in && cp -r ../inputs in");
    read_report(&o);
    bool refused = WIFEXITED(o.status) && WEXITSTATUS(o.status) == 1;
    bool killed = dies && WIFSIGNALED(o.status) && WTERMSIG(o.status) == SIGKILL;
    judge_run(&o, scene, may_leave_temporary(&o, mode, dies));
    t->injected += strcmp(o.hit, "-") != 0 || dies;
    count_end(t, &o);
    if (o.wrong[0] || !(o.status == 0 || refused || killed))
        lose(t, mode, at, &o, "");
    else if (scene->again && o.status != 0)
        run_again(t, mode, at, &o);
}

/* The i-th of `count` in first..last: somewhere in the i-th of as many equal stretches. */
static long sample(const char *mode, long first, long last, long count, long i)
{
    double width = (double)(last - first + 1) / (double)count;
    return first + (long)(((double)i + chance(mode, i)) * width);
}

static void inject_some(struct tally *t, const char *mode, long first, long last, long most)
{
    long calls = last - first + 1, count = calls < most ? calls : most;
    for (long i = 0; i < count; i++)
        if (is_mine())
            inject(t, mode, calls > most ? sample(mode, first, last, count, i) : first + i);
}

/* Nothing fails; how many calls could. */
static long count_calls(struct tally *t, const char *mode)
{
    struct outcome o = {0};
    empty_out();
    o.status = run_tool("", mode, 0);
    read_report(&o);
    judge_run(&o, scene, strcmp(mode, "power") == 0);      /* a removal that did not last */
    bool counted = strcmp(o.hit, "-") == 0 || o.calls > 0; /* the shim was there */
    if (o.status != 0 || o.wrong[0] || !counted)
        lose(t, mode, 0, &o, ", nothing injected");
    return o.calls;
}

static struct tally run_mode(const char *mode, long per_mode)
{
    static long calls; /* of eio also for eio+ */
    struct tally t = {0};
    if (!ends_in_plus(mode))
        calls = count_calls(&t, mode);
    t.calls = calls;
    long past_end = strncmp(mode, "power", 5) == 0; /* the power also fails after success */
    long last = t.calls + past_end;
    if (per_mode || last <= EVERY) {
        inject_some(&t, mode, 1, last, per_mode ? per_mode : EVERY);
    } else {
        inject_some(&t, mode, 1, EVERY, EVERY);
        inject_some(&t, mode, EVERY + 1, last, EVERY);
    }
    return t;
}

/* What only looks has no space to run out of, and nothing to lose. */
static bool is_for_scene(const char *mode)
{
    return scene->again || !(strncmp(mode, "enospc", 6) == 0 || strcmp(mode, "kill") == 0 ||
                             strncmp(mode, "power", 5) == 0);
}

/* ---- SIGKILL from outside, whenever ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int run_and_kill(const char *more, double seconds)
{
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    pid_t child = start_tool(more, NULL, 0);
    nanosleep(&t, NULL);
    kill(child, SIGKILL);
    return end_of(child);
}

/* Up to three times in a row, then once in peace. */
static void kill_in_a_row(struct tally *t, double *longest, long index)
{
    struct outcome o = {.hit = "a signal"};
    long times = 1 + (long)(3 * chance("times", index));
    bool ended = false;
    empty_out();
    for (long i = 0; i < times && !ended && !o.wrong[0]; i++) {
        o.status = run_and_kill(i ? scene->again : "", *longest * chance("sigkill", 8 * index + i));
        ended = !WIFSIGNALED(o.status);
        o.temporary = 0;
        judge_run(&o, scene, !ended);
        if (ended && judge_finished(&o, scene))
            o.status = 0;
        t->injected++;
        count_end(t, &o);
        if (o.wrong[0] || (ended ? o.status != 0 : WTERMSIG(o.status) != SIGKILL))
            lose(t, "sigkill", index, &o, "");
    }
    if (ended)
        *longest *= 0.95; /* it may be quicker than that */
    else if (!o.wrong[0])
        run_again(t, "sigkill", index, &o);
}

static struct tally run_kills(long per_mode)
{
    struct tally t = {0};
    empty_out();
    double begun = now();
    if (run_tool("", NULL, 0) != 0)
        die("the run that nothing happens to", "failed");
    double longest = now() - begun;
    for (long i = 0; i < (per_mode && per_mode < MOST_KILLS ? per_mode : MOST_KILLS); i++)
        if (is_mine())
            kill_in_a_row(&t, &longest, i);
    return t;
}

static void print_tally(struct tally *all, const char *mode, const struct tally *t)
{
    printf("%-16s %-10s %7ld %8ld %9ld %7ld %6ld %9ld %4ld\n", scene->name, mode, t->calls,
           t->injected, t->succeeded, t->refused, t->killed, t->again, t->lost);
    fflush(stdout);
    all->injected += t->injected;
    all->killed += t->killed;
    all->again += t->again;
    all->lost += t->lost;
}

/* ---- the run ---- */

static void read_as_user(const char *into)
{
    char command[1024];
    snprintf(command, sizeof command, "%s >%s 2>/dev/null", scene->reader, into);
    shell(command);
}

static void set_up(void)
{
    char command[4 * PATH_MAX];
    setenv("BIN", bin, 1);
    setenv("SOURCE", source, 1);
    setenv("LC_ALL", "C", 1);
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1);
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    snprintf(
        command, sizeof command,
        "rm -rf '%s' && mkdir -p '%s/world/in' '%s/world/out' && cp -r '%s/examples/tiny-scout'"
        " '%s/world/in/model'",
        scratch, scratch, scratch, source, scratch);
    shell(command);
    snprintf(command, sizeof command, "%s/world", scratch);
    if (chdir(command) != 0)
        die(command, strerror(errno));
    if (scene->prepare)
        shell(scene->prepare);
    shell("cp -r in ../inputs");
    empty_out();
    if (scene->reader)
        read_as_user("../read.old");
    if (run_tool("", NULL, 0) != 0)
        shell("cat ../stderr >&2; false");
    if (scene->reader)
        read_as_user("../read.new");
    shell("mv out ../reference && mv ../stdout ../reference.words");
}

static bool choose_shard(const char *given)
{
    char *end = NULL;
    if (!given)
        return true;
    shard = strtol(given, &end, 10);
    shards = *end == '/' ? strtol(end + 1, &end, 10) : 0;
    return *end == '\0' && shard >= 0 && shard < shards;
}

static uint64_t choose_seed(const char *given)
{
    given = given ? given : getenv("SCOUT_SEED");
    return given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
}

int main(int argc, char **argv)
{
    struct tally all = {0};
    if (argc == 2 && strcmp(argv[1], "--scenes") == 0) {
        fault_scenes_list();
        return 0;
    }
    long per_mode = argc > 6 ? atol(argv[6]) : -1;
    scene = per_mode >= 0 ? fault_scene_find(argv[1]) : NULL;
    if (!scene || !choose_shard(argc > 8 ? argv[8] : NULL))
        return 2;
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    shim = argv[2], bin = argv[3], source = argv[4], scratch = argv[5];
    seed = choose_seed(argc > 7 ? argv[7] : NULL);
    set_up();
    printf("seed %llu\n%-16s %-10s %7s %8s %9s %7s %6s %9s %4s\n", (unsigned long long)seed,
           "scene", "fault", "calls", "injected", "succeeded", "refused", "killed", "run again",
           "lost");
    for (size_t m = 0; m < sizeof modes / sizeof modes[0]; m++) {
        if (!is_for_scene(modes[m]) || stopped)
            continue;
        struct tally t = run_mode(modes[m], per_mode);
        print_tally(&all, modes[m], &t);
    }
    if (scene->again && !stopped) {
        struct tally t = run_kills(per_mode);
        print_tally(&all, "sigkill", &t);
    }
    printf(
        "%s%s: %ld faults injected, %ld survived, %ld lost; %ld kills, %ld runs again to the same "
        "bytes (SCOUT_SEED=%llu, shard %ld/%ld)\n",
        scene->name, stopped ? ", STOPPED" : "", all.injected, all.injected - all.lost, all.lost,
        all.killed, all.again, (unsigned long long)seed, shard, shards);
    if (stopped)
        return 3;
    if (all.lost == 0 && chdir("/") == 0) {
        char command[PATH_MAX + 16];
        snprintf(command, sizeof command, "rm -rf '%s'", scratch);
        shell(command);
    }
    return all.lost > 0 || (all.injected == 0 && shards == 1);
}
