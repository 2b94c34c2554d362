#include "tests/cli/spec_run.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

void spec_die(const char *fmt, ...)
{
    va_list args;
    fflush(stdout);
    fputs("spec_decoder against libformat: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static struct spec_output collect(int fd)
{
    struct spec_output out = {0};
    uint64_t room = 1 << 16;
    out.data = malloc(room + 1);
    for (;;) {
        if (!out.data)
            spec_die("no memory for %llu bytes of output", (unsigned long long)room);
        ssize_t n = read(fd, out.data + out.bytes, room - out.bytes);
        if (n < 0)
            spec_die("cannot read what spec_decoder prints");
        if (n == 0)
            break;
        out.bytes += (uint64_t)n;
        if (out.bytes == room) {
            room *= 2;
            out.data = realloc(out.data, room + 1);
        }
    }
    out.data[out.bytes] = 0;
    return out;
}

struct spec_output spec_run(const char *program, const char *verb, const char *file,
                            const char *argument)
{
    int ends[2], status;
    if (pipe(ends) != 0)
        spec_die("cannot make a pipe");
    fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        spec_die("cannot fork");
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, verb, file, argument, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    struct spec_output out = collect(ends[0]);
    close(ends[0]);
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) > 2)
        spec_die("%s %s %s did not end by itself", program, verb, file);
    out.status = WEXITSTATUS(status);
    return out;
}

void spec_output_free(struct spec_output *output)
{
    free(output->data);
    *output = (struct spec_output){0};
}

void spec_print_name(FILE *out, const char *name)
{
    for (const unsigned char *p = (const unsigned char *)name; *p; p++)
        if (*p >= 32 && *p < 127 && *p != '\\')
            fputc(*p, out);
        else
            fprintf(out, "\\x%02x", *p);
}
