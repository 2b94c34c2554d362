#include "tools/convert_report.h"

#include <math.h>
#include <stdio.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/codec/nf4.h"
#include "libformat/convert/row_error.h"
#include "tools/columns.h"
#include "tools/tool.h"

/* ---- sums ---- */

struct total {
    const char *what;
    int64_t tensors;
    uint64_t bytes;
    struct sf_convert_row sum;          /* of its quantized tensors; only the squares */
    const struct sf_convert_row *worst; /* tensor by error; NULL: none is quantized */
    const struct sf_convert_row *block; /* tensor with the worst block */
};

static uint64_t entry_bytes(const struct sf_entry *e)
{
    uint64_t bytes = 0;
    for (int p = 0; p < SF_PLANE_CODEBOOK; p++)
        bytes += e->plane[p].bytes;
    return bytes;
}

static bool has_error(const struct sf_convert_row *row)
{
    return row->entry->encoding != SF_ENCODING_RAW;
}

static void add(struct total *t, const struct sf_convert_row *row)
{
    t->tensors++;
    t->bytes += entry_bytes(row->entry);
    if (!has_error(row))
        return;
    t->sum.squared_error += row->squared_error;
    t->sum.squared_norm += row->squared_norm;
    if (!t->worst || row->entry->relative_rms_error > t->worst->entry->relative_rms_error)
        t->worst = row;
    if (!t->block || row->entry->worst_block_error > t->block->entry->worst_block_error)
        t->block = row;
}

static struct total total_of_all(const struct sf_convert_plan *plan)
{
    struct total t = {.what = "total"};
    for (int64_t i = 0; i < plan->rows; i++)
        add(&t, &plan->row[i]);
    return t;
}

/* ---- a dry run ---- */

static int group_of(const struct sf_entry *e)
{
    if (e->role.part == SF_PART_UNUSED)
        return 4;
    if (e->role.part == SF_PART_EMBEDDING || e->role.part == SF_PART_HEAD)
        return 3;
    if (sf_part_is_expert(e->role.part))
        return 0;
    return sf_part_is_matrix(e->role.part) ? 1 : 2;
}

static void print_totals(const struct sf_convert_plan *plan)
{
    struct total totals[] = {{.what = "routed experts"},
                             {.what = "attention, shared and dense matrices"},
                             {.what = "routers and norms"},
                             {.what = "embedding and head"},
                             {.what = "unused by text training"}};
    char text[TOOL_SIZE_TEXT];
    for (int64_t i = 0; i < plan->rows; i++)
        add(&totals[group_of(plan->row[i].entry)], &plan->row[i]);
    for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++)
        if (totals[i].tensors > 0)
            printf("  %-38s %6lld tensors %10s\n", totals[i].what, (long long)totals[i].tensors,
                   tool_size(text, totals[i].bytes));
}

static void print_resident(const struct sf_convert_plan *plan)
{
    uint64_t resident = 0, host = 0, unused = 0;
    char a[TOOL_SIZE_TEXT], b[TOOL_SIZE_TEXT], c[TOOL_SIZE_TEXT], d[TOOL_SIZE_TEXT],
        e[TOOL_SIZE_TEXT];
    for (int64_t i = 0; i < sf_layout_extent_count(plan->layout); i++) {
        const struct sf_extent *x = sf_layout_extent_at(plan->layout, i);
        if (x->kind == SF_EXTENT_UNUSED)
            unused += x->bytes;
        else if (x->kind == SF_EXTENT_EMBEDDING)
            host += x->bytes;
        else
            resident += x->bytes;
    }
    printf("%lld parameters, %s of source weights\n"
           "payload %s: %s resident while training, %s of embedding on the host, %s unused\n",
           (long long)plan->parameters, tool_size(a, plan->source_bytes),
           tool_size(b, resident + host + unused), tool_size(c, resident), tool_size(d, host),
           tool_size(e, unused));
}

static void print_taken(const struct sf_convert_plan *plan)
{
    if (plan->taken > 0)
        printf("%lld matrices are taken over as bitsandbytes quantized them, bit for bit\n",
               (long long)plan->taken);
    if (plan->down > 0)
        printf("%lld of them have their blocks along the output axis, which training cannot use: "
               "--requantize quantizes them anew\n",
               (long long)plan->down);
    if (plan->requantized > 0)
        printf("%lld matrices that were quantized along the output axis are quantized anew from "
               "what they decode to\n",
               (long long)plan->requantized);
}

static void print_files(const struct sf_convert_plan *plan)
{
    int64_t files = sf_layout_files(plan->layout);
    char size[TOOL_SIZE_TEXT];
    if (files > 1)
        printf("in %lld files: one without tensors and", (long long)files);
    for (int64_t file = 2; file <= files; file++)
        printf(" %s%s", tool_size(size, sf_layout_file_bytes(plan->layout, file)),
               file < files ? "," : "\n");
}

