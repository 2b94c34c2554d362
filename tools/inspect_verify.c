#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/container/container_check.h"
#include "tools/columns.h"
#include "tools/inspect.h"
#include "tools/tool.h"

struct verify {
    struct inspect *in;
    const struct inspect_verify_options *options;
    struct sf_json_writer json;
};

/* ---- damage as it is found ---- */

static void json_damage(struct sf_json_writer *w, const char *file, uint64_t offset,
                        const struct sf_damage *d, const char *text)
{
    sf_json_write_object(w, NULL);
    sf_json_write_int(w, "chunk", (int64_t)d->chunk);
    sf_json_write_string(w, "file", sf_path_base(file));
    sf_json_write_int(w, "offset", (int64_t)offset);
    sf_json_write_int(w, "address", (int64_t)d->address);
    sf_json_write_int(w, "bytes", (int64_t)d->bytes);
    sf_json_write_string(w, "kind", sf_extent_kind_name(d->where->kind));
    sf_json_write_int(w, "layer", d->where->layer);
    sf_json_write_int(w, "expert", d->where->expert);
    sf_json_write_array(w, "tensors"); /* empty: padding only */
    for (int64_t i = 0; i < d->entries; i++)
        sf_json_write_string(w, NULL, d->entry[i]->name);
    sf_json_write_end(w, ']');
    sf_json_write_string(w, "text", text);
    sf_json_write_end(w, '}');
}

static void on_damage(void *context, const struct sf_damage *damage)
{
    struct verify *v = context;
    char text[SF_DAMAGE_TEXT];
    uint64_t place;
    const char *file = sf_map_place(&place, v->in->map, damage->address);
    bool several = sf_map_info(v->in->map)->container_files > 1;
    sf_damage_format(text, damage);
    if (v->options->json) {
        json_damage(&v->json, file, place, damage, text);
        return;
    }
    if (v->options->clear_progress)
        v->options->clear_progress(v->options->context);
    const char *escaped = columns_escape(v->in->arena, text);
    fprintf(v->in->out, "damaged: bytes %llu..%llu of %s: %s\n", (unsigned long long)place,
            (unsigned long long)(place + damage->bytes),
            several ? inspect_shown(v->in, sf_path_base(file)) : "the file",
            escaped ? escaped : "?");
}

static void on_progress(void *context, uint64_t done, uint64_t total)
{
    const struct verify *v = context;
    if (v->options->progress)
        v->options->progress(v->options->context, done, total);
}

/* ---- the result ---- */

static void json_begin(struct sf_json_writer *w, struct inspect *in, const char *path)
{
    sf_json_write_begin(w, in->arena, 2);
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "schema", "scout-inspect-verify/1");
    sf_json_write_string(w, "path", path);
}

static int json_end(struct sf_json_writer *w, struct inspect *in, const struct sf_err *why,
                    struct sf_err *err)
{
    char *text;
    sf_json_write_bool(w, "ok", !why);
    if (why)
        sf_json_write_string(w, "error", why->message);
    else
        sf_json_write_null(w, "error");
    sf_json_write_end(w, '}');
    int code = sf_json_write_finish(&text, NULL, w, err);
    if (code == SF_OK)
        fprintf(in->out, "%s\n", text);
    return code;
}

int inspect_verify_json_unreadable(struct inspect *in, const char *path, const struct sf_err *why,
                                   struct sf_err *err)
{
    struct sf_json_writer w;
    json_begin(&w, in, path);
    sf_json_write_array(&w, "damage");
    sf_json_write_end(&w, ']');
    return json_end(&w, in, why, err);
}

static void print_good(struct inspect *in, double seconds)
{
    const struct sf_container_info *info = sf_map_info(in->map);
    char size[TOOL_SIZE_TEXT], rate[TOOL_SIZE_TEXT];
    const char *path = columns_escape(in->arena, sf_map_path(in->map));
    const char *chunks = columns_number(in->arena, in->facts.chunks);
    const char *exact = columns_number(in->arena, info->payload_bytes);
    fprintf(in->out,
            "%s: good: header, index, metadata and all %s chunks of the payload (%s, %s bytes) "
            "match their checksums (%.1f s, %s/s)\n",
            path ? path : "?", chunks ? chunks : "?", tool_size(size, info->payload_bytes),
            exact ? exact : "?", seconds,
            tool_size(rate, (uint64_t)((double)info->payload_bytes / (seconds + 1e-9))));
}

int inspect_verify(struct inspect *in, const struct inspect_verify_options *options,
                   struct sf_err *err)
{
    struct verify v = {.in = in, .options = options};
    struct sf_check_options check = {.threads = options->threads,
                                     .on_damage = on_damage,
                                     .on_progress = on_progress,
                                     .context = &v};
    struct sf_err json_err = {0};
    int64_t damaged = 0;
    double started = tool_now();
    if (options->json) {
        json_begin(&v.json, in, sf_map_path(in->map));
        sf_json_write_array(&v.json, "damage");
    }
    int code = sf_check_run(&damaged, in->map, &check, err);
    double seconds = tool_now() - started;
    if (options->clear_progress)
        options->clear_progress(options->context);
    if (options->json) {
        sf_json_write_end(&v.json, ']');
        sf_json_write_int(&v.json, "chunks", (int64_t)in->facts.chunks);
        sf_json_write_int(&v.json, "damaged_chunks", damaged);
        int json_code = json_end(&v.json, in, code == SF_OK ? NULL : err, &json_err);
        if (json_code != SF_OK && code == SF_OK) {
            *err = json_err;
            code = json_code;
        }
    } else if (code == SF_OK) {
        print_good(in, seconds);
    }
    if (code == SF_EDAMAGED) /* the chunks were named one by one: now their number */
        return sf_fail(err, SF_EDAMAGED, "%s: %lld of %llu chunks damaged", sf_map_path(in->map),
                       (long long)damaged, (unsigned long long)in->facts.chunks);
    return code;
}
