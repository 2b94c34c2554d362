#include "libformat/convert/export.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/jobs.h"
#include "libformat/base/json.h"
#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/convert/delta.h"
#include "libformat/convert/entry_decode.h"
#include "libformat/convert/export_config.h"
#include "libformat/convert/export_plan.h"

static const char INDEX_NAME[] = "model.safetensors.index.json";
static const uint64_t COPY_BYTES = 8u << 20;
enum { TILE_ROWS = 64 };   /* rows of [out, in] decoded at once: whole blocks, whatever `in` is */
enum { STRIP_COLS = 512 }; /* columns of [out, in] turned at once: whole blocks of a row */

struct shard {
    char name[48];
    int64_t first, count; /* tensors */
    uint64_t bytes;
};

struct run {
    const struct sf_map *map;
    const struct sf_export_options *options;
    struct sf_export_plan plan;
    struct sf_arena arena;
    struct shard *shard;
    int64_t shards;
    float **tile;      /* one per worker: [TILE_ROWS, widest in] */
    uint16_t **packed; /* one per worker: a tile, or [strip, out] of an expert, as bf16 */
    atomic_ullong done;
    atomic_bool stop;
};

/* A piece of one tensor of the shard being written. */
struct piece {
    const struct sf_export_tensor *tensor;
    int64_t entry;        /* EXPERTS, STACK */
    int64_t first, count; /* COPY, STACK: bytes; else rows of [out, in] */
    uint64_t offset;      /* of the tensor in the file */
};

struct shard_run {
    struct run *run;
    struct sf_adapter_module
        *module; /* of the adapter, as numbered there; those this shard needs */
    struct sf_out *out;
    struct piece *piece;
};

/* ---- shards ---- */

/* Tensors in order; a shard is closed before the tensor that would pass the limit. */
static int cut_shards(struct run *run, struct sf_err *err)
{
    const struct sf_export_plan *p = &run->plan;
    run->shard = sf_arena_array(&run->arena, (uint64_t)p->tensors + 1, sizeof *run->shard);
    if (!run->shard)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of shards");
    for (int64_t t = 0; t < p->tensors; t++) {
        uint64_t bytes = p->tensor[t].out.tensor.bytes;
        struct shard *s = run->shards ? &run->shard[run->shards - 1] : NULL;
        if (!s || s->bytes + bytes > run->options->shard_bytes)
            *(s = &run->shard[run->shards++]) = (struct shard){.first = t};
        s->count++;
        s->bytes += bytes;
    }
    for (int64_t i = 0; i < run->shards; i++)
        snprintf(run->shard[i].name, sizeof run->shard[i].name,
                 "model-%05lld-of-%05lld.safetensors", (long long)i + 1, (long long)run->shards);
    return SF_OK;
}

/* ---- pieces ---- */

/* What a tensor is cut along, and how far. A row that does not start on a block cannot be cut. */
static int64_t piece_length(const struct sf_export_tensor *t)
{
    if (t->kind == SF_EXPORT_COPY)
        return (int64_t)t->out.tensor.bytes;
    if (t->kind == SF_EXPORT_STACK)
        return (int64_t)t->entry[0]->plane[t->plane].bytes;
    return t->entry[0]->shape.dim[t->kind == SF_EXPORT_EXPERTS];
}

static int64_t piece_step(const struct sf_export_tensor *t)
{
    if (t->kind == SF_EXPORT_COPY || t->kind == SF_EXPORT_STACK)
        return (int64_t)COPY_BYTES;
    if (t->kind == SF_EXPORT_DECODE)
        return TILE_ROWS;
    int64_t in = t->entry[0]->shape.dim[1];
    return in % TILE_ROWS == 0 && in > STRIP_COLS ? STRIP_COLS : in;
}

static int64_t pieces_each(const struct sf_export_tensor *t)
{
    return (piece_length(t) + piece_step(t) - 1) / piece_step(t);
}

static int64_t piece_count(const struct sf_export_tensor *t)
{
    return pieces_each(t) * (t->kind == SF_EXPORT_COPY ? 1 : t->entries);
}

static struct piece make_piece(const struct sf_export_tensor *t, int64_t index, uint64_t offset)
{
    int64_t each = pieces_each(t), first = index % each * piece_step(t);
    int64_t left = piece_length(t) - first;
    return (struct piece){.tensor = t,
                          .entry = index / each,
                          .first = first,
                          .count = left < piece_step(t) ? left : piece_step(t),
                          .offset = offset};
}

