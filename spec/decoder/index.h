// index.h -- the index (C 5): its head, extents, shapes, labels and the name table; planes
// and tensors, with the rules of C 3 and C 6, are read by tensors.h.

#ifndef SPEC_DECODER_INDEX_H
#define SPEC_DECODER_INDEX_H

// Needs the section table; fills every table of `g` but the carried files.
void read_index(void);

#endif
