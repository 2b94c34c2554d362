#include "libformat/hf/hf_index.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/base/mem.h"

static const char INDEX_NAME[] = "model.safetensors.index.json";
static const char SINGLE_NAME[] = "model.safetensors";
static const uint64_t LARGEST_INDEX = 256u << 20;

struct placed {
    struct sf_named_tensor tensor; /* borrowed from the shard */
    int64_t shard;
};

struct sf_hf_index {
    struct sf_arena arena;
    struct sf_hf_open open;     /* while opening */
    struct sf_mapping supposed; /* addresses of what is expected */
    int64_t shards, count;
    struct sf_hf_shard *shard;
    struct placed *placed; /* sorted by name */
};

static int compare_placed(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    return strcmp(x->tensor.name, y->tensor.name);
}

static const struct placed *find_placed(const struct sf_hf_index *index, const char *name)
{
    struct placed key = {.tensor.name = name};
    return bsearch(&key, index->placed, (size_t)index->count, sizeof key, compare_placed);
}

static const struct sf_hf_memory *find_memory(const struct sf_hf_index *index, const char *name)
{
    for (int64_t i = index->open.memories - 1; i >= 0; i--)
        if (strcmp(index->open.memory[i].name, name) == 0)
            return &index->open.memory[i];
    return NULL;
}

/* Is there a whole file at `path`? What it was when it was remembered it still is. */
static int is_whole(bool *whole, const char **why, const struct sf_hf_index *index,
                    const struct sf_file_stat *stat, const struct sf_hf_memory *m, const char *name,
                    struct sf_err *err)
{
    *whole = true;
    if (!index->open.arrivals ||
        (m && m->modified_ns == stat->modified_ns && m->file_bytes == stat->bytes))
        return SF_OK;
    return sf_arrivals_look(whole, why, index->open.arrivals, name, !index->open.expect, err);
}

/* The file itself, or what is remembered of it, or only the names of its tensors. */
static int open_file(struct sf_hf_shard *out, struct sf_safetensors **file,
                     const struct sf_hf_index *index, const char *path, const char *const *names,
                     int64_t count, struct sf_err *err)
{
    struct sf_file_stat stat = {0};
    const struct sf_hf_memory *m = find_memory(index, out->name);
    bool whole = false;
    int code = sf_file_stat(&stat, path, err);
    if (code != SF_OK && (code != SF_ENOENT || (!m && !index->open.expect)))
        return code;
    bool exists = code == SF_OK;
    out->why = exists ? NULL : "not there";
    code = exists ? is_whole(&whole, &out->why, index, &stat, m, out->name, err) : SF_OK;
    if (code != SF_OK)
        return code;
    if (whole) {
        out->modified_ns = stat.modified_ns;
        return sf_safetensors_open(file, path, err);
    }
    if (m)
        return sf_safetensors_open_remembered(file, path, m->head, m->head_bytes, m->file_bytes,
                                              err);
    out->expected = true;
    if (index->open.expect)
        return sf_safetensors_open_expected(file, path, names, count, err);
    return sf_fail(err, SF_EINVAL, "%s: %s", path, out->why);
}

static int open_shard(struct sf_hf_shard *out, struct sf_hf_index *index, const char *directory,
                      const char *name, const char *const *names, int64_t count, struct sf_err *err)
{
    struct sf_safetensors *file;
    char *path = sf_path_join(&index->arena, directory, name);
    if (!path || !(out->name = sf_arena_strdup(&index->arena, name)))
        return sf_fail(err, SF_ENOMEM, "no memory for shard names");
    int code = open_file(out, &file, index, path, names, count, err);
    if (code != SF_OK)
        return code;
    out->file = file;
    out->bytes = sf_safetensors_bytes(file);
    return SF_OK;
}

