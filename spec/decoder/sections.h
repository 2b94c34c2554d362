// sections.h -- the header page (C 2): magic, hash, fields, section table, hashes of the sections,
// in the order of checks given there.

#ifndef SPEC_DECODER_SECTIONS_H
#define SPEC_DECODER_SECTIONS_H

#include "spec/decoder/fields.h"

// Needs the mapped file; fills the sections of `g`.
void read_header_page(void);

// "payload", "checksums", ...; the answer holds until the next call.
const char *section_name(u32 type);

#endif
