/* tensor.h -- a shape, and a borrowed view of a tensor in a file or in memory.
 *
 * Shapes are row-major: the last dimension is contiguous. A view owns nothing; it lives as long as
 * what it borrows from. */
#ifndef SCOUT_LIBFORMAT_TENSOR_TENSOR_H
#define SCOUT_LIBFORMAT_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/err.h"
#include "libformat/tensor/dtype.h"

enum { SF_MAX_RANK = 8 };

struct sf_shape {
    int32_t rank; /* 0: a scalar, one element */
    int64_t dim[SF_MAX_RANK];
};

struct sf_tensor {
    enum sf_dtype dtype;
    struct sf_shape shape;
    const void *data; /* little-endian elements, on any byte address */
    uint64_t bytes;
};

/* Number of elements; false when a dimension is negative or the product does not fit int64_t. */
bool sf_shape_count(int64_t *out, const struct sf_shape *shape);
/* Elements times element size, checked. */
bool sf_shape_bytes(uint64_t *out, const struct sf_shape *shape, enum sf_dtype dtype);
bool sf_shape_equal(const struct sf_shape *a, const struct sf_shape *b);
/* "[16, 5120, 16384]" into `text` (at least SF_SHAPE_TEXT bytes); returns `text`. */
enum { SF_SHAPE_TEXT = SF_MAX_RANK * 22 + 3 };
const char *sf_shape_format(char *text, const struct sf_shape *shape);

#endif
