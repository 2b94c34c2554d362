// metadata.h -- the metadata section (C 7): summary, shards, carried files.

#ifndef SPEC_DECODER_METADATA_H
#define SPEC_DECODER_METADATA_H

#include "spec/decoder/opened.h"

// Needs the section table; fills the carried files of `g`.
void read_metadata(void);

// The bytes of a carried file, checked against their hash; the caller frees them.
u8 *inflate_file(const struct carried *f);

#endif