static int write_rows(struct shard_run *s, const struct piece *p, int worker, struct sf_err *err)
{
    const struct sf_entry *e = p->tensor->entry[0];
    int64_t in = e->shape.dim[1], first = p->first * in, count = p->count * in;
    float *tile = s->run->tile[worker];
    uint16_t *packed = s->run->packed[worker];
    int code = sf_entry_decode(tile, s->run->map, e, first, count, err);
    if (code != SF_OK)
        return code;
    if (p->tensor->module >= 0) {
        struct sf_delta delta = sf_delta_of(&s->module[p->tensor->module], 0, 0);
        sf_delta_add(tile, in, &delta, p->first, p->count, 0, in);
    }
    for (int64_t i = 0; i < count; i++)
        packed[i] = sf_bf16_from_f32(tile[i]);
    return sf_out_write_at(s->out, packed, 2 * (uint64_t)count, p->offset + 2 * (uint64_t)first,
                           err);
}

/* What is added to that expert's matrix; gate's rows come before up's in its module. */
static struct sf_delta expert_delta(const struct shard_run *s, const struct piece *p)
{
    const struct sf_adapter_module *m = &s->module[p->tensor->module];
    int64_t out = p->tensor->entry[0]->shape.dim[0], sides = m->out / out;
    return sf_delta_of(m, p->entry / sides, p->entry % sides * out);
}

/* turned[columns of the strip][out] of one expert's matrix. */
static int turn_strip(uint16_t *turned, struct shard_run *s, const struct piece *p,
                      const struct sf_entry *e, float *tile, struct sf_err *err)
{
    bool merges = p->tensor->module >= 0;
    struct sf_delta delta = merges ? expert_delta(s, p) : (struct sf_delta){0};
    int64_t out = e->shape.dim[0], cols = p->count, rows = TILE_ROWS;
    for (int64_t o = 0; o < out; o += rows) {
        int64_t n = out - o < rows ? out - o : rows;
        int code = sf_entry_rectangle(tile, s->run->map, e, o, n, p->first, cols, err);
        if (code != SF_OK)
            return code;
        if (merges)
            sf_delta_add(tile, cols, &delta, o, n, p->first, cols);
        for (int64_t r = 0; r < n; r++)
            for (int64_t c = 0; c < cols; c++)
                turned[c * out + o + r] = sf_bf16_from_f32(tile[r * cols + c]);
    }
    return SF_OK;
}

/* Gate and up stand side by side in a row of the fused tensor; down has the row to itself. */
static int write_strip(struct shard_run *s, const struct piece *p, int worker, struct sf_err *err)
{
    const struct sf_entry *e = p->tensor->entry[p->entry];
    uint16_t *turned = s->run->packed[worker];
    int64_t out = e->shape.dim[0], in = e->shape.dim[1];
    int64_t sides = p->tensor->out.tensor.shape.dim[2] / out;
    int64_t row = p->entry / sides * in + p->first, side = p->entry % sides;
    int code = turn_strip(turned, s, p, e, s->run->tile[worker], err);
    for (int64_t c = 0; c < p->count && code == SF_OK; c++)
        code = sf_out_write_at(s->out, turned + c * out, 2 * (uint64_t)out,
                               p->offset + 2 * (uint64_t)(((row + c) * sides + side) * out), err);
    return code;
}

static int advance(struct run *run, int worker, uint64_t bytes, struct sf_err *err)
{
    uint64_t done = atomic_fetch_add(&run->done, bytes) + bytes;
    const struct sf_export_options *o = run->options;
    if (worker == 0 && o->on_progress && !o->on_progress(o->context, done, run->plan.bytes))
        atomic_store(&run->stop, true);
    return atomic_load(&run->stop) ? sf_fail(err, SF_EINTERRUPTED, "interrupted") : SF_OK;
}

