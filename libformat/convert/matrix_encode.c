#include "libformat/convert/matrix_encode.h"

#include <math.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/codec/nf4.h"

int sf_encode_scratch_open(struct sf_encode_scratch *out, const struct sf_convert_plan *plan,
                           struct sf_err *err)
{
    uint64_t tile_bytes = 0, absmax_bytes = 0;
    for (int64_t i = 0; i < plan->rows; i++) {
        const struct sf_entry *e = plan->row[i].entry;
        if (e->shape.rank != 2 || !sf_part_is_matrix(e->role.part))
            continue;
        uint64_t tile = SF_ENCODE_TILE_ROWS * (uint64_t)e->shape.dim[1] * sf_dtype_bytes(e->dtype);
        uint64_t absmax =
            (uint64_t)sf_nf4_blocks(e->shape.dim[0] * e->shape.dim[1]) * sizeof(float);
        tile_bytes = tile > tile_bytes ? tile : tile_bytes;
        absmax_bytes = absmax > absmax_bytes ? absmax : absmax_bytes;
    }
    sf_align_up(&absmax_bytes, absmax_bytes, SF_ALLOC_ALIGN);
    int code = sf_alloc_for(&out->block, absmax_bytes + tile_bytes, "a worker's tiles", err);
    out->absmax = out->block;
    out->tile = (unsigned char *)out->block + absmax_bytes;
    return code;
}

void sf_encode_scratch_close(struct sf_encode_scratch *scratch)
{
    sf_free(scratch->block);
    *scratch = (struct sf_encode_scratch){0};
}

/* dst[rows][in] = src[i * stride + o]: columns of the source become rows. Blocked so that both
 * sides stay in cache. */
#define DEFINE_TURN(name, type)                                                                    \
    static void name(type *dst, const unsigned char *src, int64_t stride, int64_t rows,            \
                     int64_t in)                                                                   \
    {                                                                                              \
        enum { EDGE = 32 };                                                                        \
        for (int64_t i0 = 0; i0 < in; i0 += EDGE)                                                  \
            for (int64_t o = 0; o < rows; o++)                                                     \
                for (int64_t i = i0; i < in && i < i0 + EDGE; i++)                                 \
                    memcpy(&dst[o * in + i], src + (uint64_t)(i * stride + o) * sizeof(type),      \
                           sizeof(type));                                                          \
    }
DEFINE_TURN(turn_16, uint16_t)
DEFINE_TURN(turn_32, uint32_t)

/* Rows first_row .. first_row + rows of the weight, contiguous: borrowed from the source, or turned
 * into the tile. */
static const void *source_rows(const struct sf_convert_row *row, int64_t first_row, int64_t rows,
                               void *tile)
{
    const struct sf_source *s = &row->source;
    int64_t in = row->entry->shape.dim[1];
    uint64_t size = sf_dtype_bytes(row->entry->dtype);
    const unsigned char *data = s->tensor->data;
    if (!s->transposed)
        return data + (uint64_t)(s->first + first_row * in) * size;
    data += (uint64_t)(s->first + first_row) * size;
    if (size == 2)
        turn_16(tile, data, s->row_stride, rows, in);
    else
        turn_32(tile, data, s->row_stride, rows, in);
    return tile;
}

static bool is_finite_element(const unsigned char *p, enum sf_dtype dtype)
{
    switch (dtype) {
    case SF_BF16:
        return (sf_get_u16(p) & 0x7f80) != 0x7f80;
    case SF_F16:
        return (sf_get_u16(p) & 0x7c00) != 0x7c00;
    case SF_F32:
        return (sf_get_u32(p) & 0x7f800000) != 0x7f800000;
    default:
        return true;
    }
}

int sf_check_finite(const void *elements, enum sf_dtype dtype, int64_t first, int64_t count,
                    const char *name, struct sf_err *err)
{
    uint64_t size = sf_dtype_bytes(dtype);
    const unsigned char *p = elements;
    for (int64_t i = 0; i < count; i++, p += size)
        if (!is_finite_element(p, dtype))
            return sf_fail(err, SF_ENUMERIC, "%s: element %lld is NaN or Inf", name,
                           (long long)(first + i));
    return SF_OK;
}

static unsigned char *plane_in(unsigned char *extent, uint64_t base, const struct sf_entry *e,
                               enum sf_plane_kind kind)
{
    return extent + (e->plane[kind].address - base);
}

static int64_t tile_rows(const struct sf_entry *e, int64_t first_row)
{
    int64_t left = e->shape.dim[0] - first_row;
    return left < SF_ENCODE_TILE_ROWS ? left : SF_ENCODE_TILE_ROWS;
}

