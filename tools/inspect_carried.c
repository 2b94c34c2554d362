#include <string.h>

#include "tools/columns.h"
#include "tools/inspect_verbs.h"

/* As it is, byte by byte: a carried file is the user's own text. */
static int print_file(struct inspect *in, const char *name, struct sf_err *err)
{
    char *text;
    uint64_t bytes;
    int code = sf_map_read_file(&text, &bytes, in->map, name, in->arena, err);
    if (code == SF_OK)
        fwrite(text, 1, (size_t)bytes, in->out); /* tool_finish reports what stdout refused */
    return code;
}

int inspect_config(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    (void)r;
    return print_file(in, "config.json", err);
}

int inspect_file(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    return print_file(in, r->operand[1], err);
}

static int files_json(struct inspect *in, struct sf_err *err)
{
    struct sf_json_writer w;
    sf_json_write_begin(&w, in->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-inspect-files/1");
    sf_json_write_array(&w, "files");
    for (int64_t i = 0; i < sf_map_info(in->map)->files; i++) {
        uint64_t bytes;
        sf_json_write_object(&w, NULL);
        sf_json_write_string(&w, "name", sf_map_file_name(in->map, i, &bytes));
        sf_json_write_int(&w, "bytes", (int64_t)bytes);
        sf_json_write_end(&w, '}');
    }
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    return inspect_print_written(in, &w, err);
}

int inspect_files(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    static const struct column heads[] = {{"bytes", true, false, 0}, {"name", false, true, 0}};
    struct columns c;
    if (r->json)
        return files_json(in, err);
    columns_begin(&c, in->arena, heads, 2);
    for (int64_t i = 0; i < sf_map_info(in->map)->files; i++) {
        uint64_t bytes;
        const char *name = sf_map_file_name(in->map, i, &bytes);
        columns_cell(&c, "%s", inspect_number(in, bytes));
        columns_cell(&c, "%s", name);
    }
    return columns_print(&c, in->out, 0, in->width, err);
}
