#include "libformat/convert/convert_work.h"

#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"

/* Both are part of the journal's meaning, the second of the container's (section 7 of the spec). */
static const uint64_t UNIT_BYTES = 32u << 20; /* a multiple of every chunk size */
static const uint64_t PIECE_BYTES = 32u << 20;

/* Nothing to compute and nothing to turn: such an extent need not be built whole. */
static bool is_stored(const struct sf_convert_plan *plan, int64_t first, int64_t count)
{
    for (int64_t i = first; i < first + count; i++)
        if (plan->row[i].entry->encoding != SF_ENCODING_RAW || plan->row[i].source.transposed)
            return false;
    return true;
}

/* Experts lie behind each other in one tensor: one piece each, whichever model part reads it. */
static uint64_t piece_bytes(const struct sf_tensor *t)
{
    return t->shape.rank == 3 && t->shape.dim[0] > 0 ? t->bytes / (uint64_t)t->shape.dim[0]
                                                     : PIECE_BYTES;
}

bool sf_work_overlap(uint64_t *begin, uint64_t *end, const struct sf_work *work,
                     const struct sf_unit *unit, const struct sf_convert_row *row)
{
    const struct sf_plane *p = &row->entry->plane[SF_PLANE_CODES];
    uint64_t from = sf_layout_extent_at(work->plan->layout, unit->extent)->address + unit->offset;
    uint64_t to = from + unit->bytes;
    *begin = p->address > from ? p->address : from;
    *end = p->address + p->bytes < to ? p->address + p->bytes : to;
    return *begin < *end;
}

bool sf_work_reads(const struct sf_work *work, const struct sf_unit *unit,
                   const struct sf_convert_row *row)
{
    uint64_t begin, end;
    return !unit->stored || sf_work_overlap(&begin, &end, work, unit, row);
}

void sf_work_still_needed(bool *still, const struct sf_work *work)
{
    const struct sf_convert_plan *plan = work->plan;
    for (int64_t s = 0; s < sf_hf_index_shard_count(plan->index); s++)
        still[s] = plan->waits && plan->waits[s];
    for (int64_t u = 0; u < work->units; u++) {
        const struct sf_unit *unit = &work->unit[u];
        for (int64_t i = unit->first_row; !unit->done && i < unit->first_row + unit->rows; i++)
            if (sf_work_reads(work, unit, &plan->row[i]))
                still[sf_hf_index_shard_of(plan->row[i].source.tensor)] = true;
    }
}

/* ---- pieces ---- */

static void add_piece(struct sf_work *w, struct sf_unit *unit, const struct sf_convert_row *row,
                      const struct sf_tensor *t, uint64_t offset)
{
    uint64_t step = piece_bytes(t), left = t->bytes - offset;
    if (w->piece)
        w->piece[w->pieces] =
            (struct sf_piece){.shard = sf_hf_index_shard_of(t),
                              .bytes = {.data = (const unsigned char *)t->data + offset,
                                        .bytes = left < step ? left : step},
                              .name = row->entry->source_name};
    w->pieces++;
    unit->pieces++;
}

/* The pieces of a tensor that begin in its bytes [first, behind). */
static void add_range(struct sf_work *w, struct sf_unit *unit, const struct sf_convert_row *row,
                      const struct sf_tensor *t, uint64_t first, uint64_t behind)
{
    uint64_t step = piece_bytes(t);
    for (uint64_t at = (first + step - 1) / step * step; at < behind; at += step)
        add_piece(w, unit, row, t, at);
}

/* One of many experts that lie behind each other in one tensor. */
static bool is_slice(const struct sf_convert_row *row)
{
    return row->source.transposed && sf_part_is_expert(row->entry->role.part);
}

static void add_slice(struct sf_work *w, struct sf_unit *unit, const struct sf_convert_row *row)
{
    const struct sf_source *s = &row->source;
    uint64_t count = (uint64_t)row->entry->shape.dim[1] * (uint64_t)s->row_stride;
    uint64_t bytes = s->packed ? count / 2 : count * sf_dtype_bytes(s->tensor->dtype);
    uint64_t first = (uint64_t)row->entry->role.expert * bytes;
    add_range(w, unit, row, s->tensor, first, first + bytes);
}

/* The pieces of one row that are read with this unit. What lies beside the codes of a quantized
 * weight was read with the plan; it is hashed with the first that uses it. */
