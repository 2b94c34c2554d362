#include "libformat/convert/diff.h"

#include <math.h>
#include <string.h>

#include "libformat/base/jobs.h"
#include "libformat/base/mem.h"
#include "libformat/codec/nf4.h"

/* Pieces are compared in rounds, so that the caller's thread can tell how far it is. */
enum { ROUND = 64 };

/* A run of one weight, and what was found in it. */
struct piece {
    int64_t row, first, count;
    int64_t changed, codes_changed, scales_changed;
    double squared_difference, squared_norm, largest;
    int64_t largest_at;
};

struct run {
    struct sf_diff *diff;
    const struct sf_weight_list *a, *b;
    const struct sf_diff_options *options;
    struct piece *piece;
    int64_t pieces, first; /* first: of the round */
    float **buffer;        /* [threads] two pieces each */
    int64_t step;          /* of the largest piece */
};

const char *sf_diff_state_name(enum sf_diff_state state)
{
    static const char *const names[SF_DIFF_STATES] = {"same",      "values",    "shape",
                                                      "no floats", "only in A", "only in B"};
    return names[state];
}

/* ---- stored alike? ---- */

static const void *stored(const struct sf_weight_list *list, const struct sf_weight *w,
                          enum sf_plane_kind kind)
{
    if (list->map)
        return sf_map_bytes(list->map, w->entry->plane[kind].address);
    return w->source.tensor->data;
}

/* One encoding on both sides, so that codes and scales can be compared one by one. */
static bool quantized_alike(const struct run *run, const struct sf_diff_row *r)
{
    if (!run->a->map || !run->b->map)
        return false;
    const struct sf_entry *a = r->a->entry, *b = r->b->entry;
    return a->encoding != SF_ENCODING_RAW && a->encoding == b->encoding && a->block == b->block &&
           a->nested_block == b->nested_block && a->block_axis == b->block_axis;
}

static bool raw(const struct sf_weight_list *list, const struct sf_weight *w)
{
    return list->map ? w->entry->encoding == SF_ENCODING_RAW : !w->source.transposed;
}

static bool same_bytes(const struct run *run, const struct sf_diff_row *r)
{
    if (raw(run->a, r->a) && raw(run->b, r->b)) {
        uint64_t bytes;
        return r->a->dtype == r->b->dtype && sf_shape_bytes(&bytes, &r->a->shape, r->a->dtype) &&
               memcmp(stored(run->a, r->a, SF_PLANE_CODES), stored(run->b, r->b, SF_PLANE_CODES),
                      bytes) == 0;
    }
    if (!quantized_alike(run, r))
        return false;
    for (int k = 0; k < SF_PLANE_COUNT; k++) {
        const struct sf_plane *a = &r->a->entry->plane[k], *b = &r->b->entry->plane[k];
        if (a->dtype != b->dtype || a->bytes != b->bytes ||
            (a->dtype != SF_DTYPE_NONE &&
             memcmp(stored(run->a, r->a, k), stored(run->b, r->b, k), a->bytes) != 0))
            return false;
    }
    return true;
}

static int compare_bytes(void *context, int64_t index, int worker, struct sf_err *err)
{
    (void)worker, (void)err;
    struct run *run = context;
    struct sf_diff_row *r = &run->diff->row[index];
    if (r->state == SF_DIFF_VALUES && same_bytes(run, r))
        r->state = SF_DIFF_SAME;
    return SF_OK;
}

/* ---- numbers ---- */

static void compare_floats(struct piece *p, const float *a, const float *b)
{
    for (int64_t i = 0; i < p->count; i++) {
        double x = a[i], y = b[i], d = y - x;
        if (x == y || (isnan(x) && isnan(y)))
            d = 0;
        else
            p->changed++;
        p->squared_norm += x * x;
        p->squared_difference += d * d;
        if (fabs(d) > p->largest) {
            p->largest = fabs(d);
            p->largest_at = p->first + i;
        }
    }
}

