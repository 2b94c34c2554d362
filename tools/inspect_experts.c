#include <math.h>

#include "libformat/base/jobs.h"
#include "libformat/convert/entry_decode.h"
#include "tools/inspect_verbs.h"

/* One routed expert: its tensors' own bytes, and the worst of their errors. */
struct cell {
    int tensors;
    uint64_t bytes;
    double error;
    double norm; /* Frobenius, over its tensors; 0 until it was asked for */
};

struct grid {
    int64_t layers, experts; /* one more than the highest */
    struct cell *cell;       /* [layers][experts]; tensors 0: there is none */
    bool even;               /* all of one size */
    uint64_t bytes;          /* that size */
};

static bool is_expert(const struct sf_entry *entry)
{
    return inspect_kind_of(entry->role.part) == INSPECT_EXPERTS && entry->role.layer >= 0 &&
           entry->role.expert >= 0;
}

static void measure(struct grid *g, const struct sf_map *map)
{
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++) {
        const struct sf_entry *entry = sf_map_tensor(map, i);
        if (!is_expert(entry))
            continue;
        if (entry->role.layer >= g->layers)
            g->layers = (int64_t)entry->role.layer + 1;
        if (entry->role.expert >= g->experts)
            g->experts = (int64_t)entry->role.expert + 1;
    }
}

static int gather(struct grid *g, struct inspect *in, struct sf_err *err)
{
    measure(g, in->map);
    uint64_t cells;
    if (__builtin_mul_overflow((uint64_t)g->layers, (uint64_t)g->experts, &cells) ||
        !(g->cell = sf_arena_array(in->arena, cells, sizeof *g->cell)))
        return sf_fail(err, SF_ENOMEM, "no memory for a grid of %lld layers and %lld experts",
                       (long long)g->layers, (long long)g->experts);
    for (int64_t i = 0; i < sf_map_info(in->map)->tensors; i++) {
        const struct sf_entry *entry = sf_map_tensor(in->map, i);
        if (!is_expert(entry))
            continue;
        struct cell *cell = &g->cell[entry->role.layer * g->experts + entry->role.expert];
        cell->tensors++;
        cell->bytes += inspect_entry_bytes(entry);
        if (entry->relative_rms_error > cell->error)
            cell->error = entry->relative_rms_error;
    }
    g->even = true;
    for (uint64_t i = 0; i < cells; i++) {
        g->bytes = g->cell[i].tensors && !g->bytes ? g->cell[i].bytes : g->bytes;
        g->even = g->even && (!g->cell[i].tensors || g->cell[i].bytes == g->bytes);
    }
    return SF_OK;
}

/* ---- norms: every weight decoded ---- */

struct norms {
    const struct sf_map *map;
    int64_t count;
    const struct sf_entry **entry;
    double *squares; /* of each entry */
};

static int norm_of(void *context, int64_t index, int worker, struct sf_err *err)
{
    enum { SPAN = 8192 };
    struct norms *n = context;
    float value[SPAN];
    int64_t count = 0;
    int code = SF_OK;
    (void)worker;
    sf_shape_count(&count, &n->entry[index]->shape);
    for (int64_t at = 0; at < count && code == SF_OK; at += SPAN) {
        int64_t some = count - at < SPAN ? count - at : SPAN;
        code = sf_entry_decode(value, n->map, n->entry[index], at, some, err);
        for (int64_t i = 0; i < some && code == SF_OK; i++)
            n->squares[index] += (double)value[i] * (double)value[i];
    }
    return code;
}

/* Sums in the order of the index: threads cannot show. */
static int gather_norms(struct grid *g, struct inspect *in, int threads, struct sf_err *err)
{
    int64_t tensors = sf_map_info(in->map)->tensors;
    struct norms n = {.map = in->map,
                      .entry = sf_arena_array(in->arena, (uint64_t)tensors, sizeof *n.entry),
                      .squares = sf_arena_array(in->arena, (uint64_t)tensors, sizeof *n.squares)};
    if (!n.entry || !n.squares)
        return sf_fail(err, SF_ENOMEM, "no memory for the norms of %lld tensors",
                       (long long)tensors);
    for (int64_t i = 0; i < tensors; i++)
        if (is_expert(sf_map_tensor(in->map, i)))
            n.entry[n.count++] = sf_map_tensor(in->map, i);
    int code = sf_jobs_run(norm_of, &n, n.count, threads ? threads : sf_cpu_count(), err);
    for (int64_t i = 0; i < n.count && code == SF_OK; i++)
        g->cell[n.entry[i]->role.layer * g->experts + n.entry[i]->role.expert].norm += n.squares[i];
    for (int64_t i = 0; i < g->layers * g->experts && code == SF_OK; i++)
        g->cell[i].norm = sqrt(g->cell[i].norm);
    return code;
}