/* All tensors of all shards in one list sorted by name; a name in two shards is an error. */
static int collect(struct sf_hf_index *index, struct sf_err *err)
{
    int64_t total = 0;
    for (int64_t s = 0; s < index->shards; s++)
        total += sf_safetensors_count(index->shard[s].file);
    index->placed = sf_arena_array(&index->arena, (uint64_t)total, sizeof *index->placed);
    if (!index->placed)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld tensors", (long long)total);
    for (int64_t s = 0; s < index->shards; s++) {
        int64_t n = sf_safetensors_count(index->shard[s].file);
        for (int64_t i = 0; i < n; i++)
            index->placed[index->count++] =
                (struct placed){*sf_safetensors_at(index->shard[s].file, i), s};
    }
    qsort(index->placed, (size_t)index->count, sizeof *index->placed, compare_placed);
    for (int64_t i = 1; i < index->count; i++)
        if (compare_placed(&index->placed[i - 1], &index->placed[i]) == 0)
            return sf_fail(err, SF_EFORMAT, "%s stands in %s and in %s",
                           index->placed[i].tensor.name,
                           index->shard[index->placed[i - 1].shard].name,
                           index->shard[index->placed[i].shard].name);
    return SF_OK;
}

static int check_shard_name(const char *tensor, const char *name, struct sf_err *err)
{
    if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return sf_fail(err, SF_EFORMAT, "%s is said to be in \"%s\", which is no plain file name",
                       tensor, name);
    return SF_OK;
}

/* A member of weight_map. */
struct mapped {
    const char *shard, *tensor;
    int64_t place; /* in the map */
};

static int compare_mapped(const void *a, const void *b)
{
    const struct mapped *x = a, *y = b;
    int order = strcmp(x->shard, y->shard);
    return order ? order : (x->place > y->place) - (x->place < y->place);
}

/* Shards by name, each with its tensors in the order of the map. */
struct mapping {
    const char **tensor;
    const char **shard;
    int64_t *first; /* [shards + 1] into tensor */
    int64_t shards;
};

static int read_members(struct mapped *list, const struct sf_json *map, struct sf_err *err)
{
    int64_t n = 0;
    int code = sf_json_check_unique(map, err);
    for (const struct sf_json *v = sf_json_first(map); v && code == SF_OK; v = sf_json_next(v)) {
        struct mapped *m = &list[n];
        *m = (struct mapped){.tensor = sf_json_key(v), .place = n++};
        code = sf_json_as_string(&m->shard, v, m->tensor, err);
        if (code == SF_OK)
            code = check_shard_name(m->tensor, m->shard, err);
    }
    return code;
}

static int read_mapping(struct mapping *out, struct sf_arena *arena, const struct sf_json *map,
                        struct sf_err *err)
{
    if (!map || sf_json_type(map) != SF_JSON_OBJECT)
        return sf_fail(err, SF_EFORMAT, "weight_map is missing or not an object");
    int64_t n = sf_json_count(map);
    struct mapped *list = sf_arena_array(arena, (uint64_t)n + 1, sizeof *list);
    out->tensor = sf_arena_array(arena, (uint64_t)n + 1, sizeof *out->tensor);
    out->shard = sf_arena_array(arena, (uint64_t)n + 1, sizeof *out->shard);
    out->first = sf_arena_array(arena, (uint64_t)n + 1, sizeof *out->first);
    if (!list || !out->tensor || !out->shard || !out->first)
        return sf_fail(err, SF_ENOMEM, "no memory for shard names");
    int code = read_members(list, map, err);
    if (code != SF_OK)
        return code;
    qsort(list, (size_t)n, sizeof *list, compare_mapped);
    out->shards = 0;
    for (int64_t i = 0; i < n; i++) {
        out->tensor[i] = list[i].tensor;
        if (i > 0 && strcmp(list[i].shard, list[i - 1].shard) == 0)
            continue;
        out->first[out->shards] = i;
        out->shard[out->shards++] = list[i].shard;
    }
    out->first[out->shards] = n;
    return SF_OK;
}

