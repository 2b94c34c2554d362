/* nf4_planes.h -- the numbers of one NF4 matrix, wherever its planes lie: in a container, or in the
 * tensors of a checkpoint that others quantized.
 *
 * Blocks run along the flattened [rows, cols] matrix, or down its columns (`down`: element (r, c) has
 * number c * rows + r, and rows is a multiple of 64). Plain data that borrows; pure functions. */
#ifndef SCOUT_LIBFORMAT_CONVERT_NF4_PLANES_H
#define SCOUT_LIBFORMAT_CONVERT_NF4_PLANES_H

#include <stdbool.h>
#include <stdint.h>

struct sf_nf4_planes {
    const uint8_t *codes;
    const void *scale;  /* u8 where nested, else f32; any address */
    const void *scale2; /* f32, any address; NULL: not nested */
    float offset;       /* nested */
    const float *codebook, *map;
    int64_t rows, cols;
    bool down;
};

/* out[count]: the restored scales of blocks first .. first + count. */
void sf_nf4_planes_scales(float *out, const struct sf_nf4_planes *planes, int64_t first,
                          int64_t count);
/* out[rows, cols]: the rectangle from (row, col) on. Not `down`: row * planes->cols + col and, where
 * there are several rows, planes->cols must be multiples of 64, or col 0 and cols all of them. */
void sf_nf4_planes_rectangle(float *out, const struct sf_nf4_planes *planes, int64_t row,
                             int64_t rows, int64_t col, int64_t cols);
/* out[count]: elements first .. first + count of the row-major matrix; `first` is a multiple of 64,
 * unless `down`. */
void sf_nf4_planes_decode(float *out, const struct sf_nf4_planes *planes, int64_t first,
                          int64_t count);

#endif
