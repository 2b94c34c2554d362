/* synth_container -- writes a container of any Llama 4 geometry straight away, without a checkpoint.
 *   synth_container OUT.scout                 all of Scout (60 GB), seeded
 *   synth_container OUT.scout --layers 2 --skew 4
 *
 * Names, shapes and addresses are those that scout-convert plans for the synthetic checkpoint (its
 * shards exist for a moment, hollow, in OUT.scout.hollow). The payload is cut from one pool of
 * weights that were really encoded, so codes and scales have the statistics of the real thing;
 * checksums are right. Router row 0 is made --skew times larger, which sends it more tokens. */
#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/jobs.h"
#include "libformat/base/mem.h"
#include "libformat/codec/frame.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"
#include "libformat/convert/convert_plan.h"
#include "libformat/hf/hf_config.h"
#include "tests/bench/synth.h"
#include "tools/tool.h"

static const char PROGRAM[] = "synth_container";

enum {
    POOL = 1 << 24,          /* weights */
    UNIT = 8 << 20,          /* payload bytes made at once: a multiple of the chunk size */
    GROUPS = POOL / 64 / 256 /* nested scales in the pool */
};

/* One encoded matrix that everything is cut from. */
struct pool {
    uint16_t *weights; /* bf16 */
    uint8_t *codes, *scales;
    float *groups, offset;
};

struct unit { /* a range of an extent */
    int64_t extent;
    uint64_t offset, bytes;
};

struct run {
    struct sf_arena arena;
    struct synth_geometry geometry;
    const char *directory; /* of the hollow checkpoint */
    double skew;
    bool hollow;       /* leave the payload unwritten */
    const char *carry; /* a file to carry as tokenizer.json, or NULL */
    struct sf_model_spec spec;
    struct sf_hf_index *index;
    struct sf_convert_plan plan;
    struct pool pool;
    struct sf_writer *writer;
    struct unit *unit;
    int64_t units;
    unsigned char **buffer; /* [threads] of UNIT bytes */
    char *config;
    uint64_t config_bytes;
};

static int no_memory(struct sf_err *err)
{
    return sf_fail(err, SF_ENOMEM, "no memory for a synthetic container");
}

/* ---- the plan, from a hollow checkpoint ---- */

static int write_hollow(struct run *r, struct sf_err *err)
{
    int64_t count;
    struct synth_shard *shard = synth_shards(&count, &r->arena, &r->geometry);
    int code = shard ? sf_make_directory(r->directory, err) : no_memory(err);
    if (!code)
        code = synth_write_config(r->directory, &r->geometry, err);
    if (!code)
        code = synth_write_index(r->directory, shard, count, err);
    for (int64_t s = 0; !code && s < count; s++)
        code = synth_write_hollow_shard(r->directory, &shard[s], err);
    return code;
}

static int make_plan(struct run *r, struct sf_err *err)
{
    static struct sf_policy policy;
    const char *path = sf_path_join(&r->arena, r->directory, "config.json");
    int code = path ? write_hollow(r, err) : no_memory(err);
    if (!code)
        code = sf_read_file(&r->config, &r->config_bytes, &r->arena, path, 1 << 20, err);
    if (!code)
        code = sf_hf_config_parse(&r->spec, &r->arena, r->config, r->config_bytes, err);
    if (!code)
        code = sf_hf_index_open(&r->index, r->directory, err);
    return code ? code : sf_convert_plan_build(&r->plan, &r->spec, r->index, &policy, false, err);
}

/* ---- the pool ---- */

static int make_pool(struct run *r, struct sf_err *err)
{
    struct pool *p = &r->pool;
    float *absmax = sf_arena_alloc(&r->arena, POOL / 64 * sizeof *absmax);
    p->weights = sf_arena_alloc(&r->arena, 2 * POOL);
    p->codes = sf_arena_alloc(&r->arena, POOL / 2);
    p->scales = sf_arena_alloc(&r->arena, POOL / 64);
    p->groups = sf_arena_alloc(&r->arena, GROUPS * sizeof *p->groups);
    if (!absmax || !p->weights || !p->codes || !p->scales || !p->groups)
        return no_memory(err);
    synth_fill(p->weights, "pool", 0, POOL, r->geometry.seed);
    sf_nf4_encode(p->codes, absmax, p->weights, SF_BF16, POOL, NULL);
    p->offset = sf_nf4_offset(absmax, POOL / 64);
    sf_nf4_nest(p->scales, p->groups, absmax, POOL / 64, p->offset);
    return SF_OK;
}

/* Bytes of an endless repetition of the pool's, from position `first` on. */
static void repeat(unsigned char *to, const void *from, uint64_t period, uint64_t first,
                   uint64_t bytes)
{
    for (first %= period; bytes; first = 0) {
        uint64_t some = period - first < bytes ? period - first : bytes;
        memcpy(to, (const unsigned char *)from + first, some);
        to += some;
        bytes -= some;
    }
}

