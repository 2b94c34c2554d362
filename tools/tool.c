#include "tools/tool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/base/map_guard.h"
#include "libformat/base/mem.h"

enum { MAX_OPTIONS = 160, LARGEST_CONFIG = 1 << 20 };

/* One bit an option: was it given? Tools parse one command line a process. */
static bool given[MAX_OPTIONS];

/* ---- messages and signals ---- */

int tool_failed(const char *program, const struct sf_err *err)
{
    fprintf(stderr, "%s: %s\n", program,
            err->message[0] ? err->message : sf_code_sentence(err->code));
    return TOOL_FAILED;
}

int tool_told_all(int code, struct sf_err *err)
{
    if (code == SF_OK && sf_alloc_failures() > 0)
        code = sf_fail(err, SF_ENOMEM, "there was not enough memory to tell all of it");
    return code;
}

int tool_usage(const char *program, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, " (%s --help tells more)\n", program);
    va_end(args);
    return TOOL_USAGE;
}

/* A closed stdin, stdout or stderr leaves its number to the next file that is opened, and what we
 * print would land in there. So each is given something on which the write fails as it should. */
static void hold_standard_files(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
            _exit(TOOL_FAILED);
}

void tool_start(void)
{
    hold_standard_files();
    sf_map_guard_install();
    if (!isatty(STDOUT_FILENO)) /* a table of ten thousand lines is not a thousand writes */
        setvbuf(stdout, NULL, _IOFBF, 64 << 10);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

int tool_finish(const char *program, int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    if (errno != EPIPE) /* a reader that went away has said that it saw enough */
        fprintf(stderr, "%s: cannot write to stdout: %s\n", program, strerror(errno));
    return status == TOOL_DONE ? TOOL_FAILED : status;
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static const int caught[] = {SIGINT, SIGTERM};
static struct sigaction uncaught[2]; /* what they did before: a background job may ignore one */

void tool_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 2; i++)
        sigaction(caught[i], &action, &uncaught[i]);
}

void tool_release_signals(void)
{
    for (int i = 0; i < 2; i++)
        sigaction(caught[i], &uncaught[i], NULL);
}

bool tool_interrupted(void)
{
    return interrupted;
}

/* ---- options ---- */

static int find_option(const struct tool_args *args, const char *name, size_t length)
{
    for (int i = 0; i < args->options; i++)
        if (strlen(args->option[i].name) == length &&
            memcmp(args->option[i].name, name, length) == 0)
            return i;
    return -1;
}

bool tool_was_given(const struct tool_args *args, const char *name)
{
    int i = find_option(args, name, strlen(name));
    return i >= 0 && given[i];
}