/* Index and shards must tell the same story, tensor by tensor. */
static int check_map(const struct sf_hf_index *index, struct sf_arena *scratch,
                     const struct sf_json *map, struct sf_err *err)
{
    bool *named = sf_arena_array(scratch, (uint64_t)index->count + 1, sizeof *named);
    if (!named)
        return sf_fail(err, SF_ENOMEM, "no memory to check %lld tensors", (long long)index->count);
    for (const struct sf_json *v = sf_json_first(map); v; v = sf_json_next(v)) {
        const char *name = sf_json_key(v), *shard;
        int code = sf_json_as_string(&shard, v, name, err);
        if (code != SF_OK)
            return code;
        const struct placed *p = find_placed(index, name);
        if (!p || strcmp(index->shard[p->shard].name, shard) != 0)
            return sf_fail(err, SF_EFORMAT, "%s is said to be in %s, which does not hold it", name,
                           shard);
        named[p - index->placed] = true;
    }
    for (int64_t i = 0; i < index->count; i++)
        if (!named[i])
            return sf_fail(err, SF_EFORMAT, "%s of %s is not in the index",
                           index->placed[i].tensor.name, index->shard[index->placed[i].shard].name);
    return SF_OK;
}

static int open_shards(struct sf_hf_index *index, const char *directory, const struct mapping *m,
                       struct sf_err *err)
{
    index->shard = sf_arena_array(&index->arena, (uint64_t)m->shards, sizeof *index->shard);
    if (!index->shard)
        return sf_fail(err, SF_ENOMEM, "no memory for %lld shards", (long long)m->shards);
    for (int64_t i = 0; i < m->shards; i++) {
        int code = open_shard(&index->shard[i], index, directory, m->shard[i],
                              m->tensor + m->first[i], m->first[i + 1] - m->first[i], err);
        if (code == SF_ENOENT)
            return sf_err_prefix(err, "shard %lld of %lld is missing", (long long)i + 1,
                                 (long long)m->shards);
        if (code != SF_OK)
            return code;
        index->shards++;
    }
    return SF_OK;
}

static int open_sharded(struct sf_hf_index *index, const char *directory, const struct sf_json *map,
                        struct sf_err *err)
{
    struct sf_arena scratch = {0};
    struct mapping mapping = {0};
    int code = read_mapping(&mapping, &scratch, map, err);
    if (code != SF_OK) {
        sf_err_prefix(err, "%s/%s", directory, INDEX_NAME);
    } else if ((code = open_shards(index, directory, &mapping, err)) == SF_OK) {
        code = collect(index, err);
        if (code == SF_OK)
            code = check_map(index, &scratch, map, err);
        if (code != SF_OK)
            sf_err_prefix(err, "%s/%s", directory, INDEX_NAME);
    }
    sf_arena_free(&scratch);
    return code;
}

static int open_from_index(struct sf_hf_index *index, const char *directory, const char *path,
                           struct sf_err *err)
{
    struct sf_arena text_arena = {0};
    struct sf_json *root;
    char *text;
    uint64_t bytes;
    int code = sf_read_file(&text, &bytes, &text_arena, path, LARGEST_INDEX, err);
    if (code == SF_OK && (code = sf_json_parse(&root, text, bytes, err)) != SF_OK)
        sf_err_prefix(err, "%s", path);
    if (code == SF_OK) {
        code = open_sharded(index, directory, sf_json_get(root, "weight_map"), err);
        sf_json_free(root);
    }
    sf_arena_free(&text_arena);
    return code;
}

static int open_single(struct sf_hf_index *index, const char *directory, struct sf_err *err)
{
    index->shard = sf_arena_alloc(&index->arena, sizeof *index->shard);
    if (!index->shard)
        return sf_fail(err, SF_ENOMEM, "no memory for one shard");
    int code = open_shard(index->shard, index, directory, SINGLE_NAME, NULL, 0, err);
    if (code != SF_OK)
        return code;
    index->shards = 1;
    return collect(index, err);
}

int sf_hf_index_open(struct sf_hf_index **out, const char *directory, struct sf_err *err)
{
    return sf_hf_index_open_with(out, directory, &(struct sf_hf_open){0}, err);
}

