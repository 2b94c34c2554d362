/* The verb extract: some tensors as a .npy or .safetensors file. */
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/convert/extract.h"
#include "tools/columns.h"
#include "tools/inspect_verbs.h"

static int read_form(struct sf_extract_options *o, const struct inspect_request *r,
                     struct sf_err *err)
{
    static const char *const names[] = {"raw", "bf16", "f32"};
    const char *want = r->as ? r->as : "f32";
    for (int i = 0; i < 3; i++)
        if (strcmp(names[i], want) == 0) {
            o->form = (enum sf_extract_form)i;
            if (r->plane && o->form != SF_EXTRACT_RAW)
                return sf_fail(err, SF_EINVAL, "--plane goes with --as raw");
            return SF_OK;
        }
    return sf_fail(err, SF_EINVAL, "--as is raw, bf16 or f32, not \"%s\"", want);
}

/* "A:B": rows A to B - 1. */
static int read_rows(struct sf_extract_options *o, const char *text, struct sf_err *err)
{
    char *end;
    if (!text)
        return SF_OK;
    o->first_row = strtoll(text, &end, 10);
    if (end != text && *end == ':') {
        const char *second = end + 1;
        o->end_row = strtoll(second, &end, 10);
        if (end != second && !*end && o->end_row > 0)
            return SF_OK;
    }
    return sf_fail(err, SF_EINVAL, "--rows takes A:B (rows A to B - 1, from 0), not \"%s\"", text);
}

int inspect_extract(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    struct inspect_selection selection;
    struct sf_extract_options options = {.plane = r->plane};
    struct inspect_filter filter = r->filter;
    struct sf_file_stat stat;
    filter.name = r->operand[1];
    filter.sort = "role";
    if (!r->output || !*r->output)
        return sf_fail(err, SF_EINVAL, "give the file to write with -o FILE");
    int code = read_form(&options, r, err);
    if (code == SF_OK)
        code = read_rows(&options, r->rows, err);
    if (code == SF_OK)
        code = inspect_select(&selection, in, &filter, err);
    if (code == SF_OK)
        code = sf_extract(r->output, in->map, selection.entry, selection.count, &options, err);
    if (code == SF_OK)
        code = sf_file_stat(&stat, r->output, err);
    if (code == SF_OK)
        fprintf(in->out, "%s: %s of %lld tensors as %s\n", inspect_shown(in, r->output),
                inspect_size(in, stat.bytes), (long long)selection.count, r->as ? r->as : "f32");
    return code;
}
