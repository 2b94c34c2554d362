/* dtype.h -- the element types that tensors in files have. */
#ifndef SCOUT_LIBFORMAT_TENSOR_DTYPE_H
#define SCOUT_LIBFORMAT_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

/* Values are stored in containers (spec/container.md): never renumber. */
enum sf_dtype {
    SF_DTYPE_NONE = 0,
    SF_U8 = 1,
    SF_I8 = 2,
    SF_I16 = 3,
    SF_I32 = 4,
    SF_I64 = 5,
    SF_F16 = 6,
    SF_BF16 = 7,
    SF_F32 = 8,
    SF_F64 = 9,
    SF_BOOL = 10,
    SF_F8_E4M3 = 11,
    SF_F8_E5M2 = 12
};

/* Bytes of one element; 0 for a value that is no dtype. */
uint64_t sf_dtype_bytes(enum sf_dtype dtype);
/* "bf16", "f32", ...; "?" for a value that is no dtype. */
const char *sf_dtype_name(enum sf_dtype dtype);
/* The spelling of safetensors ("BF16", "F32", "F8_E4M3"); NONE if unknown. */
enum sf_dtype sf_dtype_from_safetensors(const char *name);
const char *sf_dtype_safetensors_name(enum sf_dtype dtype);

#endif
