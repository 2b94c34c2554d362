/* verify --against: is the container what its source checkpoint gives? */
#include "libformat/base/jobs.h"
#include "libformat/convert/source_check.h"
#include "tools/columns.h"
#include "tools/inspect_verbs.h"

static bool listed(const struct inspect_request *r, const struct sf_source_check_row *row)
{
    return r->all || row->proof != SF_PROOF_EXACT;
}

static void add_percent(struct columns *c, bool known, double share)
{
    if (known)
        columns_cell(c, "%.3f %%", 100 * share);
    else
        columns_cell(c, "-");
}

static void add_row(struct columns *c, struct inspect *in, const struct sf_source_check_row *row)
{
    bool measured = row->worst > 0;
    columns_cell(c, "%s", sf_proof_name(row->proof));
    columns_cell(c, "%s", inspect_number(in, (uint64_t)row->codes_changed));
    columns_cell(c, "%s", inspect_number(in, (uint64_t)row->scales_changed));
    add_percent(c, row->entry->encoding != SF_ENCODING_RAW, row->recorded);
    add_percent(c, measured, row->measured);
    add_percent(c, measured, row->plain);
    add_percent(c, measured, row->half);
    add_percent(c, measured, row->nearly_all);
    add_percent(c, measured, row->worst);
    columns_cell(c, "%s", row->entry->name);
}

static int print_text(struct inspect *in, const struct inspect_request *r,
                      const struct sf_source_check *check, struct sf_err *err)
{
    static const struct column heads[] = {
        {"what", false, false, 0},          {"codes changed", true, false, 1},
        {"scales changed", true, false, 5}, {"recorded", true, false, 2},
        {"measured", true, false, 0},       {"plain", true, false, 3},
        {"half below", true, false, 6},     {"99 % below", true, false, 4},
        {"worst block", true, false, 4},    {"name", false, true, 0}};
    struct columns c;
    int64_t lines = 0;
    columns_begin(&c, in->arena, heads, 10);
    for (int64_t i = 0; i < check->rows; i++)
        if (listed(r, &check->row[i])) {
            add_row(&c, in, &check->row[i]);
            lines++;
        }
    int code = lines ? columns_print(&c, in->out, 0, in->width, err) : SF_OK;
    for (int64_t i = 0; i < check->left_out; i++)
        fprintf(in->out, "not in the container: %s\n", inspect_shown(in, check->left[i]->name));
    for (int p = 0; p < SF_PROOF_COUNT; p++)
        if (check->of_proof[p])
            fprintf(in->out, "%8lld tensors: %s\n", (long long)check->of_proof[p],
                    sf_proof_name(p));
    return code;
}

static int print_json(struct inspect *in, const struct inspect_request *r,
                      const struct sf_source_check *check, struct sf_err *err)
{
    struct sf_json_writer w;
    sf_json_write_begin(&w, in->arena, 2);
    sf_json_write_object(&w, NULL);
    sf_json_write_string(&w, "schema", "scout-inspect-against/1");
    sf_json_write_string(&w, "path", sf_map_path(in->map));
    sf_json_write_string(&w, "against", r->against);
    sf_json_write_object(&w, "proofs");
    for (int p = 0; p < SF_PROOF_COUNT; p++)
        sf_json_write_int(&w, sf_proof_name(p), check->of_proof[p]);
    sf_json_write_end(&w, '}');
    sf_json_write_array(&w, "tensors");
    for (int64_t i = 0; i < check->rows; i++) {
        const struct sf_source_check_row *row = &check->row[i];
        if (!listed(r, row))
            continue;
        sf_json_write_object(&w, NULL);
        sf_json_write_string(&w, "name", row->entry->name);
        sf_json_write_string(&w, "proof", sf_proof_name(row->proof));
        sf_json_write_int(&w, "codes_changed", row->codes_changed);
        sf_json_write_int(&w, "scales_changed", row->scales_changed);
        sf_json_write_double(&w, "recorded", row->recorded);
        sf_json_write_double(&w, "measured", row->measured);
        sf_json_write_double(&w, "plain", row->plain);
        sf_json_write_double(&w, "half_below", row->half);
        sf_json_write_double(&w, "percent_90_below", row->most);
        sf_json_write_double(&w, "percent_99_below", row->nearly_all);
        sf_json_write_double(&w, "worst_block", row->worst);
        sf_json_write_end(&w, '}');
    }
    sf_json_write_end(&w, ']');
    sf_json_write_array(&w, "left_out");
    for (int64_t i = 0; i < check->left_out; i++)
        sf_json_write_string(&w, NULL, check->left[i]->name);
    sf_json_write_end(&w, ']');
    sf_json_write_end(&w, '}');
    return inspect_print_written(in, &w, err);
}

static int verdict(struct inspect *in, const struct inspect_request *r,
                   const struct sf_source_check *check, struct sf_err *err)
{
    int64_t bad = check->of_proof[SF_PROOF_DIFFERS] + check->of_proof[SF_PROOF_MISSING];
    if (bad == 0 && check->left_out == 0)
        return SF_OK;
    return sf_fail(err, SF_EDAMAGED,
                   "%s is not what %s gives: %lld of %lld tensors differ, %lld have no source, "
                   "%lld of the source are not in it",
                   sf_map_path(in->map), r->against, (long long)check->of_proof[SF_PROOF_DIFFERS],
                   (long long)check->rows, (long long)check->of_proof[SF_PROOF_MISSING],
                   (long long)check->left_out);
}

int inspect_against(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    struct tool_progress progress;
    struct sf_weight_list source = {0};
    struct sf_source_check check = {0};
    struct sf_source_check_options options = {.threads =
                                                  r->threads ? (int)r->threads : sf_cpu_count(),
                                              .on_progress = inspect_show_progress,
                                              .context = &progress};
    int code = sf_weight_list_from_folder(&source, r->against, err);
    if (code != SF_OK)
        return code;
    tool_progress_begin(&progress, "deriving again");
    code = sf_source_check_run(&check, in->map, &source, &options, err);
    tool_progress_end(&progress);
    if (code == SF_OK)
        code = r->json ? print_json(in, r, &check, err) : print_text(in, r, &check, err);
    if (code == SF_OK)
        code = verdict(in, r, &check, err);
    sf_source_check_free(&check);
    sf_weight_list_close(&source);
    return code;
}
