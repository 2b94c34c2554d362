#include "tools/columns.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "libformat/base/json.h"
#include "libformat/base/put.h"

enum { GAP = 2, STRETCHY_LEAST = 16, WIDTH_LEAST = 40 };

/* ---- numbers and names ---- */

const char *columns_number(struct sf_arena *arena, uint64_t number)
{
    char digits[32], *at = digits + sizeof digits;
    int count = 0;
    *--at = 0;
    do {
        if (count > 0 && count % 3 == 0)
            *--at = ',';
        *--at = (char)('0' + number % 10);
        number /= 10;
        count++;
    } while (number);
    return sf_arena_strdup(arena, at);
}

/* Bytes at p that would move the cursor, ring, or turn the text around; 0 if none. Of what is not
 * UTF-8, every byte that is not ASCII. */
static int dangerous(const unsigned char *p, bool utf8)
{
    if (*p < 0x20 || *p == 0x7f || (!utf8 && *p >= 0x80))
        return 1;
    if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
        return 2; /* C1 controls */
    if (p[0] == 0xe2 && p[1] == 0x80 &&
        (p[2] == 0x8e || p[2] == 0x8f || (p[2] >= 0xa8 && p[2] <= 0xae)))
        return 3; /* U+200E, U+200F, U+2028..U+202E */
    if (p[0] == 0xe2 && p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9)
        return 3; /* U+2066..U+2069 */
    return 0;
}

/* Nearly every cell is: no byte of it needs a second look, each is a character. */
static bool is_plain(const char *text, uint64_t length)
{
    unsigned char strange = 0;
    for (uint64_t i = 0; i < length; i++)
        strange |= (unsigned char)(text[i] - 0x20) >= 0x7f - 0x20;
    return !strange;
}

const char *columns_escape(struct sf_arena *arena, const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    uint64_t length = strlen(text);
    if (is_plain(text, length))
        return sf_arena_strndup(arena, text, length);
    bool utf8 = sf_utf8_valid(text, length, NULL);
    char *out = sf_arena_alloc(arena, length * 4 + 1), *at = out;
    while (out && *p) {
        int n = dangerous(p, utf8);
        if (n == 0)
            *at++ = (char)*p++;
        else if (n < 3)
            at += sprintf(at, "\\x%02x", p[n - 1]);
        else
            at += sprintf(at, "\\u%04x", 0x2000u | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu));
        p += n;
    }
    return out;
}

int columns_terminal_width(FILE *out)
{
    struct winsize size;
    const char *told = getenv("COLUMNS");
    int width = told ? atoi(told) : 0;
    if (!isatty(fileno(out)))
        return 0;
    if (width <= 0 && ioctl(fileno(out), TIOCGWINSZ, &size) == 0)
        width = size.ws_col;
    return width <= 0 ? 80 : width < WIDTH_LEAST ? WIDTH_LEAST : width;
}

/* ---- cells ---- */

void columns_begin(struct columns *c, struct sf_arena *arena, const struct column *column,
                   int count)
{
    assert(count > 0 && count <= COLUMNS_MOST);
    *c = (struct columns){.arena = arena, .count = count};
    memcpy(c->column, column, (size_t)count * sizeof *column);
}

static bool make_room(struct columns *c, int64_t capacity)
{
    struct columns_cell *grown = sf_arena_array(c->arena, (uint64_t)capacity, sizeof *grown);
    if (!grown)
        return false;
    if (c->cells)
        memcpy(grown, c->cell, (size_t)c->cells * sizeof *grown);
    c->cell = grown;
    c->capacity = capacity;
    return true;
}

void columns_expect(struct columns *c, int64_t lines)
{
    c->failed |= !make_room(c, c->cells + lines * c->count);
}

/* Characters, not bytes: continuation bytes take no room. */
static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

/* A cell of `text` itself, escaped if it must be, copied then or if it does not outlive the table. */
static void add_cell(struct columns *c, const char *text, bool kept)
{
    uint64_t bytes = strlen(text);
    bool plain = is_plain(text, bytes);
    if (!plain)
        text = columns_escape(c->arena, text);
    else if (!kept)
        text = sf_arena_strndup(c->arena, text, bytes);
    if (c->cells == c->capacity && !c->failed)
        c->failed = !make_room(c, 2 * c->capacity + 256);
    if (!text)
        c->failed = true;
    if (c->failed)
        return;
    bytes = plain ? bytes : strlen(text);
    c->cell[c->cells++] =
        (struct columns_cell){text, (int)bytes, plain ? (int)bytes : width_of(text)};
}

void columns_cell(struct columns *c, const char *fmt, ...)
{
    va_list args;
    char made[2048];
    const char *text = made;
    va_start(args, fmt);
    if (strcmp(fmt, "%s") == 0)
        text = va_arg(args, const char *);
    else
        vsnprintf(made, sizeof made, fmt, args);
    va_end(args);
    add_cell(c, text, false);
}

