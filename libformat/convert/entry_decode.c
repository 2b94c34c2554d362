#include "libformat/convert/entry_decode.h"

#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"

enum { SPAN_BLOCKS = 64, SPAN = SPAN_BLOCKS * SF_NF4_BLOCK };

int sf_floats_read(float *out, const void *elements, enum sf_dtype dtype, int64_t count,
                   struct sf_err *err)
{
    const unsigned char *data = elements;
    switch (dtype) {
    case SF_BF16:
        for (int64_t i = 0; i < count; i++)
            out[i] = sf_f32_from_bf16(sf_get_u16(data + 2 * i));
        return SF_OK;
    case SF_F16:
        for (int64_t i = 0; i < count; i++)
            out[i] = sf_f32_from_f16(sf_get_u16(data + 2 * i));
        return SF_OK;
    case SF_F32:
        for (int64_t i = 0; i < count; i++)
            out[i] = sf_get_f32(data + 4 * i);
        return SF_OK;
    default:
        return sf_fail(err, SF_EUNSUPPORTED, "%s elements are no floats", sf_dtype_name(dtype));
    }
}

/* ---- a tensor of the container ---- */

static const void *plane_bytes(const struct sf_map *map, const struct sf_entry *e,
                               enum sf_plane_kind kind)
{
    return sf_map_bytes(map, e->plane[kind].address);
}

/* Planes lie on 256 bytes of a mapped file, so floats may be read in place (on machines of the
 * file's byte order, which are all we build for). */
void sf_entry_scales(float *absmax, const struct sf_map *map, const struct sf_entry *e,
                     int64_t first, int64_t count)
{
    if (e->nested_block > 0) {
        float offset = sf_get_f32(plane_bytes(map, e, SF_PLANE_OFFSET));
        sf_nf4_unnest(absmax, plane_bytes(map, e, SF_PLANE_SCALE),
                      plane_bytes(map, e, SF_PLANE_SCALE2), plane_bytes(map, e, SF_PLANE_MAP),
                      offset, first, count);
        return;
    }
    memcpy(absmax, (const float *)plane_bytes(map, e, SF_PLANE_SCALE) + first,
           (size_t)count * sizeof *absmax);
}

static void decode_nf4(float *out, const struct sf_map *map, const struct sf_entry *e,
                       int64_t first, int64_t count)
{
    const uint8_t *codes = plane_bytes(map, e, SF_PLANE_CODES);
    const float *codebook = plane_bytes(map, e, SF_PLANE_CODEBOOK);
    for (int64_t done = 0; done < count; done += SPAN) {
        int64_t n = count - done < SPAN ? count - done : SPAN;
        float absmax[SPAN_BLOCKS];
        sf_entry_scales(absmax, map, e, (first + done) / SF_NF4_BLOCK, sf_nf4_blocks(n));
        sf_nf4_decode(out + done, codes, absmax, codebook, first + done, n);
    }
}

int sf_entry_decode(float *out, const struct sf_map *map, const struct sf_entry *entry,
                    int64_t first, int64_t count, struct sf_err *err)
{
    if (entry->encoding == SF_ENCODING_RAW) {
        const unsigned char *data = plane_bytes(map, entry, SF_PLANE_CODES);
        int code = sf_floats_read(out, data + (uint64_t)first * sf_dtype_bytes(entry->dtype),
                                  entry->dtype, count, err);
        return code == SF_OK ? code : sf_err_prefix(err, "%s", entry->name);
    }
    if (entry->block != SF_NF4_BLOCK || entry->block_axis >= 0)
        return sf_fail(err, SF_EUNSUPPORTED, "%s: blocks of %d along axis %d", entry->name,
                       entry->block, entry->block_axis);
    decode_nf4(out, map, entry, first, count);
    return SF_OK;
}
