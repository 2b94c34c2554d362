#include "libformat/convert/delta.h"

#include <string.h>

enum { SIDE = 64 }; /* of the blocks that one pass works on: 32 KiB in all */

struct sf_delta sf_delta_of(const struct sf_adapter_module *m, int64_t group, int64_t out_first)
{
    return (struct sf_delta){.left = m->b + (group * m->out + out_first) * m->rank,
                             .right = m->a + group * m->rank * m->in,
                             .left_row = m->rank,
                             .left_rank = 1,
                             .right_rank = m->in,
                             .right_col = 1,
                             .rank = m->rank,
                             .scale = (float)m->scale};
}

struct sf_delta sf_delta_turned(const struct sf_adapter_module *m, int64_t group)
{
    return (struct sf_delta){.left = m->a + group * m->rank * m->in,
                             .right = m->b + group * m->out * m->rank,
                             .left_row = 1,
                             .left_rank = m->in,
                             .right_rank = 1,
                             .right_col = m->rank,
                             .rank = m->rank,
                             .scale = (float)m->scale};
}

static int64_t at_most(int64_t left)
{
    return left < SIDE ? left : SIDE;
}

/* packed[ranks][SIDE] of the right factor, zeros behind `cols`. */
static void pack(float packed[SIDE][SIDE], const struct sf_delta *d, int64_t rank, int64_t ranks,
                 int64_t col, int64_t cols)
{
    for (int64_t k = 0; k < ranks; k++) {
        const float *from = d->right + (rank + k) * d->right_rank + col * d->right_col;
        for (int64_t c = 0; c < SIDE; c++)
            packed[k][c] = c < cols ? from[c * d->right_col] : 0;
    }
}

static void add_block(float *tile, int64_t stride, const struct sf_delta *d, int64_t row,
                      int64_t rows, int64_t col, int64_t cols)
{
    float sum[SIDE][SIDE], packed[SIDE][SIDE];
    memset(sum, 0, sizeof sum);
    for (int64_t rank = 0; rank < d->rank; rank += SIDE) {
        int64_t ranks = at_most(d->rank - rank);
        pack(packed, d, rank, ranks, col, cols);
        for (int64_t r = 0; r < rows; r++) {
            const float *left = d->left + (row + r) * d->left_row + rank * d->left_rank;
            for (int64_t k = 0; k < ranks; k++)
                for (int64_t c = 0; c < SIDE; c++)
                    sum[r][c] += left[k * d->left_rank] * packed[k][c];
        }
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            tile[r * stride + c] += d->scale * sum[r][c];
}

void sf_delta_add(float *tile, int64_t stride, const struct sf_delta *delta, int64_t row,
                  int64_t rows, int64_t col, int64_t cols)
{
    for (int64_t r = 0; r < rows; r += SIDE)
        for (int64_t c = 0; c < cols; c += SIDE)
            add_block(tile + r * stride + c, stride, delta, row + r, at_most(rows - r), col + c,
                      at_most(cols - c));
}

const struct sf_adapter_module *
sf_delta_module(int64_t *out_first, const struct sf_adapter *adapter, struct sf_role role)
{
    bool up = role.part == SF_PART_EXPERT_UP;
    struct sf_role whole = {up ? SF_ADAPTER_GATE_UP : role.part, role.layer, -1};
    const struct sf_adapter_module *m = adapter ? sf_adapter_find(adapter, whole) : NULL;
    *out_first = m && up ? m->out / 2 : 0;
    return m;
}