static void fill_ones(unsigned char *to, uint64_t bytes)
{
    const uint16_t one = sf_bf16_from_f32(1);
    for (uint64_t i = 0; i + 1 < bytes; i += 2)
        memcpy(to + i, &one, sizeof one);
}

/* The router's first row (`row` bytes), louder. */
static void skew_row(unsigned char *to, uint64_t first, uint64_t bytes, uint64_t row, double skew)
{
    for (uint64_t i = 0; i + 1 < bytes && first + i < row; i += 2) {
        uint16_t bits;
        memcpy(&bits, to + i, sizeof bits);
        bits = sf_bf16_from_f32(sf_f32_from_bf16(bits) * (float)skew);
        memcpy(to + i, &bits, sizeof bits);
    }
}

/* Bytes first .. first + bytes of one plane. Tensors start at different places of the pool. */
static void fill_plane(unsigned char *to, const struct run *r, const struct sf_entry *entry,
                       int64_t number, enum sf_plane_kind plane, uint64_t first, uint64_t bytes)
{
    const struct pool *p = &r->pool;
    uint64_t turn = (uint64_t)number * 7919 % GROUPS; /* in groups of 256 blocks of 64 weights */
    if (entry->encoding == SF_ENCODING_RAW && strstr(entry->name, "norm"))
        fill_ones(to, bytes);
    else if (entry->encoding == SF_ENCODING_RAW)
        repeat(to, p->weights, 2 * POOL, turn * 2 * 16384 + first, bytes);
    else if (plane == SF_PLANE_CODES)
        repeat(to, p->codes, POOL / 2, turn * 8192 + first, bytes);
    else if (plane == SF_PLANE_SCALE)
        repeat(to, p->scales, POOL / 64, turn * 256 + first, bytes);
    else if (plane == SF_PLANE_SCALE2)
        repeat(to, p->groups, GROUPS * sizeof(float), turn * sizeof(float) + first, bytes);
    else if (plane == SF_PLANE_OFFSET)
        memcpy(to, (const unsigned char *)&p->offset + first, bytes);
    if (entry->role.part == SF_PART_ROUTER && entry->encoding == SF_ENCODING_RAW)
        skew_row(to, first, bytes, 2 * (uint64_t)entry->shape.dim[1], r->skew);
}

/* ---- the payload ---- */

static int make_unit(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct run *r = context;
    const struct unit *u = &r->unit[index];
    unsigned char *buffer = r->buffer[worker];
    uint64_t base = sf_layout_extent_at(r->plan.layout, u->extent)->address + u->offset;
    int64_t first, count;
    memset(buffer, 0, u->bytes);
    sf_layout_extent_entries(&first, &count, r->plan.layout, u->extent);
    for (int64_t e = first; e < first + count; e++) {
        const struct sf_entry *entry = sf_layout_entry(r->plan.layout, e);
        for (int k = 0; k < SF_PLANE_CODEBOOK; k++) {
            const struct sf_plane *plane = &entry->plane[k];
            uint64_t from = plane->address > base ? plane->address : base;
            uint64_t to = plane->address + plane->bytes;
            to = to < base + u->bytes ? to : base + u->bytes;
            if (plane->bytes && from < to)
                fill_plane(buffer + (from - base), r, entry, e, (enum sf_plane_kind)k,
                           from - plane->address, to - from);
        }
    }
    return sf_writer_put(r->writer, u->extent, u->offset, buffer, u->bytes, err);
}

/* A unit of zeros that is not written: the file keeps a hole there, which a disk need not hold. */
static int leave_unit(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct run *r = context;
    const struct unit *u = &r->unit[index];
    const struct sf_extent *x = sf_layout_extent_at(r->plan.layout, u->extent);
    uint64_t chunk_bytes = sf_layout_chunk_bytes(r->plan.layout), chunk = u->offset / chunk_bytes;
    unsigned char *checksum = r->buffer[worker];
    static const unsigned char zeros[1 << 20];
    uint64_t chunks = 0;
    for (uint64_t at = 0; at < u->bytes; at += chunk_bytes, chunks++) {
        uint64_t left = u->bytes - at < chunk_bytes ? u->bytes - at : chunk_bytes;
        sf_put_u64(checksum + 8 * chunks, sf_hash64(zeros, left, x->first_chunk + chunk + chunks));
    }
    return sf_writer_restore(r->writer, u->extent, u->offset, u->bytes, checksum, err);
}

static int cut_units(struct run *r, int threads, struct sf_err *err)
{
    int64_t extents = sf_layout_extent_count(r->plan.layout);
    uint64_t most = sf_layout_payload_bytes(r->plan.layout) / UNIT + (uint64_t)extents + 1;
    r->unit = sf_arena_array(&r->arena, most, sizeof *r->unit);
    r->buffer = sf_arena_array(&r->arena, (uint64_t)threads, sizeof *r->buffer);
    if (!r->unit || !r->buffer)
        return no_memory(err);
    for (int i = 0; i < threads; i++)
        if (!(r->buffer[i] = sf_arena_alloc(&r->arena, UNIT)))
            return no_memory(err);
    for (int64_t x = 0; x < extents; x++) {
        const struct sf_extent *extent = sf_layout_extent_at(r->plan.layout, x);
        for (uint64_t at = 0; extent->kind != SF_EXTENT_SHARED && at < extent->bytes; at += UNIT)
            r->unit[r->units++] =
                (struct unit){x, at, extent->bytes - at < UNIT ? extent->bytes - at : UNIT};
    }
    return SF_OK;
}

