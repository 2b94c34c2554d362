/* The verb tensors: a table, a tree, or JSON. */
#include <string.h>

#include "tools/columns.h"
#include "tools/inspect_select.h"
#include "tools/inspect_verbs.h"

/* ---- the table ---- */

static void add_error(struct columns *c, const struct sf_entry *entry, double error)
{
    if (entry->encoding == SF_ENCODING_RAW)
        columns_kept(c, "-");
    else
        columns_percent(c, error);
}

static void add_tensor(struct columns *c, struct inspect *in, const struct sf_entry *entry)
{
    char role[SF_ROLE_TEXT], shape[SF_SHAPE_TEXT];
    uint64_t n = inspect_entry_bytes(entry), offset;
    sf_map_place(&offset, in->map, entry->plane[SF_PLANE_CODES].address);
    columns_kept(c, inspect_number(in, offset));
    columns_kept(c, inspect_number(in, n));
    columns_kept(c, inspect_size(in, n));
    columns_cell(c, "%s", sf_role_format(role, entry->role));
    columns_cell(c, "%s", sf_shape_format(shape, &entry->shape));
    columns_kept(c, inspect_form(entry));
    add_error(c, entry, entry->relative_rms_error);
    add_error(c, entry, (double)entry->worst_block_error);
    columns_kept(c, entry->name); /* of the mapped file */
}

static int print_table(struct inspect *in, const struct inspect_selection *s, struct sf_err *err)
{
    static const struct column heads[] = {
        {"offset", true, false, 2}, {"bytes", true, false, 0},       {"size", true, false, 4},
        {"role", false, false, 0},  {"shape", true, false, 1},       {"as", false, false, 0},
        {"error", true, false, 0},  {"worst block", true, false, 5}, {"name", false, true, 3}};
    struct columns c;
    columns_begin(&c, in->arena, heads, 9);
    columns_expect(&c, s->count);
    for (int64_t i = 0; i < s->count; i++)
        add_tensor(&c, in, s->entry[i]);
    return columns_print(&c, in->out, 0, in->width, err);
}

/* ---- the tree: names cut at their dots ---- */

enum { DEEPEST = 40 };

struct tree {
    struct inspect *in;
    struct columns columns;
    int64_t depth; /* levels shown */
};

static size_t part_length(const char *name)
{
    return strcspn(name, ".");
}

/* Up to where entries begin with the same part behind `skip` characters. */
static int64_t same_part(const struct inspect_selection *s, int64_t first, size_t skip)
{
    const char *part = s->entry[first]->name + skip;
    size_t length = part_length(part);
    int64_t end = first + 1;
    while (end < s->count && strncmp(s->entry[end]->name, s->entry[first]->name, skip) == 0 &&
           strncmp(s->entry[end]->name + skip, part, length) == 0 &&
           part_length(s->entry[end]->name + skip) == length)
        end++;
    return end;
}

static void add_line(struct tree *t, const struct inspect_selection *s, int64_t first, int64_t end,
                     size_t skip, int level, bool leaf)
{
    char shape[SF_SHAPE_TEXT] = "";
    const char *part = s->entry[first]->name + skip;
    uint64_t bytes = 0;
    double worst = 0;
    for (int64_t i = first; i < end; i++) {
        bytes += inspect_entry_bytes(s->entry[i]);
        if (s->entry[i]->relative_rms_error > worst)
            worst = s->entry[i]->relative_rms_error;
    }
    columns_cell(&t->columns, "%*s%.*s", 2 * level, "", (int)part_length(part), part);
    columns_cell(&t->columns, "%s", inspect_number(t->in, (uint64_t)(end - first)));
    columns_cell(&t->columns, "%s", inspect_number(t->in, bytes));
    columns_cell(&t->columns, "%s", inspect_size(t->in, bytes));
    columns_cell(&t->columns, "%s", leaf ? sf_shape_format(shape, &s->entry[first]->shape) : "");
    columns_cell(&t->columns, "%s", leaf ? inspect_form(s->entry[first]) : "");
    if (worst > 0)
        columns_cell(&t->columns, "%.3f %%", 100 * worst);
    else
        columns_cell(&t->columns, "-");
}

/* What lies deeper than DEEPEST is summed up in one line: names are the file's, the stack is ours. */
static void add_level(struct tree *t, const struct inspect_selection *s, int64_t first, int64_t end,
                      size_t skip, int level)
{
    while (first < end) {
        int64_t next = same_part(s, first, skip);
        size_t length = part_length(s->entry[first]->name + skip);
        bool leaf = next == first + 1 && !s->entry[first]->name[skip + length];
        add_line(t, s, first, next, skip, level, leaf);
        if (!leaf && level + 1 < t->depth) {
            /* A name that ends here beside names that go on is the first of them. */
            bool ends = !s->entry[first]->name[skip + length];
            add_level(t, s, first + ends, next, skip + length + 1, level + 1);
        }
        first = next;
    }
}

static int print_tree(struct inspect *in, const struct inspect_selection *s, int64_t depth,
                      struct sf_err *err)
{
    static const struct column heads[] = {
        {"name", false, false, 0},      {"tensors", true, false, 2}, {"bytes", true, false, 3},
        {"size", true, false, 0},       {"shape", true, false, 4},   {"as", false, false, 1},
        {"worst error", true, false, 0}};
    struct tree t = {.in = in, .depth = depth > 0 && depth < DEEPEST ? depth : DEEPEST};
    columns_begin(&t.columns, in->arena, heads, 7);
    add_level(&t, s, 0, s->count, 0, 0);
    return columns_print(&t.columns, in->out, 0, in->width, err);
}

int inspect_tensors(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    struct inspect_selection selection;
    struct inspect_filter filter = r->filter;
    if (r->tree && (r->json || filter.sort))
        return sf_fail(err, SF_EINVAL, "--tree goes without --json and --sort");
    if (r->depth < 0 || (r->depth && !r->tree))
        return sf_fail(err, SF_EINVAL, "--depth takes a number from 1, beside --tree");
    if (!filter.sort)
        filter.sort = r->tree ? "name" : r->json ? "role" : "address";
    int code = inspect_select(&selection, in, &filter, err);
    if (code != SF_OK)
        return code;
    if (r->json)
        return inspect_print_json(in, &selection, err);
    return r->tree ? print_tree(in, &selection, r->depth, err) : print_table(in, &selection, err);
}
