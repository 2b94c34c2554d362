// tensors.h -- the planes (C 5.4) and tensors (C 5.3) of the index: where planes lie (C 3) and which
// planes a tensor of each encoding has (C 6).

#ifndef SPEC_DECODER_TENSORS_H
#define SPEC_DECODER_TENSORS_H

#include "spec/decoder/strings.h"

// Needs extents and shapes. `p` is the first row of the table.
void read_planes(const u8 *p);

// Needs extents, shapes, labels and planes.
void read_tensors(const u8 *p, struct strings strings);

#endif
