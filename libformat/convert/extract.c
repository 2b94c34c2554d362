#include "libformat/convert/extract.h"

#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"
#include "libformat/convert/entry_decode.h"
#include "libformat/convert/npy.h"
#include "libformat/hf/safetensors.h"

enum { SPAN = 1 << 18 }; /* elements decoded at once, whole blocks */
static const uint64_t COPY_BYTES = 8u << 20;

/* One tensor of the output: bytes of a plane (data set), or elements to be decoded. */
struct piece {
    struct sf_named_tensor out;
    const struct sf_entry *entry;
    int64_t first, count; /* elements */
};

struct run {
    const struct sf_map *map;
    const struct sf_extract_options *options;
    struct sf_arena arena;
    struct sf_named_tensor *named; /* the pieces' heads, as the header wants them */
    struct piece *piece;
    int64_t pieces;
    bool npy;
    struct sf_out *out;
    float *decoded;
    unsigned char *encoded;
};

/* ---- which rows ---- */

/* The shape of the cut, and its elements first .. first + count of the whole. */
static int cut_rows(struct sf_shape *shape, int64_t *first, int64_t *count,
                    const struct sf_entry *e, const struct sf_extract_options *o,
                    struct sf_err *err)
{
    int64_t all = 0;
    *shape = e->shape;
    sf_shape_count(&all, shape); /* the index was checked: it fits */
    *first = 0;
    *count = all;
    if (o->end_row == 0)
        return SF_OK;
    int64_t rows = shape->rank > 0 ? shape->dim[0] : 0;
    if (rows < 1 || o->first_row < 0 || o->end_row > rows || o->first_row >= o->end_row)
        return sf_fail(err, SF_EINVAL, "%s: rows %lld to %lld of %lld", e->name,
                       (long long)o->first_row, (long long)o->end_row, (long long)rows);
    shape->dim[0] = o->end_row - o->first_row;
    *first = all / rows * o->first_row;
    *count = all / rows * shape->dim[0];
    return SF_OK;
}

/* ---- pieces ---- */

static struct piece *add(struct run *run, const char *name, enum sf_dtype dtype,
                         const struct sf_shape *shape, const void *data)
{
    struct piece *p = &run->piece[run->pieces++];
    p->out = (struct sf_named_tensor){name, {.dtype = dtype, .shape = *shape, .data = data}};
    sf_shape_bytes(&p->out.tensor.bytes, shape, dtype);
    return p;
}

static int add_numbers(struct run *run, const struct sf_entry *e, struct sf_err *err)
{
    struct sf_shape shape;
    int64_t first, count;
    int code = cut_rows(&shape, &first, &count, e, run->options, err);
    if (code != SF_OK)
        return code;
    enum sf_dtype dtype = run->options->form == SF_EXTRACT_BF16 ? SF_BF16 : SF_F32;
    struct piece *p = add(run, e->name, dtype, &shape, NULL);
    p->entry = e;
    p->first = first;
    p->count = count;
    return SF_OK;
}

static int add_plane(struct run *run, const struct sf_entry *e, enum sf_plane_kind kind,
                     const char *name, struct sf_err *err)
{
    const struct sf_plane *plane = &e->plane[kind];
    const unsigned char *data = sf_map_bytes(run->map, plane->address);
    struct sf_shape shape = plane->shape;
    if (run->options->end_row == 0) {
        add(run, name, plane->dtype, &shape, data);
        return SF_OK;
    }
    int64_t first, count;
    int code = cut_rows(&shape, &first, &count, e, run->options, err);
    if (code != SF_OK)
        return code;
    uint64_t size = sf_dtype_bytes(plane->dtype);
    if (e->encoding != SF_ENCODING_RAW) { /* two codes a byte */
        if (kind != SF_PLANE_CODES || first % 2 || count % 2)
            return sf_fail(err, SF_EINVAL,
                           "%s: these rows are no whole bytes of the plane %s; take them decoded, "
                           "or the plane whole",
                           e->name, sf_plane_name(kind));
        first /= 2;
        shape = (struct sf_shape){1, {count / 2}};
    }
    add(run, name, plane->dtype, &shape, data + (uint64_t)first * size);
    return SF_OK;
}

static int add_raw(struct run *run, const struct sf_entry *e, struct sf_err *err)
{
    const char *want = run->options->plane ? run->options->plane : run->npy ? "codes" : NULL;
    int64_t before = run->pieces;
    int code = SF_OK;
    for (int k = 0; k < SF_PLANE_COUNT && code == SF_OK; k++) {
        if (e->plane[k].dtype == SF_DTYPE_NONE || (want && strcmp(want, sf_plane_name(k)) != 0))
            continue;
        const char *name = e->encoding == SF_ENCODING_RAW
                               ? e->name
                               : sf_arena_printf(&run->arena, "%s.%s", e->name, sf_plane_name(k));
        if (!name)
            return sf_fail(err, SF_ENOMEM, "no memory for names");
        code = add_plane(run, e, k, name, err);
    }
    if (code == SF_OK && run->pieces == before)
        code = sf_fail(err, SF_EINVAL, "%s: has no plane \"%s\"", e->name, want ? want : "codes");
    return code;
}

