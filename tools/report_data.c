#include "tools/report_data.h"

#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/convert/histogram.h"
#include "tools/inspect_plan.h"
#include "tools/report_page.h"

typedef struct sf_json_writer writer;

static void put_facts(writer *w, struct inspect *in)
{
    const struct sf_container_info *info = sf_map_info(in->map);
    char hash[INSPECT_HASH_TEXT], version[32];
    snprintf(version, sizeof version, "%u.%u", info->version_major, info->version_minor);
    sf_json_write_string(w, "name", sf_path_base(sf_map_path(in->map)));
    sf_json_write_object(w, "file");
    sf_json_write_int(w, "bytes", (int64_t)info->file_bytes);
    sf_json_write_int(w, "payload_offset", (int64_t)info->payload_offset);
    sf_json_write_int(w, "payload_bytes", (int64_t)info->payload_bytes);
    sf_json_write_int(w, "chunk_bytes", info->chunk_bytes);
    sf_json_write_int(w, "padding", (int64_t)in->facts.padding_bytes);
    sf_json_write_string(w, "version", version);
    sf_json_write_string(w, "identity", inspect_hash_format(hash, info->identity));
    sf_json_write_end(w, '}');
    sf_json_write_object(w, "resident");
    sf_json_write_int(w, "gpu", (int64_t)in->facts.gpu_bytes);
    sf_json_write_int(w, "host", (int64_t)in->facts.host_bytes);
    sf_json_write_int(w, "unused", (int64_t)in->facts.unused_bytes);
    sf_json_write_end(w, '}');
}

static void put_model(writer *w, const struct sf_summary *s)
{
    sf_json_write_object(w, "model");
    sf_json_write_string(w, "id", s->model_id ? s->model_id : "");
    sf_json_write_string(w, "architecture", s->architecture ? s->architecture : "");
    sf_json_write_string(w, "family", s->family ? s->family : "");
    sf_json_write_int(w, "layers", s->layers);
    sf_json_write_int(w, "hidden", s->hidden);
    sf_json_write_int(w, "experts", s->experts);
    sf_json_write_int(w, "vocabulary", s->vocabulary);
    sf_json_write_int(w, "parameters", s->parameters);
    sf_json_write_end(w, '}');
}

static void put_kinds(writer *w, const struct inspect_facts *f)
{
    sf_json_write_array(w, "kind_names");
    for (int k = 0; k < INSPECT_KINDS; k++)
        sf_json_write_string(w, NULL, inspect_kind_name(k));
    sf_json_write_end(w, ']');
    sf_json_write_array(w, "kinds");
    for (int k = 0; k < INSPECT_KINDS; k++) {
        const struct inspect_sum *sum = &f->kind[k];
        char form[128] = "";
        int n = 0;
        if (sum->tensors == 0)
            continue;
        for (int i = 0; i < INSPECT_FORMS && sum->form[i].name && n < 96; i++)
            n += snprintf(form + n, sizeof form - (size_t)n, "%s%s", i ? ", " : "",
                          sum->form[i].name);
        sf_json_write_object(w, NULL);
        sf_json_write_string(w, "kind", inspect_kind_name(k));
        sf_json_write_int(w, "tensors", sum->tensors);
        sf_json_write_int(w, "parameters", sum->parameters);
        sf_json_write_int(w, "bytes", (int64_t)sum->bytes);
        sf_json_write_double(w, "bits", inspect_bits(sum));
        sf_json_write_string(w, "form", form);
        if (sum->worst)
            sf_json_write_double(w, "worst", sum->worst_error);
        else
            sf_json_write_null(w, "worst");
        sf_json_write_end(w, '}');
    }
    sf_json_write_end(w, ']');
}

/* ---- the map ---- */

static void put_file(writer *w, const char *path, uint64_t bytes, uint64_t address,
                     uint64_t payload_bytes)
{
    sf_json_write_array(w, NULL);
    sf_json_write_string(w, NULL, sf_path_base(path));
    sf_json_write_int(w, NULL, (int64_t)bytes);
    sf_json_write_int(w, NULL, (int64_t)address);
    sf_json_write_int(w, NULL, (int64_t)payload_bytes);
    sf_json_write_end(w, ']');
}

