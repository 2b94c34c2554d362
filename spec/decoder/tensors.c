#include "spec/decoder/tensors.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "spec/decoder/fields.h"
#include "spec/decoder/opened.h"

static u64 type_bytes(u32 type) // C 5.4; 0 if not known
{
    static const u8 BYTES[] = {0, 1, 1, 2, 4, 8, 2, 2, 4, 8, 1, 1, 1};

    return type <= LAST_TYPE ? BYTES[type] : 0;
}

static void read_plane(u32 i, const u8 *p) // C 5.4
{
    struct plane *plane = &g.planes[i];

    plane->kind = get_u16(p);
    plane->type = get_u16(p + 2);
    plane->shape = get_u32(p + 4);
    plane->address = get_u64(p + 8);
    plane->size = get_u64(p + 16);
    if (plane->kind >= PLANE_KINDS)
        refuse("index: plane %u: kind %u is not known", i, plane->kind);
    if (type_bytes(plane->type) == 0)
        refuse("index: plane %u: element type %u is not known", i, plane->type);
    if (plane->shape >= g.shape_count)
        refuse("index: plane %u: there is no shape %u", i, plane->shape);
    const u64 bytes = multiply(g.shapes[plane->shape].elements, type_bytes(plane->type));
    if (bytes == UINT64_MAX || plane->size != bytes)
        refuse("index: plane %u: its size is not that of its shape and type", i);
}

// C 3: planes lie one behind the other in their extents, each extent holds one at least.
static void place_planes(void)
{
    u32 e = 0;
    u64 place = 0; // where the next plane of extent e would lie
    bool first = true;

    for (u32 i = 0; i < g.plane_count; i++) {
        struct plane *p = &g.planes[i];

        if (!first && e + 1 < g.extent_count && p->address >= g.extents[e + 1].address) {
            e++;
            place = g.extents[e].address;
        }
        const u64 end = g.extents[e].address + g.extents[e].size;
        if (p->address != place)
            refuse("index: plane %u is off its place", i);
        if (p->address >= end || p->size > end - p->address)
            refuse("index: plane %u crosses the end of its extent", i);
        p->extent = e;
        place = align_up(p->address + p->size, 256);
        first = false;
    }
    if (g.plane_count == 0 || e + 1 != g.extent_count)
        refuse("index: an extent holds no plane");
}

void read_planes(const u8 *p)
{
    g.planes = allocate(g.plane_count * sizeof *g.planes);
    for (u32 i = 0; i < g.plane_count; i++)
        read_plane(i, p + (u64)24 * i);
    place_planes();
}

// C 5.3: the fields of one tensor
static void read_tensor(u32 i, const u8 *p, struct strings strings)
{
    struct tensor *t = &g.tensors[i];
    const double error = get_f64(p + 48);
    const float worst = get_f32(p + 44);

    t->name = get_string(strings, p, "index: name of a tensor");
    (void)get_string(strings, p + 4, "index: source of a tensor");
    t->label = get_u32(p + 8);
    t->layer = get_i32(p + 12);
    t->expert = get_i32(p + 16);
    t->extent = get_u32(p + 20);
    t->shape = get_u32(p + 24);
    t->encoding = get_u16(p + 28);
    t->source_type = get_u16(p + 30);
    t->block = get_u32(p + 32);
    t->nested = get_u32(p + 36);
    t->axis = get_i32(p + 40);
    if (t->name[0] == '\0')
        refuse("index: tensor %u has no name", i);
    if (t->label >= g.label_count || t->extent >= g.extent_count || t->shape >= g.shape_count)
        refuse("index: tensor %u: label, extent or shape does not exist", i);
    if (t->layer < -1 || t->expert < -1)
        refuse("index: tensor %u: layer or expert below -1", i);
    if (t->encoding != RAW && t->encoding != NF4)
        refuse("index: tensor %u: encoding %u is not known", i, t->encoding);
    if (type_bytes(t->source_type) == 0)
        refuse("index: tensor %u: element type %u is not known", i, t->source_type);
    if (!(worst >= 0) || isinf(worst))
        refuse("index: tensor %u: its worst block's error is not a finite number of at least 0", i);
    if (!(error >= 0) || isinf(error))
        refuse("index: tensor %u: its error is not a finite number of at least 0", i);
    if (g.shapes[t->shape].elements > (u64)1 << 59)
        refuse("index: tensor %u has more than 2^59 elements", i);
    for (u32 k = 0; k < SLOTS; k++)
        t->planes[k] = get_u32(p + 56 + 4 * k);
}