static void compare_codes(struct piece *p, const struct run *run, const struct sf_diff_row *r)
{
    const unsigned char *a = stored(run->a, r->a, SF_PLANE_CODES),
                        *b = stored(run->b, r->b, SF_PLANE_CODES);
    for (int64_t i = p->first; i < p->first + p->count; i++) {
        int shift = i % 2 ? 0 : 4;
        p->codes_changed += ((a[i / 2] ^ b[i / 2]) >> shift & 15) != 0;
    }
    const unsigned char *s = stored(run->a, r->a, SF_PLANE_SCALE),
                        *t = stored(run->b, r->b, SF_PLANE_SCALE);
    uint64_t size = sf_dtype_bytes(r->a->entry->plane[SF_PLANE_SCALE].dtype);
    int64_t block = r->a->entry->block, end = (p->first + p->count + block - 1) / block;
    for (int64_t i = p->first / block; i < end; i++)
        p->scales_changed +=
            memcmp(s + (uint64_t)i * size, t + (uint64_t)i * size, (size_t)size) != 0;
}

static int compare_piece(void *context, int64_t index, int worker, struct sf_err *err)
{
    struct run *run = context;
    struct piece *p = &run->piece[run->first + index];
    const struct sf_diff_row *r = &run->diff->row[p->row];
    float *a = run->buffer[worker], *b = a + run->step;
    int code = sf_weight_read(a, run->a, r->a, p->first, p->count, err);
    if (code == SF_OK)
        code = sf_weight_read(b, run->b, r->b, p->first, p->count, err);
    if (code != SF_OK)
        return code;
    compare_floats(p, a, b);
    if (quantized_alike(run, r))
        compare_codes(p, run, r);
    return SF_OK;
}

/* ---- what to compare ---- */

static bool is_float(enum sf_dtype dtype)
{
    return dtype == SF_BF16 || dtype == SF_F16 || dtype == SF_F32;
}

static int64_t step_of(const struct sf_diff_row *r)
{
    int64_t a = sf_weight_step(r->a), b = sf_weight_step(r->b);
    if (r->a->source.transposed)
        return a; /* both turned: the same rows; a flat side takes any multiple of 64 */
    return r->b->source.transposed ? b : a < b ? a : b;
}

static void add_row(struct sf_diff *d, const struct sf_weight *a, const struct sf_weight *b)
{
    struct sf_diff_row *r = &d->row[d->rows++];
    *r = (struct sf_diff_row){
        .a = a, .b = b, .codes_changed = -1, .scales = -1, .scales_changed = -1};
    r->state = !a ? SF_DIFF_ONLY_B : !b ? SF_DIFF_ONLY_A : SF_DIFF_VALUES;
    if (a && b && !sf_shape_equal(&a->shape, &b->shape))
        r->state = SF_DIFF_SHAPE;
    sf_shape_count(&r->elements, a ? &a->shape : &b->shape);
}

/* Both lists are in one order: a merge. */
static int match(struct run *run, struct sf_err *err)
{
    struct sf_diff *d = run->diff;
    int64_t i = 0, j = 0, most = run->a->count + run->b->count;
    d->row = sf_arena_array(&d->arena, (uint64_t)most + 1, sizeof *d->row);
    if (!d->row)
        return sf_fail(err, SF_ENOMEM, "no memory to compare %lld weights", (long long)most);
    while (i < run->a->count || j < run->b->count) {
        const struct sf_weight *a = i < run->a->count ? &run->a->weight[i] : NULL,
                               *b = j < run->b->count ? &run->b->weight[j] : NULL;
        int order = !a ? 1 : !b ? -1 : sf_weight_compare(a, b);
        add_row(d, order <= 0 ? a : NULL, order >= 0 ? b : NULL);
        i += order <= 0;
        j += order >= 0;
    }
    return SF_OK;
}

static int cut(struct run *run, struct sf_err *err)
{
    struct sf_diff *d = run->diff;
    int64_t pieces = 0;
    run->step = 1;
    for (int64_t i = 0; i < d->rows; i++) {
        struct sf_diff_row *r = &d->row[i];
        if (r->state == SF_DIFF_VALUES && (!is_float(r->a->dtype) || !is_float(r->b->dtype)))
            r->state = SF_DIFF_OPAQUE;
        if (r->state != SF_DIFF_VALUES)
            continue;
        int64_t step = step_of(r);
        pieces += (r->elements + step - 1) / step;
        run->step = step > run->step ? step : run->step;
    }
    run->piece = sf_arena_array(&d->arena, (uint64_t)pieces + 1, sizeof *run->piece);
    if (!run->piece)
        return sf_fail(err, SF_ENOMEM, "no memory to compare %lld pieces", (long long)pieces);
    for (int64_t i = 0; i < d->rows; i++) {
        const struct sf_diff_row *r = &d->row[i];
        int64_t step = r->state == SF_DIFF_VALUES ? step_of(r) : 1;
        for (int64_t at = 0; r->state == SF_DIFF_VALUES && at < r->elements; at += step) {
            int64_t left = r->elements - at;
            run->piece[run->pieces++] =
                (struct piece){.row = i, .first = at, .count = left < step ? left : step};
        }
    }
    return SF_OK;
}

