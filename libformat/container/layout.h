/* layout.h -- the on-disk form of a container: sizes, byte offsets and fixed numbers of
 * version 1.0.
 *
 * The words belong to spec/container.md; this is the only header that repeats its numbers. All
 * fields are little-endian and are read and written with base/bytes.h at these offsets, never
 * through a struct. Only the sources of libformat/container include this file. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_LAYOUT_H
#define SCOUT_LIBFORMAT_CONTAINER_LAYOUT_H

#include <stdint.h>

/* 0x89 is no ASCII, CR LF breaks when a transfer "repairs" line ends. */
#define LAYOUT_MAGIC "\x89SCOUT\r\n"

enum {
    LAYOUT_MAJOR = 1,
    LAYOUT_MINOR = 0,

    LAYOUT_TENSOR_ALIGN = 256, /* payload address of every plane */
    LAYOUT_EXTENT_LOG2 = 16,   /* what we write; a reader takes 12..30 */
    LAYOUT_CHUNK_LOG2 = 16,    /* what we write; a reader takes 12..30 */
    LAYOUT_LOG2_MIN = 12,
    LAYOUT_LOG2_MAX = 30,
    LAYOUT_NAME_MAX = 4096, /* bytes of a name, without its NUL */
    LAYOUT_NO_ID = -1       /* as u32 0xffffffff: no such plane */
};

/* ---- header page ---- */
enum {
    HEADER_BYTES = 4096,
    HEADER_MAGIC = 0,         /* 8 bytes */
    HEADER_MAJOR = 8,         /* u32 */
    HEADER_MINOR = 12,        /* u32 */
    HEADER_INCOMPATIBLE = 16, /* u64 feature bits */
    HEADER_COMPATIBLE = 24,   /* u64 feature bits */
    HEADER_HASH = 32,         /* 16 bytes: XXH3-128 of the page with these 16 bytes zero */
    HEADER_FILE_BYTES = 48,   /* u64 */
    HEADER_EXTENT_LOG2 = 56,  /* u8 */
    HEADER_CHUNK_LOG2 = 57,   /* u8 */
    HEADER_ZERO_1 = 58,       /* 2 bytes */
    HEADER_SECTIONS = 60,     /* u32 */
    HEADER_IDENTITY = 64,     /* 16 bytes */
    HEADER_FILE = 80,         /* u32: which file of a set, from 1; 0: all is in one file */
    HEADER_FILES = 84,        /* u32: of how many */
    HEADER_ZERO_2 = 88,       /* 40 bytes */
    HEADER_TABLE = 128,
    HEADER_SECTIONS_MAX = 64
};

enum { FEATURE_FILES = 1 }; /* incompatible: the payload is in other files */

enum {
    SECTION_TYPE = 0,   /* u32 */
    SECTION_ZERO = 4,   /* u32 */
    SECTION_OFFSET = 8, /* u64, from the start of the file */
    SECTION_SIZE = 16,  /* u64 */
    SECTION_HASH = 24,  /* 16 bytes; zero for the payload */
    SECTION_BYTES = 40
};

enum section_type {
    SECTION_PAYLOAD = 1,
    SECTION_CHECKSUMS = 2,
    SECTION_INDEX = 3,
    SECTION_METADATA = 4,
    SECTION_SHA256 = 5,   /* reserved: SHA-256 per chunk and their root */
    SECTION_SIGNATURE = 6 /* reserved: detached signature over header and root */
};

