/* The verb diff: two containers, or a container and a Hugging Face folder. */
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/jobs.h"
#include "libformat/convert/diff.h"
#include "tools/columns.h"
#include "tools/inspect_verbs.h"

struct side {
    struct sf_map *map; /* NULL: a folder */
    struct sf_weight_list list;
};

struct comparison {
    struct side a, b;
    struct sf_diff diff;
    struct inspect *in;
    bool all; /* list what is the same, too */
};

/* ---- opening ---- */

static int open_side(struct side *s, const char *path, struct sf_err *err)
{
    struct sf_file_stat stat;
    int code = sf_file_stat(&stat, path, err);
    if (code == SF_OK && stat.is_directory)
        return sf_weight_list_from_folder(&s->list, path, err);
    if (code == SF_OK)
        code = sf_map_open(&s->map, path, err);
    return code == SF_OK ? sf_weight_list_from_map(&s->list, s->map, err) : code;
}

static void close_side(struct side *s)
{
    sf_weight_list_close(&s->list);
    sf_map_close(s->map);
}

/* ---- carried files ---- */

enum { LARGEST_CARRIED = 256 << 20 };

static int read_carried(char **text, uint64_t *bytes, const struct side *s, const char *name,
                        struct sf_arena *arena, struct sf_err *err)
{
    if (s->map)
        return sf_map_read_file(text, bytes, s->map, name, arena, err);
    const char *path = sf_path_join(arena, s->list.path, name);
    if (!path)
        return sf_fail(err, SF_ENOMEM, "no memory for file names");
    return sf_read_file(text, bytes, arena, path, LARGEST_CARRIED, err);
}

/* "same", "differs", "only in A" or "only in B". */
static int compare_file(const char **state, const struct comparison *c, const char *name,
                        struct sf_err *err)
{
    struct sf_arena arena = {0};
    char *a = NULL, *b = NULL;
    uint64_t n = 0, m = 0;
    int code_b = SF_OK, code_a = read_carried(&a, &n, &c->a, name, &arena, err);
    if (code_a == SF_OK || code_a == SF_ENOENT)
        code_b = read_carried(&b, &m, &c->b, name, &arena, err);
    *state = NULL;
    if (code_a == SF_ENOENT && code_b == SF_OK)
        *state = "only in B";
    else if (code_a == SF_OK && code_b == SF_ENOENT)
        *state = "only in A";
    else if (code_a == SF_OK && code_b == SF_OK)
        *state = n == m && (n == 0 || memcmp(a, b, (size_t)n) == 0) ? "same" : "differs";
    sf_arena_free(&arena);
    return *state ? SF_OK : code_a != SF_OK && code_a != SF_ENOENT ? code_a : code_b;
}

typedef void file_function(void *context, const char *name, const char *state);

static int each_file_of(const struct comparison *c, const struct sf_map *map, bool only_missing,
                        file_function *function, void *context, struct sf_err *err)
{
    int code = SF_OK;
    for (int64_t i = 0; map && i < sf_map_info(map)->files && code == SF_OK; i++) {
        uint64_t bytes;
        const char *state, *name = sf_map_file_name(map, i, &bytes);
        code = compare_file(&state, c, name, err);
        if (code == SF_OK && (!only_missing || strcmp(state, "only in B") == 0))
            function(context, name, state);
    }
    return code;
}

/* Every carried file of either container, once. */
static int each_file(const struct comparison *c, file_function *function, void *context,
                     struct sf_err *err)
{
    int code = each_file_of(c, c->a.map, false, function, context, err);
    if (code == SF_OK)
        code = each_file_of(c, c->b.map, c->a.map != NULL, function, context, err);
    return code;
}

static void count_file(void *context, const char *name, const char *state)
{
    (void)name;
    *(int64_t *)context += strcmp(state, "same") != 0;
}

/* ---- text ---- */

static const char *form_of(const struct sf_weight_list *list, const struct sf_weight *w)
{
    if (!w)
        return "-";
    return list->map ? inspect_form(w->entry) : sf_dtype_name(w->dtype);
}

static void add_share(struct columns *c, int64_t part, int64_t all)
{
    if (part < 0 || all <= 0)
        columns_cell(c, "-");
    else
        columns_cell(c, "%.3f %%", 100.0 * (double)part / (double)all);
}

static void add_row(struct columns *c, const struct comparison *k, const struct sf_diff_row *r)
{
    bool values = r->state == SF_DIFF_VALUES;
    columns_cell(c, "%s", sf_diff_state_name(r->state));
    columns_cell(c, "%s", form_of(&k->a.list, r->a));
    columns_cell(c, "%s", form_of(&k->b.list, r->b));
    add_share(c, values ? r->changed : -1, r->elements);
    add_share(c, r->codes_changed, r->elements);
    add_share(c, r->scales_changed, r->scales);
    if (values) {
        columns_cell(c, "%.4g", r->relative_rms);
        columns_cell(c, "%.4g", r->largest);
    } else {
        columns_cell(c, "-");
        columns_cell(c, "-");
    }
    columns_cell(c, "%s", r->a ? r->a->name : r->b->name);
}

static void print_file(void *context, const char *name, const char *state)
{
    struct comparison *c = context;
    if (c->all || strcmp(state, "same") != 0)
        fprintf(c->in->out, "%s: %s\n", inspect_shown(c->in, name), state);
}