static int open_buffers(struct run *run, struct sf_err *err)
{
    run->buffer =
        sf_arena_array(&run->diff->arena, (uint64_t)run->options->threads, sizeof *run->buffer);
    if (!run->buffer)
        return sf_fail(err, SF_ENOMEM, "no memory for %d threads", run->options->threads);
    int code = SF_OK;
    for (int i = 0; i < run->options->threads && code == SF_OK; i++)
        code = sf_alloc_for((void **)&run->buffer[i], (uint64_t)run->step * 2 * sizeof(float),
                            "two pieces of a weight", err);
    return code;
}

static int compare_all(struct run *run, struct sf_err *err)
{
    uint64_t done = 0, total = 0;
    int code = open_buffers(run, err);
    for (int64_t i = 0; i < run->pieces; i++)
        total += (uint64_t)run->piece[i].count;
    for (run->first = 0; run->first < run->pieces && code == SF_OK; run->first += ROUND) {
        int64_t n = run->pieces - run->first < ROUND ? run->pieces - run->first : ROUND;
        code = sf_jobs_run(compare_piece, run, n, run->options->threads, err);
        for (int64_t i = 0; i < n; i++)
            done += (uint64_t)run->piece[run->first + i].count;
        if (run->options->on_progress)
            run->options->on_progress(run->options->context, done, total);
    }
    return code;
}

/* ---- the sums, piece after piece ---- */

static void add_up(struct run *run)
{
    struct sf_diff *d = run->diff;
    for (int64_t i = 0, at = 0; i < d->rows; i++) {
        struct sf_diff_row *r = &d->row[i];
        double difference = 0, norm = 0;
        if (r->state == SF_DIFF_VALUES && quantized_alike(run, r)) {
            r->codes_changed = r->scales_changed = 0;
            r->scales = r->a->entry->plane[SF_PLANE_SCALE].shape.dim[0];
        }
        for (; at < run->pieces && run->piece[at].row == i; at++) {
            const struct piece *p = &run->piece[at];
            r->changed += p->changed;
            difference += p->squared_difference;
            norm += p->squared_norm;
            if (p->largest > r->largest) {
                r->largest = p->largest;
                r->largest_at = p->largest_at;
            }
            if (r->codes_changed >= 0) {
                r->codes_changed += p->codes_changed;
                r->scales_changed += p->scales_changed;
            }
        }
        r->relative_rms = difference == 0 ? 0 : sqrt(difference / norm);
        if (r->state == SF_DIFF_VALUES && r->changed == 0)
            r->state = SF_DIFF_SAME; /* stored otherwise, but the same numbers */
        d->of_state[r->state]++;
    }
}

int sf_diff_run(struct sf_diff *out, const struct sf_weight_list *a, const struct sf_weight_list *b,
                const struct sf_diff_options *options, struct sf_err *err)
{
    *out = (struct sf_diff){0};
    struct run run = {.diff = out, .a = a, .b = b, .options = options};
    int code = match(&run, err);
    if (code == SF_OK)
        code = sf_jobs_run(compare_bytes, &run, out->rows, options->threads, err);
    if (code == SF_OK)
        code = cut(&run, err);
    if (code == SF_OK)
        code = compare_all(&run, err);
    for (int i = 0; run.buffer && i < options->threads; i++)
        sf_free(run.buffer[i]);
    if (code == SF_OK)
        add_up(&run);
    else
        sf_diff_free(out);
    return code;
}

void sf_diff_free(struct sf_diff *diff)
{
    sf_arena_free(&diff->arena);
    *diff = (struct sf_diff){0};
}
