#include "libformat/tensor/dtype.h"

#include <string.h>

static const struct {
    const char *name, *safetensors;
    uint8_t bytes;
} dtype_table[] = {
    [SF_DTYPE_NONE] = {"?", "?", 0},
    [SF_U8] = {"u8", "U8", 1},
    [SF_I8] = {"i8", "I8", 1},
    [SF_I16] = {"i16", "I16", 2},
    [SF_I32] = {"i32", "I32", 4},
    [SF_I64] = {"i64", "I64", 8},
    [SF_F16] = {"f16", "F16", 2},
    [SF_BF16] = {"bf16", "BF16", 2},
    [SF_F32] = {"f32", "F32", 4},
    [SF_F64] = {"f64", "F64", 8},
    [SF_BOOL] = {"bool", "BOOL", 1},
    [SF_F8_E4M3] = {"f8_e4m3", "F8_E4M3", 1},
    [SF_F8_E5M2] = {"f8_e5m2", "F8_E5M2", 1},
};
enum { DTYPE_COUNT = sizeof dtype_table / sizeof dtype_table[0] };

static int row_of(enum sf_dtype dtype)
{
    return (unsigned)dtype < DTYPE_COUNT ? (int)dtype : SF_DTYPE_NONE;
}

uint64_t sf_dtype_bytes(enum sf_dtype dtype)
{
    return dtype_table[row_of(dtype)].bytes;
}

const char *sf_dtype_name(enum sf_dtype dtype)
{
    return dtype_table[row_of(dtype)].name;
}

const char *sf_dtype_safetensors_name(enum sf_dtype dtype)
{
    return dtype_table[row_of(dtype)].safetensors;
}

enum sf_dtype sf_dtype_from_safetensors(const char *name)
{
    for (int i = 1; i < DTYPE_COUNT; i++)
        if (strcmp(dtype_table[i].safetensors, name) == 0)
            return (enum sf_dtype)i;
    return SF_DTYPE_NONE;
}
