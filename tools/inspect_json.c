#include "libformat/base/json.h"
#include "tools/inspect.h"
#include "tools/inspect_select.h"

static void write_info(struct sf_json_writer *w, const struct sf_map *map)
{
    const struct sf_container_info *info = sf_map_info(map);
    char text[INSPECT_HASH_TEXT];
    sf_json_write_object(w, "file");
    sf_json_write_string(w, "path", sf_map_path(map));
    sf_json_write_int(w, "version_major", info->version_major);
    sf_json_write_int(w, "version_minor", info->version_minor);
    sf_json_write_string(w, "identity", inspect_hash_format(text, info->identity));
    sf_json_write_int(w, "files", info->container_files);
    sf_json_write_int(w, "bytes", (int64_t)info->file_bytes);
    sf_json_write_int(w, "payload_offset", (int64_t)info->payload_offset);
    sf_json_write_int(w, "payload_bytes", (int64_t)info->payload_bytes);
    sf_json_write_int(w, "extent_align", info->extent_align);
    sf_json_write_int(w, "chunk_bytes", info->chunk_bytes);
    sf_json_write_int(w, "tensors", info->tensors);
    sf_json_write_int(w, "extents", info->extents);
    sf_json_write_end(w, '}');
}

static void write_model(struct sf_json_writer *w, const struct sf_summary *s)
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
    sf_json_write_int(w, "parameters_text", s->parameters_text);
    sf_json_write_end(w, '}');
}

static void write_sum(struct sf_json_writer *w, const char *key, const char *kind,
                      const struct inspect_sum *sum)
{
    sf_json_write_object(w, key);
    if (kind)
        sf_json_write_string(w, "kind", kind);
    sf_json_write_int(w, "tensors", sum->tensors);
    sf_json_write_int(w, "parameters", sum->parameters);
    sf_json_write_int(w, "bytes", (int64_t)sum->bytes);
    sf_json_write_double(w, "bits_per_parameter", inspect_bits(sum));
    sf_json_write_object(w, "stored_as");
    for (int i = 0; i < INSPECT_FORMS && sum->form[i].name; i++)
        sf_json_write_int(w, sum->form[i].name, sum->form[i].tensors);
    sf_json_write_end(w, '}');
    if (sum->worst) {
        sf_json_write_double(w, "worst_error", sum->worst_error);
        sf_json_write_string(w, "worst_tensor", sum->worst->name);
    } else {
        sf_json_write_null(w, "worst_error");
        sf_json_write_null(w, "worst_tensor");
    }
    sf_json_write_end(w, '}');
}

static void write_contents(struct sf_json_writer *w, const struct inspect_facts *f)
{
    sf_json_write_array(w, "contents");
    for (int k = 0; k < INSPECT_KINDS; k++)
        if (f->kind[k].tensors > 0)
            write_sum(w, NULL, inspect_kind_name(k), &f->kind[k]);
    sf_json_write_end(w, ']');
    write_sum(w, "text_total", NULL, &f->text);
    write_sum(w, "total", NULL, &f->all);
    sf_json_write_object(w, "resident");
    sf_json_write_int(w, "gpu_bytes", (int64_t)f->gpu_bytes);
    sf_json_write_int(w, "host_bytes", (int64_t)f->host_bytes);
    sf_json_write_int(w, "unused_bytes", (int64_t)f->unused_bytes);
    sf_json_write_int(w, "padding_bytes", (int64_t)f->padding_bytes);
    sf_json_write_int(w, "codebook_bytes", (int64_t)f->codebook_bytes);
    sf_json_write_end(w, '}');
}

static void write_provenance(struct sf_json_writer *w, const struct sf_map *map)
{
    const struct sf_summary *s = sf_map_summary(map);
    char text[INSPECT_HASH_TEXT];
    sf_json_write_object(w, "provenance");
    sf_json_write_string(w, "converter", s->converter ? s->converter : "");
    sf_json_write_string(w, "options", s->options ? s->options : "");
    sf_json_write_int(w, "source_bytes", (int64_t)s->source_bytes);
    sf_json_write_array(w, "source");
    for (int64_t i = 0; i < s->shard_count; i++) {
        sf_json_write_object(w, NULL);
        sf_json_write_string(w, "name", s->shard[i].name);
        sf_json_write_int(w, "bytes", (int64_t)s->shard[i].bytes);
        sf_json_write_string(w, "xxh3_128", inspect_hash_format(text, s->shard[i].hash));
        sf_json_write_end(w, '}');
    }
    sf_json_write_end(w, ']');
    sf_json_write_end(w, '}');
    sf_json_write_array(w, "carried");
    for (int64_t i = 0; i < sf_map_info(map)->files; i++) {
        uint64_t bytes;
        sf_json_write_object(w, NULL);
        sf_json_write_string(w, "name", sf_map_file_name(map, i, &bytes));
        sf_json_write_int(w, "bytes", (int64_t)bytes);
        sf_json_write_end(w, '}');
    }
    sf_json_write_end(w, ']');
}

