/* tool.h -- what the command-line programs share: options from a table, errors, exit statuses.
 *
 * Exit 0 done, 1 failed, 2 usage. Errors are one line on stderr, "scout-x: <message>". Options are
 * written --name value or --name=value; a JSON file (--config) may hold the same names with '_' for
 * '-', and flags win. An option that is not in the table is an error that suggests the nearest. */
#ifndef SCOUT_TOOLS_TOOL_H
#define SCOUT_TOOLS_TOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"

enum tool_status { TOOL_DONE = 0, TOOL_FAILED = 1, TOOL_USAGE = 2 };

enum tool_kind {
    TOOL_FLAG,   /* bool: --name sets it; in a config file true or false */
    TOOL_INT,    /* int64_t */
    TOOL_DOUBLE, /* double */
    TOOL_STRING, /* const char * */
    TOOL_LIST    /* struct tool_list: may be repeated; an array in a config file */
};

struct tool_list {
    const char **item; /* in the arena of the parse */
    int64_t count;
};

struct tool_option {
    const char *name; /* without "--"; "-o" style aliases go in `letter` */
    char letter;      /* 0: none */
    enum tool_kind kind;
    void *target;      /* holds the default until the option is given */
    const char *value; /* how help names the value: "DIR" */
    const char *help;
};

struct tool_args {
    const char *program; /* "scout-convert" */
    const char *usage;   /* the lines behind "usage: " */
    const char *about;   /* one sentence */
    const struct tool_option *option;
    int options;
    /* filled by tool_parse: */
    const char **operand; /* what is no option, in order */
    int operands;
    bool help; /* --help or --version was given: already printed */
};

/* Parses argv[1..argc) into the options' targets; strings borrow from argv or `arena`. A table that
 * holds an option named "config" gets its JSON file read first. Returns TOOL_DONE, or TOOL_USAGE
 * with the sentence printed, or TOOL_FAILED for a config file that cannot be read. */
int tool_parse(struct tool_args *args, int argc, char **argv, struct sf_arena *arena);
/* Was it set by a flag or by the config file? */
bool tool_was_given(const struct tool_args *args, const char *name);

/* "scout-x: <message>" on stderr; returns TOOL_FAILED. */
int tool_failed(const char *program, const struct sf_err *err);
/* `code`; but SF_ENOMEM where all seems well and an allocation has failed: something that was to be told
 * may be missing. */
int tool_told_all(int code, struct sf_err *err);
/* tool_failed for a wrong command line, with a hint at --help; returns TOOL_USAGE. */
int tool_usage(const char *program, const char *fmt, ...) SF_PRINTF(2, 3);

/* Call first: a closed stdout becomes a write error, never a signal or another file's bytes; an
 * oversized file an error too. */
void tool_start(void);
/* Call last: flushes stdout and turns what could not be written into exit status 1. */
int tool_finish(const char *program, int status);

/* SIGINT and SIGTERM set a flag that long work looks at between steps. */
void tool_catch_signals(void);
/* Behind tool_catch_signals: they do what they did before. One that came meanwhile stays told. */
void tool_release_signals(void);
bool tool_interrupted(void);

/* "60.4 GB", "1.2 MB", "512 B" (decimal units) into text. */
/* "1500000000", "1.5GB" (powers of 1000), "80GiB" (of 1024); false when it is no such size. */
bool tool_size_from_text(uint64_t *out, const char *text);
enum { TOOL_SIZE_TEXT = 16 };
const char *tool_size(char *text, uint64_t bytes);

/* ---- progress: one line rewritten on a terminal, a line now and then elsewhere, on stderr ---- */

struct tool_progress {
    const char *what; /* "converting" */
    double started, last_shown;
    bool terminal, shown;
};
void tool_progress_begin(struct tool_progress *p, const char *what);
/* Bytes done of bytes in all: percent, rate, time left. */
void tool_progress_show(struct tool_progress *p, uint64_t done, uint64_t total);
/* Clears the line, so that something else can be printed. */
void tool_progress_pause(struct tool_progress *p);
void tool_progress_end(struct tool_progress *p);
/* Seconds of the monotonic clock. */
double tool_now(void);

#endif