static int print_text(struct comparison *k, struct sf_err *err)
{
    static const struct column heads[] = {{"what", false, false, 0},
                                          {"A", false, false, 2},
                                          {"B", false, false, 2},
                                          {"numbers changed", true, false, 3},
                                          {"codes changed", true, false, 1},
                                          {"scales changed", true, false, 4},
                                          {"relative RMS", true, false, 0},
                                          {"largest", true, false, 5},
                                          {"name", false, true, 0}};
    struct columns c;
    int64_t listed = 0;
    columns_begin(&c, k->in->arena, heads, 9);
    for (int64_t i = 0; i < k->diff.rows; i++) {
        if (!k->all && k->diff.row[i].state == SF_DIFF_SAME)
            continue;
        add_row(&c, k, &k->diff.row[i]);
        listed++;
    }
    int code = listed ? columns_print(&c, k->in->out, 0, k->in->width, err) : SF_OK;
    if (code == SF_OK)
        code = each_file(k, print_file, k, err);
    fprintf(k->in->out, "A %s\nB %s\n", inspect_shown(k->in, k->a.list.path),
            inspect_shown(k->in, k->b.list.path));
    for (int s = 0; s < SF_DIFF_STATES; s++)
        if (k->diff.of_state[s])
            fprintf(k->in->out, "%8lld tensors: %s\n", (long long)k->diff.of_state[s],
                    sf_diff_state_name(s));
    return code;
}

/* ---- JSON ---- */

static void json_row(struct sf_json_writer *w, const struct comparison *k,
                     const struct sf_diff_row *r)
{
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "name", r->a ? r->a->name : r->b->name);
    sf_json_write_string(w, "state", sf_diff_state_name(r->state));
    sf_json_write_string(w, "a", form_of(&k->a.list, r->a));
    sf_json_write_string(w, "b", form_of(&k->b.list, r->b));
    sf_json_write_int(w, "elements", r->elements);
    sf_json_write_int(w, "changed", r->changed);
    sf_json_write_int(w, "codes_changed", r->codes_changed);
    sf_json_write_int(w, "scales", r->scales);
    sf_json_write_int(w, "scales_changed", r->scales_changed);
    sf_json_write_double(w, "relative_rms", r->relative_rms);
    sf_json_write_double(w, "largest", r->largest);
    sf_json_write_int(w, "largest_at", r->largest_at);
    sf_json_write_end(w, '}');
}

static void json_file(void *context, const char *name, const char *state)
{
    struct sf_json_writer *w = context;
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "name", name);
    sf_json_write_string(w, "state", state);
    sf_json_write_end(w, '}');
}

static int print_json(struct comparison *k, struct sf_err *err)
{
    struct sf_json_writer w;
    sf_json_write_begin(&w, k->in->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-inspect-diff/1");
    sf_json_write_string(&w, "a", k->a.list.path);
    sf_json_write_string(&w, "b", k->b.list.path);
    sf_json_write_object(&w, "states");
    for (int s = 0; s < SF_DIFF_STATES; s++)
        sf_json_write_int(&w, sf_diff_state_name(s), k->diff.of_state[s]);
    sf_json_write_end(&w, '}');
    sf_json_write_array(&w, "tensors");
    for (int64_t i = 0; i < k->diff.rows; i++)
        if (k->all || k->diff.row[i].state != SF_DIFF_SAME)
            json_row(&w, k, &k->diff.row[i]);
    sf_json_write_end(&w, ']');
    sf_json_write_array(&w, "files");
    int code = each_file(k, json_file, &w, err);
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    return code == SF_OK ? inspect_print_written(k->in, &w, err) : code;
}

/* ---- the verb ---- */

static int compare(struct comparison *k, const struct inspect_request *r, struct sf_err *err)
{
    struct tool_progress progress;
    struct sf_diff_options options = {.threads = r->threads ? (int)r->threads : sf_cpu_count(),
                                      .on_progress = inspect_show_progress,
                                      .context = &progress};
    int64_t files = 0;
    int code = open_side(&k->a, r->operand[0], err);
    if (code == SF_OK)
        code = open_side(&k->b, r->operand[1], err);
    if (code != SF_OK)
        return code;
    tool_progress_begin(&progress, "comparing");
    code = sf_diff_run(&k->diff, &k->a.list, &k->b.list, &options, err);
    tool_progress_end(&progress);
    if (code == SF_OK)
        code = r->json ? print_json(k, err) : print_text(k, err);
    if (code == SF_OK)
        code = each_file(k, count_file, &files, err);
    int64_t tensors = k->diff.rows - k->diff.of_state[SF_DIFF_SAME];
    if (code == SF_OK && (tensors || files))
        code = sf_fail(err, SF_EINVAL, "%s and %s differ in %lld of %lld tensors and %lld files",
                       r->operand[0], r->operand[1], (long long)tensors, (long long)k->diff.rows,
                       (long long)files);
    return code;
}

int inspect_diff(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    struct comparison k = {.in = in, .all = r->all};
    int code = compare(&k, r, err);
    sf_diff_free(&k.diff);
    close_side(&k.a);
    close_side(&k.b);
    return code;
}
