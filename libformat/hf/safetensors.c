#include "libformat/hf/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/base/map_guard.h"
#include "libformat/base/mem.h"

static const uint64_t LARGEST_HEADER = 100000000; /* the format's own limit */

struct sf_safetensors {
    struct sf_arena arena; /* names, arrays */
    struct sf_mapping mapping;
    bool is_there;             /* else the mapping is addresses without a file */
    const unsigned char *head; /* length and header: the mapping's, or a copy */
    uint64_t head_bytes;
    char *path;
    int64_t count;
    struct sf_named_tensor *by_offset;
    const struct sf_named_tensor **by_name;
};

/* What a checkout without Git LFS leaves in place of the data. */
static bool is_lfs_pointer(const unsigned char *head, uint64_t file_bytes)
{
    static const char mark[] = "version https://git-lfs";
    return file_bytes >= sizeof mark - 1 && memcmp(head, mark, sizeof mark - 1) == 0;
}

/* header[0..*bytes) behind the 8-byte length. */
static int find_header(const char **header, uint64_t *bytes, const unsigned char *head,
                       uint64_t file_bytes, struct sf_err *err)
{
    if (file_bytes < 8)
        return sf_fail(err, SF_EFORMAT, "%llu bytes, too short for a safetensors file",
                       (unsigned long long)file_bytes);
    if (is_lfs_pointer(head, file_bytes))
        return sf_fail(err, SF_EFORMAT,
                       "a Git LFS pointer of %llu bytes, not the data (run git lfs pull)",
                       (unsigned long long)file_bytes);
    *bytes = sf_get_u64(head);
    if (*bytes > LARGEST_HEADER)
        return sf_fail(err, SF_EFORMAT, "header of %llu bytes, the format allows %llu",
                       (unsigned long long)*bytes, (unsigned long long)LARGEST_HEADER);
    if (*bytes > file_bytes - 8)
        return sf_fail(err, SF_EFORMAT, "header of %llu bytes, but only %llu follow",
                       (unsigned long long)*bytes, (unsigned long long)(file_bytes - 8));
    *header = (const char *)head + 8;
    if (*bytes < 2 || **header != '{')
        return sf_fail(err, SF_EFORMAT, "the header does not start with '{'");
    return SF_OK;
}

static int parse_shape(struct sf_shape *out, const struct sf_json *json, struct sf_err *err)
{
    if (!json || sf_json_type(json) != SF_JSON_ARRAY)
        return sf_fail(err, SF_EFORMAT, "shape is missing or not an array");
    int64_t rank = sf_json_count(json);
    if (rank > SF_MAX_RANK)
        return sf_fail(err, SF_EUNSUPPORTED, "%lld dimensions, at most %d are handled",
                       (long long)rank, SF_MAX_RANK);
    *out = (struct sf_shape){.rank = (int32_t)rank};
    int i = 0;
    for (const struct sf_json *v = sf_json_first(json); v; v = sf_json_next(v), i++) {
        int code = sf_json_as_int(&out->dim[i], v, "a dimension", err);
        if (code != SF_OK)
            return code;
        if (out->dim[i] < 0)
            return sf_fail(err, SF_EFORMAT, "dimension %d is %lld", i, (long long)out->dim[i]);
    }
    return SF_OK;
}

/* data_offsets [begin, end) inside the data area. */
static int parse_range(uint64_t *begin, uint64_t *bytes, const struct sf_json *json,
                       uint64_t data_bytes, struct sf_err *err)
{
    int64_t from, to;
    if (!json || sf_json_type(json) != SF_JSON_ARRAY || sf_json_count(json) != 2)
        return sf_fail(err, SF_EFORMAT, "data_offsets is not a pair");
    const struct sf_json *first = sf_json_first(json);
    int code = sf_json_as_int(&from, first, "data_offsets[0]", err);
    if (code == SF_OK)
        code = sf_json_as_int(&to, sf_json_next(first), "data_offsets[1]", err);
    if (code != SF_OK)
        return code;
    if (from < 0 || to < from || (uint64_t)to > data_bytes)
        return sf_fail(err, SF_EFORMAT,
                       "range %lld..%lld lies outside the %llu bytes of data (is the file cut?)",
                       (long long)from, (long long)to, (unsigned long long)data_bytes);
    *begin = (uint64_t)from;
    *bytes = (uint64_t)(to - from);
    return SF_OK;
}

