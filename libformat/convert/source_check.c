#include "libformat/convert/source_check.h"

#include <math.h>
#include <string.h>

#include "libformat/base/jobs.h"
#include "libformat/base/mem.h"
#include "libformat/codec/nf4.h"
#include "libformat/convert/entry_decode.h"
#include "libformat/convert/matrix_encode.h"

enum { BINS = 2000, ROUND_TENSORS = 16 };
static const double WIDEST = 1.0; /* relative error of a block: the last bin takes what is beyond */

struct worker {
    struct sf_encode_scratch scratch;
    unsigned char *made; /* the planes that the encoder makes */
    float *step;         /* the source's elements, a step at a time */
    float *scale, *error, *norm;
};

struct run {
    struct sf_source_check *check;
    const struct sf_weight_list *mine, *source;
    struct worker *worker;
    int threads;
    int64_t first; /* of the round */
    uint64_t largest_made;
    int64_t largest_step;
};

const char *sf_proof_name(enum sf_proof proof)
{
    static const char *const names[SF_PROOF_COUNT] = {"exact", "searched", "differs", "no source"};
    return names[proof];
}

/* ---- one tensor made again ---- */

/* The entry with its own planes side by side from address 0; *bytes is what they take. */
static struct sf_entry moved(uint64_t *bytes, const struct sf_entry *e)
{
    struct sf_entry out = *e;
    *bytes = 0;
    for (int k = 0; k < SF_PLANE_COUNT; k++) {
        if (k == SF_PLANE_CODEBOOK || k == SF_PLANE_MAP || e->plane[k].dtype == SF_DTYPE_NONE)
            continue;
        out.plane[k].address = *bytes;
        sf_align_up(bytes, *bytes + e->plane[k].bytes, 256);
    }
    return out;
}

static int64_t codes_that_differ(const unsigned char *a, const unsigned char *b, int64_t count)
{
    int64_t n = 0;
    for (int64_t i = 0; i < count; i++)
        n += ((a[i / 2] ^ b[i / 2]) >> (i % 2 ? 0 : 4) & 15) != 0;
    return n;
}

static int64_t elements_that_differ(const unsigned char *a, const unsigned char *b, uint64_t bytes,
                                    uint64_t size)
{
    int64_t n = 0;
    for (uint64_t at = 0; at < bytes; at += size)
        n += memcmp(a + at, b + at, (size_t)size) != 0;
    return n;
}

/* Are the planes that were made those of the file? Counts what differs. */
static bool compare_planes(struct sf_source_check_row *row, const struct run *run,
                           const struct sf_entry *made_entry, const unsigned char *made)
{
    bool same = true;
    for (int k = 0; k < SF_PLANE_COUNT; k++) {
        const struct sf_plane *p = &row->entry->plane[k];
        if (k == SF_PLANE_CODEBOOK || k == SF_PLANE_MAP || p->dtype == SF_DTYPE_NONE)
            continue;
        const unsigned char *a = made + made_entry->plane[k].address,
                            *b = sf_map_bytes(run->mine->map, p->address);
        if (memcmp(a, b, (size_t)p->bytes) == 0)
            continue;
        same = false;
        if (k == SF_PLANE_CODES && row->entry->encoding == SF_ENCODING_NF4) {
            int64_t count = 0;
            sf_shape_count(&count, &row->entry->shape);
            row->codes_changed = codes_that_differ(a, b, count);
        } else {
            int64_t n = elements_that_differ(a, b, p->bytes, sf_dtype_bytes(p->dtype));
            *(k == SF_PLANE_CODES ? &row->codes_changed : &row->scales_changed) += n;
        }
    }
    return same;
}

/* The codebooks are the file's own: a decoder uses them, so they must be those of the encoder. */
static bool plain_codebooks(const struct run *run, const struct sf_entry *e)
{
    const struct sf_plane *book = &e->plane[SF_PLANE_CODEBOOK], *map = &e->plane[SF_PLANE_MAP];
    return memcmp(sf_map_bytes(run->mine->map, book->address), sf_nf4_code_value,
                  16 * sizeof(float)) == 0 &&
           (e->nested_block == 0 || memcmp(sf_map_bytes(run->mine->map, map->address),
                                           sf_nf4_scale_map, 256 * sizeof(float)) == 0);
}

/* ---- the stored numbers against the source ---- */

