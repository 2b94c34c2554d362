#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "libformat/base/clock.h"
#include "tools/tool.h"

static const double TERMINAL_INTERVAL = 0.1, LOG_INTERVAL = 10; /* seconds between two lines */

double tool_now(void)
{
    return sf_clock_seconds();
}

bool tool_size_from_text(uint64_t *out, const char *text)
{
    static const struct {
        const char *name;
        double bytes;
    } unit[] = {{"", 1},      {"B", 1},        {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},
                {"TB", 1e12}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
    char *end;
    double number = strtod(text, &end);
    if (end == text || !(number >= 0))
        return false;
    for (size_t i = 0; i < sizeof unit / sizeof unit[0]; i++) {
        double bytes = number * unit[i].bytes;
        if (strcasecmp(end, unit[i].name) != 0 || bytes >= 0x1p63)
            continue;
        *out = (uint64_t)bytes;
        return true;
    }
    return false;
}

const char *tool_size(char *text, uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 999.5 && unit < 5) {
        value /= 1000;
        unit++;
    }
    snprintf(text, TOOL_SIZE_TEXT,
             unit == 0       ? "%.0f %s"
             : value < 99.95 ? "%.2f %s"
                             : "%.1f %s",
             value, units[unit]);
    return text;
}

void tool_progress_begin(struct tool_progress *p, const char *what)
{
    double now = tool_now();
    *p = (struct tool_progress){
        .what = what, .started = now, .last_shown = now, .terminal = isatty(2) == 1};
}

void tool_progress_show(struct tool_progress *p, uint64_t done, uint64_t total)
{
    double now = tool_now(), seconds = now - p->started;
    if (now - p->last_shown < (p->terminal ? TERMINAL_INTERVAL : LOG_INTERVAL) || done == 0)
        return;
    char have[TOOL_SIZE_TEXT], all[TOOL_SIZE_TEXT], rate[TOOL_SIZE_TEXT];
    double left = seconds * (double)(total - done) / (double)done;
    fprintf(stderr, "%s%s %s of %s (%.0f%%), %s/s, %.0f s left%s", p->terminal ? "\r" : "", p->what,
            tool_size(have, done), tool_size(all, total), 100 * (double)done / (double)total,
            tool_size(rate, (uint64_t)((double)done / seconds)), left,
            p->terminal ? "\033[K" : "\n");
    fflush(stderr);
    p->last_shown = now;
    p->shown = true;
}

void tool_progress_pause(struct tool_progress *p)
{
    if (p->shown && p->terminal)
        fprintf(stderr, "\r\033[K");
    p->shown = false;
}

void tool_progress_end(struct tool_progress *p)
{
    tool_progress_pause(p);
}
