/* inspect.h -- what scout-inspect prints: as text for people, as JSON for programs.
 *
 * JSON: schema "scout-inspect/1" (spec/inspect-json.md). Text is for reading and may change. */
#ifndef SCOUT_TOOLS_INSPECT_H
#define SCOUT_TOOLS_INSPECT_H

#include <stdbool.h>
#include <stdio.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/container/container_map.h"
#include "tools/inspect_facts.h"

struct inspect {
    const struct sf_map *map;
    struct inspect_facts facts;
    struct sf_arena *arena;
    FILE *out;
    int width; /* of the terminal; 0: out is none */
};

int inspect_print_summary(struct inspect *in, struct sf_err *err);
/* `tensors`: list these too, with all extents; NULL: the summary alone. */
struct inspect_selection;
int inspect_print_json(struct inspect *in, const struct inspect_selection *tensors,
                       struct sf_err *err);
int inspect_print_provenance(struct inspect *in, struct sf_err *err);
int inspect_print_provenance_json(struct inspect *in, struct sf_err *err);

/* For tables: "1,234", "1.23 MB", and an escaped string of the file ("not recorded" if empty). */
const char *inspect_number(struct inspect *in, uint64_t n);
const char *inspect_size(struct inspect *in, uint64_t n);
const char *inspect_shown(struct inspect *in, const char *text);

/* Reads the whole payload against its checksums and prints every damage. SF_EDAMAGED if there is
 * any; with `json` the result is one object, damaged or not. `progress` may be NULL. */
struct inspect_verify_options {
    int threads; /* 0: all processors */
    bool json;
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void (*clear_progress)(void *context); /* before a line is printed */
    void *context;
};
int inspect_verify(struct inspect *in, const struct inspect_verify_options *options,
                   struct sf_err *err);
/* The same object for a container that could not even be opened. */
int inspect_verify_json_unreadable(struct inspect *in, const char *path, const struct sf_err *why,
                                   struct sf_err *err);

/* 32 hexadecimal digits, most significant first. */
enum { INSPECT_HASH_TEXT = 33 };
const char *inspect_hash_format(char text[INSPECT_HASH_TEXT], const unsigned char hash[16]);

#endif
