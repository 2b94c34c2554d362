/* matrix_tiles.h -- the elements of a source weight in [out, in] order, a tile at a time.
 *
 * A weight that lies [out, in] is borrowed as it is; one that lies [in, out] (routed experts) is
 * turned through a buffer that fits the second-level cache. A tile is a number of runs, each of
 * contiguous elements and starting on a whole block of 64 of the flattened weight; together the
 * tiles hold every element once. */
#ifndef SCOUT_LIBFORMAT_CONVERT_MATRIX_TILES_H
#define SCOUT_LIBFORMAT_CONVERT_MATRIX_TILES_H

#include "libformat/convert/convert_plan.h"

struct sf_tile {
    const unsigned char *data; /* first element of the first run */
    int64_t runs, run;         /* runs of `run` elements each */
    int64_t stride;            /* elements from run to run in `data` */
    int64_t first, step;       /* index in the weight of the first run, and from run to run */
};

/* Bytes of the buffer that sf_tile_at needs for this weight. */
uint64_t sf_tile_buffer_bytes(const struct sf_convert_row *row);
int64_t sf_tile_count(const struct sf_convert_row *row);
/* Tile `index`; out->data is in the source or in `buffer`. */
void sf_tile_at(struct sf_tile *out, const struct sf_convert_row *row, int64_t index, void *buffer);

static inline const unsigned char *sf_tile_run(const struct sf_tile *tile, int64_t run,
                                               enum sf_dtype dtype)
{
    return tile->data + (uint64_t)(run * tile->stride) * sf_dtype_bytes(dtype);
}

/* Whether blocks run straight down the columns of the source: [in, out], and none covers the end of
 * one row of the weight and the start of the next. */
bool sf_tiles_run_down(const struct sf_convert_row *row);
/* Where element (0, 0) of the weight lies. */
const unsigned char *sf_weight_origin(const struct sf_convert_row *row);

#endif