/* Of a set the files in order: name, bytes, payload's address, payload's bytes. One file: none. */
static void put_files(writer *w, const struct sf_map *map)
{
    const struct sf_container_info *info = sf_map_info(map);
    uint64_t others = (uint64_t)(info->container_files - 1) * info->payload_offset;
    const char *file = sf_map_path(map);
    int64_t i = 0;
    sf_json_write_array(w, "files");
    if (info->container_files > 1)
        put_file(w, file, info->file_bytes - info->payload_bytes - others, 0, 0);
    while (info->container_files > 1 && i < info->extents) {
        uint64_t place, begin = sf_map_extent(map, i)->address, bytes = 0;
        for (file = sf_map_place(&place, map, begin);
             i < info->extents && sf_map_place(&place, map, sf_map_extent(map, i)->address) == file;
             i++)
            bytes += sf_map_extent(map, i)->bytes;
        put_file(w, file, info->payload_offset + bytes, begin, bytes);
    }
    sf_json_write_end(w, ']');
}

static int put_extents(writer *w, struct inspect *in, struct sf_err *err)
{
    struct inspect_fill *fill;
    int code = inspect_fill_gather(&fill, in, err);
    if (code != SF_OK)
        return code;
    sf_json_write_array(w, "extents");
    for (int64_t i = 0; i < sf_map_info(in->map)->extents; i++) {
        const struct sf_extent *x = sf_map_extent(in->map, i);
        sf_json_write_array(w, NULL);
        sf_json_write_string(w, NULL, sf_extent_kind_name(x->kind));
        sf_json_write_int(w, NULL, x->layer);
        sf_json_write_int(w, NULL, x->expert);
        sf_json_write_int(w, NULL, (int64_t)x->address);
        sf_json_write_int(w, NULL, (int64_t)x->bytes);
        sf_json_write_int(w, NULL, (int64_t)fill[i].padding);
        sf_json_write_end(w, ']');
    }
    sf_json_write_end(w, ']');
    return SF_OK;
}

static bool is_shared(int plane)
{
    return plane == SF_PLANE_CODEBOOK || plane == SF_PLANE_MAP;
}

static void put_tensor(writer *w, const struct sf_entry *e)
{
    char shape[SF_SHAPE_TEXT];
    sf_json_write_array(w, NULL);
    sf_json_write_string(w, NULL, e->name);
    sf_json_write_int(w, NULL, e->extent);
    sf_json_write_int(w, NULL, inspect_kind_of(e->role.part));
    sf_json_write_string(w, NULL, sf_shape_format(shape, &e->shape));
    sf_json_write_string(w, NULL, inspect_form(e));
    if (e->encoding == SF_ENCODING_RAW)
        sf_json_write_null(w, NULL);
    else
        sf_json_write_double(w, NULL, e->relative_rms_error);
    sf_json_write_array(w, NULL);
    for (int k = 0; k < SF_PLANE_COUNT; k++) {
        if (is_shared(k) || e->plane[k].dtype == SF_DTYPE_NONE)
            continue;
        sf_json_write_int(w, NULL, k);
        sf_json_write_int(w, NULL, (int64_t)e->plane[k].address);
        sf_json_write_int(w, NULL, (int64_t)e->plane[k].bytes);
    }
    sf_json_write_end(w, ']');
    sf_json_write_end(w, ']');
}

/* Each address once: many tensors refer to one codebook. */
static void put_codebooks(writer *w, const struct sf_map *map)
{
    uint64_t seen[INSPECT_CODEBOOKS];
    int count = 0;
    sf_json_write_array(w, "codebooks");
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++) {
        for (int k = SF_PLANE_CODEBOOK; k <= SF_PLANE_MAP; k++) {
            const struct sf_plane *p = &sf_map_tensor(map, i)->plane[k];
            int at = 0;
            while (at < count && seen[at] != p->address)
                at++;
            if (p->dtype == SF_DTYPE_NONE || at < count || count == INSPECT_CODEBOOKS)
                continue;
            seen[count++] = p->address;
            sf_json_write_array(w, NULL);
            sf_json_write_string(w, NULL, sf_plane_name(k));
            sf_json_write_int(w, NULL, (int64_t)p->address);
            sf_json_write_int(w, NULL, (int64_t)p->bytes);
            sf_json_write_end(w, ']');
        }
    }
    sf_json_write_end(w, ']');
}

static int put_map(writer *w, struct inspect *in, struct sf_err *err)
{
    put_files(w, in->map);
    sf_json_write_array(w, "planes");
    for (int k = 0; k < SF_PLANE_COUNT; k++)
        sf_json_write_string(w, NULL, sf_plane_name(k));
    sf_json_write_end(w, ']');
    sf_json_write_array(w, "tensors");
    for (int64_t i = 0; i < sf_map_info(in->map)->tensors; i++)
        put_tensor(w, sf_map_tensor(in->map, i));
    sf_json_write_end(w, ']');
    put_codebooks(w, in->map);
    return put_extents(w, in, err);
}