static void write_health(struct sf_json_writer *w, const struct sf_container_info *info)
{
    sf_json_write_object(w, "health"); /* an open map: these hashes were compared */
    sf_json_write_string(w, "header", "ok");
    sf_json_write_string(w, "index", "ok");
    sf_json_write_string(w, "metadata", info->metadata_unread ? "not checked" : "ok");
    sf_json_write_string(w, "checksums", info->checksums_unread ? "not checked" : "ok");
    sf_json_write_string(w, "payload", "not checked");
    sf_json_write_end(w, '}');
}

static void write_shape(struct sf_json_writer *w, const struct sf_shape *shape)
{
    sf_json_write_array(w, "shape");
    for (int32_t i = 0; i < shape->rank; i++)
        sf_json_write_int(w, NULL, shape->dim[i]);
    sf_json_write_end(w, ']');
}

static void write_planes(struct sf_json_writer *w, const struct sf_entry *entry)
{
    sf_json_write_object(w, "planes");
    for (int k = 0; k < SF_PLANE_COUNT; k++) {
        const struct sf_plane *plane = &entry->plane[k];
        if (plane->dtype == SF_DTYPE_NONE)
            continue;
        sf_json_write_object(w, sf_plane_name(k));
        sf_json_write_string(w, "dtype", sf_dtype_name(plane->dtype));
        write_shape(w, &plane->shape);
        sf_json_write_int(w, "address", (int64_t)plane->address);
        sf_json_write_int(w, "bytes", (int64_t)plane->bytes);
        sf_json_write_end(w, '}');
    }
    sf_json_write_end(w, '}');
}

static void write_tensor(struct sf_json_writer *w, const struct sf_entry *entry)
{
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "name", entry->name);
    sf_json_write_string(w, "source", entry->source_name ? entry->source_name : "");
    sf_json_write_string(w, "part", sf_part_name(entry->role.part));
    sf_json_write_int(w, "layer", entry->role.layer);
    sf_json_write_int(w, "expert", entry->role.expert);
    write_shape(w, &entry->shape);
    sf_json_write_string(w, "encoding", sf_encoding_name(entry->encoding));
    sf_json_write_string(w, "dtype", sf_dtype_name(entry->dtype));
    sf_json_write_int(w, "block", entry->block);
    sf_json_write_int(w, "nested_block", entry->nested_block);
    sf_json_write_double(w, "error", entry->relative_rms_error);
    sf_json_write_double(w, "worst_block_error", (double)entry->worst_block_error);
    sf_json_write_int(w, "extent", entry->extent);
    sf_json_write_int(w, "bytes", (int64_t)inspect_entry_bytes(entry));
    write_planes(w, entry);
    sf_json_write_end(w, '}');
}

static void write_layout(struct sf_json_writer *w, const struct sf_map *map,
                         const struct inspect_selection *tensors)
{
    const struct sf_container_info *info = sf_map_info(map);
    sf_json_write_array(w, "extents");
    for (int64_t i = 0; i < info->extents; i++) {
        const struct sf_extent *extent = sf_map_extent(map, i);
        sf_json_write_object(w, NULL);
        sf_json_write_string(w, "kind", sf_extent_kind_name(extent->kind));
        sf_json_write_int(w, "layer", extent->layer);
        sf_json_write_int(w, "expert", extent->expert);
        sf_json_write_int(w, "address", (int64_t)extent->address);
        sf_json_write_int(w, "bytes", (int64_t)extent->bytes);
        sf_json_write_int(w, "first_chunk", (int64_t)extent->first_chunk);
        sf_json_write_int(w, "chunks", (int64_t)extent->chunks);
        sf_json_write_end(w, '}');
    }
    sf_json_write_end(w, ']');
    sf_json_write_array(w, "tensors");
    for (int64_t i = 0; i < tensors->count; i++)
        write_tensor(w, tensors->entry[i]);
    sf_json_write_end(w, ']');
}

int inspect_print_json(struct inspect *in, const struct inspect_selection *tensors,
                       struct sf_err *err)
{
    struct sf_json_writer w;
    char *text;
    sf_json_write_begin(&w, in->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-inspect/1");
    write_info(&w, in->map);
    write_model(&w, sf_map_summary(in->map));
    write_contents(&w, &in->facts);
    write_provenance(&w, in->map);
    write_health(&w, sf_map_info(in->map));
    if (tensors)
        write_layout(&w, in->map, tensors);
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, NULL, &w, err);
    if (code == SF_OK)
        fprintf(in->out, "%s\n", text);
    return code;
}

int inspect_print_provenance_json(struct inspect *in, struct sf_err *err)
{
    struct sf_json_writer w;
    char *text;
    sf_json_write_begin(&w, in->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-inspect-provenance/1");
    write_info(&w, in->map);
    write_provenance(&w, in->map);
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, NULL, &w, err);
    if (code == SF_OK)
        fprintf(in->out, "%s\n", text);
    return code;
}
