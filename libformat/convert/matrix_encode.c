#include "libformat/convert/matrix_encode.h"

#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/codec/nf4.h"
#include "libformat/codec/nf4_search.h"
#include "libformat/convert/matrix_tiles.h"
#include "libformat/convert/packed_source.h"
#include "libformat/convert/row_error.h"

/* A matrix that is quantized has four numbers a block in work; a raw one that is turned, none. */
int sf_encode_scratch_open(struct sf_encode_scratch *out, const struct sf_convert_plan *plan,
                           struct sf_err *err)
{
    uint64_t tile_bytes = 0, most = 0;
    *out = (struct sf_encode_scratch){0};
    for (int64_t i = 0; i < plan->rows; i++) {
        const struct sf_entry *e = plan->row[i].entry;
        if (e->shape.rank != 2 || !sf_part_is_matrix(e->role.part))
            continue;
        uint64_t tile = sf_tile_buffer_bytes(&plan->row[i]);
        uint64_t blocks = (uint64_t)sf_nf4_blocks(e->shape.dim[0] * e->shape.dim[1]);
        tile_bytes = tile > tile_bytes ? tile : tile_bytes;
        most = blocks > most ? blocks : most;
    }
    uint64_t numbers = most * sizeof(float);
    sf_align_up(&numbers, numbers, SF_ALLOC_ALIGN);
    int code = sf_alloc_for(&out->block, 4 * numbers + tile_bytes, "a worker's tiles", err);
    if (code != SF_OK)
        return code;
    unsigned char *at = out->block;
    out->absmax = (float *)(void *)at;
    out->restored = (float *)(void *)(at + numbers);
    out->error = (float *)(void *)(at + 2 * numbers);
    out->norm = (float *)(void *)(at + 3 * numbers);
    out->tile = at + 4 * numbers;
    return SF_OK;
}