/* Codes of all tiles, absmax of all blocks. A tile of 64 rows holds whole blocks, whatever `in` is.
 */
static int encode_codes(uint8_t *codes, struct sf_convert_row *row, struct sf_encode_scratch *s,
                        struct sf_err *err)
{
    const struct sf_entry *e = row->entry;
    int64_t in = e->shape.dim[1];
    for (int64_t r = 0; r < e->shape.dim[0]; r += SF_ENCODE_TILE_ROWS) {
        int64_t n = tile_rows(e, r) * in, first = r * in;
        struct sf_nf4_findings found = {.first_bad = -1};
        const void *src = source_rows(row, r, tile_rows(e, r), s->tile);
        sf_nf4_encode(codes + first / 2, s->absmax + first / SF_NF4_BLOCK, src, e->dtype, n,
                      &found);
        if (found.nan_count || found.inf_count)
            return sf_fail(err, SF_ENUMERIC, "%s: element %lld of [out, in] is NaN or Inf", e->name,
                           (long long)(first + found.first_bad));
    }
    return SF_OK;
}

/* Error of the whole matrix against its source, summed tile after tile in block order. */
static void measure(struct sf_convert_row *row, const uint8_t *codes, struct sf_encode_scratch *s)
{
    struct sf_entry *e = row->entry;
    double error = 0, norm = 0;
    int64_t in = e->shape.dim[1];
    for (int64_t r = 0; r < e->shape.dim[0]; r += SF_ENCODE_TILE_ROWS) {
        int64_t n = tile_rows(e, r) * in, first = r * in;
        struct sf_nf4_error part = {0};
        const void *src = source_rows(row, r, tile_rows(e, r), s->tile);
        sf_nf4_measure(&part, src, e->dtype, codes + first / 2, s->absmax + first / SF_NF4_BLOCK,
                       n);
        error += part.squared_error;
        norm += part.squared_norm;
    }
    e->relative_rms_error = norm > 0 ? sqrt(error / norm) : 0;
}

static int encode_nf4(unsigned char *extent, uint64_t base, struct sf_convert_row *row,
                      struct sf_encode_scratch *s, struct sf_err *err)
{
    struct sf_entry *e = row->entry;
    uint8_t *codes = plane_in(extent, base, e, SF_PLANE_CODES);
    uint8_t *scale = plane_in(extent, base, e, SF_PLANE_SCALE);
    float *scale2 = (float *)(void *)plane_in(extent, base, e, SF_PLANE_SCALE2);
    int64_t blocks = sf_nf4_blocks(e->shape.dim[0] * e->shape.dim[1]);
    int code = encode_codes(codes, row, s, err);
    if (code != SF_OK)
        return code;
    float offset = sf_nf4_offset(s->absmax, blocks);
    sf_nf4_nest(scale, scale2, s->absmax, blocks, offset);
    sf_put_f32(plane_in(extent, base, e, SF_PLANE_OFFSET), offset);
    sf_nf4_unnest(s->absmax, scale, scale2, sf_nf4_scale_map, offset, 0, blocks);
    measure(row, codes, s);
    return SF_OK;
}

static int encode_raw(unsigned char *extent, uint64_t base, struct sf_convert_row *row,
                      struct sf_encode_scratch *s, struct sf_err *err)
{
    const struct sf_entry *e = row->entry;
    unsigned char *out = plane_in(extent, base, e, SF_PLANE_CODES);
    int64_t count = 0;
    if (!row->source.transposed) {
        memcpy(out, row->source.tensor->data, e->plane[SF_PLANE_CODES].bytes);
    } else {
        uint64_t row_bytes = (uint64_t)e->shape.dim[1] * sf_dtype_bytes(e->dtype);
        for (int64_t r = 0; r < e->shape.dim[0]; r += SF_ENCODE_TILE_ROWS)
            memcpy(out + (uint64_t)r * row_bytes, source_rows(row, r, tile_rows(e, r), s->tile),
                   (uint64_t)tile_rows(e, r) * row_bytes);
    }
    sf_shape_count(&count, &e->shape);
    return sf_check_finite(out, e->dtype, 0, count, e->name, err);
}

int sf_matrix_encode(unsigned char *extent, uint64_t base, struct sf_convert_row *row,
                     struct sf_encode_scratch *scratch, struct sf_err *err)
{
    if (row->entry->encoding == SF_ENCODING_NF4)
        return encode_nf4(extent, base, row, scratch, err);
    return encode_raw(extent, base, row, scratch, err);
}
