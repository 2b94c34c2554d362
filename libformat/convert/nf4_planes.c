#include "libformat/convert/nf4_planes.h"

#include "libformat/base/bytes.h"
#include "libformat/codec/nf4.h"

enum { SPAN_BLOCKS = 64, SPAN = SPAN_BLOCKS * SF_NF4_BLOCK };

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Group by group: the scales of groups may lie on any address. */
void sf_nf4_planes_scales(float *out, const struct sf_nf4_planes *p, int64_t first, int64_t count)
{
    const unsigned char *scale = p->scale, *scale2 = p->scale2;
    if (!scale2) {
        for (int64_t i = 0; i < count; i++)
            out[i] = sf_get_f32(scale + 4 * (first + i));
        return;
    }
    for (int64_t done = 0, n; done < count; done += n) {
        int64_t group = (first + done) / SF_NF4_NEST;
        float nested = sf_get_f32(scale2 + 4 * group);
        n = least(count - done, (group + 1) * SF_NF4_NEST - (first + done));
        sf_nf4_unnest(out + done, scale + first + done, &nested, p->map, p->offset, 0, n);
    }
}

static void decode_flat(float *out, const struct sf_nf4_planes *p, int64_t first, int64_t count)
{
    for (int64_t done = 0; done < count; done += SPAN) {
        int64_t n = least(count - done, SPAN);
        float scale[SPAN_BLOCKS];
        sf_nf4_planes_scales(scale, p, (first + done) / SF_NF4_BLOCK, sf_nf4_blocks(n));
        sf_nf4_decode(out + done, p->codes, scale, p->codebook, first + done, n);
    }
}

/* Column by column, each in whole blocks, of which the rows asked for are kept. */
static void decode_down(float *out, const struct sf_nf4_planes *p, int64_t row, int64_t rows,
                        int64_t col, int64_t cols)
{
    for (int64_t c = 0; c < cols; c++) {
        for (int64_t r = row; r < row + rows;) {
            int64_t in_block = r % SF_NF4_BLOCK, n = least(SF_NF4_BLOCK - in_block, row + rows - r);
            int64_t first = (col + c) * p->rows + r - in_block;
            float scale, block[SF_NF4_BLOCK];
            sf_nf4_planes_scales(&scale, p, first / SF_NF4_BLOCK, 1);
            sf_nf4_decode(block, p->codes, &scale, p->codebook, first, SF_NF4_BLOCK);
            for (int64_t i = 0; i < n; i++)
                out[(r - row + i) * cols + c] = block[in_block + i];
            r += n;
        }
    }
}

void sf_nf4_planes_rectangle(float *out, const struct sf_nf4_planes *p, int64_t row, int64_t rows,
                             int64_t col, int64_t cols)
{
    if (p->down)
        decode_down(out, p, row, rows, col, cols);
    else if (cols == p->cols)
        decode_flat(out, p, row * p->cols, rows * cols);
    else
        for (int64_t r = 0; r < rows; r++)
            decode_flat(out + r * cols, p, (row + r) * p->cols + col, cols);
}

void sf_nf4_planes_decode(float *out, const struct sf_nf4_planes *p, int64_t first, int64_t count)
{
    if (!p->down) {
        decode_flat(out, p, first, count);
        return;
    }
    for (int64_t done = 0, n; done < count; done += n) {
        int64_t row = (first + done) / p->cols, col = (first + done) % p->cols;
        int64_t rows = col == 0 ? (count - done) / p->cols : 0;
        n = rows > 0 ? rows * p->cols : least(count - done, p->cols - col);
        decode_down(out + done, p, row, rows > 0 ? rows : 1, col, rows > 0 ? p->cols : n);
    }
}
