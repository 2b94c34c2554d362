#include "libformat/convert/matrix_tiles.h"

#include "libformat/codec/nf4.h"
#include "libformat/convert/packed_source.h"

enum {
    FLAT = 1024 * SF_NF4_BLOCK, /* elements of a borrowed tile */
    ROWS = SF_NF4_BLOCK,        /* rows of a turned tile whose blocks straddle rows */
    OUTS = 256,                 /* of a turned tile: 512 bytes of every source row, */
    INS = 1024,                 /* 16 blocks of every row of the weight */
    PAD = 32 /* so that the rows of a turned tile do not fall on the same lines of the cache */
};

static int64_t outs_of(const struct sf_convert_row *row)
{
    return row->entry->shape.dim[0];
}

static int64_t ins_of(const struct sf_convert_row *row)
{
    return row->entry->shape.dim[1];
}

static int64_t parts(int64_t n, int64_t part)
{
    return (n + part - 1) / part;
}

static int64_t at_most(int64_t n, int64_t most)
{
    return n < most ? n : most;
}

bool sf_tiles_run_down(const struct sf_convert_row *row)
{
    return row->source.transposed && ins_of(row) % SF_NF4_BLOCK == 0;
}

const unsigned char *sf_weight_origin(const struct sf_convert_row *row)
{
    return (const unsigned char *)row->source.tensor->data +
           (uint64_t)row->source.first * sf_dtype_bytes(row->entry->dtype);
}

uint64_t sf_tile_buffer_bytes(const struct sf_convert_row *row)
{
    if (!row->source.transposed)
        return 0;
    int64_t elements = sf_tiles_run_down(row) ? OUTS * (INS + PAD) : ROWS * ins_of(row);
    return (uint64_t)elements * sf_dtype_bytes(row->entry->dtype);
}

int64_t sf_tile_count(const struct sf_convert_row *row)
{
    if (!row->source.transposed)
        return parts(outs_of(row) * ins_of(row), FLAT);
    if (!sf_tiles_run_down(row))
        return parts(outs_of(row), ROWS);
    return parts(outs_of(row), OUTS) * parts(ins_of(row), INS);
}

static void borrow(struct sf_tile *out, const struct sf_convert_row *row, int64_t index)
{
    int64_t first = index * FLAT, n = at_most(outs_of(row) * ins_of(row) - first, FLAT);
    *out = (struct sf_tile){.data = sf_weight_origin(row) +
                                    (uint64_t)first * sf_dtype_bytes(row->entry->dtype),
                            .runs = 1,
                            .run = n,
                            .first = first};
}

/* Element (out o, in i) of the source is at i * row_stride + o; a packed one is decoded to bf16. */
static void turn(void *buffer, int64_t stride, const struct sf_convert_row *row, int64_t o,
                 int64_t outs, int64_t i, int64_t ins)
{
    enum sf_dtype dtype = row->entry->dtype;
    if (row->source.packed) {
        sf_packed_rectangle(buffer, stride, row, o, outs, i, ins);
        return;
    }
    uint64_t skip = (uint64_t)(i * row->source.row_stride + o) * sf_dtype_bytes(dtype);
    sf_nf4_turn(buffer, stride, sf_weight_origin(row) + skip, row->source.row_stride, ins, outs,
                dtype);
}

/* Whole rows, because blocks straddle them; 64 rows are whole blocks whatever their length. */
static void turn_rows(struct sf_tile *out, const struct sf_convert_row *row, int64_t index,
                      void *buffer)
{
    int64_t o = index * ROWS, outs = at_most(outs_of(row) - o, ROWS), in = ins_of(row);
    turn(buffer, in, row, o, outs, 0, in);
    *out = (struct sf_tile){.data = buffer, .runs = 1, .run = outs * in, .first = o * in};
}

/* Neighbouring tiles share the pages of the source: outs go first. */
static void turn_tile(struct sf_tile *out, const struct sf_convert_row *row, int64_t index,
                      void *buffer)
{
    int64_t across = parts(outs_of(row), OUTS);
    int64_t o = index % across * OUTS, outs = at_most(outs_of(row) - o, OUTS);
    int64_t i = index / across * INS, ins = at_most(ins_of(row) - i, INS);
    turn(buffer, INS + PAD, row, o, outs, i, ins);
    *out = (struct sf_tile){.data = buffer,
                            .runs = outs,
                            .run = ins,
                            .stride = INS + PAD,
                            .first = o * ins_of(row) + i,
                            .step = ins_of(row)};
}

void sf_tile_at(struct sf_tile *out, const struct sf_convert_row *row, int64_t index, void *buffer)
{
    if (!row->source.transposed)
        borrow(out, row, index);
    else if (sf_tiles_run_down(row))
        turn_tile(out, row, index, buffer);
    else
        turn_rows(out, row, index, buffer);
}
