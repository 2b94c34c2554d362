#include "tests/cli/spec_places.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cli/spec_run.h"

const char *const spec_site_names[SPEC_SITES] = {"codes",  "scales",    "unquantized",
                                                 "unused", "codebooks", "padding"};

/* A tensor's name and how messages show it. */
struct shown {
    const char *name, *text;
};
static struct shown *shown;
static int64_t shown_count;

/* Planes of all tensors, to find what lies between them. */
static struct spec_span *covered;
static int64_t covered_count;

/* Room for one more behind `count` elements: whenever count is a power of two, it doubles. */
static void *grow(void *array, int64_t count, size_t size)
{
    if (count & (count - 1))
        return array;
    array = realloc(array, (size_t)(count ? 2 * count : 1) * size);
    if (!array)
        spec_die("no memory for %lld places", (long long)count);
    return array;
}

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end)
        spec_die("\"%s\" is no number", text);
    return value;
}

/* Undoes spec_print_name, in place. */
static char *unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from;) {
        unsigned byte;
        if (sscanf(from, "\\x%2x", &byte) == 1) {
            *to++ = (char)byte;
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = 0;
    return text;
}

/* The next column of *line, or NULL behind the last. */
static char *column(char **line)
{
    char *text = *line;
    if (!text)
        return NULL;
    char *tab = strchr(text, '\t');
    *line = tab ? tab + 1 : NULL;
    if (tab)
        *tab = 0;
    return text;
}

static char *need(char **line)
{
    char *text = column(line);
    if (!text)
        spec_die("a line of spec_decoder ends early");
    return text;
}

/* ---- list ---- */

static char *role_text(int layer, const char *label, int expert)
{
    size_t room = strlen(label) + 64;
    char *text = malloc(room);
    if (!text)
        spec_die("no memory for a role");
    if (layer < 0)
        snprintf(text, room, "%s", label);
    else if (expert < 0)
        snprintf(text, room, "layer %d %s", layer, label);
    else
        snprintf(text, room, "layer %d expert %d %s", layer, expert, label);
    return text;
}

static void add_span(struct spec_span **span, int64_t *count, struct spec_span value)
{
    *span = grow(*span, *count, sizeof **span);
    (*span)[(*count)++] = value;
}

static enum spec_site site_of(const char *kind, const char *label, const char *encoding)
{
    if (strcmp(kind, "codebook") == 0 || strcmp(kind, "map") == 0)
        return SPEC_CODEBOOKS;
    if (strcmp(label, "unused") == 0)
        return SPEC_UNUSED;
    if (strcmp(encoding, "raw") == 0)
        return SPEC_RAW;
    return strcmp(kind, "codes") == 0 ? SPEC_CODES : SPEC_SCALES;
}

static void read_plane(struct spec_places *out, char *text, const char *name, const char *label,
                       const char *encoding)
{
    char kind[16];
    unsigned long long address, bytes;
    if (sscanf(text, "%15s %llu %llu", kind, &address, &bytes) != 3)
        spec_die("\"%s\" is no plane", text);
    enum spec_site site = site_of(kind, label, encoding);
    struct spec_span span = {out->payload + address, out->payload + address + bytes, name};
    add_span(&out->span[site], &out->spans[site], span);
    add_span(&covered, &covered_count, span);
}

static void read_tensor(struct spec_places *out, char *line)
{
    char *name = unescape(need(&line));
    int layer = atoi(need(&line));
    char *label = unescape(need(&line));
    int expert = atoi(need(&line));
    char *encoding = need(&line);
    need(&line); /* element type */
    need(&line); /* shape */
    shown = grow(shown, shown_count, sizeof *shown);
    shown[shown_count++] =
        (struct shown){name, strcmp(label, "unused") == 0 ? name : role_text(layer, label, expert)};
    for (char *plane = column(&line); plane; plane = column(&line))
        read_plane(out, plane, name, label, encoding);
}

static void read_extent(struct spec_places *out, char *line)
{
    struct spec_extent extent = {0};
    extent.begin = out->payload + number(need(&line));
    extent.end = extent.begin + number(need(&line));
    extent.kind = unescape(need(&line));
    extent.layer = atoi(need(&line));
    extent.expert = atoi(need(&line));
    out->extent = grow(out->extent, out->extents, sizeof extent);
    out->extent[out->extents++] = extent;
}

static void read_list_line(struct spec_places *out, char *line)
{
    const char *what = need(&line);
    if (strcmp(what, "tensor") == 0)
        read_tensor(out, line);
    else if (strcmp(what, "extent") == 0)
        read_extent(out, line);
    else
        spec_die("\"%s\" is neither tensor nor extent", what);
}

/* ---- owners ---- */

static const char *shown_as(const char *name)
{
    for (int64_t i = 0; i < shown_count; i++)
        if (strcmp(shown[i].name, name) == 0)
            return shown[i].text;
    spec_die("owners has a tensor %s, list has none", name);
}

static void read_owner_line(struct spec_places *out, char *line)
{
    struct spec_range range = {.chunk = -1};
    range.begin = number(need(&line));
    range.end = number(need(&line));
    range.what = need(&line);
    for (char *name = column(&line); name; name = column(&line)) {
        range.name = grow(range.name, range.names, sizeof *range.name);
        range.shown = grow(range.shown, range.names, sizeof *range.shown);
        range.name[range.names] = unescape(name);
        range.shown[range.names] = shown_as(range.name[range.names]);
        range.names++;
    }
    bool tensors = strcmp(range.what, "tensors") == 0;
    if (tensors != (range.names > 0))
        spec_die("%s at %llu with %lld names", range.what, (unsigned long long)range.begin,
                 (long long)range.names);
    if (tensors || strcmp(range.what, "padding") == 0) {
        const struct spec_range *last = &out->range[out->ranges - 1];
        range.chunk = last->chunk + 1;
    }
    out->range = grow(out->range, out->ranges, sizeof range);
    out->range[out->ranges++] = range;
}

/* ---- padding ---- */

static int by_begin(const void *a, const void *b)
{
    uint64_t x = ((const struct spec_span *)a)->begin, y = ((const struct spec_span *)b)->begin;
    return (x > y) - (x < y);
}

static void find_padding(struct spec_places *out)
{
    uint64_t at = out->payload, end = out->extent[out->extents - 1].end;
    add_span(&covered, &covered_count, (struct spec_span){end, end, NULL});
    qsort(covered, (size_t)covered_count, sizeof *covered, by_begin);
    for (int64_t i = 0; i < covered_count; i++) {
        if (covered[i].begin > at)
            add_span(&out->span[SPEC_PADDING], &out->spans[SPEC_PADDING],
                     (struct spec_span){at, covered[i].begin, NULL});
        at = covered[i].end > at ? covered[i].end : at;
    }
}

/* ---- all of it ---- */

static void read_lines(struct spec_places *out, const char *decoder, const char *file,
                       const char *verb, void (*read)(struct spec_places *, char *))
{
    struct spec_output output = spec_run(decoder, verb, file, NULL); /* kept: names point there */
    if (output.status != 0)
        spec_die("%s %s: exit status %d", verb, file, output.status);
    for (char *line = output.data; *line;) {
        char *end = strchr(line, '\n');
        if (!end)
            spec_die("%s %s: the last line has no end", verb, file);
        *end = 0;
        read(out, line);
        line = end + 1;
    }
}

void spec_places_load(struct spec_places *out, const char *decoder, const char *file)
{
    *out = (struct spec_places){.payload = 4096}; /* the header page's size; the payload is next */
    read_lines(out, decoder, file, "list", read_list_line);
    read_lines(out, decoder, file, "owners", read_owner_line);
    find_padding(out);
}

const struct spec_range *spec_range_at(const struct spec_places *places, uint64_t offset)
{
    for (int64_t i = 0; i < places->ranges; i++)
        if (offset >= places->range[i].begin && offset < places->range[i].end)
            return &places->range[i];
    spec_die("nobody owns byte %llu", (unsigned long long)offset);
}

const struct spec_extent *spec_extent_at(const struct spec_places *places, uint64_t offset)
{
    for (int64_t i = 0; i < places->extents; i++)
        if (offset >= places->extent[i].begin && offset < places->extent[i].end)
            return &places->extent[i];
    spec_die("byte %llu is in no extent", (unsigned long long)offset);
}

bool spec_range_names(const struct spec_range *range, const char *name)
{
    for (int64_t i = 0; i < range->names; i++)
        if (strcmp(range->name[i], name) == 0)
            return true;
    return false;
}
