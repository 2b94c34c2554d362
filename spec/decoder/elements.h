// elements.h -- the elements of a tensor as binary32, from raw bytes or NF4 blocks ("Q", and C 6 for the
// block axis). Each operation rounds on its own, as Q 2 demands. Chunks are not checked here.

#ifndef SPEC_DECODER_ELEMENTS_H
#define SPEC_DECODER_ELEMENTS_H

#include "spec/decoder/opened.h"

const struct tensor *find_tensor(const char *name); // refuses a name that no tensor has

// The bits of row-major element r.
u32 element(const struct tensor *t, u64 r);

#endif
