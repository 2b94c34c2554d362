/* The verb report: one page for a browser that loads nothing. */
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/container/container_check.h"
#include "tools/columns.h"
#include "tools/report/report_files.h"
#include "tools/report_data.h"
#include "tools/report_page.h"

/* ---- the payload against its checksums ---- */

struct checking {
    struct report *report;
    struct tool_progress progress;
};

static void on_damage(void *context, const struct sf_damage *damage)
{
    struct report *r = ((struct checking *)context)->report;
    const struct sf_map *map = r->in->map;
    char text[SF_DAMAGE_TEXT];
    uint64_t place;
    r->bad_extent[damage->where - sf_map_extent(map, 0)] = true;
    for (int64_t i = 0; i < damage->entries; i++)
        r->bad_tensor[damage->entry[i] - sf_map_tensor(map, 0)] = true;
    if (r->damages == REPORT_DAMAGE_MOST)
        return;
    sf_damage_format(text, damage);
    const char *kept = sf_arena_strdup(r->in->arena, text);
    const char *file = sf_map_place(&place, map, damage->address);
    r->damage[r->damages++] =
        (struct report_damage){damage->chunk, place, damage->bytes, file, kept ? kept : "?"};
}

static void on_progress(void *context, uint64_t done, uint64_t total)
{
    tool_progress_show(&((struct checking *)context)->progress, done, total);
}

static int check(struct report *report, int threads, struct sf_err *err)
{
    struct checking checking = {.report = report};
    struct sf_check_options options = {.threads = threads,
                                       .on_damage = on_damage,
                                       .on_progress = on_progress,
                                       .context = &checking};
    const struct sf_container_info *info = sf_map_info(report->in->map);
    struct sf_err found = {0};
    report->bad_tensor = sf_arena_array(report->in->arena, (uint64_t)info->tensors, sizeof(bool));
    report->bad_extent = sf_arena_array(report->in->arena, (uint64_t)info->extents, sizeof(bool));
    if (!report->bad_tensor || !report->bad_extent)
        return sf_fail(err, SF_ENOMEM, "cannot mark %lld tensors", (long long)info->tensors);
    tool_progress_begin(&checking.progress, "verifying");
    int code = sf_check_run(&report->damaged, report->in->map, &options, &found);
    tool_progress_end(&checking.progress);
    report->checked = true;
    if (code == SF_OK || code == SF_EDAMAGED)
        return SF_OK; /* the page tells */
    *err = found;
    return code;
}

/* ---- whose codes and scales are shown ---- */

static bool has_histogram(const struct sf_entry *e)
{
    return e->encoding == SF_ENCODING_NF4 && e->block_axis < 0;
}

static int choose_named(struct report *report, const struct inspect_request *r, struct sf_err *err)
{
    struct inspect_selection selection;
    struct inspect_filter filter = {.name = r->filter.name, .sort = "error"};
    int code = inspect_select(&selection, report->in, &filter, err);
    if (code != SF_OK)
        return code;
    for (int64_t i = 0; i < selection.count && report->histograms < REPORT_HISTOGRAMS_MOST; i++)
        if (has_histogram(selection.entry[i]))
            report->histogram[report->histograms++] = selection.entry[i];
    report->chosen = true;
    if (report->histograms == 0)
        return sf_fail(err, SF_EINVAL, "--name %s: none of these tensors is NF4", r->filter.name);
    return SF_OK;
}

static bool is_candidate(const struct sf_entry *e, enum inspect_kind kind)
{
    return has_histogram(e) && inspect_kind_of(e->role.part) == kind;
}

/* Of each kind the tensor of the greatest error and that of median error. */
static int choose_typical(struct report *report, struct sf_err *err)
{
    struct inspect_selection all;
    struct inspect_filter filter = {.sort = "error"};
    int code = inspect_select(&all, report->in, &filter, err);
    for (enum inspect_kind k = 0; k < INSPECT_KINDS && code == SF_OK; k++) {
        int64_t count = 0, seen = 0;
        for (int64_t i = 0; i < all.count; i++)
            count += is_candidate(all.entry[i], k);
        for (int64_t i = 0; i < all.count; i++) {
            if (!is_candidate(all.entry[i], k))
                continue;
            if ((seen == 0 || seen == count / 2) && report->histograms < REPORT_HISTOGRAMS_MOST)
                report->histogram[report->histograms++] = all.entry[i];
            seen++;
        }
    }
    return code;
}

int inspect_report(struct inspect *in, const struct inspect_request *r, struct sf_err *err)
{
    struct report report = {.in = in};
    struct sf_file_stat stat;
    char *data;
    if (!r->output || !*r->output)
        return sf_fail(err, SF_EINVAL, "give the file to write with -o FILE.html");
    int code = r->no_verify ? SF_OK : check(&report, (int)r->threads, err);
    if (code == SF_OK)
        code = r->filter.name ? choose_named(&report, r, err) : choose_typical(&report, err);
    if (code == SF_OK)
        code = report_data_write(&data, &report, err);
    if (code == SF_OK)
        code = report_page_write(r->output, report_html, report_js, data, err);
    if (code == SF_OK)
        code = sf_file_stat(&stat, r->output, err);
    if (code != SF_OK)
        return code;
    fprintf(in->out, "%s: %s\n", inspect_shown(in, r->output), inspect_size(in, stat.bytes));
    return report.damaged
               ? sf_fail(err, SF_EDAMAGED, "%s: %lld of %llu chunks damaged", sf_map_path(in->map),
                         (long long)report.damaged, (unsigned long long)in->facts.chunks)
               : SF_OK;
}
