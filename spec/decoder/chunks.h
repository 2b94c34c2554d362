// chunks.h -- the chunks of the payload (C 4): where they lie, whose they are, whether they are whole.
// A damaged chunk is refused with its number and the tensors that have a plane in it.

#ifndef SPEC_DECODER_CHUNKS_H
#define SPEC_DECODER_CHUNKS_H

#include <stdio.h>

#include "spec/decoder/opened.h"

struct chunk {
    u64 number, address, size;
};

// The chunk that holds this byte of the payload; the address must be within the payload.
struct chunk chunk_at(u64 address);

// "tensors" and the names of those with a plane in the chunk, or "padding"
void print_chunk_owner(FILE *out, struct chunk c);

void check_chunks_of(const struct plane *p);
void check_all_chunks(void);

#endif
