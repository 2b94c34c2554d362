/* npy.h -- the header of a NumPy .npy file (version 1.0), for writers that stream the elements.
 *
 * NumPy has no bfloat16: its bits go as <u2, which torch.from_numpy(...).view(torch.bfloat16) and
 * ml_dtypes take back. Pure; any number of threads. */
#ifndef SCOUT_LIBFORMAT_CONVERT_NPY_H
#define SCOUT_LIBFORMAT_CONVERT_NPY_H

#include "libformat/base/arena.h"
#include "libformat/tensor/tensor.h"

/* What stands in front of the row-major elements: magic, length and dictionary, filled up to 64
 * bytes; in `arena`. SF_EUNSUPPORTED: elements that NumPy cannot name (8-bit floats). */
int sf_npy_header(char **out, uint64_t *bytes, struct sf_arena *arena, enum sf_dtype dtype,
                  const struct sf_shape *shape, struct sf_err *err);

#endif
