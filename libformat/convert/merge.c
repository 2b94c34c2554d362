#include "libformat/convert/merge.h"

#include <stdatomic.h>
#include <string.h>

#include "libformat/base/append_file.h"
#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/folders.h"
#include "libformat/base/jobs.h"
#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/convert/delta.h"
#include "libformat/convert/merge_plan.h"
#include "libformat/hf/hf_config.h"

static const uint64_t CONFIG_LIMIT = 16u << 20;
static const uint64_t COPY_BYTES = 8u << 20;
enum { TILE = 1 << 20 };      /* elements that one job decodes, at most; at least a row */
enum { MODULES_AT_HAND = 2 }; /* experts one by one alternate between two */

struct at_hand {
    struct sf_arena arena;
    int64_t index; /* of the adapter's module; -1: none */
    int64_t used;  /* when */
    struct sf_adapter_module module;
};

struct run {
    struct sf_arena *arena;
    const char *base, *directory, *partial;
    const struct sf_merge_options *options;
    struct sf_merge_plan plan;
    struct sf_hf_index *index;
    struct sf_adapter_source *adapter;
    struct at_hand hand[MODULES_AT_HAND];
    int64_t clock;
    float **tile;      /* one per worker: widest tile */
    uint16_t **packed; /* the same as bf16 */
    atomic_ullong done;
    atomic_bool stop;
};

/* One tensor, while its pieces are written. */
struct work {
    struct run *run;
    const struct sf_merge_shard *shard;
    const struct sf_merge_tensor *tensor;
    const struct sf_adapter_module *module; /* NULL: copied */
    struct sf_out *out;
    uint64_t offset; /* of the tensor in the file */
    int64_t each;    /* pieces of one matrix */
    int64_t step;    /* bytes, or rows */
};

/* ---- pieces ---- */

static int advance(struct run *run, int worker, uint64_t bytes, struct sf_err *err)
{
    uint64_t done = atomic_fetch_add(&run->done, bytes) + bytes;
    const struct sf_merge_options *o = run->options;
    if (worker == 0 && o->on_progress && !o->on_progress(o->context, done, run->plan.bytes))
        atomic_store(&run->stop, true);
    return atomic_load(&run->stop) ? sf_fail(err, SF_EINTERRUPTED, "interrupted") : SF_OK;
}

/* Lets go of pages that were read: the map must not count as memory in the end. */
static void release(const struct work *w, uint64_t first, uint64_t bytes)
{
    struct sf_tensor range = w->tensor->from->tensor;
    range.data = (const char *)range.data + first;
    range.bytes = bytes;
    sf_safetensors_release(w->shard->shard->file, &range);
}

static int copy_piece(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct work *w = context;
    const struct sf_tensor *t = &w->tensor->from->tensor;
    uint64_t first = (uint64_t)index * COPY_BYTES, left = t->bytes - first;
    uint64_t bytes = left < COPY_BYTES ? left : COPY_BYTES;
    int code =
        sf_out_write_at(w->out, (const char *)t->data + first, bytes, w->offset + first, err);
    release(w, first, bytes);
    return code == SF_OK ? advance(w->run, worker, bytes, err) : code;
}

static void unpack(float *to, const void *from, int64_t count, enum sf_dtype dtype)
{
    const unsigned char *bytes = from;
    for (int64_t i = 0; i < count; i++)
        to[i] = dtype == SF_F32 ? sf_get_f32(bytes + 4 * i)
                                : sf_f32_from_bf16(sf_get_u16(bytes + 2 * i));
}

/* Rows of one matrix: of a linear weight, of one expert. */
static int merge_piece(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct work *w = context;
    const struct sf_merge_tensor *t = w->tensor;
    const struct sf_tensor *from = &t->from->tensor;
    int64_t matrix = index / w->each, row = index % w->each * w->step;
    int64_t rows = t->rows - row < w->step ? t->rows - row : w->step, count = rows * t->cols;
    uint64_t size = sf_dtype_bytes(from->dtype), bytes = (uint64_t)count * size;
    uint64_t first = (uint64_t)((matrix * t->rows + row) * t->cols) * size;
    float *tile = w->run->tile[worker];
    uint16_t *packed = w->run->packed[worker];
    struct sf_delta delta = t->fused ? sf_delta_turned(w->module, matrix)
                                     : sf_delta_of(w->module, t->group, t->out_first);
    unpack(tile, (const char *)from->data + first, count, from->dtype);
    sf_delta_add(tile, t->cols, &delta, row, rows, 0, t->cols);
    for (int64_t i = 0; from->dtype == SF_BF16 && i < count; i++)
        packed[i] = sf_bf16_from_f32(tile[i]);
    const void *data = from->dtype == SF_BF16 ? (const void *)packed : tile;
    int code = sf_out_write_at(w->out, data, bytes, w->offset + first, err);
    release(w, first, bytes);
    return code == SF_OK ? advance(w->run, worker, bytes, err) : code;
}

