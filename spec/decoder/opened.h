// opened.h -- what is known of a file after opening it. There is one file, `g`, mapped until the
// program ends; all pointers below lead into the mapping or to tables made by allocate(). The
// readers of the sections fill it in the order in which C 2 wants the checks, and each relies on
// what those before it checked; the commands only read it.

#ifndef SPEC_DECODER_OPENED_H
#define SPEC_DECODER_OPENED_H

#include "spec/decoder/fields.h"

enum { HEADER_BYTES = 4096, MAX_SECTIONS = 64, MAX_RANK = 8, SLOTS = 8 };
enum { PAYLOAD = 1, CHECKSUMS = 2, INDEX = 3, METADATA = 4 };
enum { CODES, SCALE, SCALE2, OFFSET, CODEBOOK, MAP, PLANE_KINDS };
enum { RAW = 0, NF4 = 1 };
enum { U8 = 1, F16 = 6, BF16 = 7, F32 = 8, LAST_TYPE = 12 };

static const u32 NONE = 0xFFFFFFFF;

struct section {
    u32 type;
    u64 offset, size;
    const u8 *bytes;
};

struct part {
    u64 address, size; // of the payload
    const u8 *bytes;
};

struct extent {
    const char *kind;
    i32 layer, expert;
    u64 address, size, first_chunk, chunks;
};

struct shape {
    u64 rank, dims[MAX_RANK];
    u64 elements;
};

struct plane {
    u16 kind, type;
    u32 shape;
    u64 address, size;
    u32 extent;
    u32 users;
};

struct tensor {
    const char *name;
    u32 label;
    i32 layer, expert;
    u32 extent, shape;
    u16 encoding, source_type;
    u32 block, nested;
    i32 axis;
    u32 planes[SLOTS];
};

struct name {
    u64 hash;
    u32 tensor;
};

struct carried {
    const char *name;
    u64 frame_offset, frame_bytes, bytes;
    const u8 *hash;
};

struct opened {
    const u8 *bytes;
    u64 size;

    u32 file_of_set, files_of_set; // 0 and 0: everything is in one file
    u64 extent_alignment, chunk_bytes;
    u32 section_count;
    struct section sections[MAX_SECTIONS];
    struct section payload, checksums, index, metadata;

    u32 part_count, extent_count, tensor_count, plane_count, shape_count, label_count;
    struct part *parts;
    u64 payload_size; // of all parts
    struct extent *extents;
    struct tensor *tensors;
    struct plane *planes;
    struct shape *shapes;
    const char **labels;
    struct name *names;
    u64 chunk_count;

    u32 file_count;
    struct carried *files;
};

extern struct opened g;

// Maps the file at g_path into `g`.
void map_file(void);

// The same, and makes every check but those of chunks and carried files.
void open_container(void);

#endif