int sf_hf_index_open_with(struct sf_hf_index **out, const char *directory,
                          const struct sf_hf_open *options, struct sf_err *err)
{
    struct sf_file_stat stat;
    int code = sf_file_stat(&stat, directory, err);
    if (code != SF_OK)
        return code;
    if (!stat.is_directory)
        return sf_fail(err, SF_EINVAL, "%s: not a directory", directory);
    struct sf_hf_index *index = sf_alloc(sizeof *index);
    if (!index)
        return sf_fail(err, SF_ENOMEM, "%s: no memory for an index", directory);
    index->open = *options;
    char *index_path = sf_path_join(&index->arena, directory, INDEX_NAME);
    char *single_path = sf_path_join(&index->arena, directory, SINGLE_NAME);
    if (!index_path || !single_path)
        code = sf_fail(err, SF_ENOMEM, "%s: no memory for file names", directory);
    else if (sf_file_exists(index_path))
        code = open_from_index(index, directory, index_path, err);
    else if (sf_file_exists(single_path) || find_memory(index, SINGLE_NAME))
        code = open_single(index, directory, err);
    else
        code = sf_fail(err, SF_ENOENT, "%s: holds neither %s nor %s", directory, INDEX_NAME,
                       SINGLE_NAME);
    if (code != SF_OK) {
        sf_hf_index_close(index);
        return code;
    }
    index->open = (struct sf_hf_open){0};
    *out = index;
    return SF_OK;
}

void sf_hf_index_close(struct sf_hf_index *index)
{
    if (!index)
        return;
    for (int64_t i = 0; i < index->shards; i++)
        sf_safetensors_close((struct sf_safetensors *)(uintptr_t)index->shard[i].file);
    sf_unmap(&index->supposed);
    sf_arena_free(&index->arena);
    sf_free(index);
}

/* One range of addresses for all that is supposed. */
static int place_supposed(struct sf_hf_index *index, struct sf_err *err)
{
    uint64_t total = 0;
    for (int64_t i = 0; i < index->count; i++) {
        struct sf_tensor *t = &index->placed[i].tensor.tensor;
        if (!index->shard[index->placed[i].shard].expected || t->dtype == SF_DTYPE_NONE)
            continue;
        if (!sf_shape_bytes(&t->bytes, &t->shape, t->dtype) || !sf_add(&total, total, t->bytes))
            return sf_fail(err, SF_EFORMAT, "%s: too large", index->placed[i].tensor.name);
    }
    int code = sf_mapping_reserve(&index->supposed, total, err);
    const unsigned char *next = index->supposed.data;
    for (int64_t i = 0; i < index->count && code == SF_OK; i++) {
        struct sf_tensor *t = &index->placed[i].tensor.tensor;
        if (!index->shard[index->placed[i].shard].expected || t->bytes == 0)
            continue;
        t->data = next;
        next += t->bytes;
    }
    return code;
}

int sf_hf_index_suppose(struct sf_hf_index *index,
                        int (*guess)(void *context, struct sf_tensor *tensor, const char *name,
                                     struct sf_err *err),
                        void *context, struct sf_err *err)
{
    int code = SF_OK;
    for (int64_t i = 0; i < index->count && code == SF_OK; i++) {
        struct placed *p = &index->placed[i];
        if (index->shard[p->shard].expected)
            code = guess(context, &p->tensor.tensor, p->tensor.name, err);
    }
    return code == SF_OK ? place_supposed(index, err) : code;
}

int sf_hf_index_forget(const struct sf_hf_index *index, int64_t shard, struct sf_err *err)
{
    return sf_safetensors_forget((struct sf_safetensors *)(uintptr_t)index->shard[shard].file, err);
}

int64_t sf_hf_index_shard_count(const struct sf_hf_index *index)
{
    return index->shards;
}

const struct sf_hf_shard *sf_hf_index_shard(const struct sf_hf_index *index, int64_t shard)
{
    return &index->shard[shard];
}

int64_t sf_hf_index_count(const struct sf_hf_index *index)
{
    return index->count;
}

const struct sf_named_tensor *sf_hf_index_at(const struct sf_hf_index *index, int64_t i,
                                             int64_t *shard)
{
    if (shard)
        *shard = index->placed[i].shard;
    return &index->placed[i].tensor;
}

int64_t sf_hf_index_shard_of(const struct sf_tensor *tensor)
{
    const char *bytes = (const char *)tensor;
    return ((const struct placed *)(const void *)(bytes - offsetof(struct placed, tensor.tensor)))
        ->shard;
}

const struct sf_tensor *sf_hf_index_find(const struct sf_hf_index *index, const char *name)
{
    const struct placed *p = find_placed(index, name);
    return p ? &p->tensor.tensor : NULL;
}
