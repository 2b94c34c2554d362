#include "libformat/convert/convert.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/base/jobs.h"
#include "libformat/codec/frame.h"
#include "libformat/container/container_check.h"
#include "libformat/convert/matrix_encode.h"

static const uint64_t WINDOW_BYTES = 8u << 20; /* a multiple of every chunk size */

struct worker {
    struct sf_encode_scratch scratch;
    unsigned char *buffer; /* the largest extent that is built whole, at least WINDOW_BYTES */
};

struct run {
    struct sf_convert_plan *plan;
    const struct sf_convert_options *options;
    struct sf_writer *writer;
    struct worker *worker;
    struct sf_source_shard *shard;
    int64_t extents;
    atomic_ullong done; /* payload bytes written */
    uint64_t total;
    atomic_bool stop; /* on_progress said so */
};

static bool is_streamed(const struct sf_extent *x)
{
    return x->kind == SF_EXTENT_HEAD || x->kind == SF_EXTENT_EMBEDDING ||
           x->kind == SF_EXTENT_UNUSED;
}

/* The caller's own thread is worker 0: it alone talks to the caller. */
static int advance(struct run *run, int worker, uint64_t bytes, struct sf_err *err)
{
    uint64_t done = atomic_fetch_add(&run->done, bytes) + bytes;
    const struct sf_convert_options *o = run->options;
    if (worker == 0 && o->on_progress && !o->on_progress(o->context, done, run->total))
        atomic_store(&run->stop, true);
    if (atomic_load(&run->stop))
        return sf_fail(err, SF_EINTERRUPTED, "interrupted; nothing was written");
    return SF_OK;
}

/* The part of one stored tensor that falls into window[0..bytes) at payload address `from`. */
static int copy_overlap(unsigned char *window, uint64_t from, uint64_t bytes,
                        const struct sf_convert_row *row, struct sf_err *err)
{
    const struct sf_plane *p = &row->entry->plane[SF_PLANE_CODES];
    uint64_t begin = p->address > from ? p->address : from;
    uint64_t end = p->address + p->bytes < from + bytes ? p->address + p->bytes : from + bytes;
    if (begin >= end)
        return SF_OK;
    const unsigned char *src =
        (const unsigned char *)row->source.tensor->data + (begin - p->address);
    memcpy(window + (begin - from), src, end - begin);
    if (row->entry->role.part == SF_PART_UNUSED)
        return SF_OK;
    uint64_t size = sf_dtype_bytes(row->entry->dtype);
    return sf_check_finite(src, row->entry->dtype, (int64_t)((begin - p->address) / size),
                           (int64_t)((end - begin) / size), row->entry->name, err);
}

static int stream_extent(struct run *run, int64_t index, const struct sf_extent *x, int worker,
                         struct sf_err *err)
{
    struct worker *w = &run->worker[worker];
    int64_t first, count;
    sf_layout_extent_entries(&first, &count, run->plan->layout, index);
    for (uint64_t at = 0; at < x->bytes; at += WINDOW_BYTES) {
        uint64_t n = x->bytes - at < WINDOW_BYTES ? x->bytes - at : WINDOW_BYTES;
        int code = SF_OK;
        memset(w->buffer, 0, n);
        for (int64_t i = first; i < first + count && code == SF_OK; i++)
            code = copy_overlap(w->buffer, x->address + at, n, &run->plan->row[i], err);
        if (code == SF_OK)
            code = sf_writer_put(run->writer, index, at, w->buffer, n, err);
        if (code == SF_OK)
            code = advance(run, worker, n, err);
        if (code != SF_OK)
            return code;
    }
    return SF_OK;
}

static int build_extent(struct run *run, int64_t index, const struct sf_extent *x, int worker,
                        struct sf_err *err)
{
    struct worker *w = &run->worker[worker];
    int64_t first, count;
    int code = SF_OK;
    sf_layout_extent_entries(&first, &count, run->plan->layout, index);
    memset(w->buffer, 0, x->bytes);
    for (int64_t i = first; i < first + count && code == SF_OK; i++)
        code = sf_matrix_encode(w->buffer, x->address, &run->plan->row[i], &w->scratch, err);
    if (code == SF_OK)
        code = sf_writer_put(run->writer, index, 0, w->buffer, x->bytes, err);
    return code == SF_OK ? advance(run, worker, x->bytes, err) : code;
}

/* Provenance: the hash of all tensor bytes of a shard, which lie behind each other. */
static void hash_shard(struct sf_source_shard *out, const struct sf_hf_shard *shard)
{
    uint64_t bytes = 0;
    int64_t n = sf_safetensors_count(shard->file);
    for (int64_t i = 0; i < n; i++)
        bytes += sf_safetensors_at(shard->file, i)->tensor.bytes;
    const void *data = n > 0 ? sf_safetensors_at(shard->file, 0)->tensor.data : "";
    struct sf_hash128 h = sf_hash128(data, bytes);
    *out = (struct sf_source_shard){.name = shard->name, .bytes = shard->bytes};
    sf_put_u64(out->hash, h.low); /* like every 128-bit hash of the container */
    sf_put_u64(out->hash + 8, h.high);
}

