// parts.h -- a container in several files (C 1, 5.1): the part table, the files behind the first,
// and where a payload address lies.

#ifndef SPEC_DECODER_PARTS_H
#define SPEC_DECODER_PARTS_H

#include "spec/decoder/fields.h"

// Reads the part table at `p`: g.parts and g.payload_size.
void read_parts(const u8 *p);
// Maps the other files of a set and compares them with the first. Needs everything else.
void open_parts(void);
// The bytes from a payload address on, as far as its part reaches.
const u8 *payload_at(u64 address);

#endif
