#include "libformat/convert/packed_source.h"

#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"

enum { STRIP = 64 }; /* of rows and columns decoded at once: whole blocks */

struct sf_nf4_planes sf_packed_planes(const struct sf_source *source, const struct sf_shape *shape)
{
    const struct sf_bnb_tensor *t = source->packed;
    int64_t block = source->first / SF_NF4_BLOCK;
    const unsigned char *scale = t->absmax->data;
    struct sf_nf4_planes out = {.codes = (const uint8_t *)t->codes->data + source->first / 2,
                                .scale = scale + block * (t->nested ? 1 : 4),
                                .codebook = t->codebook,
                                .rows = shape->dim[0],
                                .cols = shape->dim[1],
                                .down = source->transposed};
    if (t->nested) {
        out.scale2 = (const unsigned char *)t->nested_absmax->data + 4 * (block / SF_NF4_NEST);
        out.offset = t->offset;
        out.map = t->map;
    }
    return out;
}

void sf_packed_take(unsigned char *extent, uint64_t base, struct sf_convert_row *row)
{
    const struct sf_plane *plane = row->entry->plane;
    struct sf_nf4_planes p = sf_packed_planes(&row->source, &row->entry->shape);
    memcpy(extent + (plane[SF_PLANE_CODES].address - base), p.codes, plane[SF_PLANE_CODES].bytes);
    memcpy(extent + (plane[SF_PLANE_SCALE].address - base), p.scale, plane[SF_PLANE_SCALE].bytes);
    row->entry->relative_rms_error = 0;
    if (!p.scale2)
        return;
    memcpy(extent + (plane[SF_PLANE_SCALE2].address - base), p.scale2,
           plane[SF_PLANE_SCALE2].bytes);
    sf_put_f32(extent + (plane[SF_PLANE_OFFSET].address - base), p.offset);
}

void sf_packed_rectangle(uint16_t *out, int64_t stride, const struct sf_convert_row *row_of,
                         int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    struct sf_nf4_planes p = sf_packed_planes(&row_of->source, &row_of->entry->shape);
    float strip[STRIP * STRIP];
    for (int64_t r = 0; r < rows; r += STRIP) {
        int64_t n = rows - r < STRIP ? rows - r : STRIP;
        for (int64_t c = 0; c < cols; c += STRIP) {
            int64_t m = cols - c < STRIP ? cols - c : STRIP;
            sf_nf4_planes_rectangle(strip, &p, row + r, n, col + c, m);
            for (int64_t i = 0; i < n; i++)
                for (int64_t k = 0; k < m; k++)
                    out[(r + i) * stride + c + k] = sf_bf16_from_f32(strip[i * m + k]);
        }
    }
}
