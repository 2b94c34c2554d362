// An educational decoder of the .scout container, written from spec/container.md ("C") and
// spec/quantization.md ("Q") alone. It favours being read over being fast: one function for each
// section of the page, in the order of the page, and no code shared with the project. This file holds
// the commands; README.md says which file reads which section.
//
//   decoder list FILE            tensors with their planes, then extents
//   decoder tensor FILE NAME     one tensor as raw little-endian float32, on stdout
//   decoder files FILE           the carried files
//   decoder file FILE NAME       one carried file, on stdout
//   decoder owner FILE OFFSET    what a byte of the file belongs to
//   decoder owners FILE          the same for all bytes, as ranges: begin, end, what, names
//   decoder verify FILE          every check, every checksum, every carried file
//
// Columns are separated by tabs; names have bytes outside printable ASCII, and backslashes, as \xNN.

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec/decoder/chunks.h"
#include "spec/decoder/elements.h"
#include "spec/decoder/fields.h"
#include "spec/decoder/metadata.h"
#include "spec/decoder/opened.h"
#include "spec/decoder/sections.h"
#include "spec/decoder/strings.h"

static void write_bytes(const void *bytes, u64 size)
{
    if (fwrite(bytes, 1, (size_t)size, stdout) != size)
        refuse("cannot write to stdout");
}

static void print_tensor(const char *name)
{
    const struct tensor *t = find_tensor(name);
    const u64 n = g.shapes[t->shape].elements;

    for (u32 k = 0; k < SLOTS; k++)
        if (t->planes[k] != NONE)
            check_chunks_of(&g.planes[t->planes[k]]);
    for (u64 r = 0; r < n; r++) {
        u8 bytes[4];

        put_u32(bytes, element(t, r));
        write_bytes(bytes, sizeof bytes);
    }
}

// ---------------------------------------------------------------------------------------------
// The other commands

static void print_shape(const struct shape *s)
{
    (void)putchar('[');
    for (u64 k = 0; k < s->rank; k++)
        (void)printf("%s%llu", k > 0 ? "," : "", (unsigned long long)s->dims[k]);
    (void)putchar(']');
}

static void print_tensor_line(const struct tensor *t)
{
    static const char *const TYPES[] = {"?",    "u8",  "i8",  "i16",  "i32",     "i64",    "f16",
                                        "bf16", "f32", "f64", "bool", "f8_e4m3", "f8_e5m2"};
    static const char *const KINDS[] = {"codes", "scale", "scale2", "offset", "codebook", "map"};

    (void)printf("tensor\t");
    print_name(stdout, t->name);
    (void)printf("\t%d\t", t->layer);
    print_name(stdout, g.labels[t->label]);
    (void)printf("\t%d\t%s\t%s\t", t->expert, t->encoding == RAW ? "raw" : "nf4",
                 TYPES[t->source_type]);
    print_shape(&g.shapes[t->shape]);
    for (u32 k = 0; k < PLANE_KINDS; k++) {
        if (t->planes[k] == NONE)
            continue;
        const struct plane *p = &g.planes[t->planes[k]];
        (void)printf("\t%s %llu %llu", KINDS[k], (unsigned long long)p->address,
                     (unsigned long long)p->size);
    }
    (void)putchar('\n');
}

static void print_list(void)
{
    for (u32 i = 0; i < g.tensor_count; i++)
        print_tensor_line(&g.tensors[i]);
    for (u32 i = 0; i < g.extent_count; i++) {
        const struct extent *e = &g.extents[i];

        (void)printf("extent\t%llu\t%llu\t", (unsigned long long)e->address,
                     (unsigned long long)e->size);
        print_name(stdout, e->kind);
        (void)printf("\t%d\t%d\n", e->layer, e->expert);
    }
}

static void print_files(void)
{
    for (u32 i = 0; i < g.file_count; i++) {
        (void)printf("file\t");
        print_name(stdout, g.files[i].name);
        (void)printf("\t%llu\n", (unsigned long long)g.files[i].bytes);
    }
}

static void print_file(const char *name)
{
    for (u32 i = 0; i < g.file_count; i++) {
        if (strcmp(g.files[i].name, name) != 0)
            continue;
        u8 *bytes = inflate_file(&g.files[i]);
        write_bytes(bytes, g.files[i].bytes);
        free(bytes);
        return;
    }
    refuse("carries no file %s", name);
}

static void print_range(u64 begin, u64 end)
{
    (void)printf("%llu\t%llu\t", (unsigned long long)begin, (unsigned long long)end);
}

// Prints the range that `offset` belongs to, and returns its end (C 1 and 4).
static u64 print_owner(u64 offset)
{
    u32 i = 0;

    if (offset < HEADER_BYTES) {
        print_range(0, HEADER_BYTES);
        (void)puts("header");
        return HEADER_BYTES;
    }
    while (offset - g.sections[i].offset >= g.sections[i].size)
        i++;
    const struct section *s = &g.sections[i];
    if (s->type != PAYLOAD) {
        print_range(s->offset, s->offset + s->size);
        (void)puts(section_name(s->type));
        return s->offset + s->size;
    }
    const struct chunk c = chunk_at(offset - s->offset);
    const u64 begin = s->offset + c.address;
    print_range(begin, begin + c.size);
    print_chunk_owner(stdout, c);
    (void)putchar('\n');
    return begin + c.size;
}

static void print_owner_of(const char *text)
{
    char *end = NULL;
    const unsigned long long offset = strtoull(text, &end, 0);

    if (end == text || *end != '\0' || offset >= g.size)
        refuse("has no byte %s", text);
    (void)print_owner(offset);
}

static void print_owners(void)
{
    for (u64 at = 0; at < g.size;)
        at = print_owner(at);
}

static void verify(void)
{
    check_all_chunks();
    for (u32 i = 0; i < g.file_count; i++)
        free(inflate_file(&g.files[i]));
    (void)printf("whole: %u tensors, %llu chunks, %u files\n", g.tensor_count,
                 (unsigned long long)g.chunk_count, g.file_count);
}

// ---------------------------------------------------------------------------------------------

static int usage(void)
{
    (void)fputs("usage: decoder list|files|owners|verify FILE\n"
                "       decoder tensor|file FILE NAME\n"
                "       decoder owner FILE OFFSET\n",
                stderr);
    return 2;
}

static void run_plain(void (*command)(void))
{
    open_container();
    command();
}

static void run_with(void (*command)(const char *), const char *argument)
{
    open_container();
    command(argument);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*plain)(void);
        void (*with)(const char *);
    } COMMANDS[] = {
        {"list", print_list, NULL},      {"files", print_files, NULL},
        {"owners", print_owners, NULL},  {"verify", verify, NULL},
        {"tensor", NULL, print_tensor},  {"file", NULL, print_file},
        {"owner", NULL, print_owner_of},
    };

    for (size_t i = 0; argc >= 3 && i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
        if (strcmp(argv[1], COMMANDS[i].name) != 0 || argc != (COMMANDS[i].plain != NULL ? 3 : 4))
            continue;
        g_path = argv[2];
        if (COMMANDS[i].plain != NULL)
            run_plain(COMMANDS[i].plain);
        else
            run_with(COMMANDS[i].with, argv[3]);
        if (fflush(stdout) != 0)
            refuse("cannot write to stdout");
        return 0;
    }
    return usage();
}
