/* matrix_cpu.h -- read parts of a frozen weight as float32, and the tile sizes of the CPU table.
 *
 * Weights are expanded a tile of rows at a time into scratch, used, and forgotten. Tiles are fixed:
 * they do not depend on the number of threads, so neither do results. */
#ifndef SCOUT_KERNELS_MATRIX_CPU_H
#define SCOUT_KERNELS_MATRIX_CPU_H

#include "kernels/matrix.h"

enum {
    SK_TILE_OUT = 64,    /* rows of W that one task expands */
    SK_TILE_PANEL = 256, /* rows of W held at once where all threads share them */
    SK_TILE_ROWS = 128   /* tokens that one task takes */
};

/* out[count] = elements first .. first + count of the row-major flattened matrix. Any position;
 * quickest where `first` is a multiple of 64. */
void sk_matrix_read(float *out, const struct sk_matrix *matrix, int64_t first, int64_t count);

static inline int64_t sk_tiles(int64_t n, int64_t tile)
{
    return (n + tile - 1) / tile;
}

static inline int64_t sk_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Workspace pieces start on 256 bytes. */
static inline uint64_t sk_scratch_bytes(int64_t floats)
{
    return ((uint64_t)floats * sizeof(float) + 255) & ~(uint64_t)255;
}

#endif