/* ---- tensors ---- */

/* The module's numbers, kept until two others were wanted. */
static int take_module(const struct sf_adapter_module **out, struct run *run, int64_t index,
                       struct sf_err *err)
{
    struct at_hand *oldest = &run->hand[0];
    for (int i = 0; i < MODULES_AT_HAND; i++) {
        struct at_hand *h = &run->hand[i];
        if (h->index == index && h->used) {
            h->used = ++run->clock;
            *out = &h->module;
            return SF_OK;
        }
        oldest = h->used < oldest->used ? h : oldest;
    }
    sf_arena_free(&oldest->arena);
    oldest->used = 0;
    int code = sf_adapter_load(&oldest->module, &oldest->arena, run->adapter, index, err);
    oldest->index = index;
    oldest->used = code == SF_OK ? ++run->clock : 0;
    *out = &oldest->module;
    return code;
}

static int64_t rows_at_once(const struct sf_merge_tensor *t)
{
    int64_t rows = TILE / t->cols;
    return rows < 1 ? 1 : rows > t->rows ? t->rows : rows;
}

static int write_tensor(struct run *run, const struct sf_merge_shard *s,
                        const struct sf_merge_tensor *t, struct sf_out *out, uint64_t offset,
                        struct sf_err *err)
{
    struct work w = {.run = run, .shard = s, .tensor = t, .out = out, .offset = offset};
    int threads = run->options->threads;
    if (t->module < 0) {
        int64_t pieces = (int64_t)((t->from->tensor.bytes + COPY_BYTES - 1) / COPY_BYTES);
        return sf_jobs_run(copy_piece, &w, pieces, threads, err);
    }
    int code = take_module(&w.module, run, t->module, err);
    if (code != SF_OK)
        return code;
    w.step = rows_at_once(t);
    w.each = (t->rows + w.step - 1) / w.step;
    return sf_jobs_run(merge_piece, &w, w.each * (t->fused ? w.module->groups : 1), threads, err);
}

static int fill_shard(struct run *run, const struct sf_merge_shard *s, struct sf_out *out,
                      struct sf_err *err)
{
    uint64_t offset;
    const void *head = sf_safetensors_head(&offset, s->shard->file);
    int code = sf_out_reserve(out, sf_safetensors_bytes(s->shard->file), err);
    if (code == SF_OK)
        code = sf_out_write_at(out, head, offset, 0, err);
    for (int64_t i = 0; i < s->tensors && code == SF_OK; i++) {
        const struct sf_merge_tensor *t = &s->tensor[i];
        code = write_tensor(run, s, t, out, offset, err);
        if (code != SF_OK && code != SF_EINTERRUPTED)
            sf_err_prefix(err, "%s", t->from->name);
        offset += t->from->tensor.bytes;
    }
    return code == SF_OK ? sf_safetensors_check(s->shard->file, err) : code;
}

static int write_shard(struct run *run, const struct sf_merge_shard *s, struct sf_err *err)
{
    struct sf_out *out;
    const char *path = sf_path_join(run->arena, run->partial, s->shard->name);
    int code =
        path ? sf_out_open(&out, path, err) : sf_fail(err, SF_ENOMEM, "no memory for a path");
    if (code != SF_OK)
        return code;
    code = fill_shard(run, s, out, err);
    if (code == SF_OK)
        return sf_out_commit(out, err);
    sf_out_abort(out);
    return code;
}

/* ---- the other files ---- */

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* Weights of the old model in other clothes, unfinished downloads. */
static bool stays_behind(const char *name)
{
    static const char *const ends[] = {".safetensors", ".bin",     ".pth",  ".pt",   ".gguf",
                                       ".h5",          ".msgpack", ".onnx", ".scout"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(name, ends[i]))
            return true;
    return strstr(name, ".partial") != NULL || strcmp(name, ".git") == 0;
}