void report_plan(const struct sf_convert_plan *plan)
{
    printf("%-28s %-5s %12s  %-18s %s\n", "role", "as", "bytes", "shape", "name");
    for (int64_t i = 0; i < plan->rows; i++) {
        const struct sf_entry *e = plan->row[i].entry;
        char role[SF_ROLE_TEXT], shape[SF_SHAPE_TEXT];
        printf("%-28s %-5s %12llu  %-18s %s\n", sf_role_format(role, e->role),
               e->encoding == SF_ENCODING_NF4 ? "nf4" : sf_dtype_name(e->dtype),
               (unsigned long long)entry_bytes(e), sf_shape_format(shape, &e->shape), e->name);
    }
    printf("\n");
    print_files(plan);
    print_totals(plan);
    print_resident(plan);
    print_taken(plan);
}

/* ---- the table ---- */

static void add_errors(struct columns *c, const struct sf_convert_row *sum,
                       const struct sf_convert_row *block)
{
    if (!block) {
        for (int i = 0; i < 3; i++)
            columns_cell(c, "-");
        return;
    }
    double error = sf_row_error(sum), snr = sf_row_snr(error);
    columns_cell(c, "%.3f %%", 100 * error);
    if (isinf(snr))
        columns_cell(c, "-");
    else
        columns_cell(c, "%.2f", snr);
    columns_cell(c, "%.2f %%", 100 * (double)block->entry->worst_block_error);
}

static void add_total(struct columns *c, const struct total *t)
{
    char size[TOOL_SIZE_TEXT];
    columns_cell(c, "%s", t->what);
    columns_cell(c, "%lld", (long long)t->tensors);
    columns_cell(c, "%s", tool_size(size, t->bytes));
    add_errors(c, &t->sum, t->block);
    if (t->worst)
        columns_cell(c, "%.3f %% %s", 100 * t->worst->entry->relative_rms_error,
                     t->worst->entry->name);
    else
        columns_cell(c, "-");
}

static int print_parts(const struct sf_convert_plan *plan, struct sf_arena *arena,
                       struct sf_err *err)
{
    static const struct column heads[] = {
        {"part", false, false, 0},       {"tensors", true, false, 2},
        {"size", true, false, 1},        {"error", true, false, 0},
        {"SNR dB", true, false, 0},      {"worst block", true, false, 0},
        {"worst tensor", false, true, 3}};
    struct columns c;
    struct total all = total_of_all(plan);
    columns_begin(&c, arena, heads, 7);
    for (int part = 0; part < SF_PART_COUNT; part++) {
        struct total t = {.what = sf_part_name((enum sf_part)part)};
        for (int64_t i = 0; i < plan->rows; i++)
            if ((int)plan->row[i].entry->role.part == part)
                add(&t, &plan->row[i]);
        if (t.tensors > 0)
            add_total(&c, &t);
    }
    add_total(&c, &all);
    return columns_print(&c, stdout, 0, columns_terminal_width(stdout), err);
}

static int print_tensors(const struct sf_convert_plan *plan, struct sf_arena *arena,
                         struct sf_err *err)
{
    static const struct column heads[] = {
        {"role", false, false, 0}, {"as", false, false, 1},    {"bytes", true, false, 2},
        {"error", true, false, 0}, {"SNR dB", true, false, 0}, {"worst block", true, false, 0},
        {"which", true, false, 3}, {"name", false, true, 4}};
    struct columns c;
    columns_begin(&c, arena, heads, 8);
    for (int64_t i = 0; i < plan->rows; i++) {
        const struct sf_convert_row *row = &plan->row[i];
        const struct sf_entry *e = row->entry;
        char role[SF_ROLE_TEXT];
        columns_cell(&c, "%s", sf_role_format(role, e->role));
        columns_cell(&c, "%s", has_error(row) ? "nf4" : sf_dtype_name(e->dtype));
        columns_cell(&c, "%llu", (unsigned long long)entry_bytes(e));
        add_errors(&c, row, has_error(row) ? row : NULL);
        if (has_error(row))
            columns_cell(&c, "%lld", (long long)row->worst_block);
        else
            columns_cell(&c, "-");
        columns_cell(&c, "%s", e->name);
    }
    return columns_print(&c, stdout, 0, columns_terminal_width(stdout), err);
}

/* Bytes of source that this run took, a second: what an earlier run did does not count. */
static double rate_of(const struct sf_convert_plan *plan, const struct report_facts *f)
{
    double share = 1 - (double)f->kept_bytes / (double)f->payload_bytes;
    return f->seconds > 0 ? share * (double)plan->source_bytes / f->seconds : 0;
}

int report_print(const struct sf_convert_plan *plan, const struct report_facts *f,
                 bool every_tensor, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    char size[TOOL_SIZE_TEXT], rate[TOOL_SIZE_TEXT];
    int code = every_tensor ? print_tensors(plan, &scratch, err) : SF_OK;
    if (code == SF_OK)
        code = print_parts(plan, &scratch, err);
    sf_arena_free(&scratch);
    if (code != SF_OK)
        return code;
    print_resident(plan);
    print_taken(plan);
    if (f->kept_bytes > 0)
        printf("went on from %s of payload that an earlier run had finished\n",
               tool_size(size, f->kept_bytes));
    if (f->container_files > 1)
        printf("in %lld files, of which this is the first:\n", (long long)f->container_files);
    printf("%s: %s, written and read back in %.1f s (%s/s of source)\n", f->container,
           tool_size(size, f->container_bytes), f->seconds,
           tool_size(rate, (uint64_t)rate_of(plan, f)));
    return SF_OK;
}

