/* matrix.h -- a frozen weight as kernels see it: [rows, cols] = [out, in], row-major, borrowed.
 *
 * A vector (a norm's weight) is a matrix of one row. Filled by train/image from the container; the
 * pointers are of the back end that runs the op (host memory on the CPU, VRAM under CUDA).
 * What the NF4 bytes mean is decided in libformat/codec/nf4.h. */
#ifndef SCOUT_KERNELS_MATRIX_H
#define SCOUT_KERNELS_MATRIX_H

#include <stddef.h>
#include <stdint.h>

enum sk_format {
    SK_FORMAT_F32,
    SK_FORMAT_BF16,
    SK_FORMAT_F16,
    SK_FORMAT_NF4,       /* scale: float32 absmax [blocks] */
    SK_FORMAT_NF4_NESTED /* scale: u8 [blocks]; scale2: float32 [groups]; offset; map */
};

struct sk_matrix {
    enum sk_format format;
    int64_t rows, cols;
    const void *data;      /* elements, or NF4 codes */
    const void *scale;     /* NF4 only; blocks of 64 along the flattened matrix */
    const float *scale2;   /* nested only */
    float offset;          /* nested only */
    const float *codebook; /* [16], NF4 only */
    const float *map;      /* [256], nested only */
};

#endif