static int write_piece(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct shard_run *s = context;
    const struct piece *p = &s->piece[index];
    const struct sf_export_tensor *t = p->tensor;
    uint64_t bytes = (uint64_t)p->count;
    int code;
    if (t->kind == SF_EXPORT_COPY) {
        code = sf_out_write_at(s->out, (const char *)t->out.tensor.data + p->first, bytes,
                               p->offset + (uint64_t)p->first, err);
    } else if (t->kind == SF_EXPORT_STACK) {
        const struct sf_plane *plane = &t->entry[p->entry]->plane[t->plane];
        const char *from = sf_map_bytes(s->run->map, plane->address);
        code = sf_out_write_at(s->out, from + p->first, bytes,
                               p->offset + (uint64_t)p->entry * plane->bytes + (uint64_t)p->first,
                               err);
    } else if (t->kind == SF_EXPORT_DECODE) {
        bytes *= 2 * (uint64_t)t->entry[0]->shape.dim[1];
        code = write_rows(s, p, worker, err);
    } else {
        bytes *= 2 * (uint64_t)t->entry[0]->shape.dim[0];
        code = write_strip(s, p, worker, err);
    }
    return code == SF_OK ? advance(s->run, worker, bytes, err) : code;
}

/* ---- the run ---- */

/* The numbers of what the shard's tensors are adapted by, in `arena` if they must be read. */
static int load_modules(struct shard_run *s, const struct shard *shard, struct sf_arena *arena,
                        struct sf_err *err)
{
    const struct sf_export_options *o = s->run->options;
    int code = SF_OK;
    if (!o->adapter)
        return SF_OK;
    s->module = sf_arena_array(arena, (uint64_t)o->adapter->modules + 1, sizeof *s->module);
    if (!s->module)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of modules");
    for (int64_t t = 0; t < shard->count && code == SF_OK; t++) {
        int64_t i = s->run->plan.tensor[shard->first + t].module;
        if (i >= 0 && o->source)
            code = sf_adapter_load(&s->module[i], arena, o->source, i, err);
        else if (i >= 0)
            s->module[i] = o->adapter->module[i];
    }
    return code;
}

static int fill_shard(struct shard_run *s, const struct shard *shard, struct sf_arena *arena,
                      struct sf_err *err)
{
    const struct sf_export_tensor *tensors = &s->run->plan.tensor[shard->first];
    struct sf_named_tensor *list = sf_arena_array(arena, (uint64_t)shard->count, sizeof *list);
    char *header;
    uint64_t offset;
    int64_t pieces = 0, n = 0;
    if (!list)
        return sf_fail(err, SF_ENOMEM, "no memory for a header");
    for (int64_t t = 0; t < shard->count; t++) {
        list[t] = tensors[t].out;
        pieces += piece_count(&tensors[t]);
    }
    int code = sf_safetensors_header(&header, &offset, arena, list, shard->count, err);
    if (code == SF_OK)
        code = sf_out_append(s->out, header, offset, err);
    s->piece = sf_arena_array(arena, (uint64_t)pieces, sizeof *s->piece);
    if (code == SF_OK && !s->piece)
        code = sf_fail(err, SF_ENOMEM, "no memory for %lld pieces", (long long)pieces);
    if (code != SF_OK)
        return code;
    for (int64_t t = 0; t < shard->count; t++) {
        for (int64_t i = 0; i < piece_count(&tensors[t]); i++)
            s->piece[n++] = make_piece(&tensors[t], i, offset);
        offset += tensors[t].out.tensor.bytes;
    }
    return sf_jobs_run(write_piece, s, n, s->run->options->threads, err);
}

static int write_shard(struct run *run, const char *directory, const struct shard *shard,
                       struct sf_err *err)
{
    struct sf_arena arena = {0};
    struct shard_run s = {.run = run};
    const char *path = sf_path_join(&arena, directory, shard->name);
    int code =
        path ? sf_out_open(&s.out, path, err) : sf_fail(err, SF_ENOMEM, "no memory for a path");
    if (code == SF_OK)
        code = load_modules(&s, shard, &arena, err);
    if (code == SF_OK)
        code = fill_shard(&s, shard, &arena, err);
    sf_arena_free(&arena);
    if (code == SF_OK)
        code = sf_map_check(run->map, err);
    if (code == SF_OK)
        return sf_out_commit(s.out, err);
    sf_out_abort(s.out);
    return code;
}

