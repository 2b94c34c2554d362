#include "libformat/tensor/tensor.h"

#include "libformat/base/mem.h"
#include "libformat/base/put.h"

bool sf_shape_count(int64_t *out, const struct sf_shape *shape)
{
    uint64_t n = 1;
    bool empty = false;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] < 0)
            return false;
        if (shape->dim[i] == 0)
            empty = true;
        else if (!sf_mul(&n, n, (uint64_t)shape->dim[i]) || n > INT64_MAX)
            return false;
    }
    *out = empty ? 0 : (int64_t)n;
    return true;
}

bool sf_shape_bytes(uint64_t *out, const struct sf_shape *shape, enum sf_dtype dtype)
{
    int64_t count;
    return sf_shape_count(&count, shape) && sf_mul(out, (uint64_t)count, sf_dtype_bytes(dtype));
}

bool sf_shape_equal(const struct sf_shape *a, const struct sf_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

const char *sf_shape_format(char *text, const struct sf_shape *shape)
{
    char *at = stpcpy(text, "[");
    for (int i = 0; i < shape->rank; i++)
        at = sf_put_decimal(stpcpy(at, i ? ", " : ""), shape->dim[i]);
    strcpy(at, "]");
    return text;
}