static bool is_shard(const struct run *run, const char *name)
{
    for (int64_t i = 0; i < run->plan.shards; i++)
        if (strcmp(run->plan.shard[i].shard->name, name) == 0)
            return true;
    return false;
}

static int append(void *context, const void *data, uint64_t bytes, struct sf_err *err)
{
    return sf_out_append(context, data, bytes, err);
}

static int copy_file(const char *from, const char *to, struct sf_err *err)
{
    struct sf_out *out;
    int code = sf_out_open(&out, to, err);
    if (code != SF_OK)
        return code;
    code = sf_file_scan(from, append, out, err);
    if (code == SF_OK)
        return sf_out_commit(out, err);
    sf_out_abort(out);
    return code;
}

static int copy_other(struct sf_merge_result *result, struct run *run, const char *name,
                      const char **left_out, struct sf_err *err)
{
    struct sf_file_stat stat;
    const char *from = sf_path_join(run->arena, run->base, name);
    const char *to = sf_path_join(run->arena, run->partial, name);
    if (!from || !to)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = sf_file_stat(&stat, from, err);
    if (code != SF_OK)
        return code;
    if (stat.is_regular && !stays_behind(name))
        return copy_file(from, to, err);
    left_out[result->left_outs++] = name;
    return SF_OK;
}

static int copy_others(struct sf_merge_result *result, struct run *run, struct sf_err *err)
{
    const char *const *name;
    int64_t count;
    int code = sf_folder_list(&name, &count, run->arena, run->base, err);
    if (code != SF_OK)
        return code;
    const char **left_out = sf_arena_array(run->arena, (uint64_t)count + 1, sizeof *left_out);
    if (!left_out)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of files");
    result->left_out = left_out;
    for (int64_t i = 0; i < count && code == SF_OK; i++)
        if (!is_shard(run, name[i]))
            code = copy_other(result, run, name[i], left_out, err);
    return code;
}

/* ---- the run ---- */

/* Slashes at the end would put ".partial" into the folder. */
static int name_folders(struct run *run, const char *directory, struct sf_err *err)
{
    size_t n = strlen(directory);
    while (n > 1 && directory[n - 1] == '/')
        n--;
    run->directory = sf_arena_strndup(run->arena, directory, n);
    run->partial = sf_arena_printf(run->arena, "%.*s.partial", (int)n, directory);
    return run->directory && run->partial ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for a path");
}

static const char *lock_path(const struct run *run)
{
    return sf_arena_printf(run->arena, "%s.lock", run->partial);
}

/* Of a run that was killed between its last two steps. */
static void remove_stale_lock(const struct run *run)
{
    struct sf_err unused = {0};
    struct sf_append_file *lock;
    const char *path = lock_path(run);
    if (path && sf_file_exists(path) && sf_append_file_open(&lock, path, &unused) == SF_OK)
        sf_append_file_remove(lock);
}

static int check_target(const struct run *run, struct sf_err *err)
{
    const char *const *name;
    int64_t count;
    if (!sf_file_exists(run->directory))
        return SF_OK;
    int code = sf_folder_list(&name, &count, run->arena, run->directory, err);
    if (code != SF_OK || count == 0)
        return code;
    remove_stale_lock(run);
    return sf_fail(err, SF_EINVAL, "%s: is there and not empty (%s)", run->directory, name[0]);
}

static int open_inputs(struct run *run, const char *adapter, struct sf_err *err)
{
    struct sf_model_spec spec;
    char *text;
    uint64_t bytes;
    const char *path = sf_path_join(run->arena, run->base, "config.json");
    if (!path)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = sf_read_file(&text, &bytes, run->arena, path, CONFIG_LIMIT, err);
    if (code != SF_OK)
        return code;
    code = sf_hf_config_parse(&spec, run->arena, text, bytes, err);
    if (code != SF_OK)
        return sf_err_prefix(err, "%s", path);
    code = sf_hf_index_open(&run->index, run->base, err);
    if (code == SF_OK)
        code = sf_merge_check_base(run->index, err);
    if (code == SF_OK)
        code = sf_adapter_open(&run->adapter, adapter, &spec, err);
    if (code == SF_OK && sf_adapter_about(run->adapter)->for_vllm)
        code = sf_fail(err, SF_EUNSUPPORTED,
                       "%s: its q and k rows are in vLLM's order; merge the adapter that it was "
                       "made of",
                       adapter);
    return code == SF_OK
               ? sf_merge_plan_build(&run->plan, run->arena, run->index, run->adapter, err)
               : code;
}