/* ---- what was read of the payload ---- */

static int put_histogram(writer *w, const struct report *r, const struct sf_entry *e,
                         struct sf_err *err)
{
    struct sf_histogram h;
    int64_t index = 0;
    int code = sf_entry_histogram(&h, r->in->map, e, err);
    if (code != SF_OK)
        return code;
    while (sf_map_tensor(r->in->map, index) != e)
        index++;
    sf_json_write_object(w, NULL);
    sf_json_write_int(w, "tensor", index);
    sf_json_write_array(w, "codes");
    for (int i = 0; i < SF_HISTOGRAM_CODES; i++)
        sf_json_write_int(w, NULL, h.codes[i]);
    sf_json_write_end(w, ']');
    sf_json_write_double(w, "least_value", (double)h.value[0]);
    sf_json_write_double(w, "greatest_value", (double)h.value[SF_HISTOGRAM_CODES - 1]);
    sf_json_write_array(w, "scales");
    for (int i = 0; i < SF_HISTOGRAM_BINS; i++)
        sf_json_write_int(w, NULL, h.scales[i]);
    sf_json_write_end(w, ']');
    sf_json_write_double(w, "least_scale", h.least_scale);
    sf_json_write_double(w, "greatest_scale", h.greatest_scale);
    sf_json_write_end(w, '}');
    return SF_OK;
}

static int put_histograms(writer *w, const struct report *r, struct sf_err *err)
{
    int code = SF_OK;
    sf_json_write_bool(w, "histograms_chosen", r->chosen);
    sf_json_write_array(w, "histograms");
    for (int64_t i = 0; i < r->histograms && code == SF_OK; i++)
        code = put_histogram(w, r, r->histogram[i], err);
    sf_json_write_end(w, ']');
    return code;
}

/* The numbers of those that are marked; NULL: none is. */
static void put_marked(writer *w, const char *key, const bool *mark, int64_t count)
{
    sf_json_write_array(w, key);
    for (int64_t i = 0; mark && i < count; i++)
        if (mark[i])
            sf_json_write_int(w, NULL, i);
    sf_json_write_end(w, ']');
}

static void put_check(writer *w, const struct report *r)
{
    sf_json_write_object(w, "check");
    sf_json_write_string(w, "state", !r->checked ? "not checked" : r->damaged ? "damaged" : "ok");
    sf_json_write_int(w, "chunks", (int64_t)r->in->facts.chunks);
    sf_json_write_int(w, "damaged", r->damaged);
    sf_json_write_array(w, "listed");
    for (int64_t i = 0; i < r->damages; i++) {
        sf_json_write_array(w, NULL);
        sf_json_write_int(w, NULL, (int64_t)r->damage[i].chunk);
        sf_json_write_int(w, NULL, (int64_t)r->damage[i].offset);
        sf_json_write_int(w, NULL, (int64_t)r->damage[i].bytes);
        sf_json_write_string(w, NULL, r->damage[i].text);
        sf_json_write_string(w, NULL, sf_path_base(r->damage[i].file));
        sf_json_write_end(w, ']');
    }
    sf_json_write_end(w, ']');
    put_marked(w, "tensors", r->bad_tensor, sf_map_info(r->in->map)->tensors);
    put_marked(w, "extents", r->bad_extent, sf_map_info(r->in->map)->extents);
    sf_json_write_end(w, '}');
}

/* ---- where it came from ---- */

static void put_provenance(writer *w, const struct sf_map *map)
{
    const struct sf_summary *s = sf_map_summary(map);
    char hash[INSPECT_HASH_TEXT];
    sf_json_write_object(w, "provenance");
    sf_json_write_string(w, "converter", s->converter ? s->converter : "");
    sf_json_write_string(w, "options", s->options ? s->options : "");
    sf_json_write_int(w, "source_bytes", (int64_t)s->source_bytes);
    sf_json_write_array(w, "source");
    for (int64_t i = 0; i < s->shard_count; i++) {
        sf_json_write_array(w, NULL);
        sf_json_write_string(w, NULL, s->shard[i].name);
        sf_json_write_int(w, NULL, (int64_t)s->shard[i].bytes);
        sf_json_write_string(w, NULL, inspect_hash_format(hash, s->shard[i].hash));
        sf_json_write_end(w, ']');
    }
    sf_json_write_end(w, ']');
    sf_json_write_array(w, "carried");
    for (int64_t i = 0; i < sf_map_info(map)->files; i++) {
        uint64_t bytes;
        sf_json_write_array(w, NULL);
        sf_json_write_string(w, NULL, sf_map_file_name(map, i, &bytes));
        sf_json_write_int(w, NULL, (int64_t)bytes);
        sf_json_write_end(w, ']');
    }
    sf_json_write_end(w, ']');
    sf_json_write_end(w, '}');
}

