#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "tools/columns.h"
#include "tools/inspect_verbs.h"

struct range {
    uint64_t address, bytes;
};

static int compare_ranges(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return x->address < y->address ? -1 : x->address > y->address;
}

/* Every plane once, by address: codebooks are shared by many tensors. */
static int64_t list_planes(struct range *range, const struct sf_map *map)
{
    int64_t n = 0, kept = 0;
    uint64_t last[SF_PLANE_COUNT]; /* of each kind: most share theirs with the tensor before */
    memset(last, 0xff, sizeof last);
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++) {
        const struct sf_entry *entry = sf_map_tensor(map, i);
        for (int k = 0; k < SF_PLANE_COUNT; k++) {
            const struct sf_plane *plane = &entry->plane[k];
            if (plane->dtype == SF_DTYPE_NONE || plane->address == last[k])
                continue;
            last[k] = plane->address;
            range[n++] = (struct range){plane->address, plane->bytes};
        }
    }
    qsort(range, (size_t)n, sizeof *range, compare_ranges);
    for (int64_t i = 0; i < n; i++)
        if (kept == 0 || range[i].address != range[kept - 1].address)
            range[kept++] = range[i];
    return kept;
}

/* Extents and planes are both in order of address: one walk over each. */
int inspect_fill_gather(struct inspect_fill **out, struct inspect *in, struct sf_err *err)
{
    const struct sf_container_info *info = sf_map_info(in->map);
    struct range *range =
        sf_arena_array(in->arena, (uint64_t)info->tensors * SF_PLANE_COUNT, sizeof *range);
    struct inspect_fill *fill = sf_arena_array(in->arena, (uint64_t)info->extents, sizeof *fill);
    *out = fill;
    if (!range || !fill)
        return sf_fail(err, SF_ENOMEM, "cannot list the planes of %lld tensors",
                       (long long)info->tensors);
    int64_t n = list_planes(range, in->map), at = 0;
    for (int64_t i = 0; i < info->extents; i++) {
        const struct sf_extent *extent = sf_map_extent(in->map, i);
        uint64_t end = extent->address + extent->bytes, used = extent->address;
        for (; at < n && range[at].address < end; at++) {
            if (range[at].address > used) {
                fill[i].holes++;
                fill[i].padding += range[at].address - used;
            }
            if (range[at].address + range[at].bytes > used)
                used = range[at].address + range[at].bytes;
            fill[i].planes++;
        }
        fill[i].holes += used < end;
        fill[i].padding += used < end ? end - used : 0;
    }
    return SF_OK;
}

static void add_line(struct columns *c, struct inspect *in, uint64_t offset, uint64_t bytes,
                     const char *what)
{
    columns_kept(c, inspect_number(in, offset));
    columns_kept(c, inspect_number(in, bytes));
    columns_kept(c, inspect_size(in, bytes));
    columns_cell(c, "%s", what);
}

static void add_fill(struct columns *c, struct inspect *in, const struct inspect_fill *fill)
{
    if (!fill) {
        for (int i = 0; i < 3; i++)
            columns_cell(c, "-");
        return;
    }
    columns_kept(c, inspect_number(in, (uint64_t)fill->planes));
    columns_kept(c, inspect_number(in, (uint64_t)fill->holes));
    columns_kept(c, inspect_number(in, fill->padding));
}

static void add_header(struct columns *c, struct inspect *in, const char *file)
{
    const struct sf_container_info *info = sf_map_info(in->map);
    const char *name = inspect_shown(in, sf_path_base(file));
    const char *text = sf_arena_printf(in->arena, "header of %s", name);
    add_line(c, in, 0, info->payload_offset,
             info->container_files == 1 ? "header"
             : text                     ? text
                                        : "?");
    add_fill(c, in, NULL);
}

/* Behind the payload; or, of a set, all of its first file. */
static void add_rest(struct columns *c, struct inspect *in)
{
    const struct sf_container_info *info = sf_map_info(in->map);
    uint64_t at = info->payload_offset + info->payload_bytes;
    if (info->container_files == 1) {
        add_line(c, in, at, info->file_bytes - at, "checksums, index, metadata");
    } else {
        const char *name = inspect_shown(in, sf_path_base(sf_map_path(in->map)));
        const char *text =
            sf_arena_printf(in->arena, "%s: header, checksums, index, metadata", name);
        uint64_t others = (uint64_t)(info->container_files - 1) * info->payload_offset;
        add_line(c, in, 0, info->file_bytes - info->payload_bytes - others, text ? text : "?");
    }
    add_fill(c, in, NULL);
}

static int print_text(struct inspect *in, const struct inspect_fill *fill, struct sf_err *err)
{
    static const struct column heads[] = {{"offset", true, false, 0}, {"bytes", true, false, 0},
                                          {"size", true, false, 2},   {"what", false, false, 0},
                                          {"planes", true, false, 3}, {"holes", true, false, 1},
                                          {"padding", true, false, 0}};
    const struct sf_container_info *info = sf_map_info(in->map);
    const char *file = NULL;
    char text[SF_EXTENT_TEXT];
    struct columns c;
    columns_begin(&c, in->arena, heads, 7);
    for (int64_t i = 0; i < info->extents; i++) {
        const struct sf_extent *extent = sf_map_extent(in->map, i);
        uint64_t offset;
        const char *place = sf_map_place(&offset, in->map, extent->address);
        if (place != file)
            add_header(&c, in, file = place);
        add_line(&c, in, offset, extent->bytes, sf_extent_format(text, extent));
        add_fill(&c, in, &fill[i]);
    }
    add_rest(&c, in);
    return columns_print(&c, in->out, 0, in->width, err);
}

static int print_json(struct inspect *in, const struct inspect_fill *fill, struct sf_err *err)
{
    const struct sf_container_info *info = sf_map_info(in->map);
    struct sf_json_writer w;
    sf_json_write_begin(&w, in->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-inspect-layout/1");
    sf_json_write_int(&w, "file_bytes", (int64_t)info->file_bytes);
    sf_json_write_int(&w, "payload_offset", (int64_t)info->payload_offset);
    sf_json_write_int(&w, "payload_bytes", (int64_t)info->payload_bytes);
    sf_json_write_array(&w, "extents");
    for (int64_t i = 0; i < info->extents; i++) {
        const struct sf_extent *extent = sf_map_extent(in->map, i);
        uint64_t offset;
        const char *file = sf_map_place(&offset, in->map, extent->address);
        sf_json_write_object(&w, NULL);
        sf_json_write_string(&w, "file", sf_path_base(file));
        sf_json_write_int(&w, "offset", (int64_t)offset);
        sf_json_write_int(&w, "bytes", (int64_t)extent->bytes);
        sf_json_write_string(&w, "kind", sf_extent_kind_name(extent->kind));
        sf_json_write_int(&w, "layer", extent->layer);
        sf_json_write_int(&w, "expert", extent->expert);
        sf_json_write_int(&w, "planes", fill[i].planes);
        sf_json_write_int(&w, "holes", fill[i].holes);
        sf_json_write_int(&w, "padding", (int64_t)fill[i].padding);
        sf_json_write_end(&w, '}');
    }
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    return inspect_print_written(in, &w, err);
}

int inspect_layout(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    struct inspect_fill *fill;
    int code = inspect_fill_gather(&fill, in, err);
    if (code != SF_OK)
        return code;
    return r->json ? print_json(in, fill, err) : print_text(in, fill, err);
}
