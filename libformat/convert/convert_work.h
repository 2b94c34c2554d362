/* convert_work.h -- a plan cut into what is done at once: units of output, pieces of source.
 *
 * A unit is a run of chunks that is computed, written and recorded as one: an extent of quantized
 * matrices, or up to 32 MiB of an extent whose tensors are stored as they are. A piece is a run of
 * source bytes hashed as one (spec/container.md, section 7); it is read with the unit that needs its
 * first byte. Both follow from the plan alone, so their numbers mean the same in every process. */
#ifndef SCOUT_LIBFORMAT_CONVERT_CONVERT_WORK_H
#define SCOUT_LIBFORMAT_CONVERT_CONVERT_WORK_H

#include "libformat/codec/frame.h"
#include "libformat/convert/convert_plan.h"

struct sf_piece {
    int64_t shard;
    struct sf_tensor bytes; /* only data and bytes */
    const char *name;       /* of the source's tensor, for messages */
    bool done;              /* in the journal, or known now */
    struct sf_hash128 hash;
};

struct sf_unit {
    int64_t extent;
    uint64_t offset, bytes;  /* in the extent */
    bool stored;             /* tensors as they are: copied, not built */
    bool done;               /* recorded in the journal */
    bool waits;              /* not now: a shard that it needs is not there */
    int64_t first_row, rows; /* of the extent, in the plan */
    int64_t first_piece, pieces;
};

struct sf_work {
    struct sf_arena arena;
    struct sf_convert_plan *plan;
    int64_t units, pieces;
    struct sf_unit *unit;   /* in order of address */
    struct sf_piece *piece; /* in order of their units */
    uint64_t largest_unit, bytes;
};

/* The extent of codebooks is the writer's: no unit covers it. */
int sf_work_cut(struct sf_work *out, struct sf_convert_plan *plan, struct sf_err *err);
void sf_work_free(struct sf_work *work);

/* The part of row's stored tensor that lies in unit: payload addresses [*begin, *end). */
bool sf_work_overlap(uint64_t *begin, uint64_t *end, const struct sf_work *work,
                     const struct sf_unit *unit, const struct sf_convert_row *row);
/* Does the unit read from the row's tensor? */
bool sf_work_reads(const struct sf_work *work, const struct sf_unit *unit,
                   const struct sf_convert_row *row);
/* still[shards]: is there anything in the shard that is not in the journal? */
void sf_work_still_needed(bool *still, const struct sf_work *work);
/* All pieces that are done, told by shard: the hashes of the metadata, in `shard`[shards]. */
int sf_work_shard_hashes(struct sf_source_shard *shard, struct sf_work *work, struct sf_err *err);

#endif