void sf_encode_scratch_close(struct sf_encode_scratch *scratch)
{
    sf_free(scratch->block);
    *scratch = (struct sf_encode_scratch){0};
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

/* The first of them in [out, in] order, for the message; the encoder only counted them. */
static int refuse_bad(const struct sf_convert_row *row, struct sf_err *err)
{
    const struct sf_entry *e = row->entry;
    const struct sf_source *s = &row->source;
    uint64_t size = sf_dtype_bytes(e->dtype);
    int64_t in = e->shape.dim[1], n = e->shape.dim[0] * in;
    for (int64_t k = 0; k < n && !s->packed; k++) {
        int64_t at = s->transposed ? k % in * s->row_stride + k / in : k;
        if (!is_finite_element(sf_weight_origin(row) + (uint64_t)at * size, e->dtype))
            return sf_fail(err, SF_ENUMERIC, "%s: element %lld of [out, in] is NaN or Inf", e->name,
                           (long long)k);
    }
    return sf_fail(err, SF_ENUMERIC, "%s: NaN or Inf", e->name); /* or the file changed */
}

/* absmax of all blocks. Where blocks run down the source's columns it is read as it lies. */
static int find_absmax(struct sf_convert_row *row, struct sf_encode_scratch *s, struct sf_err *err)
{
    const struct sf_entry *e = row->entry;
    int64_t in = e->shape.dim[1], stride = row->source.row_stride;
    struct sf_nf4_findings found = {.first_bad = -1};
    if (e->dtype == SF_BF16 && sf_tiles_run_down(row) && !row->source.packed) {
        for (int64_t i = 0; i < in; i += SF_NF4_BLOCK)
            sf_nf4_absmax_down(s->absmax + i / SF_NF4_BLOCK, in / SF_NF4_BLOCK,
                               sf_weight_origin(row) + 2 * i * stride, stride, e->shape.dim[0],
                               &found);
    } else {
        for (int64_t t = 0; t < sf_tile_count(row); t++) {
            struct sf_tile tile;
            sf_tile_at(&tile, row, t, s->tile);
            for (int64_t r = 0; r < tile.runs; r++)
                sf_nf4_absmax(s->absmax + (tile.first + r * tile.step) / SF_NF4_BLOCK,
                              sf_tile_run(&tile, r, e->dtype), e->dtype, tile.run, &found);
        }
    }
    return found.nan_count || found.inf_count ? refuse_bad(row, err) : SF_OK;
}

/* Scales of least error in place of absmax. */
static void search_scales(const struct sf_convert_row *row, struct sf_encode_scratch *s)
{
    const struct sf_entry *e = row->entry;
    const struct sf_nf4_search how = {.negative = row->scale == SF_SCALE_SEARCH_SIGNED,
                                      .importance = row->importance,
                                      .channels = e->shape.dim[1]};
    for (int64_t t = 0; t < sf_tile_count(row); t++) {
        struct sf_tile tile;
        sf_tile_at(&tile, row, t, s->tile);
        for (int64_t r = 0; r < tile.runs; r++) {
            int64_t first = tile.first + r * tile.step;
            float *scale = s->absmax + first / SF_NF4_BLOCK;
            sf_nf4_search_scales(scale, scale, sf_tile_run(&tile, r, e->dtype), e->dtype, first,
                                 tile.run, &how);
        }
    }
}

/* Codes, and the error of what they will decode to, tile by tile while it is in cache. */
static void encode_tiles(uint8_t *codes, struct sf_convert_row *row, struct sf_encode_scratch *s)
{
    enum sf_dtype dtype = row->entry->dtype;
    for (int64_t t = 0; t < sf_tile_count(row); t++) {
        struct sf_tile tile;
        sf_tile_at(&tile, row, t, s->tile);
        for (int64_t r = 0; r < tile.runs; r++) {
            int64_t first = tile.first + r * tile.step, block = first / SF_NF4_BLOCK;
            const unsigned char *src = sf_tile_run(&tile, r, dtype);
            uint8_t *to = codes + first / 2;
            if (row->scale == SF_SCALE_ABSMAX)
                sf_nf4_codes(to, src, dtype, s->absmax + block, tile.run);
            else
                sf_nf4_search_codes(to, src, dtype, s->restored + block, tile.run);
            sf_nf4_errors(s->error + block, s->norm + block, src, dtype, to, s->restored + block,
                          tile.run);
        }
    }
}

static int encode_nf4(unsigned char *extent, uint64_t base, struct sf_convert_row *row,
                      struct sf_encode_scratch *s, struct sf_err *err)
{
    struct sf_entry *e = row->entry;
    uint8_t *scale = plane_in(extent, base, e, SF_PLANE_SCALE);
    float *scale2 = (float *)(void *)plane_in(extent, base, e, SF_PLANE_SCALE2);
    int64_t blocks = sf_nf4_blocks(e->shape.dim[0] * e->shape.dim[1]);
    int code = find_absmax(row, s, err);
    if (code != SF_OK)
        return code;
    if (row->scale != SF_SCALE_ABSMAX)
        search_scales(row, s);
    float offset = sf_nf4_offset(s->absmax, blocks);
    sf_nf4_nest(scale, scale2, s->absmax, blocks, offset);
    sf_put_f32(plane_in(extent, base, e, SF_PLANE_OFFSET), offset);
    sf_nf4_unnest(s->restored, scale, scale2, sf_nf4_scale_map, offset, 0, blocks);
    encode_tiles(plane_in(extent, base, e, SF_PLANE_CODES), row, s);
    sf_row_measure(row, s->error, s->norm, blocks);
    return SF_OK;
}

static int encode_raw(unsigned char *extent, uint64_t base, struct sf_convert_row *row,
                      struct sf_encode_scratch *s, struct sf_err *err)
{
    const struct sf_entry *e = row->entry;
    unsigned char *out = plane_in(extent, base, e, SF_PLANE_CODES);
    uint64_t size = sf_dtype_bytes(e->dtype);
    int64_t count = 0;
    if (!row->source.transposed)
        memcpy(out, row->source.tensor->data, e->plane[SF_PLANE_CODES].bytes);
    for (int64_t t = 0; row->source.transposed && t < sf_tile_count(row); t++) {
        struct sf_tile tile;
        sf_tile_at(&tile, row, t, s->tile);
        for (int64_t r = 0; r < tile.runs; r++)
            memcpy(out + (uint64_t)(tile.first + r * tile.step) * size,
                   sf_tile_run(&tile, r, e->dtype), (uint64_t)tile.run * size);
    }
    sf_shape_count(&count, &e->shape);
    return sf_check_finite(out, e->dtype, 0, count, e->name, err);
}

int sf_matrix_encode(unsigned char *extent, uint64_t base, struct sf_convert_row *row,
                     struct sf_encode_scratch *scratch, struct sf_err *err)
{
    if (row->source.packed && !row->source.requantize) {
        sf_packed_take(extent, base, row);
        return SF_OK;
    }
    if (row->entry->encoding == SF_ENCODING_NF4)
        return encode_nf4(extent, base, row, scratch, err);
    return encode_raw(extent, base, row, scratch, err);
}