static int open_tiles(struct run *run, struct sf_err *err)
{
    int64_t most = 1;
    int threads = run->options->threads;
    for (int64_t s = 0; s < run->plan.shards; s++) {
        for (int64_t i = 0; i < run->plan.shard[s].tensors; i++) {
            const struct sf_merge_tensor *t = &run->plan.shard[s].tensor[i];
            int64_t tile = t->module < 0 ? 0 : rows_at_once(t) * t->cols;
            most = tile > most ? tile : most;
        }
    }
    run->tile = sf_arena_array(run->arena, (uint64_t)threads, sizeof *run->tile);
    run->packed = sf_arena_array(run->arena, (uint64_t)threads, sizeof *run->packed);
    bool memory = run->tile && run->packed;
    for (int i = 0; memory && i < threads; i++) {
        run->tile[i] = sf_arena_array(run->arena, (uint64_t)most, sizeof(float));
        run->packed[i] = sf_arena_array(run->arena, (uint64_t)most, sizeof(uint16_t));
        memory = run->tile[i] && run->packed[i];
    }
    return memory ? SF_OK : sf_fail(err, SF_ENOMEM, "no memory for %d tiles", threads);
}

static int check_space(const struct run *run, struct sf_err *err)
{
    uint64_t free_bytes;
    int code = sf_folder_free_bytes(&free_bytes, run->partial, err);
    if (code == SF_OK && free_bytes < run->plan.bytes)
        code = sf_fail(err, SF_ENOSPC, "%s: the shards take %.1f GB, the disk has %.1f GB left",
                       run->directory, (double)run->plan.bytes / 1e9, (double)free_bytes / 1e9);
    return code;
}

static int write_all(struct sf_merge_result *result, struct run *run, struct sf_err *err)
{
    int code = open_tiles(run, err);
    if (code == SF_OK)
        code = check_space(run, err);
    for (int64_t i = 0; i < run->plan.shards && code == SF_OK; i++) {
        code = write_shard(run, &run->plan.shard[i], err);
        if (code != SF_OK && code != SF_EINTERRUPTED)
            sf_err_prefix(err, "%s", run->plan.shard[i].shard->name);
    }
    return code == SF_OK ? copy_others(result, run, err) : code;
}

/* One process at a time: a lock beside the folder, which outlives neither. What an earlier one left
 * is of no use. */
static int write_locked(struct sf_merge_result *result, struct run *run, struct sf_err *err)
{
    struct sf_append_file *lock;
    struct sf_err later = {0};
    const char *path = lock_path(run);
    if (!path)
        return sf_fail(err, SF_ENOMEM, "no memory for a path");
    int code = sf_append_file_open(&lock, path, err);
    if (code != SF_OK)
        return code;
    code = sf_folder_remove(run->partial, err);
    if (code == SF_OK)
        code = sf_make_directory(run->partial, err);
    if (code == SF_OK)
        code = write_all(result, run, err);
    if (code == SF_OK)
        code = sf_folder_rename(run->partial, run->directory, err);
    if (code != SF_OK)
        sf_folder_remove(run->partial, &later); /* the first error is the one that counts */
    sf_append_file_remove(lock);
    return code;
}

static void close_run(struct run *run)
{
    for (int i = 0; i < MODULES_AT_HAND; i++)
        sf_arena_free(&run->hand[i].arena);
    sf_adapter_close(run->adapter);
    sf_hf_index_close(run->index);
}

int sf_merge_run(struct sf_merge_result *out, struct sf_arena *arena, const char *base,
                 const char *adapter, const char *directory, const struct sf_merge_options *options,
                 struct sf_err *err)
{
    struct run run = {.arena = arena, .base = base, .options = options};
    *out = (struct sf_merge_result){0};
    int code = name_folders(&run, directory, err);
    if (code == SF_OK)
        code = check_target(&run, err);
    if (code == SF_OK)
        code = open_inputs(&run, adapter, err);
    if (code == SF_OK)
        code = write_locked(out, &run, err);
    if (code == SF_OK) {
        out->modules = sf_adapter_about(run.adapter)->modules;
        out->tensors = run.plan.tensors;
        out->merged = run.plan.merged;
        out->shards = run.plan.shards;
        out->bytes = run.plan.bytes;
    }
    close_run(&run);
    return code;
}
