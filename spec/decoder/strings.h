// strings.h -- the strings of a section (C 5): NUL-terminated UTF-8, one behind the other, named by
// the offset of their first byte. `where` begins the sentence of a refusal.

#ifndef SPEC_DECODER_STRINGS_H
#define SPEC_DECODER_STRINGS_H

#include <stdio.h>

#include "spec/decoder/fields.h"

struct strings {
    const char *bytes;
    u32 size;
};

struct strings read_strings(const u8 *p, u32 size, const char *where);

// The string whose offset the u32 at `field` is.
const char *get_string(struct strings strings, const u8 *field, const char *where);

// Refuses a reserved u32 of row i that is not zero.
void check_zero_u32(const u8 *field, const char *where, u32 i);

// A name that may be shown anywhere (C 10): bytes outside printable ASCII, and backslashes, as \xNN.
void print_name(FILE *out, const char *name);

#endif
