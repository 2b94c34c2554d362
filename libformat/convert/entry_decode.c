#include "libformat/convert/entry_decode.h"

#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"

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

int sf_entry_planes(struct sf_nf4_planes *out, const struct sf_map *map, const struct sf_entry *e,
                    struct sf_err *err)
{
    bool nested = e->nested_block > 0, flat = e->block_axis < 0 || e->block_axis == 1;
    if (e->encoding != SF_ENCODING_NF4 || e->block != SF_NF4_BLOCK ||
        (nested && e->nested_block != SF_NF4_NEST) || (e->block_axis >= 0 && e->shape.rank != 2))
        return sf_fail(err, SF_EUNSUPPORTED, "%s: %s in blocks of %d (nested %d) along axis %d",
                       e->name, sf_encoding_name(e->encoding), e->block, e->nested_block,
                       e->block_axis);
    *out = (struct sf_nf4_planes){.codes = plane_bytes(map, e, SF_PLANE_CODES),
                                  .scale = plane_bytes(map, e, SF_PLANE_SCALE),
                                  .codebook = plane_bytes(map, e, SF_PLANE_CODEBOOK),
                                  .rows = e->shape.rank > 0 ? e->shape.dim[0] : 1,
                                  .cols = e->shape.rank == 2 ? e->shape.dim[1] : 1,
                                  .down = !flat};
    if (nested) {
        out->scale2 = plane_bytes(map, e, SF_PLANE_SCALE2);
        out->offset = sf_get_f32(plane_bytes(map, e, SF_PLANE_OFFSET));
        out->map = plane_bytes(map, e, SF_PLANE_MAP);
    }
    return SF_OK;
}

static int decode_raw(float *out, const struct sf_map *map, const struct sf_entry *e, int64_t first,
                      int64_t count, struct sf_err *err)
{
    const unsigned char *data = plane_bytes(map, e, SF_PLANE_CODES);
    int code = sf_floats_read(out, data + (uint64_t)first * sf_dtype_bytes(e->dtype), e->dtype,
                              count, err);
    return code == SF_OK ? code : sf_err_prefix(err, "%s", e->name);
}

int sf_entry_decode(float *out, const struct sf_map *map, const struct sf_entry *entry,
                    int64_t first, int64_t count, struct sf_err *err)
{
    struct sf_nf4_planes planes;
    if (entry->encoding == SF_ENCODING_RAW)
        return decode_raw(out, map, entry, first, count, err);
    int code = sf_entry_planes(&planes, map, entry, err);
    if (code == SF_OK)
        sf_nf4_planes_decode(out, &planes, first, count);
    return code;
}

int sf_entry_rectangle(float *out, const struct sf_map *map, const struct sf_entry *entry,
                       int64_t row, int64_t rows, int64_t col, int64_t cols, struct sf_err *err)
{
    struct sf_nf4_planes planes;
    int64_t in = entry->shape.dim[1];
    int code = SF_OK;
    if (entry->encoding == SF_ENCODING_RAW) {
        for (int64_t r = 0; r < rows && code == SF_OK; r++)
            code = decode_raw(out + r * cols, map, entry, (row + r) * in + col, cols, err);
        return code;
    }
    code = sf_entry_planes(&planes, map, entry, err);
    if (code == SF_OK)
        sf_nf4_planes_rectangle(out, &planes, row, rows, col, cols);
    return code;
}
