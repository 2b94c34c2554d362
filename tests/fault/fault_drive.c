/* Runs one tool on the tiny model again and again, each time with another call failing, and judges
 * what is left: success with the right bytes, or one sentence and exit status 1 with nothing wrong
 * left behind. After a kill the same command is run again and must end with the right bytes.
 *   fault_drive SCENE SHIM BIN_DIR SOURCE_DIR SCRATCH_DIR [PER_MODE]
 * PER_MODE faults of each mode, evenly spread; without it, every one. */
#define _GNU_SOURCE
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 120, MOST_WORDS = 40 };

struct scene {
    const char *name, *tool, *arguments;
    const char *prepare;   /* shell, once, before the reference run */
    const char *before;    /* shell, before each run but a second one */
    const char *says;      /* on stdout, on success */
    const char *again;     /* arguments that a second run needs as well; NULL: not run again */
    const char *finished;  /* NULL, or how a second run refuses when the first had ended its work */
    bool leftovers_vanish; /* after the second run no temporary file is left */
};

#define CONVERT "$BIN/scout-convert in/model -o in/m.scout >log 2>&1"
static const struct scene scenes[] = {
    {.name = "convert",
     .tool = "scout-convert",
     .arguments = "in/model -o out/m.scout --threads 2",
     .says = "written and read back",
     .again = "",
     .leftovers_vanish = true},
    /* The sources go, too: what is lost then is lost. */
    {.name = "delete",
     .tool = "scout-convert",
     .prepare = "mv in/model ../kept && cp -r ../kept in/model",
     .before = "rm -rf in/model && cp -r ../kept in/model",
     .arguments = "in/model -o out/m.scout --threads 2 --delete-source",
     .says = "m.scout: ",
     .again = "",
     .leftovers_vanish = true},
    /* Several files: those behind the first are renamed before it. */
    {.name = "parts",
     .tool = "scout-convert",
     .arguments = "in/model -o out/m.scout --threads 2 --max-part-size 2MB",
     .says = "in 5 files",
     .again = "",
     .leftovers_vanish = true},
    {.name = "parts-delete",
     .tool = "scout-convert",
     .prepare = "mv in/model ../kept && cp -r ../kept in/model",
     .before = "rm -rf in/model && cp -r ../kept in/model",
     .arguments = "in/model -o out/m.scout --threads 2 --max-part-size 3MB --delete-source",
     .says = "scout: ",
     .again = "",
     .leftovers_vanish = true},
    {.name = "export",
     .tool = "scout-convert",
     .prepare = CONVERT,
     .arguments = "export in/m.scout --to hf-bnb4 -o out/hf --threads 2",
     .says = "",
     .again = "",
     .finished = "holds a checkpoint already"}, /* what a killed run was writing stays beside it */
    {.name = "merge",
     .tool = "scout-convert",
     .prepare = "cp -r $SOURCE/tests/golden/merge/tiny_swapped in/adapter",
     .arguments = "merge --base in/model --adapter in/adapter -o out/hf --threads 2",
     .says = "modules of the adapter merged into 7 of",
     .again = "",
     .finished = "is there and not empty",
     .leftovers_vanish = true},
    {.name = "verify",
     .tool = "scout-inspect",
     .prepare = CONVERT,
     .arguments = "verify in/m.scout",
     .says = ": good: "},
    {.name = "inspect",
     .tool = "scout-inspect",
     .prepare = CONVERT,
     .arguments = "tensors in/m.scout",
     .says = "q_proj"},
    {.name = "train",
     .tool = "scout-ft",
     .prepare = CONVERT " && head -c 1500 $SOURCE/examples/data/moby.txt >in/rows.txt",
     .arguments =
         "train --model in/m.scout --data in/rows.txt --output-dir out/a --device cpu --threads 1 "
         "--max-seq-length 16 --max-steps 2 --save-steps 1",
     .says = "done after 2 steps",
     .again = "--overwrite-output-dir"},
    /* A second run, which goes on where the first was stopped: what is whole is never lost. */
    {.name = "resume",
     .tool = "scout-ft",
     .prepare = CONVERT " && head -c 1500 $SOURCE/examples/data/moby.txt >in/rows.txt",
     .arguments =
         "train --model in/m.scout --data in/rows.txt --output-dir out/a --device cpu --threads 1 "
         "--max-seq-length 16 --max-steps 3 --save-steps 1 --save-total-limit 1 --resume",
     .says = "done after 3 steps",
     .again = ""},
};

static const char *const modes[] = {"eio",    "eio+",  "enospc",    "enospc+", "short",
                                    "short+", "eintr", "alloc",     "alloc+",  "shrink",
                                    "kill",   "power", "power-data"};

static const struct scene *scene;
static const char *shim, *bin, *source, *scratch;

/* ---- running ---- */