/* ---- what training takes ---- */

static void put_part(writer *w, const char *name, uint64_t bytes, const char *colour)
{
    sf_json_write_array(w, NULL);
    sf_json_write_string(w, NULL, name);
    sf_json_write_int(w, NULL, (int64_t)bytes);
    sf_json_write_string(w, NULL, colour);
    sf_json_write_end(w, ']');
}

/* Colours are those of the page's kinds. */
static void put_card(writer *w, const struct inspect_card_plan *p)
{
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "name", p->card.name);
    sf_json_write_int(w, "bytes", (int64_t)p->card.bytes);
    sf_json_write_bool(w, "fits", p->fits);
    sf_json_write_string(w, "why", p->fits ? "" : p->why.message);
    sf_json_write_array(w, "parts");
    if (p->fits) {
        put_part(w, "weights", p->fit.weight_bytes, "routed");
        put_part(w, "adapter and optimizer", p->fit.adapter_bytes, "router");
        put_part(w, "a step", p->step_bytes, "attention");
        put_part(w, "CUDA and reserve",
                 p->fit.library_bytes + p->fit.workspace_bytes + p->fit.reserve_bytes, "frame");
    }
    sf_json_write_end(w, ']');
    sf_json_write_end(w, '}');
}

/* Of the container as it is, no plan can be made: the page says so. */
static bool is_no_plan(int code)
{
    return code != SF_OK && code != SF_EIO && code != SF_EACCES && code != SF_ENOMEM;
}

static int plan_cards(struct inspect_card_plan *plan, int *count, struct inspect *in,
                      struct sf_err *err)
{
    char verb[] = "plan", model[] = "--model", length[] = "--max-seq-length", tokens[] = "2048",
         batch[] = "--per-device-train-batch-size", one[] = "1";
    char *path = sf_arena_strdup(in->arena, sf_map_path(in->map));
    char *argv[] = {verb, model, path, length, tokens, batch, one};
    struct ft_options options;
    int code = SF_OK;
    *count = 0;
    if (!path || ft_options_read(&options, 7, argv, in->arena) != TOOL_DONE)
        return sf_fail(err, SF_ENOMEM, "no memory for a plan");
    for (; *count < REPORT_CARDS_MOST && inspect_cards[*count].name && code == SF_OK; ++*count)
        code = inspect_card_plan_make(&plan[*count], &options, &inspect_cards[*count], err);
    int there = sf_map_check(in->map, err); /* it was opened anew */
    return there == SF_OK ? code : there;
}

static int put_plan(writer *w, struct inspect *in, struct sf_err *err)
{
    struct inspect_card_plan plan[REPORT_CARDS_MOST];
    int count = 0, code = plan_cards(plan, &count, in, err);
    if (is_no_plan(code))
        sf_json_write_null(w, "plan");
    if (code != SF_OK)
        return is_no_plan(code) ? SF_OK : code;
    sf_json_write_object(w, "plan");
    sf_json_write_array(w, "cards");
    for (int i = 0; i < count; i++)
        put_card(w, &plan[i]);
    sf_json_write_end(w, ']');
    sf_json_write_end(w, '}');
    return SF_OK;
}

int report_data_write(char **text, struct report *report, struct sf_err *err)
{
    struct inspect *in = report->in;
    writer w;
    char *json;
    uint64_t bytes;
    sf_json_write_begin(&w, in->arena, 0);
    sf_json_write_object(&w, NULL);
    put_facts(&w, in);
    put_model(&w, sf_map_summary(in->map));
    put_kinds(&w, &in->facts);
    int code = put_map(&w, in, err);
    if (code == SF_OK)
        code = put_histograms(&w, report, err);
    put_check(&w, report);
    put_provenance(&w, in->map);
    if (code == SF_OK)
        code = put_plan(&w, in, err);
    sf_json_write_end(&w, '}');
    if (code == SF_OK)
        code = sf_json_write_finish(&json, &bytes, &w, err);
    if (code == SF_OK &&
        (!(*text = report_page_safe(in->arena, json, bytes)) || sf_alloc_failures() > 0))
        code = sf_fail(err, SF_ENOMEM, "no memory for a report");
    return code;
}