/* ---- index ---- */
enum {
    INDEX_PARTS = 0,         /* u32 counts of the tables that follow, in this order */
    INDEX_EXTENTS = 4,       /* u32 */
    INDEX_TENSORS = 8,       /* u32 */
    INDEX_PLANES = 12,       /* u32 */
    INDEX_SHAPES = 16,       /* u32 */
    INDEX_LABELS = 20,       /* u32 */
    INDEX_STRING_BYTES = 24, /* u32, a multiple of 8 */
    INDEX_ZERO = 28,         /* u32 */
    INDEX_HEAD_BYTES = 32
};
enum {
    PART_ADDRESS = 0, /* u64 first payload address */
    PART_SIZE = 8,    /* u64 */
    PART_OFFSET = 16, /* u64 where that address lies in the file */
    PART_FILE = 24,   /* u32: 0 = this file, else which of the set */
    PART_ZERO = 28,   /* u32 */
    PART_BYTES = 32
};
enum {
    EXTENT_KIND = 0,         /* u32 string */
    EXTENT_LAYER = 4,        /* i32 */
    EXTENT_EXPERT = 8,       /* i32 */
    EXTENT_STORAGE = 12,     /* u32: 0 = raw */
    EXTENT_ADDRESS = 16,     /* u64 */
    EXTENT_SIZE = 24,        /* u64 */
    EXTENT_STRIDE = 32,      /* u64 */
    EXTENT_FIRST_CHUNK = 40, /* u64 */
    EXTENT_BYTES = 48
};
enum {
    TENSOR_NAME = 0,          /* u32 string */
    TENSOR_SOURCE = 4,        /* u32 string */
    TENSOR_LABEL = 8,         /* u32 */
    TENSOR_LAYER = 12,        /* i32 */
    TENSOR_EXPERT = 16,       /* i32 */
    TENSOR_EXTENT = 20,       /* u32 */
    TENSOR_SHAPE = 24,        /* u32 */
    TENSOR_ENCODING = 28,     /* u16 */
    TENSOR_DTYPE = 30,        /* u16 */
    TENSOR_BLOCK = 32,        /* u32 */
    TENSOR_NESTED_BLOCK = 36, /* u32 */
    TENSOR_BLOCK_AXIS = 40,   /* i32 */
    TENSOR_WORST_BLOCK = 44,  /* f32 */
    TENSOR_ERROR = 48,        /* f64 */
    TENSOR_PLANES = 56,       /* u32[8] plane ids by kind */
    TENSOR_PLANE_SLOTS = 8,
    TENSOR_BYTES = 88
};
enum {
    PLANE_KIND = 0,    /* u16 */
    PLANE_DTYPE = 2,   /* u16 */
    PLANE_SHAPE = 4,   /* u32 */
    PLANE_ADDRESS = 8, /* u64 */
    PLANE_SIZE = 16,   /* u64 */
    PLANE_BYTES = 24
};
enum { SHAPE_RANK = 0 /* u64 */, SHAPE_DIMS = 8 /* u64[8] */, SHAPE_BYTES = 72 };
enum { LABEL_BYTES = 8 /* u32 string, u32 zero */ };
enum { NAME_HASH = 0 /* u64 */, NAME_TENSOR = 8 /* u32 */, NAME_ZERO = 12, NAME_BYTES = 16 };

/* ---- metadata ---- */
enum {
    META_FILES = 0,        /* u32 */
    META_SHARDS = 4,       /* u32 */
    META_STRING_BYTES = 8, /* u32, a multiple of 8 */
    META_FAMILY = 12,      /* u32 strings */
    META_ARCHITECTURE = 16,
    META_MODEL_ID = 20,
    META_CONVERTER = 24,
    META_OPTIONS = 28,
    META_LAYERS = 32, /* u64 counts */
    META_HIDDEN = 40,
    META_EXPERTS = 48,
    META_VOCABULARY = 56,
    META_PARAMETERS = 64,
    META_PARAMETERS_TEXT = 72,
    META_SOURCE_BYTES = 80,
    META_ZERO = 88, /* u64 */
    META_HEAD_BYTES = 96
};
enum {
    SHARD_NAME = 0, /* u32 string */
    SHARD_ZERO = 4, /* u32 */
    SHARD_SIZE = 8, /* u64 */
    SHARD_HASH = 16,
    SHARD_BYTES = 32
};
enum {
    FILE_NAME = 0,         /* u32 string */
    FILE_ZERO = 4,         /* u32 */
    FILE_OFFSET = 8,       /* u64 of its frame, from the start of the section */
    FILE_FRAME_BYTES = 16, /* u64 */
    FILE_SIZE = 24,        /* u64, inflated */
    FILE_HASH = 32,        /* 16 bytes: XXH3-128 of the inflated bytes */
    FILE_BYTES = 48
};
enum { META_LARGEST_FILE = 1 << 28 }; /* inflated: a small frame may claim anything */

#endif
