#include "spec/decoder/elements.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "spec/decoder/fields.h"
#include "spec/decoder/parts.h"

// Numbers (Q 2)

static float flush_subnormal(float x)
{
    const u32 u = bits_of(x);

    return (u & 0x7F800000) == 0 ? float_of(u & 0x80000000) : x;
}

static float round_to_bf16(float x)
{
    const u32 u = bits_of(x);

    if (isnan(x))
        return float_of((u & 0xFFFF0000) | 0x00400000);
    return float_of((u + 0x7FFF + ((u >> 16) & 1)) & 0xFFFF0000);
}

static u32 widen_f16(u16 h) // binary16 to the bits of the equal binary32
{
    const u32 sign = (u32)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3FF;

    if (exponent == 31)
        return sign | 0x7F800000 | mantissa << 13;
    if (exponent != 0)
        return sign | (exponent + 112) << 23 | mantissa << 13;
    return sign | bits_of((float)mantissa * 0x1p-24F);
}

// Decoding a tensor (Q 1 and 2, C 6)

static const u8 *plane_bytes(const struct tensor *t, u32 kind)
{
    return t->planes[kind] == NONE ? NULL : payload_at(g.planes[t->planes[kind]].address);
}

// Q 2. Each operation is a statement of its own, so that no compiler may fuse two.
static float nf4_scale(const struct tensor *t, u64 block)
{
    const u8 *scale = plane_bytes(t, SCALE);

    if (t->nested == 0)
        return get_f32(scale + 4 * block);
    const float mapped = get_f32(plane_bytes(t, MAP) + (u64)4 * scale[block]);
    const float absmax = get_f32(plane_bytes(t, SCALE2) + 4 * (block / t->nested));
    const float product = mapped * absmax;
    const float flushed = flush_subnormal(product);
    const float sum = flushed + get_f32(plane_bytes(t, OFFSET));
    return sum;
}

static u32 nf4_element(const struct tensor *t, u64 i) // Q 1 and 2; i counts along the block axis
{
    const u8 byte = plane_bytes(t, CODES)[i / 2];
    const u32 code = i % 2 == 0 ? byte >> 4 : byte & 15;
    const float value = get_f32(plane_bytes(t, CODEBOOK) + 4 * code);
    const float product = value * nf4_scale(t, i / t->block);

    return bits_of(round_to_bf16(flush_subnormal(product)));
}

// C 6: the number that row-major element r has when the block axis is moved to the end
static u64 along_block_axis(const struct tensor *t, u64 r)
{
    const struct shape *s = &g.shapes[t->shape];
    u64 inner = 1;

    if (t->axis < 0)
        return r;
    for (u64 k = (u64)t->axis + 1; k < s->rank; k++)
        inner *= s->dims[k];
    const u64 length = s->dims[t->axis];
    const u64 j = r % inner, l = r / inner % length, outer = r / inner / length;
    return (outer * inner + j) * length + l;
}

static u32 raw_element(const struct tensor *t, u64 i)
{
    const u8 *codes = plane_bytes(t, CODES);

    switch (t->source_type) {
    case F32:
        return get_u32(codes + 4 * i);
    case BF16:
        return (u32)get_u16(codes + 2 * i) << 16;
    case F16:
        return widen_f16(get_u16(codes + 2 * i));
    default:
        refuse("its elements are no floating-point numbers of 16 or 32 bits");
    }
}

const struct tensor *find_tensor(const char *name) // C 5.7: binary search
{
    const u64 hash = XXH3_64bits_withSeed(name, strlen(name), 0);
    u32 low = 0, high = g.tensor_count;

    while (low < high) {
        const u32 middle = low + (high - low) / 2;

        if (g.names[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == g.tensor_count || strcmp(g.tensors[g.names[low].tensor].name, name) != 0)
        refuse("has no tensor %s", name);
    return &g.tensors[g.names[low].tensor];
}

u32 element(const struct tensor *t, u64 r)
{
    return t->encoding == RAW ? raw_element(t, r) : nf4_element(t, along_block_axis(t, r));
}
