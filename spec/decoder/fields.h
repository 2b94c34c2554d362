// fields.h -- how anything is refused, and numbers from bytes ("C", Conventions and Hashes).
// refuse() says one line, "decoder: FILE: ...", on stderr and ends the program with 1: no caller
// cleans up. All numbers of a file are little-endian and may lie at any address; a caller checks
// that their bytes are within the file.

#ifndef SPEC_DECODER_FIELDS_H
#define SPEC_DECODER_FIELDS_H

#include <stdbool.h>
#include <stdint.h>

#include <xxhash.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;

extern const char *g_path; // of the file that is read; main sets it, refuse() names it

_Noreturn void refuse(const char *format, ...);

u16 get_u16(const u8 *p);
u32 get_u32(const u8 *p);
u64 get_u64(const u8 *p);
i32 get_i32(const u8 *p);
float get_f32(const u8 *p);
double get_f64(const u8 *p);
void put_u32(u8 *p, u32 value);
void put_u64(u8 *p, u64 value);

float float_of(u32 bits); // the binary32 of these bits, and back
u32 bits_of(float value);

bool all_zero(const u8 *p, u64 bytes);
u64 align_up(u64 value, u64 alignment); // alignment is a power of two
u64 multiply(u64 a, u64 b);             // UINT64_MAX if it would wrap

bool hash_is(const u8 *stored, XXH128_hash_t hash);
void *allocate(u64 bytes); // zeroed, never NULL

#endif