static double quantile(const int64_t *bin, int64_t count, double share)
{
    int64_t below = 0;
    for (int i = 0; i < BINS; i++) {
        below += bin[i];
        if ((double)below >= share * (double)count)
            return WIDEST * (i + 1) / BINS;
    }
    return WIDEST;
}

static void add_blocks(struct sf_source_check_row *row, struct sf_nf4_error *sum, int64_t *bin,
                       const struct worker *w, int64_t blocks)
{
    sf_nf4_error_add(sum, w->error, w->norm, blocks);
    for (int64_t i = 0; i < blocks; i++) {
        double relative = w->norm[i] > 0    ? sqrt((double)w->error[i] / (double)w->norm[i])
                          : w->error[i] > 0 ? WIDEST
                                            : 0;
        row->worst = relative > row->worst ? relative : row->worst;
        int at = relative < WIDEST ? (int)(relative / WIDEST * BINS) : BINS - 1;
        bin[at]++;
    }
}

static int measure(struct sf_source_check_row *row, struct run *run, const struct sf_weight *source,
                   struct worker *w, struct sf_err *err)
{
    const struct sf_entry *e = row->entry;
    const uint8_t *codes = sf_map_bytes(run->mine->map, e->plane[SF_PLANE_CODES].address);
    int64_t count = 0, step = sf_weight_step(source), bin[BINS] = {0};
    struct sf_nf4_error sum = {0};
    sf_shape_count(&count, &e->shape);
    for (int64_t at = 0; at < count; at += step) {
        int64_t n = count - at < step ? count - at : step;
        int code = sf_weight_read(w->step, run->source, source, at, n, err);
        if (code != SF_OK)
            return code;
        sf_entry_scales(w->scale, run->mine->map, e, at / SF_NF4_BLOCK, sf_nf4_blocks(n));
        sf_nf4_errors(w->error, w->norm, w->step, SF_F32, codes + at / 2, w->scale, n);
        add_blocks(row, &sum, bin, w, sf_nf4_blocks(n));
    }
    row->measured = sum.squared_norm > 0 ? sqrt(sum.squared_error / sum.squared_norm) : 0;
    row->half = quantile(bin, sf_nf4_blocks(count), 0.5);
    row->most = quantile(bin, sf_nf4_blocks(count), 0.9);
    row->nearly_all = quantile(bin, sf_nf4_blocks(count), 0.99);
    return SF_OK;
}

static bool plain_form(const struct run *run, const struct sf_entry *e)
{
    return sf_part_is_matrix(e->role.part) && e->shape.rank == 2 && e->block == SF_NF4_BLOCK &&
           e->block_axis < 0 && plain_codebooks(run, e);
}

/* ---- what was quantized in the source ---- */

static bool own_codebooks(const struct run *run, const struct sf_entry *e,
                          const struct sf_bnb_tensor *t)
{
    const struct sf_plane *book = &e->plane[SF_PLANE_CODEBOOK], *map = &e->plane[SF_PLANE_MAP];
    return memcmp(sf_map_bytes(run->mine->map, book->address), t->codebook, sizeof t->codebook) ==
               0 &&
           (e->nested_block == 0 ||
            memcmp(sf_map_bytes(run->mine->map, map->address), t->map, sizeof t->map) == 0);
}

static bool same_planes(const struct sf_entry *a, const struct sf_entry *b)
{
    return a->encoding == b->encoding && a->block == b->block &&
           a->nested_block == b->nested_block && a->block_axis == b->block_axis;
}

/* Taken over: every byte, and the codebooks too. Else quantized anew, which gives every byte again. */
static int check_packed(struct sf_source_check_row *row, struct run *run,
                        const struct sf_weight *source, struct worker *w, struct sf_err *err)
{
    uint64_t bytes;
    struct sf_entry entry = moved(&bytes, row->entry);
    struct sf_convert_row again = {.entry = &entry, .source = source->source};
    bool taken = same_planes(row->entry, source->entry);
    again.source.requantize = !taken;
    row->proof = SF_PROOF_DIFFERS;
    if (taken ? !own_codebooks(run, row->entry, source->source.packed)
              : !plain_form(run, row->entry) || row->entry->nested_block != SF_NF4_NEST ||
                    !source->source.transposed)
        return SF_OK;
    memset(w->made, 0, bytes);
    int code = sf_matrix_encode(w->made, 0, &again, &w->scratch, err);
    if (code != SF_OK)
        return code;
    row->plain = row->measured = entry.relative_rms_error;
    if (compare_planes(row, run, &entry, w->made) && row->recorded == row->plain)
        row->proof = SF_PROOF_EXACT;
    return SF_OK;
}

