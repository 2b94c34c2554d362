#include "tools/columns.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "libformat/base/json.h"

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

/* Nearly every cell is: no byte of it needs a second look. */
static bool is_plain(const char *text, uint64_t length)
{
    unsigned char strange = 0;
    for (uint64_t i = 0; i < length; i++)
        strange |= (unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7f;
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

static bool reserve(struct columns *c)
{
    if (c->cells < c->capacity)
        return true;
    int64_t capacity = c->capacity ? c->capacity * 2 : 256;
    const char **grown = sf_arena_array(c->arena, (uint64_t)capacity, sizeof *grown);
    if (!grown)
        return false;
    if (c->cells)
        memcpy(grown, c->cell, (size_t)c->cells * sizeof *grown);
    c->cell = grown;
    c->capacity = capacity;
    return true;
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
    const char *cell = reserve(c) ? columns_escape(c->arena, text) : NULL;
    if (!cell)
        c->failed = true;
    else
        c->cell[c->cells++] = cell;
}

/* ---- printing ---- */

/* Characters, not bytes: continuation bytes take no room. */
static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

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

/* Tables have ten thousands of cells: no format string for each. */
static void put_spaces(FILE *out, int count)
{
    static const char spaces[] = "                                                                ";
    for (; count > 0; count -= (int)sizeof spaces - 1)
        fwrite(spaces, 1, (size_t)count < sizeof spaces ? (size_t)count : sizeof spaces - 1, out);
}

static void print_cell(FILE *out, const char *text, int width, bool right, bool last)
{
    int skip = width_of(text) - width;
    if (skip > 0) { /* the front is cut, three dots stand for it */
        for (skip += 3; skip > 0; skip--)
            for (text++; (*text & 0xc0) == 0x80;)
                text++;
        fprintf(out, "...%s", text);
        return;
    }
    if (right)
        put_spaces(out, -skip);
    fputs(text, out);
    if (!right && !last)
        put_spaces(out, -skip);
}

static void print_line(const struct columns *c, FILE *out, int indent, const int *width,
                       const char *const *cell)
{
    int last = c->count - 1;
    while (last > 0 && !width[last])
        last--;
    put_spaces(out, indent);
    for (int k = 0, any = 0; k <= last; k++) {
        if (!width[k])
            continue;
        put_spaces(out, any ? GAP : 0);
        print_cell(out, cell[k], width[k], c->column[k].right, k == last);
        any = 1;
    }
    fputc('\n', out);
}

int columns_print(const struct columns *c, FILE *out, int indent, int width, struct sf_err *err)
{
    int column_width[COLUMNS_MOST];
    const char *title[COLUMNS_MOST];
    if (c->failed)
        return sf_fail(err, SF_ENOMEM, "cannot allocate a table");
    assert(c->cells % c->count == 0);
    for (int k = 0; k < c->count; k++) {
        title[k] = c->column[k].title;
        column_width[k] = width_of(title[k]);
    }
    for (int64_t i = 0; i < c->cells; i++) {
        int w = width_of(c->cell[i]), k = (int)(i % c->count);
        column_width[k] = w > column_width[k] ? w : column_width[k];
    }
    if (width > 0)
        fit(c, column_width, width - indent);
    print_line(c, out, indent, column_width, title);
    for (int64_t i = 0; i < c->cells; i += c->count)
        print_line(c, out, indent, column_width, c->cell + i);
    return SF_OK;
}