// C 5.3: order by layer, label, expert; and by name where several are "unused"
static int compare_tensors(const struct tensor *a, const struct tensor *b)
{
    if (a->layer != b->layer)
        return a->layer < b->layer ? -1 : 1;
    if (a->label != b->label)
        return a->label < b->label ? -1 : 1;
    if (a->expert != b->expert)
        return a->expert < b->expert ? -1 : 1;
    return strcmp(g.labels[a->label], "unused") == 0 ? strcmp(a->name, b->name) : 0;
}

static bool shape_is(u32 shape, u64 rank, const u64 *dims)
{
    const struct shape *s = &g.shapes[shape];

    return s->rank == rank && memcmp(s->dims, dims, rank * sizeof *dims) == 0;
}

// The plane in slot `kind` is there and has this type and this shape (C 6); counts its users (C 3).
static void expect_plane(u32 i, u32 kind, u32 type, u64 rank, const u64 *dims)
{
    const struct tensor *t = &g.tensors[i];
    const u32 id = t->planes[kind];

    if (id >= g.plane_count)
        refuse("index: tensor %u: plane %u is missing", i, kind);
    struct plane *p = &g.planes[id];
    if (p->kind != kind || p->type != type || !shape_is(p->shape, rank, dims))
        refuse("index: tensor %u: kind, type or shape of plane %u is not that of the encoding", i,
               kind);
    p->users++;
    if (kind == CODEBOOK || kind == MAP)
        return;
    if (p->users > 1)
        refuse("index: plane %u belongs to two tensors", id);
    if (p->extent != t->extent)
        refuse("index: plane %u lies in another extent than its tensor", id);
}

static void expect_vector(u32 i, u32 kind, u32 type, u64 length)
{
    expect_plane(i, kind, type, 1, &length);
}

static void expect_no_planes(u32 i, u32 first, u32 end)
{
    for (u32 kind = first; kind < end; kind++)
        if (g.tensors[i].planes[kind] != NONE)
            refuse("index: tensor %u has a plane %u that its encoding does not know", i, kind);
}

static void check_raw(u32 i) // C 6, encoding 0
{
    const struct tensor *t = &g.tensors[i];
    const struct shape *s = &g.shapes[t->shape];

    if (t->block != 0 || t->nested != 0 || t->axis != -1)
        refuse("index: tensor %u is raw and has blocks", i);
    expect_plane(i, CODES, t->source_type, s->rank, s->dims);
    expect_no_planes(i, SCALE, SLOTS);
}

static void check_blocks(u32 i) // C 6, on B and the block axis
{
    const struct tensor *t = &g.tensors[i];
    const struct shape *s = &g.shapes[t->shape];

    if (t->block >> 31 != 0 || t->nested >> 31 != 0)
        refuse("index: tensor %u: blocks of %u in groups of %u are too large", i, t->block,
               t->nested);
    if (t->block == 0 || (t->block & (t->block - 1)) != 0)
        refuse("index: tensor %u: block %u is not a power of two", i, t->block);
    if (t->axis < -1 || (t->axis >= 0 && (u64)t->axis >= s->rank))
        refuse("index: tensor %u: there is no axis %d", i, t->axis);
    if (t->axis >= 0 && s->dims[t->axis] % t->block != 0)
        refuse("index: tensor %u: blocks do not divide axis %d", i, t->axis);
}

static void check_nf4(u32 i) // C 6, encoding 1
{
    const struct tensor *t = &g.tensors[i];

    check_blocks(i);
    const u64 n = g.shapes[t->shape].elements;
    const u64 blocks = (n + t->block - 1) / t->block;
    expect_vector(i, CODES, U8, (n + 1) / 2);
    expect_vector(i, CODEBOOK, F32, 16);
    expect_no_planes(i, PLANE_KINDS, SLOTS);
    if (t->nested == 0) {
        expect_vector(i, SCALE, F32, blocks);
        expect_no_planes(i, SCALE2, CODEBOOK);
        expect_no_planes(i, MAP, SLOTS);
        return;
    }
    expect_vector(i, SCALE, U8, blocks);
    expect_vector(i, SCALE2, F32, (blocks + t->nested - 1) / t->nested);
    expect_vector(i, OFFSET, F32, 1);
    expect_vector(i, MAP, F32, 256);
}

void read_tensors(const u8 *p, struct strings strings)
{
    g.tensors = allocate(g.tensor_count * sizeof *g.tensors);
    for (u32 i = 0; i < g.tensor_count; i++) {
        read_tensor(i, p + (u64)88 * i, strings);
        if (i > 0 && compare_tensors(&g.tensors[i - 1], &g.tensors[i]) >= 0)
            refuse("index: tensor %u is out of order or has the role of the one before", i);
        if (g.tensors[i].encoding == RAW)
            check_raw(i);
        else
            check_nf4(i);
    }
    for (u32 i = 0; i < g.plane_count; i++) // C 3
        if (g.planes[i].users == 0)
            refuse("index: plane %u belongs to no tensor", i);
}