static int commit(struct run *r, struct sf_err *err)
{
    struct sf_summary summary = {.family = r->spec.family,
                                 .architecture = r->spec.architecture,
                                 .model_id = "synthetic",
                                 .converter = PROGRAM,
                                 .options = "",
                                 .layers = r->spec.layers,
                                 .hidden = r->spec.hidden,
                                 .experts = r->spec.experts,
                                 .vocabulary = r->spec.vocabulary,
                                 .parameters = r->plan.parameters,
                                 .parameters_text = r->plan.parameters_text};
    struct sf_writer *writer = r->writer;
    int code = sf_writer_add_file(writer, "config.json", r->config, r->config_bytes, err);
    char *text;
    uint64_t bytes;
    if (!code && r->carry)
        code = sf_read_file(&text, &bytes, &r->arena, r->carry, 1u << 30, err);
    if (!code && r->carry)
        code = sf_writer_add_file(writer, "tokenizer.json", text, bytes, err);
    if (code)
        return code;
    r->writer = NULL;
    return sf_writer_commit(writer, &summary, err);
}

static int write_container(struct run *r, const char *path, int threads, struct sf_err *err)
{
    double began = tool_now();
    int code = make_plan(r, err);
    if (!code)
        code = make_pool(r, err);
    if (!code)
        code = sf_writer_open(&r->writer, path, r->plan.layout, err);
    if (!code)
        code = cut_units(r, threads, err);
    if (!code)
        code = sf_jobs_run(r->hollow ? leave_unit : make_unit, r, r->units, threads, err);
    if (!code)
        code = commit(r, err);
    if (code)
        return code;
    double seconds = tool_now() - began, bytes = (double)sf_layout_payload_bytes(r->plan.layout);
    printf("%s: %.2f GB in %.1f s, %.1f GB/s\n", path, bytes / 1e9, seconds, bytes / 1e9 / seconds);
    return SF_OK;
}

static void end_run(struct run *r)
{
    sf_writer_abort(r->writer);
    sf_convert_plan_free(&r->plan);
    sf_hf_index_close(r->index);
    sf_arena_free(&r->arena);
}

int main(int argc, char **argv)
{
    struct run run = {.geometry = {48, 5120, 40, 8, 128, 8192, 16, 202048, 1}, .skew = 1};
    struct synth_geometry *g = &run.geometry;
    int64_t threads = sf_cpu_count(), seed = 1;
    const struct tool_option options[] = {
        {"layers", 0, TOOL_INT, &g->layers, "N", "layers (48)"},
        {"hidden", 0, TOOL_INT, &g->hidden, "N", "hidden size (5120)"},
        {"heads", 0, TOOL_INT, &g->heads, "N", "query heads (40)"},
        {"kv-heads", 0, TOOL_INT, &g->kv_heads, "N", "key-value heads (8)"},
        {"head-size", 0, TOOL_INT, &g->head_size, "N", "width of a head (128)"},
        {"width", 0, TOOL_INT, &g->width, "N", "width of experts and shared expert (8192)"},
        {"experts", 0, TOOL_INT, &g->experts, "N", "routed experts (16)"},
        {"vocabulary", 0, TOOL_INT, &g->vocabulary, "N", "rows of embedding and head (202048)"},
        {"seed", 0, TOOL_INT, &seed, "N", "seed (1)"},
        {"skew", 0, TOOL_DOUBLE, &run.skew, "X", "makes each router's row 0 X times larger (1)"},
        {"hollow", 0, TOOL_FLAG, &run.hollow, "", "zeros that are not written: a file with holes"},
        {"carry", 0, TOOL_STRING, &run.carry, "FILE", "carried as tokenizer.json"},
        {"threads", 0, TOOL_INT, &threads, "N", "threads (all processors)"},
    };
    struct tool_args args = {.program = PROGRAM,
                             .usage = "synth_container OUT.scout [options]",
                             .about = "Writes a container of synthetic weights.",
                             .option = options,
                             .options = sizeof options / sizeof options[0]};
    struct sf_err err = {0};
    tool_start();
    int status = tool_parse(&args, argc, argv, &run.arena);
    if (status == TOOL_DONE && !args.help && args.operands != 1)
        status = tool_usage(PROGRAM, "give one file to write");
    g->seed = (uint64_t)seed;
    if (status == TOOL_DONE && !args.help) {
        run.directory = sf_arena_printf(&run.arena, "%s.hollow", args.operand[0]);
        if (write_container(&run, args.operand[0], threads < 1 ? 1 : (int)threads, &err) != SF_OK)
            status = tool_failed(PROGRAM, &err);
    }
    end_run(&run);
    return tool_finish(PROGRAM, status);
}