/* ---- writing ---- */

static int write_bytes(struct run *run, const void *data, uint64_t bytes, struct sf_err *err)
{
    int code = SF_OK;
    for (uint64_t at = 0; at < bytes && code == SF_OK; at += COPY_BYTES)
        code = sf_out_append(run->out, (const unsigned char *)data + at,
                             bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES, err);
    return code;
}

static void put_elements(unsigned char *out, const float *in, int64_t count, enum sf_dtype dtype)
{
    for (int64_t i = 0; i < count; i++) {
        if (dtype == SF_BF16)
            sf_put_u16(out + 2 * i, sf_bf16_from_f32(in[i]));
        else
            sf_put_f32(out + 4 * i, in[i]);
    }
}

/* Decoding starts on whole blocks; what lies before the first element is left out. */
static int write_numbers(struct run *run, const struct piece *p, struct sf_err *err)
{
    int64_t end = p->first + p->count, at = p->first / SF_NF4_BLOCK * SF_NF4_BLOCK;
    int code = SF_OK;
    for (; at < end && code == SF_OK; at += SPAN) {
        int64_t n = end - at < SPAN ? end - at : SPAN, skip = at < p->first ? p->first - at : 0;
        code = sf_entry_decode(run->decoded, run->map, p->entry, at, n, err);
        if (code != SF_OK)
            break;
        put_elements(run->encoded, run->decoded + skip, n - skip, p->out.tensor.dtype);
        code = sf_out_append(run->out, run->encoded,
                             (uint64_t)(n - skip) * sf_dtype_bytes(p->out.tensor.dtype), err);
    }
    return code;
}

static int write_header(struct run *run, struct sf_err *err)
{
    char *text;
    uint64_t bytes;
    int code;
    if (run->npy)
        code = sf_npy_header(&text, &bytes, &run->arena, run->piece[0].out.tensor.dtype,
                             &run->piece[0].out.tensor.shape, err);
    else
        code = sf_safetensors_header(&text, &bytes, &run->arena, run->named, run->pieces, err);
    return code == SF_OK ? sf_out_append(run->out, text, bytes, err) : code;
}

static int write_all(struct run *run, const char *path, struct sf_err *err)
{
    int code = sf_out_open(&run->out, path, err);
    if (code != SF_OK)
        return code;
    code = write_header(run, err);
    for (int64_t i = 0; i < run->pieces && code == SF_OK; i++) {
        const struct piece *p = &run->piece[i];
        code = p->entry ? write_numbers(run, p, err)
                        : write_bytes(run, p->out.tensor.data, p->out.tensor.bytes, err);
    }
    if (code == SF_OK)
        code = sf_map_check(run->map, err);
    if (code == SF_OK)
        return sf_out_commit(run->out, err);
    sf_out_abort(run->out);
    return code;
}

static bool ends_in(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && strcmp(path + n - m, suffix) == 0;
}

static int plan(struct run *run, const struct sf_entry *const *entry, int64_t count,
                struct sf_err *err)
{
    uint64_t most = (uint64_t)count * SF_PLANE_COUNT;
    int code = SF_OK;
    run->piece = sf_arena_array(&run->arena, most, sizeof *run->piece);
    run->named = sf_arena_array(&run->arena, most, sizeof *run->named);
    run->decoded = sf_arena_array(&run->arena, SPAN, sizeof *run->decoded);
    run->encoded = sf_arena_array(&run->arena, SPAN, sizeof(float));
    if (!run->piece || !run->named || !run->decoded || !run->encoded)
        return sf_fail(err, SF_ENOMEM, "no memory to extract %lld tensors", (long long)count);
    for (int64_t i = 0; i < count && code == SF_OK; i++)
        code = run->options->form == SF_EXTRACT_RAW ? add_raw(run, entry[i], err)
                                                    : add_numbers(run, entry[i], err);
    for (int64_t i = 0; i < run->pieces; i++)
        run->named[i] = run->piece[i].out;
    return code;
}

int sf_extract(const char *path, const struct sf_map *map, const struct sf_entry *const *entry,
               int64_t count, const struct sf_extract_options *options, struct sf_err *err)
{
    struct run run = {.map = map, .options = options, .npy = ends_in(path, ".npy")};
    if (!run.npy && !ends_in(path, ".safetensors"))
        return sf_fail(err, SF_EINVAL, "%s: the name must end in .npy or .safetensors", path);
    if (run.npy && count != 1)
        return sf_fail(err, SF_EINVAL, "%s: a .npy takes one tensor, not %lld", path,
                       (long long)count);
    int code = plan(&run, entry, count, err);
    if (code == SF_OK)
        code = write_all(&run, path, err);
    sf_arena_free(&run.arena);
    return code;
}