/* ---- JSON ---- */

static void write_error(struct sf_json_writer *w, double error)
{
    double snr = sf_row_snr(error);
    sf_json_write_double(w, "relative_rms_error", error);
    if (isinf(snr))
        sf_json_write_null(w, "snr_db");
    else
        sf_json_write_double(w, "snr_db", snr);
}

static void write_block(struct sf_json_writer *w, const struct sf_convert_row *row, bool name)
{
    const struct sf_entry *e = row->entry;
    int64_t in = e->shape.rank == 2 ? e->shape.dim[1] : 0, first = row->worst_block * e->block;
    sf_json_write_object(w, "worst_block");
    if (name)
        sf_json_write_string(w, "name", e->name);
    sf_json_write_double(w, "relative_rms_error", e->worst_block_error);
    sf_json_write_int(w, "block", row->worst_block);
    if (in > 0 && e->block_axis < 0) {
        sf_json_write_int(w, "row", first / in);
        sf_json_write_int(w, "column", first % in);
    }
    sf_json_write_end(w, '}');
}

static void write_tensor(struct sf_json_writer *w, const struct sf_convert_row *row)
{
    const struct sf_entry *e = row->entry;
    char role[SF_ROLE_TEXT];
    sf_json_write_object(w, NULL);
    sf_json_write_string(w, "name", e->name);
    sf_json_write_string(w, "source", e->source_name);
    sf_json_write_string(w, "role", sf_role_format(role, e->role));
    sf_json_write_string(w, "as", has_error(row) ? "nf4" : sf_dtype_name(e->dtype));
    sf_json_write_array(w, "shape");
    for (int i = 0; i < e->shape.rank; i++)
        sf_json_write_int(w, NULL, e->shape.dim[i]);
    sf_json_write_end(w, ']');
    sf_json_write_int(w, "bytes", (int64_t)entry_bytes(e));
    if (has_error(row)) {
        write_error(w, e->relative_rms_error);
        write_block(w, row, false);
    }
    sf_json_write_end(w, '}');
}

static void write_facts(struct sf_json_writer *w, const struct sf_convert_plan *plan,
                        const struct report_facts *f)
{
    sf_json_write_string(w, "converter", f->converter);
    sf_json_write_string(w, "options", f->options);
    sf_json_write_string(w, "model_id", f->model_id);
    sf_json_write_string(w, "source", f->source);
    sf_json_write_string(w, "container", f->container);
    sf_json_write_int(w, "source_bytes", (int64_t)plan->source_bytes);
    sf_json_write_int(w, "container_files", f->container_files);
    sf_json_write_int(w, "container_bytes", (int64_t)f->container_bytes);
    sf_json_write_int(w, "payload_bytes", (int64_t)f->payload_bytes);
    sf_json_write_int(w, "kept_bytes", (int64_t)f->kept_bytes);
    sf_json_write_int(w, "threads", f->threads);
    sf_json_write_string(w, "instructions", sf_nf4_path());
    sf_json_write_double(w, "seconds", f->seconds);
    sf_json_write_double(w, "source_bytes_per_second", rate_of(plan, f));
}

static void write_total(struct sf_json_writer *w, const struct sf_convert_plan *plan)
{
    struct total t = total_of_all(plan);
    sf_json_write_object(w, "total");
    sf_json_write_int(w, "tensors", t.tensors);
    sf_json_write_int(w, "bytes", (int64_t)t.bytes);
    sf_json_write_int(w, "nan_or_inf", 0); /* else there would be no container */
    if (t.worst) {
        write_error(w, sf_row_error(&t.sum));
        sf_json_write_string(w, "worst_tensor", t.worst->entry->name);
        write_block(w, t.block, true);
    }
    sf_json_write_end(w, '}');
}

int report_write(const char *path, const struct sf_convert_plan *plan,
                 const struct report_facts *facts, struct sf_err *err)
{
    struct sf_arena scratch = {0};
    struct sf_json_writer w;
    char *text;
    uint64_t bytes;
    sf_json_write_begin(&w, &scratch, 1);
    sf_json_write_object(&w, NULL);
    write_facts(&w, plan, facts);
    write_total(&w, plan);
    sf_json_write_array(&w, "tensors");
    for (int64_t i = 0; i < plan->rows; i++)
        write_tensor(&w, &plan->row[i]);
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    int code = sf_json_write_finish(&text, &bytes, &w, err);
    if (code == SF_OK)
        code = sf_write_file(path, text, bytes, err);
    sf_arena_free(&scratch);
    return code == SF_OK ? code
                         : sf_err_prefix(err, "the container is finished, but the report is not");
}