/* ---- the verdict ---- */

/* The recorded error is the same sum in the same order: equal to the last bit, or other bytes. */
static bool was_searched(const struct run *run, const struct sf_source_check_row *r)
{
    bool weighted = strstr(sf_map_summary(run->mine->map)->options, "importance=") != NULL;
    return (weighted || r->measured <= r->plain) && r->measured == r->recorded;
}

static int check_nf4(struct sf_source_check_row *row, struct run *run,
                     const struct sf_weight *source, struct worker *w, struct sf_err *err)
{
    uint64_t bytes;
    struct sf_entry entry = moved(&bytes, row->entry);
    struct sf_convert_row again = {.entry = &entry, .source = source->source};
    if (!plain_form(run, row->entry)) {
        row->proof = SF_PROOF_DIFFERS;
        return SF_OK;
    }
    if (entry.nested_block == SF_NF4_NEST) {
        memset(w->made, 0, bytes);
        int code = sf_matrix_encode(w->made, 0, &again, &w->scratch, err);
        if (code != SF_OK)
            return code;
        row->plain = entry.relative_rms_error;
        if (compare_planes(row, run, &entry, w->made) && row->recorded == row->plain) {
            row->measured = row->plain;
            return SF_OK;
        }
    } else {
        row->plain = row->recorded; /* imports: only measured */
    }
    int code = measure(row, run, source, w, err);
    row->proof = was_searched(run, row) ? SF_PROOF_SEARCHED : SF_PROOF_DIFFERS;
    return code;
}

static int check_raw(struct sf_source_check_row *row, struct run *run,
                     const struct sf_weight *source, struct worker *w, struct sf_err *err)
{
    const struct sf_plane *p = &row->entry->plane[SF_PLANE_CODES];
    uint64_t bytes, size = sf_dtype_bytes(p->dtype);
    struct sf_entry entry = moved(&bytes, row->entry);
    const unsigned char *made = source->source.tensor->data;
    if (source->source.transposed) {
        struct sf_convert_row again = {.entry = &entry, .source = source->source};
        int code = sf_matrix_encode(w->made, 0, &again, &w->scratch, err);
        if (code != SF_OK)
            return code;
        made = w->made;
    } else {
        made += (uint64_t)source->source.first * size;
    }
    const unsigned char *mine = sf_map_bytes(run->mine->map, p->address);
    if (memcmp(made, mine, (size_t)p->bytes) == 0)
        return SF_OK;
    row->codes_changed = elements_that_differ(made, mine, p->bytes, size);
    row->proof = SF_PROOF_DIFFERS;
    return SF_OK;
}

static int check_one(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct run *run = context;
    const struct sf_weight *mine = &run->mine->weight[run->first + index];
    const struct sf_weight *source = sf_weight_list_find(run->source, mine);
    struct sf_source_check_row *row = &run->check->row[run->first + index];
    struct worker *w = &run->worker[worker];
    *row = (struct sf_source_check_row){.entry = mine->entry,
                                        .recorded = mine->entry->relative_rms_error};
    if (!source || source->dtype != mine->dtype || !sf_shape_equal(&source->shape, &mine->shape)) {
        row->proof = SF_PROOF_MISSING;
        return SF_OK;
    }
    int code = source->source.packed                      ? check_packed(row, run, source, w, err)
               : mine->entry->encoding == SF_ENCODING_RAW ? check_raw(row, run, source, w, err)
                                                          : check_nf4(row, run, source, w, err);
    return code == SF_OK ? code : sf_err_prefix(err, "%s", mine->name);
}

/* ---- the run ---- */

static void measure_largest(struct run *run)
{
    run->largest_step = 1;
    for (int64_t i = 0; i < run->mine->count; i++) {
        const struct sf_weight *source = sf_weight_list_find(run->source, &run->mine->weight[i]);
        const struct sf_entry *e = run->mine->weight[i].entry;
        uint64_t bytes;
        moved(&bytes, e);
        if (!source || (e->encoding == SF_ENCODING_RAW && !source->source.transposed))
            continue;
        run->largest_made = bytes > run->largest_made ? bytes : run->largest_made;
        if (sf_weight_step(source) > run->largest_step)
            run->largest_step = sf_weight_step(source);
    }
}