/* Jobs 0 .. extents-1 are extents, the rest shards. */
static int run_job(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct run *run = context;
    if (index >= run->extents) {
        int64_t shard = index - run->extents;
        hash_shard(&run->shard[shard], sf_hf_index_shard(run->plan->index, shard));
        return SF_OK;
    }
    const struct sf_extent *x = sf_layout_extent_at(run->plan->layout, index);
    if (x->kind == SF_EXTENT_SHARED)
        return SF_OK;
    if (is_streamed(x))
        return stream_extent(run, index, x, worker, err);
    return build_extent(run, index, x, worker, err);
}

static int open_workers(struct run *run, int threads, struct sf_err *err)
{
    uint64_t most = WINDOW_BYTES;
    for (int64_t i = 0; i < run->extents; i++) {
        const struct sf_extent *x = sf_layout_extent_at(run->plan->layout, i);
        run->total += x->kind == SF_EXTENT_SHARED ? 0 : x->bytes;
        if (!is_streamed(x) && x->bytes > most)
            most = x->bytes;
    }
    run->worker = sf_alloc((uint64_t)threads * sizeof *run->worker);
    if (!run->worker)
        return sf_fail(err, SF_ENOMEM, "no memory for %d workers", threads);
    int code = SF_OK;
    for (int i = 0; i < threads && code == SF_OK; i++) {
        void *buffer;
        code = sf_alloc_for(&buffer, most, "an extent", err);
        run->worker[i].buffer = buffer;
        if (code == SF_OK)
            code = sf_encode_scratch_open(&run->worker[i].scratch, run->plan, err);
    }
    return code;
}

static void close_workers(struct run *run, int threads)
{
    for (int i = 0; run->worker && i < threads; i++) {
        sf_free(run->worker[i].buffer);
        sf_encode_scratch_close(&run->worker[i].scratch);
    }
    sf_free(run->worker);
}

static int write_container(struct run *run, const char *path, int threads, struct sf_err *err)
{
    const struct sf_convert_options *o = run->options;
    int64_t shards = sf_hf_index_shard_count(run->plan->index);
    const struct sf_model_spec *spec = run->plan->spec;
    int code = sf_writer_open(&run->writer, path, run->plan->layout, err);
    if (code == SF_OK)
        code = sf_jobs_run(run_job, run, run->extents + shards, threads, err);
    for (int64_t i = 0; i < o->files && code == SF_OK; i++)
        code = sf_writer_add_file(run->writer, o->file[i].name, o->file[i].data, o->file[i].bytes,
                                  err);
    if (code != SF_OK) {
        sf_writer_abort(run->writer);
        return code;
    }
    struct sf_summary summary = {.family = spec->family,
                                 .architecture = spec->architecture,
                                 .model_id = o->model_id,
                                 .converter = o->converter,
                                 .options = o->options_text,
                                 .layers = spec->layers,
                                 .hidden = spec->hidden,
                                 .experts = spec->experts,
                                 .vocabulary = spec->vocabulary,
                                 .parameters = run->plan->parameters,
                                 .parameters_text = run->plan->parameters_text,
                                 .source_bytes = run->plan->source_bytes,
                                 .shard_count = shards,
                                 .shard = run->shard};
    return sf_writer_commit(run->writer, &summary, err);
}

static int read_back(const char *path, int threads, struct sf_err *err)
{
    struct sf_map *map;
    int64_t damaged;
    struct sf_check_options options = {.threads = threads};
    int code = sf_map_open(&map, path, err);
    if (code == SF_OK) {
        code = sf_check_run(&damaged, map, &options, err);
        sf_map_close(map);
    }
    if (code == SF_OK)
        return SF_OK;
    unlink(path); /* what does not read back must not look finished */
    return sf_err_prefix(err, "the finished file did not read back and was removed");
}

int sf_convert_run(struct sf_convert_plan *plan, const char *path,
                   const struct sf_convert_options *options, struct sf_err *err)
{
    int threads = options->threads < 1 ? 1 : options->threads;
    struct run run = {.plan = plan, .options = options};
    run.extents = sf_layout_extent_count(plan->layout);
    run.shard = sf_arena_array(&plan->arena, (uint64_t)sf_hf_index_shard_count(plan->index),
                               sizeof *run.shard);
    int code = run.shard ? open_workers(&run, threads, err)
                         : sf_fail(err, SF_ENOMEM, "no memory for the list of shards");
    if (code == SF_OK)
        code = write_container(&run, path, threads, err);
    close_workers(&run, threads);
    return code == SF_OK ? read_back(path, threads, err) : code;
}