void columns_kept(struct columns *c, const char *text)
{
    add_cell(c, text, true);
}

void columns_percent(struct columns *c, double fraction)
{
    char text[SF_DECIMAL_TEXT + 8], *at = text;
    if (!(fraction < 1e9)) { /* no thousandths to speak of */
        columns_cell(c, "%.3f %%", 100 * fraction);
        return;
    }
    int64_t thousandths = (int64_t)(1e5 * fraction + 0.5), rest = thousandths % 1000;
    at = stpcpy(sf_put_decimal(at, thousandths / 1000), ".");
    at = stpcpy(at, rest < 10 ? "00" : rest < 100 ? "0" : "");
    strcpy(sf_put_decimal(at, rest), " %");
    add_cell(c, text, false);
}

/* ---- printing ---- */

static int total_width(const struct columns *c, const int *width)
{
    int total = 0;
    for (int k = 0; k < c->count; k++)
        total += width[k] ? width[k] + (total ? GAP : 0) : 0;
    return total;
}

/* Cuts the stretchy column, then leaves columns out (width 0), until `room` is enough. */
static void fit(const struct columns *c, int *width, int room)
{
    for (;;) {
        int over = total_width(c, width) - room, drop = -1;
        for (int k = 0; k < c->count && over > 0; k++)
            if (c->column[k].stretchy && width[k] - over >= STRETCHY_LEAST) {
                width[k] -= over;
                over = 0;
            }
        if (over <= 0)
            return;
        for (int k = 0; k < c->count; k++)
            if (width[k] && c->column[k].rank > (drop < 0 ? 0 : c->column[drop].rank))
                drop = k;
        if (drop < 0)
            return; /* what is always shown is shown, even too wide */
        width[drop] = 0;
    }
}

/* A line is put together here: tables have ten thousands of cells, and a call of stdio for each
 * would be most of the work. What is too long goes out as it is. */
struct line {
    FILE *out;
    size_t used;
    char text[1024];
};

static void flush(struct line *line)
{
    fwrite(line->text, 1, line->used, line->out);
    line->used = 0;
}

static void put(struct line *line, const char *text, size_t bytes)
{
    if (bytes > sizeof line->text - line->used)
        flush(line);
    if (bytes > sizeof line->text) {
        fwrite(text, 1, bytes, line->out);
        return;
    }
    memcpy(line->text + line->used, text, bytes);
    line->used += bytes;
}

static void put_spaces(struct line *line, int count)
{
    for (; count > 0; count--)
        put(line, " ", 1);
}

static void put_cell(struct line *line, const struct columns_cell *cell, int width, bool right,
                     bool last)
{
    const char *text = cell->text, *end = text + cell->bytes;
    int skip = cell->width - width;
    if (skip > 0) { /* the front is cut, three dots stand for it */
        for (skip += 3; skip > 0; skip--)
            for (text++; (*text & 0xc0) == 0x80;)
                text++;
        put(line, "...", 3);
        put(line, text, (size_t)(end - text));
        return;
    }
    if (right)
        put_spaces(line, -skip);
    put(line, text, (size_t)cell->bytes);
    if (!right && !last)
        put_spaces(line, -skip);
}

static void print_line(const struct columns *c, struct line *line, int indent, const int *width,
                       const struct columns_cell *cell)
{
    int last = c->count - 1;
    while (last > 0 && !width[last])
        last--;
    put_spaces(line, indent);
    for (int k = 0, any = 0; k <= last; k++) {
        if (!width[k])
            continue;
        put_spaces(line, any ? GAP : 0);
        put_cell(line, &cell[k], width[k], c->column[k].right, k == last);
        any = 1;
    }
    put(line, "\n", 1);
}

int columns_print(const struct columns *c, FILE *out, int indent, int width, struct sf_err *err)
{
    int column_width[COLUMNS_MOST];
    struct columns_cell title[COLUMNS_MOST];
    struct line line = {.out = out};
    if (c->failed)
        return sf_fail(err, SF_ENOMEM, "cannot allocate a table");
    assert(c->count > 0 && c->cells % c->count == 0);
    for (int k = 0; k < c->count; k++) {
        const char *text = c->column[k].title;
        title[k] = (struct columns_cell){text, (int)strlen(text), width_of(text)};
        column_width[k] = title[k].width;
    }
    for (int64_t i = 0; i < c->cells; i++) {
        int w = c->cell[i].width, k = (int)(i % c->count);
        column_width[k] = w > column_width[k] ? w : column_width[k];
    }
    if (width > 0)
        fit(c, column_width, width - indent);
    print_line(c, &line, indent, column_width, title);
    for (int64_t i = 0; i < c->cells; i += c->count)
        print_line(c, &line, indent, column_width, c->cell + i);
    flush(&line);
    return SF_OK;
}