/* Levenshtein distance, for names of options only. */
static int distance(const char *a, size_t a_length, const char *b)
{
    enum { LONGEST = 64 };
    int row[LONGEST + 1];
    size_t n = strlen(b);
    if (n > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= n; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= a_length; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

static const char *nearest(const struct tool_args *args, const char *name, size_t length)
{
    const char *best = NULL;
    int best_distance = (int)length / 2 + 1;
    for (int i = 0; i < args->options; i++) {
        int d = distance(name, length, args->option[i].name);
        if (d < best_distance) {
            best_distance = d;
            best = args->option[i].name;
        }
    }
    return best;
}

static int unknown_option(const struct tool_args *args, const char *name, size_t length)
{
    const char *hint = nearest(args, name, length);
    if (hint)
        return tool_usage(args->program, "unknown option --%.*s; did you mean --%s?", (int)length,
                          name, hint);
    return tool_usage(args->program, "unknown option --%.*s", (int)length, name);
}

static bool append(struct tool_list *list, const char *value, struct sf_arena *arena)
{
    const char **grown = sf_arena_array(arena, (uint64_t)list->count + 1, sizeof *grown);
    if (!grown)
        return false;
    if (list->count)
        memcpy(grown, list->item, (size_t)list->count * sizeof *grown);
    grown[list->count++] = value;
    list->item = grown;
    return true;
}

/* Text from the command line into the option's target. */
static int set_from_text(const struct tool_args *args, int i, const char *value,
                         struct sf_arena *arena)
{
    const struct tool_option *o = &args->option[i];
    char *end;
    errno = 0;
    switch (o->kind) {
    case TOOL_FLAG:
        *(bool *)o->target = true;
        break;
    case TOOL_INT:
        *(int64_t *)o->target = strtoll(value, &end, 10);
        if (end == value || *end || errno)
            return tool_usage(args->program, "--%s takes a whole number, not \"%s\"", o->name,
                              value);
        break;
    case TOOL_DOUBLE:
        *(double *)o->target = strtod(value, &end);
        if (end == value || *end || !isfinite(*(double *)o->target))
            return tool_usage(args->program, "--%s takes a number, not \"%s\"", o->name, value);
        break;
    case TOOL_STRING:
        *(const char **)o->target = value;
        break;
    case TOOL_LIST:
        if (!append(o->target, value, arena))
            return tool_usage(args->program, "no memory for --%s", o->name);
        break;
    }
    given[i] = true;
    return TOOL_DONE;
}

/* ---- the config file ---- */

static int set_string_from_json(const char **out, const struct sf_json *v, const char *key,
                                struct sf_arena *arena, struct sf_err *err)
{
    const char *text;
    int code = sf_json_as_string(&text, v, key, err);
    if (code == SF_OK && !(*out = sf_arena_strdup(arena, text)))
        code = sf_fail(err, SF_ENOMEM, "no memory for %s", key);
    return code;
}

static int set_list_from_json(struct tool_list *list, const struct sf_json *v, const char *key,
                              struct sf_arena *arena, struct sf_err *err)
{
    const char *item;
    int code = SF_OK;
    const struct sf_json *first = sf_json_type(v) == SF_JSON_ARRAY ? sf_json_first(v) : v;
    for (; first && code == SF_OK; first = first == v ? NULL : sf_json_next(first)) {
        code = set_string_from_json(&item, first, key, arena, err);
        if (code == SF_OK && !append(list, item, arena))
            code = sf_fail(err, SF_ENOMEM, "no memory for %s", key);
    }
    return code;
}

static int set_from_json(const struct tool_option *o, const struct sf_json *v, const char *key,
                         struct sf_arena *arena, struct sf_err *err)
{
    switch (o->kind) {
    case TOOL_FLAG:
        return sf_json_as_bool(o->target, v, key, err);
    case TOOL_INT:
        return sf_json_as_int(o->target, v, key, err);
    case TOOL_DOUBLE:
        return sf_json_as_double(o->target, v, key, err);
    case TOOL_STRING:
        return set_string_from_json(o->target, v, key, arena, err);
    case TOOL_LIST:
        return set_list_from_json(o->target, v, key, arena, err);
    }
    return SF_OK;
}

static int apply_member(const struct tool_args *args, const struct sf_json *v,
                        struct sf_arena *arena, struct sf_err *err)
{
    const char *key = sf_json_key(v);
    char name[64];
    size_t n = strlen(key);
    if (n < sizeof name) {
        for (size_t i = 0; i <= n; i++)
            name[i] = key[i] == '_' ? '-' : key[i];
        int i = find_option(args, name, n);
        if (i >= 0 && strcmp(name, "config") != 0) {
            if (given[i]) /* flags win */
                return SF_OK;
            int code = set_from_json(&args->option[i], v, key, arena, err);
            given[i] = code == SF_OK;
            return code;
        }
    }
    const char *hint = n < sizeof name ? nearest(args, name, n) : NULL;
    return sf_fail(err, SF_EINVAL, "unknown option \"%s\"%s%s%s", key,
                   hint ? "; did you mean " : "", hint ? hint : "", hint ? "?" : "");
}

static int read_config(const struct tool_args *args, const char *path, struct sf_arena *arena)
{
    struct sf_err err = {0};
    struct sf_json *root;
    char *text;
    uint64_t bytes;
    int code = sf_read_file(&text, &bytes, arena, path, LARGEST_CONFIG, &err);
    if (code != SF_OK)
        return tool_failed(args->program, &err);
    code = sf_json_parse(&root, text, bytes, &err);
    if (code == SF_OK) {
        if (sf_json_type(root) != SF_JSON_OBJECT)
            code = sf_fail(&err, SF_EFORMAT, "not a JSON object");
        else
            code = sf_json_check_unique(root, &err);
        for (const struct sf_json *v = sf_json_first(root); v && code == SF_OK; v = sf_json_next(v))
            code = apply_member(args, v, arena, &err);
        sf_json_free(root);
    }
    if (code == SF_OK)
        return TOOL_DONE;
    sf_err_prefix(&err, "%s", path);
    return tool_failed(args->program, &err);
}

/* ---- the command line ---- */

static void print_help(const struct tool_args *args)
{
    printf("usage: %s\n%s\n\n", args->usage, args->about);
    for (int i = 0; i < args->options; i++) {
        const struct tool_option *o = &args->option[i];
        char left[80], letter[8] = "";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->kind == TOOL_FLAG ? "" : " ",
                 o->kind == TOOL_FLAG ? "" : o->value);
        printf("  %-38s %s\n", left, o->help);
    }
}

static int find_letter(const struct tool_args *args, char letter)
{
    for (int i = 0; i < args->options; i++)
        if (args->option[i].letter == letter)
            return i;
    return -1;
}

/* argv[*at] starts with '-': sets its option and moves *at over a value that stands apart. */
static int take_option(const struct tool_args *args, int argc, char **argv, int *at,
                       struct sf_arena *arena)
{
    const char *word = argv[*at], *value = NULL;
    int i;
    if (word[1] == '-') {
        size_t length = strcspn(word + 2, "=");
        i = find_option(args, word + 2, length);
        if (i < 0)
            return unknown_option(args, word + 2, length);
        value = word[2 + length] ? word + 3 + length : NULL;
    } else {
        i = word[2] ? -1 : find_letter(args, word[1]);
        if (i < 0)
            return tool_usage(args->program, "unknown option %s", word);
    }
    const struct tool_option *o = &args->option[i];
    if (o->kind == TOOL_FLAG) {
        if (value)
            return tool_usage(args->program, "--%s takes no value", o->name);
        return set_from_text(args, i, "", arena);
    }
    if (!value && *at + 1 < argc)
        value = argv[++*at];
    if (!value)
        return tool_usage(args->program, "--%s needs a value (%s)", o->name, o->value);
    if (given[i] && o->kind != TOOL_LIST)
        return tool_usage(args->program, "--%s is given twice", o->name);
    return set_from_text(args, i, value, arena);
}

int tool_parse(struct tool_args *args, int argc, char **argv, struct sf_arena *arena)
{
    bool options_end = false;
    memset(given, 0, sizeof given);
    args->operand = sf_arena_array(arena, (uint64_t)argc, sizeof *args->operand);
    assert(args->options <= MAX_OPTIONS);
    if (!args->operand) {
        fprintf(stderr, "%s: no memory for %d arguments\n", args->program, argc);
        return TOOL_FAILED;
    }
    for (int at = 1; at < argc; at++) {
        if (!options_end && strcmp(argv[at], "--help") == 0) {
            args->help = true;
            print_help(args);
            return TOOL_DONE;
        }
        if (!options_end && strcmp(argv[at], "--version") == 0) {
            args->help = true;
            printf("%s %s\n", args->program, SCOUT_VERSION);
            return TOOL_DONE;
        }
        if (!options_end && strcmp(argv[at], "--") == 0) {
            options_end = true;
        } else if (!options_end && argv[at][0] == '-' && argv[at][1]) {
            int status = take_option(args, argc, argv, &at, arena);
            if (status != TOOL_DONE)
                return status;
        } else {
            args->operand[args->operands++] = argv[at];
        }
    }
    int config = find_option(args, "config", strlen("config"));
    if (config >= 0 && given[config])
        return read_config(args, *(const char **)args->option[config].target, arena);
    return TOOL_DONE;
}
