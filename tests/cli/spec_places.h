/* spec_places.h -- what the bytes of a container belong to, as spec_decoder says: its `owners` and
 * `list`, read once. Nothing here comes from libformat. Everything lives until the program ends. */
#ifndef SCOUT_TESTS_CLI_SPEC_PLACES_H
#define SCOUT_TESTS_CLI_SPEC_PLACES_H

#include <stdbool.h>
#include <stdint.h>

/* A range of file bytes with one owner: a section, the header, or one chunk of the payload. */
struct spec_range {
    uint64_t begin, end;
    const char *what;   /* "header", "index", ..; "tensors" or "padding" for a chunk */
    const char **name;  /* of the tensors that overlap the chunk */
    const char **shown; /* the same, as a message shows them: "layer 0 expert 3 expert_gate" */
    int64_t names;
    int64_t chunk; /* number among the chunks, -1 for sections */
};

/* A kind of place in the payload, to take samples of. */
enum spec_site {
    SPEC_CODES,  /* NF4 codes */
    SPEC_SCALES, /* scales, scales of scales, offsets */
    SPEC_RAW,    /* tensors that are not quantized */
    SPEC_UNUSED, /* planes of tensors that training does not use */
    SPEC_CODEBOOKS,
    SPEC_PADDING, /* what no plane covers */
    SPEC_SITES
};
extern const char *const spec_site_names[SPEC_SITES];

struct spec_span {
    uint64_t begin, end; /* file offsets */
    const char *name;    /* of the tensor; NULL for padding */
};

struct spec_extent {
    uint64_t begin, end; /* file offsets */
    const char *kind;
    int layer, expert;
};

struct spec_places {
    struct spec_range *range;
    int64_t ranges;
    struct spec_span *span[SPEC_SITES];
    int64_t spans[SPEC_SITES];
    struct spec_extent *extent;
    int64_t extents;
    uint64_t payload; /* where the payload begins in the file */
};

void spec_places_load(struct spec_places *out, const char *decoder, const char *file);
const struct spec_range *spec_range_at(const struct spec_places *places, uint64_t offset);
const struct spec_extent *spec_extent_at(const struct spec_places *places, uint64_t offset);
bool spec_range_names(const struct spec_range *range, const char *name);

#endif
