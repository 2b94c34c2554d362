/* entry.h -- what a container says about a tensor, an extent and itself, decoded from disk form.
 * Shared by writer, reader and check; the disk form is layout.h's and spec/container.md's. */
#ifndef SCOUT_LIBFORMAT_CONTAINER_ENTRY_H
#define SCOUT_LIBFORMAT_CONTAINER_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/tensor/model_spec.h"
#include "libformat/tensor/tensor.h"

/* How a tensor's numbers are stored. Stored values: never renumber. */
enum sf_encoding {
    SF_ENCODING_RAW = 0, /* plane CODES holds plain elements of the plane's dtype */
    SF_ENCODING_NF4 = 1  /* CODES u8 [ceil(n/2)]; SCALE u8 [blocks] with SCALE2 f32 [groups] and
                            OFFSET f32 [1] (nested), or SCALE f32 [blocks] (plain);
                            CODEBOOK f32 [16]; MAP f32 [256] if nested */
};
const char *sf_encoding_name(enum sf_encoding encoding);

enum sf_plane_kind {
    SF_PLANE_CODES,
    SF_PLANE_SCALE,
    SF_PLANE_SCALE2,
    SF_PLANE_OFFSET,
    SF_PLANE_CODEBOOK,
    SF_PLANE_MAP,
    SF_PLANE_COUNT
};
const char *sf_plane_name(enum sf_plane_kind kind);

struct sf_plane {
    enum sf_dtype dtype; /* NONE: the tensor has no such plane */
    struct sf_shape shape;
    uint64_t address; /* payload address, on 256 bytes */
    uint64_t bytes;
};

struct sf_entry {
    const char
        *name; /* unique; Hugging Face's, experts one by one (".experts.3.gate_proj.weight") */
    const char *source_name; /* the tensor it came from (".experts.gate_up_proj") */
    struct sf_role role;
    struct sf_shape shape; /* [out, in], as the model sees it */
    enum sf_encoding encoding;
    enum sf_dtype dtype;         /* of the source's elements; for RAW also of the plane */
    int32_t block, nested_block; /* elements per scale, scales per nested scale; 0 if none */
    int32_t block_axis;          /* axis of shape along which blocks run; -1: flattened row-major */
    double relative_rms_error;   /* against the source; 0 for RAW */
    float worst_block_error;     /* the largest of a block, likewise */
    int32_t extent;              /* index of the extent that holds all its planes but codebooks */
    struct sf_plane plane[SF_PLANE_COUNT];
};

/* The planes that encoding, dtype, shape and blocks demand, without addresses. SF_EFORMAT or
 * SF_EUNSUPPORTED when they make no sense together; the caller prefixes the tensor's name. */
int sf_entry_plan(struct sf_plane plane[SF_PLANE_COUNT], const struct sf_entry *entry,
                  struct sf_err *err);

/* A hint for loading. Stored as strings. */
enum sf_extent_kind {
    SF_EXTENT_EXPERT,
    SF_EXTENT_DENSE,
    SF_EXTENT_HEAD,
    SF_EXTENT_EMBEDDING,
    SF_EXTENT_UNUSED,
    SF_EXTENT_SHARED, /* codebooks: made by the layout, never by its caller */
    SF_EXTENT_KIND_COUNT
};
const char *sf_extent_kind_name(enum sf_extent_kind kind);
bool sf_extent_kind_from_name(enum sf_extent_kind *out, const char *name);

struct sf_extent {
    enum sf_extent_kind kind;
    int32_t layer, expert; /* -1: none */
    uint64_t address;      /* payload address, on extent_align */
    uint64_t bytes;        /* padded length, a multiple of extent_align: extents tile the payload */
    uint64_t stride;       /* EXPERT: from here to the layer's next expert (= bytes); else 0 */
    uint64_t first_chunk;  /* its chunks in the checksum section */
    uint64_t chunks;
};
/* "layer 7 expert 3", "layer 0 dense", "embedding" into text[SF_EXTENT_TEXT]. */
enum { SF_EXTENT_TEXT = 64 };
const char *sf_extent_format(char *text, const struct sf_extent *extent);

struct sf_source_shard {
    const char *name;
    uint64_t bytes;
    unsigned char hash[16]; /* over its tensors' pieces: spec/container.md, section 7 */
};

/* Small facts shown at a glance, without inflating any carried file. */
struct sf_summary {
    const char *family, *architecture, *model_id;
    const char *converter; /* "scout-convert 0.1.0" */
    const char *options;   /* the options that change content, as text: "" or "keep-bf16=*lm*" */
    int64_t layers, hidden, experts, vocabulary;
    int64_t parameters, parameters_text;
    uint64_t source_bytes;
    int64_t shard_count;
    const struct sf_source_shard *shard;
};

#endif
