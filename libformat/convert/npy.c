#include "libformat/convert/npy.h"

#include <stdio.h>
#include <string.h>

static const char *descr_of(enum sf_dtype dtype)
{
    switch (dtype) {
    case SF_U8:
        return "|u1";
    case SF_I8:
        return "|i1";
    case SF_I16:
        return "<i2";
    case SF_I32:
        return "<i4";
    case SF_I64:
        return "<i8";
    case SF_F16:
        return "<f2";
    case SF_BF16:
        return "<u2";
    case SF_F32:
        return "<f4";
    case SF_F64:
        return "<f8";
    case SF_BOOL:
        return "|b1";
    default:
        return NULL;
    }
}

int sf_npy_header(char **out, uint64_t *bytes, struct sf_arena *arena, enum sf_dtype dtype,
                  const struct sf_shape *shape, struct sf_err *err)
{
    enum { FRONT = 10, ALIGN = 64 }; /* magic, version, length of the dictionary */
    char dict[256];
    const char *descr = descr_of(dtype);
    if (!descr)
        return sf_fail(err, SF_EUNSUPPORTED, "NumPy has no elements of type %s",
                       sf_dtype_name(dtype));
    int n =
        snprintf(dict, sizeof dict, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int32_t i = 0; i < shape->rank; i++)
        n += snprintf(dict + n, sizeof dict - (size_t)n, "%lld%s", (long long)shape->dim[i],
                      shape->rank == 1 || i + 1 < shape->rank ? ", " : "");
    n += snprintf(dict + n, sizeof dict - (size_t)n, "), }");
    uint64_t all = ((uint64_t)(FRONT + n + 1) + ALIGN - 1) / ALIGN * ALIGN;
    char *text = sf_arena_alloc(arena, all);
    if (!text)
        return sf_fail(err, SF_ENOMEM, "no memory for a header");
    memset(text, ' ', all);
    memcpy(text, "\x93NUMPY\x01\x00", 8);
    text[8] = (char)((all - FRONT) & 0xff);
    text[9] = (char)((all - FRONT) >> 8);
    memcpy(text + FRONT, dict, (size_t)n);
    text[all - 1] = '\n';
    *out = text;
    *bytes = all;
    return SF_OK;
}
