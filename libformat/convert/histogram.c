#include "libformat/convert/histogram.h"

#include <string.h>

#include "libformat/codec/nf4.h"
#include "libformat/convert/entry_decode.h"

static void count_codes(int64_t codes[SF_HISTOGRAM_CODES], const uint8_t *data, int64_t elements)
{
    int64_t byte[256] = {0};
    for (int64_t i = 0; i < elements / 2; i++)
        byte[data[i]]++;
    for (int i = 0; i < 256; i++) {
        codes[i >> 4] += byte[i];
        codes[i & 15] += byte[i];
    }
    if (elements % 2) /* the last low nibble belongs to no element */
        codes[data[elements / 2] >> 4]++;
}

/* A step over the scales: the first pass finds their range, the second counts. */
static void walk_scales(struct sf_histogram *out, const struct sf_map *map,
                        const struct sf_entry *entry, int64_t blocks, bool count)
{
    enum { STEP = 4096 };
    float scale[STEP];
    double width = (out->greatest_scale - out->least_scale) / SF_HISTOGRAM_BINS;
    for (int64_t at = 0; at < blocks; at += STEP) {
        int64_t n = blocks - at < STEP ? blocks - at : STEP;
        sf_entry_scales(scale, map, entry, at, n);
        for (int64_t i = 0; i < n; i++) {
            double s = scale[i];
            if (!count) {
                out->least_scale = s < out->least_scale ? s : out->least_scale;
                out->greatest_scale = s > out->greatest_scale ? s : out->greatest_scale;
                continue;
            }
            double bin = width > 0 ? (s - out->least_scale) / width : 0;
            out->scales[bin < SF_HISTOGRAM_BINS ? (int)bin : SF_HISTOGRAM_BINS - 1]++;
        }
    }
}

int sf_entry_histogram(struct sf_histogram *out, const struct sf_map *map,
                       const struct sf_entry *entry, struct sf_err *err)
{
    int64_t elements = 0;
    *out = (struct sf_histogram){0};
    if (entry->encoding != SF_ENCODING_NF4 || entry->block != SF_NF4_BLOCK ||
        entry->block_axis >= 0)
        return sf_fail(err, SF_EUNSUPPORTED, "%s: is not NF4 in blocks of %d", entry->name,
                       SF_NF4_BLOCK);
    sf_shape_count(&elements, &entry->shape);
    memcpy(out->value, sf_map_bytes(map, entry->plane[SF_PLANE_CODEBOOK].address),
           sizeof out->value);
    count_codes(out->codes, sf_map_bytes(map, entry->plane[SF_PLANE_CODES].address), elements);
    walk_scales(out, map, entry, sf_nf4_blocks(elements), false);
    walk_scales(out, map, entry, sf_nf4_blocks(elements), true);
    return SF_OK;
}