static int parse_tensor(struct sf_tensor *out, const struct sf_json *json,
                        const unsigned char *data, uint64_t data_bytes, struct sf_err *err)
{
    if (sf_json_type(json) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "described by %s, not by an object",
                       sf_json_type_name(sf_json_type(json)));
    const char *dtype;
    uint64_t begin = 0, need;
    char shape[SF_SHAPE_TEXT];
    int code = sf_json_as_string(&dtype, sf_json_get(json, "dtype"), "dtype", err);
    if (code == SF_OK && (out->dtype = sf_dtype_from_safetensors(dtype)) == SF_DTYPE_NONE)
        code = sf_fail(err, SF_EUNSUPPORTED, "unknown dtype \"%s\"", dtype);
    if (code == SF_OK)
        code = parse_shape(&out->shape, sf_json_get(json, "shape"), err);
    if (code == SF_OK)
        code = parse_range(&begin, &out->bytes, sf_json_get(json, "data_offsets"), data_bytes, err);
    if (code != SF_OK)
        return code;
    sf_shape_format(shape, &out->shape);
    if (!sf_shape_bytes(&need, &out->shape, out->dtype))
        return sf_fail(err, SF_EFORMAT, "shape %s is too large", shape);
    if (need != out->bytes)
        return sf_fail(err, SF_EFORMAT, "%s %s needs %llu bytes, its range holds %llu", shape,
                       sf_dtype_name(out->dtype), (unsigned long long)need,
                       (unsigned long long)out->bytes);
    out->data = data + begin;
    return SF_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct sf_named_tensor *x = a, *y = b;
    const unsigned char *from_x = x->tensor.data, *from_y = y->tensor.data;
    if (from_x != from_y)
        return from_x < from_y ? -1 : 1;
    if (x->tensor.bytes != y->tensor.bytes) /* empty tensors stand before what starts there */
        return x->tensor.bytes < y->tensor.bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b)
{
    const struct sf_named_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Ranges follow each other without overlap or hole and end with the file. */
static int check_cover(const struct sf_safetensors *f, const unsigned char *data,
                       uint64_t data_bytes, struct sf_err *err)
{
    const unsigned char *next = data;
    for (int64_t i = 0; i < f->count; i++) {
        const struct sf_named_tensor *t = &f->by_offset[i];
        const unsigned char *begin = t->tensor.data;
        if (begin != next)
            return sf_fail(err, SF_EFORMAT, "%s: starts at byte %lld of the data, %s at %lld",
                           t->name, (long long)(begin - data),
                           begin < next ? "inside another tensor that ends"
                                        : "behind a hole that starts",
                           (long long)(next - data));
        next = begin + t->tensor.bytes;
    }
    if (next != data + data_bytes)
        return sf_fail(err, SF_EFORMAT, "%llu bytes behind the last tensor",
                       (unsigned long long)(data + data_bytes - next));
    return SF_OK;
}

static int read_tensors(struct sf_safetensors *f, const struct sf_json *root,
                        const unsigned char *data, uint64_t data_bytes, struct sf_err *err)
{
    for (const struct sf_json *v = sf_json_first(root); v; v = sf_json_next(v)) {
        const char *name = sf_json_key(v);
        if (strcmp(name, "__metadata__") == 0)
            continue;
        struct sf_named_tensor *t = &f->by_offset[f->count];
        int code = *name ? parse_tensor(&t->tensor, v, data, data_bytes, err)
                         : sf_fail(err, SF_EFORMAT, "a tensor without a name");
        if (code != SF_OK)
            return sf_err_prefix(err, "%s", name);
        if (!(t->name = sf_arena_strdup(&f->arena, name)))
            return sf_fail(err, SF_ENOMEM, "no memory for tensor names");
        f->by_name[f->count++] = t;
    }
    return SF_OK;
}

static int read_header(struct sf_safetensors *f, struct sf_err *err)
{
    const char *header = NULL;
    uint64_t header_bytes = 0;
    struct sf_json *root;
    int code = find_header(&header, &header_bytes, f->head, f->mapping.bytes, err);
    if (code == SF_OK && f->head_bytes != 0 && f->head_bytes != 8 + header_bytes)
        code = sf_fail(err, SF_EFORMAT, "a remembered header of %llu bytes, not %llu",
                       (unsigned long long)f->head_bytes, (unsigned long long)header_bytes + 8);
    f->head_bytes = 8 + header_bytes;
    if (code == SF_OK)
        code = sf_json_parse(&root, header, header_bytes, err);
    if (code != SF_OK)
        return code;
    const unsigned char *data = f->mapping.data + f->head_bytes;
    uint64_t data_bytes = f->mapping.bytes - 8 - header_bytes;
    uint64_t most = (uint64_t)sf_json_count(root);
    f->by_offset = sf_arena_array(&f->arena, most, sizeof *f->by_offset);
    f->by_name = sf_arena_array(&f->arena, most, sizeof *f->by_name);
    if (!f->by_offset || !f->by_name)
        code = sf_fail(err, SF_ENOMEM, "no memory for %llu tensors", (unsigned long long)most);
    if (code == SF_OK)
        code = sf_json_check_unique(root, err);
    if (code == SF_OK)
        code = read_tensors(f, root, data, data_bytes, err);
    sf_json_free(root);
    if (code != SF_OK)
        return code;
    qsort(f->by_offset, (size_t)f->count, sizeof *f->by_offset, compare_offsets);
    qsort(f->by_name, (size_t)f->count, sizeof *f->by_name, compare_names);
    return check_cover(f, data, data_bytes, err);
}

int sf_safetensors_check(const struct sf_safetensors *file, struct sf_err *err)
{
    return file->is_there ? sf_mapping_check(&file->mapping, file->path, err) : SF_OK;
}

/* Path, header and lists of a file whose mapping and head are set. Ends `f` on failure. */
static int finish_open(struct sf_safetensors **out, struct sf_safetensors *f, const char *path,
                       struct sf_err *err)
{
    int code = SF_OK;
    if (!(f->path = sf_arena_strdup(&f->arena, path)))
        code = sf_fail(err, SF_ENOMEM, "%s: no memory for its name", path);
    if (code == SF_OK && (code = read_header(f, err)) != SF_OK)
        sf_err_prefix(err, "%s", path);
    int there = f->path ? sf_safetensors_check(f, err) : SF_OK; /* why it looks malformed, if so */
    if (there != SF_OK)
        code = there;
    if (code != SF_OK) {
        sf_safetensors_close(f);
        return code;
    }
    *out = f;
    return SF_OK;
}

int sf_safetensors_open(struct sf_safetensors **out, const char *path, struct sf_err *err)
{
    struct sf_safetensors *f = sf_alloc(sizeof *f);
    if (!f)
        return sf_fail(err, SF_ENOMEM, "%s: no memory for a file handle", path);
    int code = sf_map_file(&f->mapping, path, err); /* its messages name the path */
    if (code != SF_OK) {
        sf_safetensors_close(f);
        return code;
    }
    f->is_there = true;
    f->head = f->mapping.data;
    return finish_open(out, f, path, err);
}

int sf_safetensors_open_remembered(struct sf_safetensors **out, const char *path, const void *head,
                                   uint64_t head_bytes, uint64_t file_bytes, struct sf_err *err)
{
    if (head_bytes < 8 || head_bytes > file_bytes)
        return sf_fail(err, SF_EFORMAT, "%s: remembered as %llu bytes of %llu", path,
                       (unsigned long long)head_bytes, (unsigned long long)file_bytes);
    struct sf_safetensors *f = sf_alloc(sizeof *f);
    unsigned char *copy = f ? sf_arena_alloc(&f->arena, head_bytes) : NULL;
    int code = SF_OK;
    if (!copy)
        code = sf_fail(err, SF_ENOMEM, "%s: no memory for a file handle", path);
    if (code == SF_OK && (code = sf_mapping_reserve(&f->mapping, file_bytes, err)) != SF_OK)
        sf_err_prefix(err, "%s", path);
    if (code != SF_OK) {
        sf_safetensors_close(f);
        return code;
    }
    memcpy(copy, head, head_bytes);
    f->head = copy;
    f->head_bytes = head_bytes;
    return finish_open(out, f, path, err);
}

int sf_safetensors_open_expected(struct sf_safetensors **out, const char *path,
                                 const char *const *names, int64_t count, struct sf_err *err)
{
    struct sf_safetensors *f = sf_alloc(sizeof *f);
    if (!f)
        return sf_fail(err, SF_ENOMEM, "%s: no memory for a file handle", path);
    f->path = sf_arena_strdup(&f->arena, path);
    f->by_offset = sf_arena_array(&f->arena, (uint64_t)count, sizeof *f->by_offset);
    f->by_name = sf_arena_array(&f->arena, (uint64_t)count, sizeof *f->by_name);
    bool good = f->path && f->by_offset && f->by_name;
    for (; good && f->count < count; f->count++) {
        f->by_name[f->count] = &f->by_offset[f->count];
        f->by_offset[f->count].name = sf_arena_strdup(&f->arena, names[f->count]);
        good = f->by_offset[f->count].name != NULL;
    }
    if (!good) {
        sf_safetensors_close(f);
        return sf_fail(err, SF_ENOMEM, "%s: no memory for %lld tensors", path, (long long)count);
    }
    qsort(f->by_name, (size_t)f->count, sizeof *f->by_name, compare_names);
    *out = f;
    return SF_OK;
}

int sf_safetensors_forget(struct sf_safetensors *f, struct sf_err *err)
{
    if (!f->is_there)
        return SF_OK;
    unsigned char *copy = sf_arena_alloc(&f->arena, f->head_bytes);
    if (!copy)
        return sf_fail(err, SF_ENOMEM, "%s: no memory for its header", f->path);
    memcpy(copy, f->head, f->head_bytes);
    int code = sf_mapping_vacate(&f->mapping, err);
    if (code != SF_OK)
        return sf_err_prefix(err, "%s", f->path);
    f->head = copy;
    f->is_there = false;
    return SF_OK;
}

bool sf_safetensors_is_there(const struct sf_safetensors *file)
{
    return file->is_there;
}

const void *sf_safetensors_head(uint64_t *head_bytes, const struct sf_safetensors *file)
{
    *head_bytes = file->head_bytes;
    return file->head;
}

void sf_safetensors_close(struct sf_safetensors *file)
{
    if (!file)
        return;
    sf_unmap(&file->mapping);
    sf_arena_free(&file->arena);
    sf_free(file);
}

const char *sf_safetensors_path(const struct sf_safetensors *file)
{
    return file->path;
}

uint64_t sf_safetensors_bytes(const struct sf_safetensors *file)
{
    return file->mapping.bytes;
}

int64_t sf_safetensors_count(const struct sf_safetensors *file)
{
    return file->count;
}

const struct sf_named_tensor *sf_safetensors_at(const struct sf_safetensors *file, int64_t index)
{
    return &file->by_offset[index];
}

const struct sf_tensor *sf_safetensors_find(const struct sf_safetensors *file, const char *name)
{
    struct sf_named_tensor key = {.name = name}, *wanted = &key;
    struct sf_named_tensor **found =
        bsearch(&wanted, file->by_name, (size_t)file->count, sizeof *file->by_name, compare_names);
    return found ? &(*found)->tensor : NULL;
}

void sf_safetensors_release(const struct sf_safetensors *file, const struct sf_tensor *tensor)
{
    const unsigned char *begin = tensor->data;
    sf_mapping_release(&file->mapping, (uint64_t)(begin - file->mapping.data), tensor->bytes);
}

void sf_safetensors_prefetch(const struct sf_safetensors *file, const struct sf_tensor *tensor)
{
    const unsigned char *begin = tensor->data;
    sf_mapping_prefetch(&file->mapping, (uint64_t)(begin - file->mapping.data), tensor->bytes);
}