static void add_pieces(struct sf_work *w, struct sf_unit *unit, const struct sf_convert_row *row)
{
    const struct sf_source *s = &row->source;
    uint64_t begin, end, first = 0, behind = s->tensor->bytes;
    bool beside =
        row->entry->role.part == SF_PART_EXPERT_UP && s->row_stride > row->entry->shape.dim[0];
    if (beside)
        return; /* gate's piece holds it too */
    for (int i = 0; s->packed && s->first == 0 && i < s->packed->sides; i++)
        add_range(w, unit, row, s->packed->side[i], 0, s->packed->side[i]->bytes);
    if (is_slice(row)) {
        add_slice(w, unit, row);
        return;
    }
    if (unit->stored) {
        if (!sf_work_overlap(&begin, &end, w, unit, row))
            return;
        uint64_t base = row->entry->plane[SF_PLANE_CODES].address;
        first = begin - base;
        behind = end - base;
    }
    add_range(w, unit, row, s->tensor, first, behind);
}

static void add_unit(struct sf_work *w, struct sf_unit unit)
{
    unit.first_piece = w->pieces;
    for (int64_t i = unit.first_row; i < unit.first_row + unit.rows; i++)
        add_pieces(w, &unit, &w->plan->row[i]);
    if (unit.bytes > w->largest_unit)
        w->largest_unit = unit.bytes;
    if (w->unit)
        w->unit[w->units] = unit;
    w->units++;
    w->bytes += unit.bytes;
}

/* Once to count, once to fill. */
static void walk(struct sf_work *w)
{
    const struct sf_layout *layout = w->plan->layout;
    w->units = w->pieces = 0;
    w->bytes = 0;
    for (int64_t e = 0; e < sf_layout_extent_count(layout); e++) {
        const struct sf_extent *x = sf_layout_extent_at(layout, e);
        struct sf_unit unit = {.extent = e};
        if (x->kind == SF_EXTENT_SHARED)
            continue;
        sf_layout_extent_entries(&unit.first_row, &unit.rows, layout, e);
        unit.stored = is_stored(w->plan, unit.first_row, unit.rows);
        uint64_t step = unit.stored && x->bytes > UNIT_BYTES ? UNIT_BYTES : x->bytes;
        for (; unit.offset < x->bytes; unit.offset += step) {
            uint64_t left = x->bytes - unit.offset;
            unit.bytes = left < step ? left : step;
            add_unit(w, unit);
        }
    }
}

int sf_work_cut(struct sf_work *out, struct sf_convert_plan *plan, struct sf_err *err)
{
    *out = (struct sf_work){.plan = plan};
    walk(out);
    struct sf_unit *unit = sf_arena_array(&out->arena, (uint64_t)out->units, sizeof *unit);
    struct sf_piece *piece = sf_arena_array(&out->arena, (uint64_t)out->pieces, sizeof *piece);
    if (!unit || !piece)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld units and %lld pieces",
                       (long long)out->units, (long long)out->pieces);
    out->unit = unit;
    out->piece = piece;
    walk(out);
    return SF_OK;
}

void sf_work_free(struct sf_work *work)
{
    sf_arena_free(&work->arena);
    *work = (struct sf_work){0};
}

/* ---- what the metadata says of the shards ---- */

static void put_hash(unsigned char out[16], struct sf_hash128 hash)
{
    sf_put_u64(out, hash.low);
    sf_put_u64(out + 8, hash.high);
}

/* By shard, then by place: a shard is one mapping, so addresses order it. */
static int compare_pieces(const void *a, const void *b)
{
    const struct sf_piece *x = *(const struct sf_piece *const *)a;
    const struct sf_piece *y = *(const struct sf_piece *const *)b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    const unsigned char *p = x->bytes.data, *q = y->bytes.data;
    return p < q ? -1 : p > q;
}

int sf_work_shard_hashes(struct sf_source_shard *shard, struct sf_work *w, struct sf_err *err)
{
    const struct sf_piece **order = sf_arena_array(&w->arena, (uint64_t)w->pieces, sizeof *order);
    unsigned char *hashes = sf_arena_array(&w->arena, (uint64_t)w->pieces, 16);
    if (!order || !hashes)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld hashes", (long long)w->pieces);
    for (int64_t i = 0; i < w->pieces; i++)
        order[i] = &w->piece[i];
    qsort(order, (size_t)w->pieces, sizeof *order, compare_pieces);
    for (int64_t i = 0; i < w->pieces; i++)
        put_hash(hashes + 16 * i, order[i]->hash);
    int64_t next = 0;
    for (int64_t s = 0; s < sf_hf_index_shard_count(w->plan->index); s++) {
        const struct sf_hf_shard *source = sf_hf_index_shard(w->plan->index, s);
        int64_t first = next;
        while (next < w->pieces && order[next]->shard == s)
            next++;
        shard[s] = (struct sf_source_shard){.name = source->name, .bytes = source->bytes};
        put_hash(shard[s].hash, sf_hash128(hashes + 16 * first, 16 * (uint64_t)(next - first)));
    }
    return SF_OK;
}