static int write_index(struct run *run, const char *directory, struct sf_err *err)
{
    struct sf_json_writer w;
    char *text;
    uint64_t bytes;
    const char *path = sf_path_join(&run->arena, directory, INDEX_NAME);
    sf_json_write_begin(&w, &run->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_object(&w, "metadata");
    sf_json_write_int(&w, "total_size", (int64_t)run->plan.bytes);
    sf_json_write_end(&w, '}');
    sf_json_write_object(&w, "weight_map");
    for (int64_t s = 0; s < run->shards; s++)
        for (int64_t t = 0; t < run->shard[s].count; t++)
            sf_json_write_string(&w, run->plan.tensor[run->shard[s].first + t].out.name,
                                 run->shard[s].name);
    sf_json_write_end(&w, '}');
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, &bytes, &w, err);
    if (code == SF_OK && !path)
        code = sf_fail(err, SF_ENOMEM, "no memory for a path");
    return code == SF_OK ? sf_write_file(path, text, bytes, err) : code;
}

static int write_carried(struct run *run, const char *directory, struct sf_err *err)
{
    int code = SF_OK;
    for (int64_t i = 0; i < sf_map_info(run->map)->files && code == SF_OK; i++) {
        char *data;
        uint64_t bytes;
        const char *name = sf_map_file_name(run->map, i, NULL);
        const char *path = sf_path_join(&run->arena, directory, name);
        if (strchr(name, '/') || !path)
            return sf_fail(err, SF_EFORMAT, "carried file \"%s\" is no plain file name", name);
        code = sf_map_read_file(&data, &bytes, run->map, name, &run->arena, err);
        if (code == SF_OK && strcmp(name, "config.json") == 0)
            code = sf_export_config(&data, &bytes, &run->arena, run->options->format, err);
        if (code == SF_OK)
            code = sf_write_file(path, data, bytes, err);
    }
    return code;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static int open_tiles(struct run *run, struct sf_err *err)
{
    uint64_t tile = 1, packed = 1;
    int threads = run->options->threads;
    for (int64_t t = 0; t < run->plan.tensors; t++) {
        const struct sf_export_tensor *x = &run->plan.tensor[t];
        if (x->kind == SF_EXPORT_COPY || x->kind == SF_EXPORT_STACK)
            continue;
        const int64_t *dim = x->entry[0]->shape.dim;
        tile = larger(tile, TILE_ROWS * (uint64_t)dim[1]);
        if (x->kind == SF_EXPORT_EXPERTS)
            packed = larger(packed, (uint64_t)(piece_step(x) * dim[0]));
    }
    packed = larger(packed, tile);
    run->tile = sf_arena_array(&run->arena, (uint64_t)threads, sizeof *run->tile);
    run->packed = sf_arena_array(&run->arena, (uint64_t)threads, sizeof *run->packed);
    bool memory = run->tile && run->packed;
    for (int i = 0; memory && i < threads; i++) {
        run->tile[i] = sf_arena_array(&run->arena, tile, sizeof(float));
        run->packed[i] = sf_arena_array(&run->arena, packed, sizeof(uint16_t));
        memory = run->tile[i] && run->packed[i];
    }
    return memory ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for %d tiles", threads);
}

static int check_target(const char *directory, struct sf_arena *arena, struct sf_err *err)
{
    const char *path = sf_path_join(arena, directory, INDEX_NAME);
    const char *single = sf_path_join(arena, directory, "model.safetensors");
    if (!path || !single)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    if (sf_file_exists(path) || sf_file_exists(single))
        return sf_fail(err, SF_EINVAL, "%s: holds a checkpoint already", directory);
    return sf_make_directory(directory, err);
}

int sf_export_run(const struct sf_map *map, const char *directory,
                  const struct sf_export_options *options, struct sf_err *err)
{
    struct run run = {.map = map, .options = options};
    int code = check_target(directory, &run.arena, err);
    if (code == SF_OK)
        code = sf_export_plan_build(&run.plan, &run.arena, map, options, err);
    if (code == SF_OK)
        code = cut_shards(&run, err);
    if (code == SF_OK)
        code = open_tiles(&run, err);
    for (int64_t s = 0; s < run.shards && code == SF_OK; s++)
        code = write_shard(&run, directory, &run.shard[s], err);
    if (code == SF_OK)
        code = write_carried(&run, directory, err);
    if (code == SF_OK)
        code = write_index(&run, directory, err);
    sf_arena_free(&run.arena);
    return code;
}
