#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "libformat/base/clock.h"
#include "libformat/base/put.h"
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
    uint64_t scale = 1;
    int unit = 0;
    for (; bytes > 999 * scale + (scale - 1) / 2 && unit < 5; unit++)
        scale *= 1000;
    int decimals = unit == 0 ? 0 : bytes < 99 * scale + 95 * (scale / 100) ? 2 : 1;
    uint64_t step = decimals == 2 ? scale / 100 : decimals == 1 ? scale / 10 : 1;
    uint64_t steps = bytes / step + (bytes % step >= step - step / 2);
    char *at = sf_put_decimal(text, (int64_t)(steps / (scale / step)));
    if (decimals)
        *at++ = '.';
    if (decimals == 2)
        *at++ = (char)('0' + steps / 10 % 10);
    if (decimals)
        *at++ = (char)('0' + steps % 10);
    strcpy(stpcpy(at, " "), units[unit]);
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
