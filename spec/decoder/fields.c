#include "spec/decoder/fields.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *g_path;

_Noreturn void refuse(const char *format, ...)
{
    va_list args;

    (void)fflush(stdout);
    (void)fprintf(stderr, "decoder: %s: ", g_path);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

u16 get_u16(const u8 *p)
{
    return (u16)(p[0] | p[1] << 8);
}

u32 get_u32(const u8 *p)
{
    return (u32)get_u16(p) | (u32)get_u16(p + 2) << 16;
}

u64 get_u64(const u8 *p)
{
    return (u64)get_u32(p) | (u64)get_u32(p + 4) << 32;
}

i32 get_i32(const u8 *p)
{
    const u32 bits = get_u32(p);
    i32 value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

float float_of(u32 bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

u32 bits_of(float value)
{
    u32 bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float get_f32(const u8 *p)
{
    return float_of(get_u32(p));
}

double get_f64(const u8 *p)
{
    const u64 bits = get_u64(p);
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

void put_u32(u8 *p, u32 value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (u8)(value >> (8 * i));
}

void put_u64(u8 *p, u64 value)
{
    for (int i = 0; i < 8; i++)
        p[i] = (u8)(value >> (8 * i));
}

bool all_zero(const u8 *p, u64 bytes)
{
    for (u64 i = 0; i < bytes; i++)
        if (p[i] != 0)
            return false;
    return true;
}

u64 align_up(u64 value, u64 alignment) // alignment is a power of two
{
    return (value + alignment - 1) & ~(alignment - 1);
}

// Saturates instead of wrapping: UINT64_MAX stands for "too many", which no check accepts.
u64 multiply(u64 a, u64 b)
{
    return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

// A 128-bit hash in a file: low64, then high64 (C, Hashes).
bool hash_is(const u8 *stored, XXH128_hash_t hash)
{
    return get_u64(stored) == hash.low64 && get_u64(stored + 8) == hash.high64;
}

void *allocate(u64 bytes)
{
    void *memory = bytes < SIZE_MAX ? calloc(1, (size_t)bytes + 1) : NULL;

    if (memory == NULL)
        refuse("no memory for %llu bytes", (unsigned long long)bytes);
    return memory;
}