struct outcome {
    int status; /* of waitpid */
    long calls;
    char hit[32]; /* "-": the call did not come */
    long temporary;
    char wrong[512]; /* empty: nothing wrong was left */
};

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
        alarm(SECONDS); /* a hang ends with SIGALRM */
        execv(program, (char **)(uintptr_t)word);
    }
    _exit(127);
}

static int run_tool(const char *more, const char *mode, long at)
{
    int status = 0;
    remove("../report");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        become_tool(more, mode, at);
    if (child < 0 || waitpid(child, &status, 0) != child)
        exit(1);
    return status;
}

static void shell(const char *command)
{
    if (system(command) != 0) {
        fprintf(stderr, "fault_drive: %s: failed\n", command);
        exit(1);
    }
}

static void empty_out(void)
{
    shell("rm -rf ../trash out && mkdir out ../trash");
    if (scene->before)
        shell(scene->before);
}

/* ---- judging ---- */

static struct outcome *judged; /* nftw has no context */

static char *read_all(const char *path, long *bytes)
{
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    *bytes = -1;
    if (file && fseek(file, 0, SEEK_END) == 0) {
        *bytes = ftell(file);
        rewind(file);
        data = calloc(1, (size_t)*bytes + 1);
        if (!data || fread(data, 1, (size_t)*bytes, file) != (size_t)*bytes)
            exit(1);
    }
    if (file)
        fclose(file);
    return data;
}

static bool same_bytes(const char *a, const char *b)
{
    long n, m;
    char *x = read_all(a, &n), *y = read_all(b, &m);
    bool same = x && y && n == m && memcmp(x, y, (size_t)n) == 0;
    free(x);
    free(y);
    return same;
}

/* Times differ from run to run: every line is whole, but a killed process may leave a part of one. */
static bool whole_lines(const char *path, bool killed)
{
    long n;
    char *text = read_all(path, &n);
    bool good = text && (n == 0 || killed || text[n - 1] == '\n');
    for (char *end, *line = text; good && (end = strchr(line, '\n')); line = end + 1)
        good = strncmp(line, "{\"step\":", 8) == 0 && end > line && end[-1] == '}';
    free(text);
    return good;
}