static int open_worker(struct worker *w, const struct run *run, struct sf_err *err)
{
    uint64_t blocks = (uint64_t)sf_nf4_blocks(run->largest_step) * sizeof(float);
    int code = sf_encode_scratch_open(&w->scratch, &run->source->plan, err);
    if (code == SF_OK)
        code = sf_alloc_for((void **)&w->made, run->largest_made, "a tensor made again", err);
    if (code == SF_OK)
        code = sf_alloc_for((void **)&w->step, (uint64_t)run->largest_step * sizeof(float),
                            "elements of a source", err);
    if (code == SF_OK)
        code = sf_alloc_for((void **)&w->scale, 3 * blocks, "blocks of a source", err);
    if (code == SF_OK) {
        w->error = w->scale + sf_nf4_blocks(run->largest_step);
        w->norm = w->error + sf_nf4_blocks(run->largest_step);
    }
    return code;
}

static void close_worker(struct worker *w)
{
    sf_encode_scratch_close(&w->scratch);
    sf_free(w->made);
    sf_free(w->step);
    sf_free(w->scale);
}

static uint64_t own_bytes(const struct sf_entry *e)
{
    uint64_t bytes;
    moved(&bytes, e);
    return bytes;
}

static int check_all(struct run *run, const struct sf_source_check_options *o, struct sf_err *err)
{
    uint64_t done = 0, total = 0;
    int64_t count = run->mine->count;
    int code = SF_OK;
    for (int64_t i = 0; i < count; i++)
        total += own_bytes(run->mine->weight[i].entry);
    for (run->first = 0; run->first < count && code == SF_OK; run->first += ROUND_TENSORS) {
        int64_t n = count - run->first < ROUND_TENSORS ? count - run->first : ROUND_TENSORS;
        code = sf_jobs_run(check_one, run, n, run->threads, err);
        for (int64_t i = 0; i < n; i++)
            done += own_bytes(run->mine->weight[run->first + i].entry);
        if (o->on_progress)
            o->on_progress(o->context, done, total);
    }
    return code;
}

static int count_up(struct run *run, struct sf_err *err)
{
    struct sf_source_check *c = run->check;
    for (int64_t i = 0; i < c->rows; i++)
        c->of_proof[c->row[i].proof]++;
    c->left = sf_arena_array(&c->arena, (uint64_t)run->source->count + 1, sizeof(void *));
    if (!c->left)
        return sf_fail(err, SF_ENOMEM, "no memory for a list of weights");
    for (int64_t i = 0; i < run->source->count; i++)
        if (!sf_weight_list_find(run->mine, &run->source->weight[i]))
            c->left[c->left_out++] = &run->source->weight[i];
    return SF_OK;
}

int sf_source_check_run(struct sf_source_check *out, const struct sf_map *map,
                        const struct sf_weight_list *source,
                        const struct sf_source_check_options *options, struct sf_err *err)
{
    struct sf_weight_list mine;
    *out = (struct sf_source_check){0};
    int code = sf_weight_list_from_map(&mine, map, err);
    if (code != SF_OK)
        return code;
    struct run run = {.check = out, .mine = &mine, .source = source, .threads = options->threads};
    out->rows = mine.count;
    out->row = sf_arena_array(&out->arena, (uint64_t)mine.count + 1, sizeof *out->row);
    run.worker = sf_arena_array(&out->arena, (uint64_t)run.threads, sizeof *run.worker);
    if (!out->row || !run.worker)
        code = sf_fail(err, SF_ENOMEM, "no memory to check %lld tensors", (long long)mine.count);
    measure_largest(&run);
    for (int i = 0; i < run.threads && code == SF_OK; i++)
        code = open_worker(&run.worker[i], &run, err);
    if (code == SF_OK)
        code = check_all(&run, options, err);
    if (code == SF_OK)
        code = count_up(&run, err);
    for (int i = 0; run.worker && i < run.threads; i++)
        close_worker(&run.worker[i]);
    sf_weight_list_close(&mine);
    if (code != SF_OK)
        sf_source_check_free(out);
    return code;
}

void sf_source_check_free(struct sf_source_check *check)
{
    sf_arena_free(&check->arena);
    *check = (struct sf_source_check){0};
}
