/* source_check.h -- is a container what its source checkpoint gives?
 *
 * Every tensor is made again from the source. Stored as it came: the bytes must agree. NF4: codes,
 * scales and offset must be what the encoder makes of the source. Where they are not, the stored
 * numbers are measured against the source, block by block: an encoder that searched its scales does
 * not do worse than the plain one (unless the options say that it weighed errors), and recorded the very error that is found (the sum has a fixed
 * order, so to its last bit); anything else differs. */
#ifndef SCOUT_LIBFORMAT_CONVERT_SOURCE_CHECK_H
#define SCOUT_LIBFORMAT_CONVERT_SOURCE_CHECK_H

#include "libformat/convert/weight_list.h"

enum sf_proof {
    SF_PROOF_EXACT,    /* every byte follows from the source */
    SF_PROOF_SEARCHED, /* other scales, no greater error, and the one that the index records */
    SF_PROOF_DIFFERS,  /* not made from this source */
    SF_PROOF_MISSING,  /* the source has no such tensor, or of another shape or type */
    SF_PROOF_COUNT
};
const char *sf_proof_name(enum sf_proof proof); /* "exact", "searched", "differs", "no source" */

struct sf_source_check_row {
    const struct sf_entry *entry;
    enum sf_proof proof;
    int64_t codes_changed, scales_changed; /* against the plain encoder; 0 where EXACT */
    double recorded, measured, plain;      /* relative RMS: of the index, found, of the encoder */
    /* Of the blocks' own relative errors, where measured: half, 90 %, 99 % are below; the worst. */
    double half, most, nearly_all, worst;
};

struct sf_source_check {
    struct sf_arena arena;
    int64_t rows;
    struct sf_source_check_row *row; /* by role */
    int64_t of_proof[SF_PROOF_COUNT];
    int64_t left_out;              /* weights of the source that the container does not hold */
    const struct sf_weight **left; /* [left_out]; borrowed from the source */
};

struct sf_source_check_options {
    int threads;
    /* From the calling thread: payload bytes done of all; may be NULL. */
    void (*on_progress)(void *context, uint64_t done, uint64_t total);
    void *context;
};

/* SF_OK whatever was found: the rows tell. `source` is a folder's list, and outlives *out. */
int sf_source_check_run(struct sf_source_check *out, const struct sf_map *map,
                        const struct sf_weight_list *source,
                        const struct sf_source_check_options *options, struct sf_err *err);
void sf_source_check_free(struct sf_source_check *check);

#endif