/* ---- printing ---- */

enum show { SHOW_ERROR, SHOW_BYTES, SHOW_NORM };

/* Experts first .. last, one line a layer that has any. */
static void print_part(struct inspect *in, const struct grid *g, enum show show, int64_t first,
                       int64_t last)
{
    fprintf(in->out, "layer");
    for (int64_t e = first; e < last; e++)
        fprintf(in->out, " %10lld", (long long)e);
    for (int64_t l = 0; l < g->layers; l++) {
        bool any = false;
        for (int64_t e = 0; e < g->experts; e++)
            any = any || g->cell[l * g->experts + e].tensors > 0;
        if (!any)
            continue;
        fprintf(in->out, "\n%5lld", (long long)l);
        for (int64_t e = first; e < last; e++) {
            const struct cell *cell = &g->cell[l * g->experts + e];
            if (cell->tensors == 0)
                fprintf(in->out, " %10s", "-");
            else if (show == SHOW_NORM)
                fprintf(in->out, " %10.4g", cell->norm);
            else if (show == SHOW_BYTES)
                fprintf(in->out, " %10llu", (unsigned long long)cell->bytes);
            else
                fprintf(in->out, " %9.3f%%", 100 * cell->error);
        }
    }
    fprintf(in->out, "\n");
}

/* On a terminal as many experts side by side as fit; in a pipe all of them. */
static void print_grid(struct inspect *in, const struct grid *g, enum show show)
{
    int64_t fit = in->width > 0 ? (in->width - 5) / 11 : g->experts;
    fit = fit < 1 ? 1 : fit;
    for (int64_t first = 0; first < g->experts; first += fit)
        print_part(in, g, show, first, first + fit < g->experts ? first + fit : g->experts);
}

static int print_json(struct inspect *in, const struct grid *g, bool norms, struct sf_err *err)
{
    struct sf_json_writer w;
    sf_json_write_begin(&w, in->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-inspect-experts/1");
    sf_json_write_array(&w, "experts");
    for (int64_t i = 0; i < g->layers * g->experts; i++) {
        if (g->cell[i].tensors == 0)
            continue;
        sf_json_write_object(&w, NULL);
        sf_json_write_int(&w, "layer", i / g->experts);
        sf_json_write_int(&w, "expert", i % g->experts);
        sf_json_write_int(&w, "tensors", g->cell[i].tensors);
        sf_json_write_int(&w, "bytes", (int64_t)g->cell[i].bytes);
        sf_json_write_double(&w, "worst_error", g->cell[i].error);
        if (norms)
            sf_json_write_double(&w, "norm", g->cell[i].norm);
        else
            sf_json_write_null(&w, "norm");
        sf_json_write_end(&w, '}');
    }
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    return inspect_print_written(in, &w, err);
}

int inspect_experts(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    struct grid g = {0};
    int code = gather(&g, in, err);
    if (code == SF_OK && r->norm && g.experts > 0)
        code = gather_norms(&g, in, (int)r->threads, err);
    if (code != SF_OK || r->json)
        return code == SF_OK ? print_json(in, &g, r->norm, err) : code;
    if (g.experts == 0) {
        fprintf(in->out, "no routed experts\n");
        return SF_OK;
    }
    fprintf(in->out, "worst error of each expert's tensors (relative RMS against the source)\n");
    print_grid(in, &g, SHOW_ERROR);
    if (r->norm) {
        fprintf(in->out, "norm of each expert's weights\n");
        print_grid(in, &g, SHOW_NORM);
    }
    if (g.even) {
        fprintf(in->out, "every expert has %s bytes\n", inspect_number(in, g.bytes));
        return SF_OK;
    }
    fprintf(in->out, "bytes of each expert\n");
    print_grid(in, &g, SHOW_BYTES);
    return SF_OK;
}
