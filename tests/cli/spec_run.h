/* spec_run.h -- runs spec_decoder, the reader that was written from spec/ alone, for the programs
 * that compare libformat with it. Anything unexpected ends the program with a message. */
#ifndef SCOUT_TESTS_CLI_SPEC_RUN_H
#define SCOUT_TESTS_CLI_SPEC_RUN_H

#include <stdint.h>
#include <stdio.h>

struct spec_output {
    char *data; /* malloc, a NUL behind it */
    uint64_t bytes;
    int status; /* exit status */
};

/* Runs `program verb file [argument]` and collects its stdout. */
struct spec_output spec_run(const char *program, const char *verb, const char *file,
                            const char *argument);
void spec_output_free(struct spec_output *output);

/* Prints "<program>: <message>" and exits 1. */
_Noreturn void spec_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A name as spec_decoder prints it: printable ASCII but the backslash, other bytes as \xNN. */
void spec_print_name(FILE *out, const char *name);

#endif
