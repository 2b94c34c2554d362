// An educational decoder of the .scout container, written from spec/container.md ("C") and
// spec/quantization.md ("Q") alone. It favours being read over being fast: one function for each
// section of the page, in the order of the page, and no code shared with the project.
//
//   decoder list FILE            tensors with their planes, then extents
//   decoder tensor FILE NAME     one tensor as raw little-endian float32, on stdout
//   decoder files FILE           the carried files
//   decoder file FILE NAME       one carried file, on stdout
//   decoder owner FILE OFFSET    what a byte of the file belongs to
//   decoder owners FILE          the same for all bytes, as ranges: begin, end, what, names
//   decoder verify FILE          every check, every checksum, every carried file
//
// Columns are separated by tabs; names have bytes outside printable ASCII, and backslashes, as \xNN.

#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>
#include <zstd.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;

// ---------------------------------------------------------------------------------------------
// Errors, and numbers from bytes (C, Conventions)

static const char *g_path;

static _Noreturn void refuse(const char *format, ...)
{
    va_list args;

    (void)fflush(stdout);
    (void)fprintf(stderr, "decoder: %s: ", g_path);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

static u16 get_u16(const u8 *p)
{
    return (u16)(p[0] | p[1] << 8);
}

static u32 get_u32(const u8 *p)
{
    return (u32)get_u16(p) | (u32)get_u16(p + 2) << 16;
}

static u64 get_u64(const u8 *p)
{
    return (u64)get_u32(p) | (u64)get_u32(p + 4) << 32;
}

static i32 get_i32(const u8 *p)
{
    const u32 bits = get_u32(p);
    i32 value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static float float_of(u32 bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static u32 bits_of(float value)
{
    u32 bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float get_f32(const u8 *p)
{
    return float_of(get_u32(p));
}

static double get_f64(const u8 *p)
{
    const u64 bits = get_u64(p);
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static void put_u32(u8 *p, u32 value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (u8)(value >> (8 * i));
}

static void put_u64(u8 *p, u64 value)
{
    for (int i = 0; i < 8; i++)
        p[i] = (u8)(value >> (8 * i));
}

static bool all_zero(const u8 *p, u64 bytes)
{
    for (u64 i = 0; i < bytes; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static u64 align_up(u64 value, u64 alignment) // alignment is a power of two
{
    return (value + alignment - 1) & ~(alignment - 1);
}

// Saturates instead of wrapping: UINT64_MAX stands for "too many", which no check accepts.
static u64 multiply(u64 a, u64 b)
{
    return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

// A 128-bit hash in a file: low64, then high64 (C, Hashes).
static bool hash_is(const u8 *stored, XXH128_hash_t hash)
{
    return get_u64(stored) == hash.low64 && get_u64(stored + 8) == hash.high64;
}

static void *allocate(u64 bytes)
{
    void *memory = bytes < SIZE_MAX ? calloc(1, (size_t)bytes + 1) : NULL;

    if (memory == NULL)
        refuse("no memory for %llu bytes", (unsigned long long)bytes);
    return memory;
}

// ---------------------------------------------------------------------------------------------
// What is known of a file after opening it

enum { HEADER_BYTES = 4096, MAX_SECTIONS = 64, MAX_RANK = 8, SLOTS = 8 };
enum { PAYLOAD = 1, CHECKSUMS = 2, INDEX = 3, METADATA = 4 };
enum { CODES, SCALE, SCALE2, OFFSET, CODEBOOK, MAP, PLANE_KINDS };
enum { RAW = 0, NF4 = 1 };
enum { U8 = 1, F16 = 6, BF16 = 7, F32 = 8, LAST_TYPE = 12 };

static const u32 NONE = 0xFFFFFFFF;

struct section {
    u32 type;
    u64 offset, size;
    const u8 *bytes;
};

struct strings {
    const char *bytes;
    u32 size;
};

struct extent {
    const char *kind;
    i32 layer, expert;
    u64 address, size, first_chunk, chunks;
};

struct shape {
    u64 rank, dims[MAX_RANK];
    u64 elements;
};

struct plane {
    u16 kind, type;
    u32 shape;
    u64 address, size;
    u32 extent;
    u32 users;
};

struct tensor {
    const char *name;
    u32 label;
    i32 layer, expert;
    u32 extent, shape;
    u16 encoding, source_type;
    u32 block, nested;
    i32 axis;
    u32 planes[SLOTS];
};

struct name {
    u64 hash;
    u32 tensor;
};

struct carried {
    const char *name;
    u64 frame_offset, frame_bytes, bytes;
    const u8 *hash;
};

static struct {
    const u8 *bytes;
    u64 size;

    u64 extent_alignment, chunk_bytes;
    u32 section_count;
    struct section sections[MAX_SECTIONS];
    struct section payload, checksums, index, metadata;

    u32 part_count, extent_count, tensor_count, plane_count, shape_count, label_count;
    struct extent *extents;
    struct tensor *tensors;
    struct plane *planes;
    struct shape *shapes;
    const char **labels;
    struct name *names;
    u64 chunk_count;

    u32 file_count;
    struct carried *files;
} g;

// ---------------------------------------------------------------------------------------------
// The file (C 1, C 10)

static void map_file(void)
{
    const int fd = open(g_path, O_RDONLY);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) != 0)
        refuse("cannot be opened");
    if (!S_ISREG(status.st_mode))
        refuse("is not a regular file");
    g.size = (u64)status.st_size;
    if (g.size == 0)
        refuse("is empty");
    void *memory = mmap(NULL, (size_t)g.size, PROT_READ, MAP_PRIVATE, fd, 0);
    (void)close(fd);
    if (memory == MAP_FAILED)
        refuse("cannot be mapped");
    g.bytes = memory;
}

static void refuse_lfs_pointer(void)
{
    static const char START[] = "version https://git-lfs";

    if (g.size >= sizeof START - 1 && memcmp(g.bytes, START, sizeof START - 1) == 0)
        refuse("is a Git-LFS pointer, not the file itself");
}

// ---------------------------------------------------------------------------------------------
// The header page (C 2), in the order of checks given there

static void check_magic(void)
{
    static const u8 MAGIC[8] = {0x89, 'S', 'C', 'O', 'U', 'T', 0x0D, 0x0A};

    refuse_lfs_pointer();
    if (g.size < HEADER_BYTES)
        refuse("has %llu bytes, which is less than a header", (unsigned long long)g.size);
    if (all_zero(g.bytes, HEADER_BYTES))
        refuse("was never finished: its header is all zeros");
    if (memcmp(g.bytes, MAGIC, sizeof MAGIC) != 0)
        refuse("has not the magic of a .scout file");
}

static void check_header_hash(void)
{
    u8 page[HEADER_BYTES];

    memcpy(page, g.bytes, HEADER_BYTES);
    memset(page + 32, 0, 16);
    if (!hash_is(g.bytes + 32, XXH3_128bits(page, HEADER_BYTES)))
        refuse("the header is damaged: its hash does not match");
}

static void check_header_fields(void)
{
    const u8 *h = g.bytes;

    if (get_u32(h + 8) != 1)
        refuse("has major version %u, and only 1 is known", get_u32(h + 8));
    if (get_u64(h + 16) != 0)
        refuse("header: incompatible features 0x%llx are not known",
               (unsigned long long)get_u64(h + 16));
    if (get_u64(h + 48) != g.size)
        refuse("header: the size is given as %llu, but the file has %llu bytes",
               (unsigned long long)get_u64(h + 48), (unsigned long long)g.size);
    if (h[56] < 12 || h[56] > 30 || h[57] < 12 || h[57] > 30)
        refuse("header: extent alignment or chunk size is not within 2^12 .. 2^30");
    g.extent_alignment = (u64)1 << h[56];
    g.chunk_bytes = (u64)1 << h[57];
    g.section_count = get_u32(h + 60);
    if (g.section_count < 4 || g.section_count > MAX_SECTIONS)
        refuse("header: %u sections are not within 4 .. 64", g.section_count);
    const u32 end = 128 + 40 * g.section_count;
    if (!all_zero(h + 58, 2) || !all_zero(h + 80, 48) || !all_zero(h + end, HEADER_BYTES - end))
        refuse("header: reserved bytes are not zero");
}

static struct section find_section(u32 type, const char *name)
{
    for (u32 i = 0; i < g.section_count; i++)
        if (g.sections[i].type == type)
            return g.sections[i];
    refuse("header: the section %s is missing", name);
}

static void read_section_row(u32 i, u64 expected_offset)
{
    const u8 *row = g.bytes + 128 + (u64)40 * i;
    struct section *s = &g.sections[i];

    s->type = get_u32(row);
    s->offset = get_u64(row + 8);
    s->size = get_u64(row + 16);
    if (get_u32(row + 4) != 0)
        refuse("header: reserved bytes of section %u are not zero", i);
    for (u32 k = 0; k < i; k++)
        if (g.sections[k].type == s->type)
            refuse("header: section type %u occurs twice", s->type);
    if (s->offset != expected_offset)
        refuse("header: section %u does not begin where the one before ends", i);
    if (s->size == 0 || s->size % 8 != 0 || s->size > g.size - s->offset)
        refuse("header: section %u is empty, not a multiple of 8, or past the end", i);
    if (s->type == PAYLOAD && !all_zero(row + 24, 16))
        refuse("header: the payload has a hash, which must be zero");
    s->bytes = g.bytes + s->offset;
}

static void read_section_table(void)
{
    u64 end = HEADER_BYTES;

    for (u32 i = 0; i < g.section_count; i++) {
        read_section_row(i, end);
        end += g.sections[i].size;
    }
    if (end != g.size)
        refuse("header: the last section does not end where the file ends");
    if (g.sections[0].type != PAYLOAD)
        refuse("header: the first section is not the payload");
    g.payload = find_section(PAYLOAD, "payload");
    g.checksums = find_section(CHECKSUMS, "checksums");
    g.index = find_section(INDEX, "index");
    g.metadata = find_section(METADATA, "metadata");
}

static const char *section_name(u32 type)
{
    static const char *const NAMES[] = {"?", "payload", "checksums", "index", "metadata"};
    static char other[32];

    if (type >= PAYLOAD && type <= METADATA)
        return NAMES[type];
    (void)snprintf(other, sizeof other, "section %u", type);
    return other;
}

static void check_section_hashes(void)
{
    for (u32 i = 0; i < g.section_count; i++) {
        const struct section *s = &g.sections[i];
        const u8 *stored = g.bytes + 128 + (u64)40 * i + 24;

        if (s->type != PAYLOAD && !hash_is(stored, XXH3_128bits(s->bytes, (size_t)s->size)))
            refuse("%s is damaged: its hash does not match", section_name(s->type));
    }
}

// ---------------------------------------------------------------------------------------------
// Strings (C 5)

// Bytes of the UTF-8 character at p (1 .. 4), or 0 if it is none: overlong, a surrogate, cut off.
static u32 utf8_length(const u8 *p, u64 left)
{
    static const u32 LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    const u32 n = p[0] < 0x80       ? 1
                  : p[0] >> 5 == 6  ? 2
                  : p[0] >> 4 == 14 ? 3
                  : p[0] >> 3 == 30 ? 4
                                    : 0;

    if (n < 2)
        return n;
    if (n > left)
        return 0;
    u32 c = p[0] & (0x7Fu >> n);
    for (u32 i = 1; i < n; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        c = c << 6 | (p[i] & 0x3F);
    }
    return c < LEAST[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF) ? 0 : n;
}

static struct strings read_strings(const u8 *p, u32 size, const char *where)
{
    if (size == 0 || size % 8 != 0 || p[0] != 0 || p[size - 1] != 0)
        refuse("%s: the strings are not a multiple of 8 or do not begin and end with NUL", where);
    for (u32 i = 0, n = 0; i < size; i += n) {
        if ((p[i] > 0 && p[i] < 32) || p[i] == 127)
            refuse("%s: the strings hold a control character", where);
        n = utf8_length(p + i, size - i);
        if (n == 0)
            refuse("%s: the strings are not UTF-8", where);
    }
    return (struct strings){(const char *)p, size};
}

static const char *get_string(struct strings strings, const u8 *field, const char *where)
{
    const u32 offset = get_u32(field);

    if (offset >= strings.size || (offset > 0 && strings.bytes[offset - 1] != 0))
        refuse("%s: %u is not the start of a string", where, offset);
    if (strlen(strings.bytes + offset) > 4096)
        refuse("%s: a string is longer than 4096 bytes", where);
    return strings.bytes + offset;
}

static void check_zero_u32(const u8 *field, const char *where, u32 i)
{
    if (get_u32(field) != 0)
        refuse("%s %u: reserved bytes are not zero", where, i);
}

// ---------------------------------------------------------------------------------------------
// The index (C 5)

static void read_part(const u8 *p) // C 5.1: version 1.0 has one, which is the payload of this file
{
    if (get_u64(p) != 0 || get_u64(p + 8) != g.payload.size ||
        get_u64(p + 16) != g.payload.offset || get_u32(p + 24) != 0)
        refuse("index: the part is not the payload of this file");
    check_zero_u32(p + 28, "index: part", 0);
}

// C 5.2
static void read_extent(u32 i, const u8 *p, struct strings strings, u64 address, u64 first_chunk)
{
    struct extent *e = &g.extents[i];

    e->kind = get_string(strings, p, "index: kind of an extent");
    e->layer = get_i32(p + 4);
    e->expert = get_i32(p + 8);
    e->address = get_u64(p + 16);
    e->size = get_u64(p + 24);
    e->first_chunk = get_u64(p + 40);
    e->chunks = e->size / g.chunk_bytes + (e->size % g.chunk_bytes != 0);
    const bool is_expert = strcmp(e->kind, "expert") == 0;
    const i32 least = is_expert ? 0 : -1;
    if (e->layer < least || e->expert < least)
        refuse("index: extent %u: layer or expert is too low", i);
    if (get_u32(p + 12) != 0)
        refuse("index: extent %u: storage %u is not known", i, get_u32(p + 12));
    if (e->address != address)
        refuse("index: extent %u does not begin where the one before ends", i);
    if (e->size == 0 || e->size % g.extent_alignment != 0 || e->size > g.payload.size - address)
        refuse("index: extent %u: its size is not aligned or past the payload", i);
    if (get_u64(p + 32) != (is_expert ? e->size : 0))
        refuse("index: extent %u: wrong stride", i);
    if (e->first_chunk != first_chunk)
        refuse("index: extent %u: wrong number of its first chunk", i);
}

// C 5.2: experts of a layer stand together, ascending, with one size; layers ascend.
static void check_expert_runs(void)
{
    const struct extent *last = NULL;

    for (u32 i = 0; i < g.extent_count; i++) {
        const struct extent *e = &g.extents[i];

        if (strcmp(e->kind, "expert") != 0)
            continue;
        const bool run_goes_on = i > 0 && last == e - 1 && last->layer == e->layer;
        if (run_goes_on && (e->expert <= last->expert || e->size != last->size))
            refuse("index: extent %u: experts of a layer do not ascend or differ in size", i);
        if (!run_goes_on && last != NULL && e->layer <= last->layer)
            refuse("index: extent %u: layers of experts do not ascend", i);
        last = e;
    }
}

static void read_extents(const u8 *p, struct strings strings)
{
    u64 address = 0;

    g.extents = allocate(g.extent_count * sizeof *g.extents);
    for (u32 i = 0; i < g.extent_count; i++) {
        read_extent(i, p + (u64)48 * i, strings, address, g.chunk_count);
        address += g.extents[i].size;
        g.chunk_count += g.extents[i].chunks;
    }
    if (address != g.payload.size)
        refuse("index: the extents do not tile the payload");
    check_expert_runs();
    if (g.checksums.size / 8 != g.chunk_count) // C 4
        refuse("checksums: there are not 8 bytes for each chunk");
}

static void read_shapes(const u8 *p) // C 5.5
{
    g.shapes = allocate(g.shape_count * sizeof *g.shapes);
    for (u32 i = 0; i < g.shape_count; i++, p += 72) {
        struct shape *s = &g.shapes[i];

        s->rank = get_u64(p);
        s->elements = 1;
        if (s->rank > MAX_RANK)
            refuse("index: shape %u: rank above 8", i);
        for (u32 k = 0; k < MAX_RANK; k++) {
            s->dims[k] = get_u64(p + 8 + 8 * k);
            if (k < s->rank ? s->dims[k] == 0 || s->dims[k] >> 63 != 0 : s->dims[k] != 0)
                refuse("index: shape %u: dimension %u is out of range", i, k);
            if (k < s->rank)
                s->elements = multiply(s->elements, s->dims[k]);
        }
    }
}

static void read_labels(const u8 *p, struct strings strings) // C 5.6
{
    g.labels = allocate(g.label_count * sizeof *g.labels);
    for (u32 i = 0; i < g.label_count; i++, p += 8) {
        g.labels[i] = get_string(strings, p, "index: label");
        check_zero_u32(p + 4, "index: label", i);
        for (u32 k = 0; k < i; k++)
            if (strcmp(g.labels[k], g.labels[i]) == 0)
                refuse("index: label %u occurs twice", i);
    }
}

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

static void read_planes(const u8 *p)
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
    check_zero_u32(p + 44, "index: tensor", i);
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

static void read_tensors(const u8 *p, struct strings strings)
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

static void read_names(const u8 *p) // C 5.7
{
    g.names = allocate(g.tensor_count * sizeof *g.names);
    for (u32 i = 0; i < g.tensor_count; i++, p += 16) {
        struct name *n = &g.names[i];

        n->hash = get_u64(p);
        n->tensor = get_u32(p + 8);
        check_zero_u32(p + 12, "index: name", i);
        if (i > 0 && n->hash <= g.names[i - 1].hash)
            refuse("index: name %u is out of order or occurs twice", i);
        if (n->tensor >= g.tensor_count)
            refuse("index: name %u: there is no tensor %u", i, n->tensor);
        const char *name = g.tensors[n->tensor].name;
        if (n->hash != XXH3_64bits_withSeed(name, strlen(name), 0))
            refuse("index: name %u is not the hash of its tensor's name", i);
    }
}

static void read_index(void)
{
    const u8 *head = g.index.bytes;

    if (g.index.size < 32)
        refuse("index: too short for its head");
    g.part_count = get_u32(head);
    g.extent_count = get_u32(head + 4);
    g.tensor_count = get_u32(head + 8);
    g.plane_count = get_u32(head + 12);
    g.shape_count = get_u32(head + 16);
    g.label_count = get_u32(head + 20);
    const u32 string_bytes = get_u32(head + 24);
    check_zero_u32(head + 28, "index: head", 0);
    if (g.part_count != 1 || g.label_count > 256)
        refuse("index: %u parts and %u labels, not 1 and at most 256", g.part_count, g.label_count);
    if (g.tensor_count == 0 || g.tensor_count >> 30 != 0 || g.extent_count >> 30 != 0)
        refuse("index: %u tensors in %u extents", g.tensor_count, g.extent_count);

    const u64 parts = 32;
    const u64 extents = parts + 32 * (u64)g.part_count;
    const u64 tensors = extents + 48 * (u64)g.extent_count;
    const u64 planes = tensors + 88 * (u64)g.tensor_count;
    const u64 shapes = planes + 24 * (u64)g.plane_count;
    const u64 labels = shapes + 72 * (u64)g.shape_count;
    const u64 names = labels + 8 * (u64)g.label_count;
    const u64 strings_at = names + 16 * (u64)g.tensor_count;
    if (strings_at + string_bytes != g.index.size)
        refuse("index: its counts do not add up to its size");

    const struct strings strings = read_strings(head + strings_at, string_bytes, "index");
    read_part(head + parts);
    read_extents(head + extents, strings);
    read_shapes(head + shapes);
    read_labels(head + labels, strings);
    read_planes(head + planes);
    read_tensors(head + tensors, strings);
    read_names(head + names);
}

// ---------------------------------------------------------------------------------------------
// Metadata (C 7)

static void read_summary(const u8 *m, struct strings strings)
{
    for (u32 at = 12; at <= 28; at += 4)
        (void)get_string(strings, m + at, "metadata: summary");
    for (u32 at = 32; at <= 72; at += 8)
        if (get_u64(m + at) >> 63 != 0)
            refuse("metadata: the count at %u is 2^63 or more", at);
    if (get_u64(m + 88) != 0)
        refuse("metadata: reserved bytes are not zero");
}

static void read_shards(const u8 *p, u32 count, struct strings strings)
{
    for (u32 i = 0; i < count; i++, p += 32) {
        (void)get_string(strings, p, "metadata: name of a shard");
        check_zero_u32(p + 4, "metadata: shard", i);
    }
}

static u64 read_carried(u32 i, const u8 *p, struct strings strings, u64 frame_offset)
{
    struct carried *f = &g.files[i];

    f->name = get_string(strings, p, "metadata: name of a file");
    f->frame_offset = get_u64(p + 8);
    f->frame_bytes = get_u64(p + 16);
    f->bytes = get_u64(p + 24);
    f->hash = p + 32;
    check_zero_u32(p + 4, "metadata: file", i);
    if (f->name[0] == '\0' || (i > 0 && strcmp(f->name, g.files[i - 1].name) <= 0))
        refuse("metadata: file %u has no name or is out of order", i);
    if (f->frame_offset != frame_offset)
        refuse("metadata: frame %u does not begin where the one before ends", i);
    if (f->frame_bytes > g.metadata.size - frame_offset)
        refuse("metadata: frame %u is past the end of the section", i);
    return frame_offset + f->frame_bytes;
}

static void read_metadata(void)
{
    const u8 *m = g.metadata.bytes;

    if (g.metadata.size < 96)
        refuse("metadata: too short for its summary");
    g.file_count = get_u32(m);
    const u32 shards = get_u32(m + 4), string_bytes = get_u32(m + 8);
    const u64 files_at = 96 + 32 * (u64)shards;
    const u64 strings_at = files_at + 48 * (u64)g.file_count;
    if (strings_at + string_bytes > g.metadata.size)
        refuse("metadata: its counts do not fit");
    const struct strings strings = read_strings(m + strings_at, string_bytes, "metadata");
    read_summary(m, strings);
    read_shards(m + 96, shards, strings);
    g.files = allocate(g.file_count * sizeof *g.files);
    u64 end = strings_at + string_bytes;
    for (u32 i = 0; i < g.file_count; i++)
        end = read_carried(i, m + files_at + (u64)48 * i, strings, end);
    if (g.metadata.size - end > 7 || !all_zero(m + end, g.metadata.size - end))
        refuse("metadata: what follows the frames is not padding");
}

// One zstd frame with its content size, no dictionary (C 7, RFC 8878 section 3.1.1.1)
static u8 *inflate(const struct carried *f)
{
    const u8 *frame = g.metadata.bytes + f->frame_offset;
    const size_t frame_bytes = (size_t)f->frame_bytes;

    if (frame_bytes < 5 || get_u32(frame) != 0xFD2FB528)
        refuse("metadata: the frame of file %s is not zstd", f->name);
    if ((frame[4] & 3) != 0)
        refuse("metadata: the frame of file %s needs a dictionary", f->name);
    if (ZSTD_findFrameCompressedSize(frame, frame_bytes) != frame_bytes)
        refuse("metadata: file %s is not exactly one frame", f->name);
    if (ZSTD_getFrameContentSize(frame, frame_bytes) != f->bytes)
        refuse("metadata: the frame of file %s has another content size", f->name);
    u8 *bytes = allocate(f->bytes);
    if (ZSTD_decompress(bytes, (size_t)f->bytes, frame, frame_bytes) != f->bytes)
        refuse("metadata: file %s does not inflate", f->name);
    if (!hash_is(f->hash, XXH3_128bits(bytes, (size_t)f->bytes)))
        refuse("metadata: file %s is damaged: its hash does not match", f->name);
    return bytes;
}

// ---------------------------------------------------------------------------------------------
// Identity (C 8)

static void add_u64(XXH3_state_t *state, u64 value)
{
    u8 bytes[8];

    put_u64(bytes, value);
    (void)XXH3_128bits_update(state, bytes, sizeof bytes);
}

static void check_identity(void)
{
    XXH3_state_t *state = XXH3_createState();
    const u64 skipped = 32 + 32 * (u64)g.part_count; // the head and the part table
    const u64 x = g.index.size - skipped;

    if (state == NULL)
        refuse("no memory");
    (void)XXH3_128bits_reset(state);
    add_u64(state, x);
    add_u64(state, g.checksums.size);
    add_u64(state, g.file_count);
    (void)XXH3_128bits_update(state, g.index.bytes + skipped, (size_t)x);
    (void)XXH3_128bits_update(state, g.checksums.bytes, (size_t)g.checksums.size);
    for (u32 i = 0; i < g.file_count; i++) {
        const struct carried *f = &g.files[i];

        (void)XXH3_128bits_update(state, f->name, strlen(f->name) + 1);
        add_u64(state, f->bytes);
        (void)XXH3_128bits_update(state, f->hash, 16);
    }
    if (!hash_is(g.bytes + 64, XXH3_128bits_digest(state)))
        refuse("header: the identity is not that of the content");
    (void)XXH3_freeState(state);
}

static void open_container(void) // C 2, order of checks
{
    map_file();
    check_magic();
    check_header_hash();
    check_header_fields();
    read_section_table();
    check_section_hashes();
    read_index();
    read_metadata();
    check_identity();
}

// ---------------------------------------------------------------------------------------------
// Chunks (C 4)

struct chunk {
    u64 number, address, size;
};

static struct chunk chunk_at(u64 address)
{
    u32 e = 0;

    while (address - g.extents[e].address >= g.extents[e].size)
        e++;
    const u64 k = (address - g.extents[e].address) / g.chunk_bytes;
    const u64 start = k * g.chunk_bytes, left = g.extents[e].size - start;
    return (struct chunk){g.extents[e].first_chunk + k, g.extents[e].address + start,
                          left < g.chunk_bytes ? left : g.chunk_bytes};
}

static bool overlaps(struct chunk c, u32 plane)
{
    const struct plane *p = &g.planes[plane];

    return p->address < c.address + c.size && c.address < p->address + p->size;
}

static bool tensor_in_chunk(struct chunk c, const struct tensor *t)
{
    for (u32 k = 0; k < SLOTS; k++)
        if (t->planes[k] != NONE && overlaps(c, t->planes[k]))
            return true;
    return false;
}

// A name that may be shown anywhere: printable ASCII but the backslash, other bytes as \xNN (C 10).
static void print_name(FILE *out, const char *name)
{
    for (const u8 *p = (const u8 *)name; *p != 0; p++)
        if (*p >= 32 && *p < 127 && *p != '\\')
            (void)fputc(*p, out);
        else
            (void)fprintf(out, "\\x%02x", *p);
}

// "tensors" and the names of those with a plane in the chunk, or "padding"
static void print_chunk_owner(FILE *out, struct chunk c)
{
    bool any = false;

    for (u32 i = 0; i < g.tensor_count; i++) {
        if (!tensor_in_chunk(c, &g.tensors[i]))
            continue;
        (void)fputs(any ? "\t" : "tensors\t", out);
        print_name(out, g.tensors[i].name);
        any = true;
    }
    if (!any)
        (void)fputs("padding", out);
}

static void check_chunk(struct chunk c)
{
    const u64 stored = get_u64(g.checksums.bytes + 8 * c.number);

    if (XXH3_64bits_withSeed(g.payload.bytes + c.address, (size_t)c.size, c.number) == stored)
        return;
    (void)fflush(stdout);
    (void)fprintf(stderr, "decoder: %s: chunk %llu is damaged: ", g_path,
                  (unsigned long long)c.number);
    print_chunk_owner(stderr, c);
    (void)fputc('\n', stderr);
    exit(1);
}

static void check_chunks_of(const struct plane *p)
{
    const u64 end = p->address + p->size;

    for (u64 at = p->address; at < end;) {
        const struct chunk c = chunk_at(at);

        check_chunk(c);
        at = c.address + c.size;
    }
}

static void check_all_chunks(void)
{
    for (u64 at = 0; at < g.payload.size;) {
        const struct chunk c = chunk_at(at);

        check_chunk(c);
        at = c.address + c.size;
    }
}

// ---------------------------------------------------------------------------------------------
// Numbers (Q 2)

static float flush_subnormal(float x)
{
    const u32 u = bits_of(x);

    return (u & 0x7F800000) == 0 ? float_of(u & 0x80000000) : x;
}

static float round_to_bf16(float x)
{
    const u32 u = bits_of(x);

    if (isnan(x))
        return float_of((u & 0xFFFF0000) | 0x00400000);
    return float_of((u + 0x7FFF + ((u >> 16) & 1)) & 0xFFFF0000);
}

static u32 widen_f16(u16 h) // binary16 to the bits of the equal binary32
{
    const u32 sign = (u32)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3FF;

    if (exponent == 31)
        return sign | 0x7F800000 | mantissa << 13;
    if (exponent != 0)
        return sign | (exponent + 112) << 23 | mantissa << 13;
    return sign | bits_of((float)mantissa * 0x1p-24F);
}

// ---------------------------------------------------------------------------------------------
// Decoding a tensor

static const u8 *plane_bytes(const struct tensor *t, u32 kind)
{
    return t->planes[kind] == NONE ? NULL : g.payload.bytes + g.planes[t->planes[kind]].address;
}

// Q 2. Each operation is a statement of its own, so that no compiler may fuse two.
static float nf4_scale(const struct tensor *t, u64 block)
{
    const u8 *scale = plane_bytes(t, SCALE);

    if (t->nested == 0)
        return get_f32(scale + 4 * block);
    const float mapped = get_f32(plane_bytes(t, MAP) + (u64)4 * scale[block]);
    const float absmax = get_f32(plane_bytes(t, SCALE2) + 4 * (block / t->nested));
    const float product = mapped * absmax;
    const float flushed = flush_subnormal(product);
    const float sum = flushed + get_f32(plane_bytes(t, OFFSET));
    return sum;
}

static u32 nf4_element(const struct tensor *t, u64 i) // Q 1 and 2; i counts along the block axis
{
    const u8 byte = plane_bytes(t, CODES)[i / 2];
    const u32 code = i % 2 == 0 ? byte >> 4 : byte & 15;
    const float value = get_f32(plane_bytes(t, CODEBOOK) + 4 * code);
    const float product = value * nf4_scale(t, i / t->block);

    return bits_of(round_to_bf16(flush_subnormal(product)));
}

// C 6: the number that row-major element r has when the block axis is moved to the end
static u64 along_block_axis(const struct tensor *t, u64 r)
{
    const struct shape *s = &g.shapes[t->shape];
    u64 inner = 1;

    if (t->axis < 0)
        return r;
    for (u64 k = (u64)t->axis + 1; k < s->rank; k++)
        inner *= s->dims[k];
    const u64 length = s->dims[t->axis];
    const u64 j = r % inner, l = r / inner % length, outer = r / inner / length;
    return (outer * inner + j) * length + l;
}

static u32 raw_element(const struct tensor *t, u64 i)
{
    const u8 *codes = plane_bytes(t, CODES);

    switch (t->source_type) {
    case F32:
        return get_u32(codes + 4 * i);
    case BF16:
        return (u32)get_u16(codes + 2 * i) << 16;
    case F16:
        return widen_f16(get_u16(codes + 2 * i));
    default:
        refuse("its elements are no floating-point numbers of 16 or 32 bits");
    }
}

static const struct tensor *find_tensor(const char *name) // C 5.7: binary search
{
    const u64 hash = XXH3_64bits_withSeed(name, strlen(name), 0);
    u32 low = 0, high = g.tensor_count;

    while (low < high) {
        const u32 middle = low + (high - low) / 2;

        if (g.names[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == g.tensor_count || strcmp(g.tensors[g.names[low].tensor].name, name) != 0)
        refuse("has no tensor %s", name);
    return &g.tensors[g.names[low].tensor];
}

static void write_bytes(const void *bytes, u64 size)
{
    if (fwrite(bytes, 1, (size_t)size, stdout) != size)
        refuse("cannot write to stdout");
}

static void print_tensor(const char *name)
{
    const struct tensor *t = find_tensor(name);
    const u64 n = g.shapes[t->shape].elements;

    for (u32 k = 0; k < SLOTS; k++)
        if (t->planes[k] != NONE)
            check_chunks_of(&g.planes[t->planes[k]]);
    for (u64 r = 0; r < n; r++) {
        u8 bytes[4];

        put_u32(bytes,
                t->encoding == RAW ? raw_element(t, r) : nf4_element(t, along_block_axis(t, r)));
        write_bytes(bytes, sizeof bytes);
    }
}

// ---------------------------------------------------------------------------------------------
// The other commands

static void print_shape(const struct shape *s)
{
    (void)putchar('[');
    for (u64 k = 0; k < s->rank; k++)
        (void)printf("%s%llu", k > 0 ? "," : "", (unsigned long long)s->dims[k]);
    (void)putchar(']');
}

static void print_tensor_line(const struct tensor *t)
{
    static const char *const TYPES[] = {"?",    "u8",  "i8",  "i16",  "i32",     "i64",    "f16",
                                        "bf16", "f32", "f64", "bool", "f8_e4m3", "f8_e5m2"};
    static const char *const KINDS[] = {"codes", "scale", "scale2", "offset", "codebook", "map"};

    (void)printf("tensor\t");
    print_name(stdout, t->name);
    (void)printf("\t%d\t", t->layer);
    print_name(stdout, g.labels[t->label]);
    (void)printf("\t%d\t%s\t%s\t", t->expert, t->encoding == RAW ? "raw" : "nf4",
                 TYPES[t->source_type]);
    print_shape(&g.shapes[t->shape]);
    for (u32 k = 0; k < PLANE_KINDS; k++) {
        if (t->planes[k] == NONE)
            continue;
        const struct plane *p = &g.planes[t->planes[k]];
        (void)printf("\t%s %llu %llu", KINDS[k], (unsigned long long)p->address,
                     (unsigned long long)p->size);
    }
    (void)putchar('\n');
}

static void print_list(void)
{
    for (u32 i = 0; i < g.tensor_count; i++)
        print_tensor_line(&g.tensors[i]);
    for (u32 i = 0; i < g.extent_count; i++) {
        const struct extent *e = &g.extents[i];

        (void)printf("extent\t%llu\t%llu\t", (unsigned long long)e->address,
                     (unsigned long long)e->size);
        print_name(stdout, e->kind);
        (void)printf("\t%d\t%d\n", e->layer, e->expert);
    }
}

static void print_files(void)
{
    for (u32 i = 0; i < g.file_count; i++) {
        (void)printf("file\t");
        print_name(stdout, g.files[i].name);
        (void)printf("\t%llu\n", (unsigned long long)g.files[i].bytes);
    }
}

static void print_file(const char *name)
{
    for (u32 i = 0; i < g.file_count; i++) {
        if (strcmp(g.files[i].name, name) != 0)
            continue;
        u8 *bytes = inflate(&g.files[i]);
        write_bytes(bytes, g.files[i].bytes);
        free(bytes);
        return;
    }
    refuse("carries no file %s", name);
}

static void print_range(u64 begin, u64 end)
{
    (void)printf("%llu\t%llu\t", (unsigned long long)begin, (unsigned long long)end);
}

// Prints the range that `offset` belongs to, and returns its end (C 1 and 4).
static u64 print_owner(u64 offset)
{
    u32 i = 0;

    if (offset < HEADER_BYTES) {
        print_range(0, HEADER_BYTES);
        (void)puts("header");
        return HEADER_BYTES;
    }
    while (offset - g.sections[i].offset >= g.sections[i].size)
        i++;
    const struct section *s = &g.sections[i];
    if (s->type != PAYLOAD) {
        print_range(s->offset, s->offset + s->size);
        (void)puts(section_name(s->type));
        return s->offset + s->size;
    }
    const struct chunk c = chunk_at(offset - s->offset);
    const u64 begin = s->offset + c.address;
    print_range(begin, begin + c.size);
    print_chunk_owner(stdout, c);
    (void)putchar('\n');
    return begin + c.size;
}

static void print_owner_of(const char *text)
{
    char *end = NULL;
    const unsigned long long offset = strtoull(text, &end, 0);

    if (end == text || *end != '\0' || offset >= g.size)
        refuse("has no byte %s", text);
    (void)print_owner(offset);
}

static void print_owners(void)
{
    for (u64 at = 0; at < g.size;)
        at = print_owner(at);
}

static void verify(void)
{
    check_all_chunks();
    for (u32 i = 0; i < g.file_count; i++)
        free(inflate(&g.files[i]));
    (void)printf("whole: %u tensors, %llu chunks, %u files\n", g.tensor_count,
                 (unsigned long long)g.chunk_count, g.file_count);
}

// ---------------------------------------------------------------------------------------------

static int usage(void)
{
    (void)fputs("usage: decoder list|files|owners|verify FILE\n"
                "       decoder tensor|file FILE NAME\n"
                "       decoder owner FILE OFFSET\n",
                stderr);
    return 2;
}

static void run_plain(void (*command)(void))
{
    open_container();
    command();
}

static void run_with(void (*command)(const char *), const char *argument)
{
    open_container();
    command(argument);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*plain)(void);
        void (*with)(const char *);
    } COMMANDS[] = {
        {"list", print_list, NULL},      {"files", print_files, NULL},
        {"owners", print_owners, NULL},  {"verify", verify, NULL},
        {"tensor", NULL, print_tensor},  {"file", NULL, print_file},
        {"owner", NULL, print_owner_of},
    };

    for (size_t i = 0; argc >= 3 && i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
        if (strcmp(argv[1], COMMANDS[i].name) != 0 || argc != (COMMANDS[i].plain != NULL ? 3 : 4))
            continue;
        g_path = argv[2];
        if (COMMANDS[i].plain != NULL)
            run_plain(COMMANDS[i].plain);
        else
            run_with(COMMANDS[i].with, argv[3]);
        if (fflush(stdout) != 0)
            refuse("cannot write to stdout");
        return 0;
    }
    return usage();
}