/* What a clock goes into, and hashes of such files; resume.json says itself whether it is whole. */
static bool has_times(const char *name)
{
    static const char *const names[] = {"metrics.jsonl", "resume.json", "report.html",
                                        "events.out.tfevents.scout"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void blame(const char *what, const char *name)
{
    if (!judged->wrong[0])
        snprintf(judged->wrong, sizeof judged->wrong, "%s %s", what, name);
}

static int judge_file(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    char reference[PATH_MAX];
    const char *base = path + where->base;
    (void)st;
    if (kind != FTW_F)
        return 0;
    snprintf(reference, sizeof reference, "../reference/%s", path + strlen("out/"));
    if (strstr(path, ".partial") || strstr(base, ".journal") || strstr(path, ".removed"))
        judged->temporary++;
    else if (strstr(path, "checkpoint-") && access(reference, F_OK) != 0)
        ; /* one that the reference removed later */
    else if (has_times(base) && strcmp(base, "metrics.jsonl") != 0)
        ; /* the run that goes on reads the records */
    else if (strcmp(base, "metrics.jsonl") == 0)
        whole_lines(path, WIFSIGNALED(judged->status)) ? (void)0 : blame("torn line in", path);
    else if (!same_bytes(path, reference))
        blame("other bytes in", path);
    return 0;
}

static int missing_file(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    char made[PATH_MAX];
    (void)st;
    snprintf(made, sizeof made, "out/%s", path + strlen("../reference/"));
    if (kind == FTW_F && !has_times(path + where->base) && access(made, F_OK) != 0)
        blame("there is no", made);
    return 0;
}

/* One sentence of the tool's, or none. */
static void judge_words(struct outcome *o, int sentences)
{
    long n;
    int found = 0;
    char *text = read_all("../stderr", &n);
    for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : "")
        found += strncmp(line, scene->tool, strlen(scene->tool)) == 0;
    if (found != sentences)
        snprintf(o->wrong, sizeof o->wrong, "%d sentences: %.400s", found, text ? text : "");
    free(text);
    text = read_all("../stdout", &n);
    if (sentences == 0 && !(text && strstr(text, scene->says)))
        blame("stdout does not say", scene->says);
    free(text);
}

static void judge_run(struct outcome *o, bool may_leave_temporary)
{
    judged = o;
    nftw("out", judge_file, 16, FTW_PHYS);
    if (WIFSIGNALED(o->status))
        return;
    if (WEXITSTATUS(o->status) == 0)
        nftw("../reference", missing_file, 16, FTW_PHYS);
    judge_words(o, WEXITSTATUS(o->status) != 0);
    if (!may_leave_temporary && o->temporary > 0)
        blame("left behind:", "a temporary file");
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
    char *text = read_all("../stderr", &n);
    t->lost++;
    printf("LOST: %s, %s at call %ld (%s)%s: %s %d; %s\n%.3000s", scene->name, mode, at, o->hit,
           when, WIFSIGNALED(o->status) ? "signal" : "exit status",
           WIFSIGNALED(o->status) ? WTERMSIG(o->status) : WEXITSTATUS(o->status), o->wrong,
           text ? text : "");
    free(text);
}

/* It refuses to write again what is there, and everything is. */
static bool was_finished(struct outcome *o)
{
    long n;
    if (!scene->finished || !WIFEXITED(o->status) || WEXITSTATUS(o->status) != 1)
        return false;
    char *text = read_all("../stderr", &n);
    bool says = text && strstr(text, scene->finished);
    free(text);
    if (says)
        nftw("../reference", missing_file, 16, FTW_PHYS);
    return says;
}

static void run_again(struct tally *t, const char *mode, long at, const struct outcome *first)
{
    struct outcome o = {0};
    snprintf(o.hit, sizeof o.hit, "%s", first->hit);
    o.status = run_tool(scene->again, NULL, 0);
    judge_run(&o, !scene->leftovers_vanish);
    t->again++;
    bool good = was_finished(&o) || o.status == 0;
    if (o.wrong[0] || !good)
        lose(t, mode, at, &o, ", run again");
}

static void inject(struct tally *t, const char *mode, long at)
{
    struct outcome o = {0};
    bool dies = strcmp(mode, "kill") == 0 || strncmp(mode, "power", 5) == 0;
    empty_out();
    o.status = run_tool("", mode, at);
    if (strcmp(mode, "shrink") == 0)
        shell(scene->before ? scene->before : "cp -r ../inputs/. in");
    read_report(&o);
    bool done = o.status == 0, refused = WIFEXITED(o.status) && WEXITSTATUS(o.status) == 1;
    bool killed = dies && WIFSIGNALED(o.status) && WTERMSIG(o.status) == 9;
    judge_run(&o, dies || mode[strlen(mode) - 1] == '+' || strcmp(o.hit, "unlink") == 0 ||
                      strcmp(o.hit, "resize") == 0 ||
                      (refused && scene->leftovers_vanish)); /* convert keeps its progress */
    t->injected += strcmp(o.hit, "-") != 0 || dies;
    t->succeeded += done;
    t->refused += refused;
    t->killed += killed;
    if (o.wrong[0] || !(done || refused || killed))
        lose(t, mode, at, &o, "");
    else if (scene->again && !done)
        run_again(t, mode, at, &o);
}

static struct tally run_mode(const char *mode, long per_mode)
{
    struct tally t = {0};
    struct outcome o = {0};
    empty_out();
    o.status = run_tool("", mode, 0);
    read_report(&o);
    judge_run(&o, strcmp(mode, "power") == 0); /* a removal that did not last */
    if (o.status != 0 || o.wrong[0])
        lose(&t, mode, 0, &o, ", nothing injected");
    t.calls = o.calls;
    long past_end = strncmp(mode, "power", 5) == 0; /* the power also fails after success */
    long last = t.calls + past_end, count = per_mode && per_mode < last ? per_mode : last;
    for (long i = 0; i < count; i++)
        inject(&t, mode, count > 1 ? 1 + i * (last - 1) / (count - 1) : last);
    return t;
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
        exit(1);
    if (scene->prepare)
        shell(scene->prepare);
    if (run_tool("", NULL, 0) != 0)
        shell("cat ../stderr >&2; false");
    shell("mv out ../reference && cp -r in ../inputs");
}

int main(int argc, char **argv)
{
    struct tally all = {0};
    if (argc < 6)
        return 2;
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++)
        if (strcmp(scenes[i].name, argv[1]) == 0)
            scene = &scenes[i];
    if (!scene)
        return 2;
    shim = argv[2], bin = argv[3], source = argv[4], scratch = argv[5];
    set_up();
    printf("%-8s %-11s %7s %8s %9s %7s %6s %9s %4s\n", "tool", "fault", "calls", "injected",
           "succeeded", "refused", "killed", "run again", "lost");
    for (size_t m = 0; m < sizeof modes / sizeof modes[0]; m++) {
        struct tally t = run_mode(modes[m], argc > 6 ? atol(argv[6]) : 0);
        printf("%-8s %-11s %7ld %8ld %9ld %7ld %6ld %9ld %4ld\n", scene->name, modes[m], t.calls,
               t.injected, t.succeeded, t.refused, t.killed, t.again, t.lost);
        fflush(stdout);
        all.injected += t.injected;
        all.lost += t.lost;
    }
    printf("%s: %ld faults injected, %ld survived, %ld lost\n", scene->name, all.injected,
           all.injected - all.lost, all.lost);
    if (all.lost == 0 && chdir("/") == 0) {
        char command[PATH_MAX + 16];
        snprintf(command, sizeof command, "rm -rf '%s'", scratch);
        shell(command);
    }
    return all.lost > 0 || all.injected == 0;
}
