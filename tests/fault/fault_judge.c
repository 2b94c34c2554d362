#define _GNU_SOURCE
#include "tests/fault/fault_judge.h"

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct outcome *judged; /* nftw has no context */
static const struct scene *judged_scene;

char *judge_read(const char *path, long *bytes)
{
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    *bytes = -1;
    if (file && fseek(file, 0, SEEK_END) == 0) {
        *bytes = ftell(file);
        rewind(file);
        data = calloc(1, (size_t)*bytes + 1);
        if (!data || fread(data, 1, (size_t)*bytes, file) != (size_t)*bytes) {
            fprintf(stderr, "fault_drive: %s: %ld bytes could not be read\n", path, *bytes);
            exit(1);
        }
    }
    if (file)
        fclose(file);
    return data;
}

static bool same_bytes(const char *a, const char *b)
{
    long n, m;
    char *x = judge_read(a, &n), *y = judge_read(b, &m);
    bool same = x && y && n == m && memcmp(x, y, (size_t)n) == 0;
    free(x);
    free(y);
    return same;
}

/* Times differ from run to run: every line is whole, but a killed process may leave a part of one. */
static bool whole_lines(const char *path, bool killed)
{
    long n;
    char *text = judge_read(path, &n);
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
                                        "report.json", "events.out.tfevents.scout"};
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

/* The run that goes on reads the records; here only that such a file is not torn. */
static bool whole_json(const char *path, const char *base)
{
    long n;
    char *text = judge_read(path, &n);
    bool json = strstr(base, ".json") != NULL;
    while (json && n > 0 && text[n - 1] == '\n')
        n--;
    bool good = text && (!json || (n > 0 && text[n - 1] == '}'));
    free(text);
    return good;
}

/* Nothing but a name: an empty lock file that a run which failed could not tell was its own. */
static bool is_free_lock(const char *path, const struct stat *st)
{
    size_t n = strlen(path);
    return judged->status != 0 && st->st_size == 0 && n > 5 && strcmp(path + n - 5, ".lock") == 0;
}

static int judge_file(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    char reference[PATH_MAX], old[PATH_MAX];
    const char *base = path + where->base;
    if (kind != FTW_F)
        return 0;
    snprintf(reference, sizeof reference, "../reference/%s", path + strlen("out/"));
    snprintf(old, sizeof old, "in/old/%s", path + strlen("out/"));
    if (judged->status != 0 && strstr(path, ".removed/"))
        ; /* could not be removed; the next run does it */
    else if (is_free_lock(path, st))
        ; /* it could not be looked at; the next run takes it */
    else if (strstr(path, ".partial") || strstr(base, ".journal") || strstr(path, ".removed"))
        judged->temporary++;
    else if (strstr(path, "checkpoint-") && access(reference, F_OK) != 0)
        ; /* one that the reference removed later */
    else if (has_times(base) && strcmp(base, "metrics.jsonl") != 0)
        whole_json(path, base) ? (void)0 : blame("half of", path);
    else if (strcmp(base, "metrics.jsonl") == 0)
        whole_lines(path, WIFSIGNALED(judged->status)) ? (void)0 : blame("torn line in", path);
    else if (judged->status != 0 && judged_scene->replaces && same_bytes(path, old))
        ; /* still the one that was there */
    else if (!same_bytes(path, reference))
        blame("other bytes in", path);
    return 0;
}

static int missing_file(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    char made[PATH_MAX];
    (void)st;
    snprintf(made, sizeof made, "out/%s", path + strlen("../reference/"));
    (void)where;
    if (kind == FTW_F && access(made, F_OK) != 0)
        blame("there is no", made);
    return 0;
}

/* One sentence of the tool's, or none. */
static void judge_words(struct outcome *o, int sentences)
{
    long n;
    int found = 0;
    char *text = judge_read("../stderr", &n);
    for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : "")
        found += strncmp(line, judged_scene->tool, strlen(judged_scene->tool)) == 0;
    if (found != sentences)
        snprintf(o->wrong, sizeof o->wrong, "%d sentences: %.400s", found, text ? text : "");
    free(text);
    const char *says = judged_scene->says;
    text = judge_read("../stdout", &n);
    if (sentences == 0 && says && !(text && strstr(text, says)))
        blame("stdout does not say", says);
    if (sentences == 0 && !says && !same_bytes("../stdout", "../reference.words"))
        blame("stdout is not the reference's", "");
    free(text);
}

/* A mixture of old and new files must not pass: what a reader takes is all one or all the other. */
static void judge_reading(void)
{
    char command[1024];
    snprintf(command, sizeof command, "%s >../read 2>../read.err", judged_scene->reader);
    if (system(command) == 0 && !same_bytes("../read", "../read.new") &&
        !same_bytes("../read", "../read.old"))
        blame("a reader takes something else:", judged_scene->reader);
}

void judge_run(struct outcome *o, const struct scene *scene, bool may_leave_temporary)
{
    judged = o;
    judged_scene = scene;
    nftw("out", judge_file, 16, FTW_PHYS);
    if (scene->reader)
        judge_reading();
    if (WIFSIGNALED(o->status))
        return;
    if (WEXITSTATUS(o->status) == 0)
        nftw("../reference", missing_file, 16, FTW_PHYS);
    judge_words(o, WEXITSTATUS(o->status) != 0);
    if (!may_leave_temporary && o->temporary > 0)
        blame("left behind:", "a temporary file");
}

bool judge_finished(struct outcome *o, const struct scene *scene)
{
    long n;
    if (!scene->finished || !WIFEXITED(o->status) || WEXITSTATUS(o->status) != 1)
        return false;
    char *text = judge_read("../stderr", &n);
    bool says = text && strstr(text, scene->finished);
    free(text);
    judged = o;
    if (says)
        nftw("../reference", missing_file, 16, FTW_PHYS);
    return says;
}
