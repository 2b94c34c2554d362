#include "libformat/text/pattern.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/json.h"
#include "libformat/base/mem.h"
#include "libformat/text/code_points.h"
#include "libformat/text/utf8.h"

enum { MAX_SYMBOLS = 256, MAX_DEPTH = 32, MAX_ITEMS = 512 };

/* One thing of the pattern: a set (a number below SF_POINT_SETS) or text that is copied. */
struct item {
    int set; /* -1: copy */
    const char *text;
    int bytes;
};

struct rewriter {
    const char *pattern, *at; /* at: the next unread byte */
    uint64_t *member;
    int sets;
    struct {
        const char *text; /* how the pattern wrote the set */
        int bytes;
        bool fold;
    } spelled[SF_POINT_SETS];
    struct item item[MAX_ITEMS];
    int items;
    bool fold[MAX_DEPTH]; /* per open group: case-insensitive? */
    int depth;
    struct sf_err *err;
};

static int refuse(const struct rewriter *r, const char *at, const char *what)
{
    return sf_fail(r->err, SF_EUNSUPPORTED, "split pattern, byte %lld: %s is not supported",
                   (long long)(at - r->pattern), what);
}

static int copy_item(struct rewriter *r, const char *text, int bytes)
{
    if (r->items == MAX_ITEMS)
        return refuse(r, r->at, "a pattern of more than 512 parts");
    r->item[r->items++] = (struct item){.set = -1, .text = text, .bytes = bytes};
    return SF_OK;
}

/* ---- sets ---- */

/* The character behind a backslash, where it stands for one; -1 where it does not. */
static int64_t escaped_character(char c)
{
    static const char from[] = "rntfv", to[] = "\r\n\t\f\v";
    const char *found = c ? strchr(from, c) : NULL;
    if (found)
        return to[found - from];
    return c && strchr("\\/[](){}|?*+.^$-'\"#&~! ,:;<=>@_`%", c) ? c : -1;
}

/* \p{Lu} or \P{Lu} at r->at. */
static int add_property(struct rewriter *r, uint64_t bit)
{
    bool negated = r->at[1] == 'P';
    const char *name = r->at + 3, *end = r->at[2] == '{' ? strchr(name, '}') : NULL;
    uint32_t categories = end ? sf_points_categories(name, (uint64_t)(end - name)) : 0;
    if (categories == 0)
        return refuse(r, r->at, "\\p of anything but a general category in braces");
    sf_points_add_categories(r->member, bit, categories, negated);
    r->at = end + 1;
    return SF_OK;
}

/* A backslash at r->at: a class is added to the set; a character is given out in *single. */
static int add_escape(int64_t *single, struct rewriter *r, uint64_t bit)
{
    *single = -1;
    char c = r->at[1];
    if (c == 'p' || c == 'P')
        return add_property(r, bit);
    if (c == 's' || c == 'S') {
        sf_points_add_space(r->member, bit, c == 'S');
    } else if (c == 'd' || c == 'D') {
        sf_points_add_categories(r->member, bit, sf_points_categories("Nd", 2), c == 'D');
    } else {
        *single = escaped_character(c);
        if (*single < 0)
            return refuse(r, r->at, "this escape");
    }
    r->at += 2;
    return SF_OK;
}

static void add_folded(struct rewriter *r, uint64_t bit, uint32_t c)
{
    sf_points_add(r->member, bit, c, c);
    uint32_t lower = c | 0x20;
    if (lower < 'a' || lower > 'z')
        return;
    sf_points_add(r->member, bit, c ^ 0x20, c ^ 0x20);
    if (lower == 's')
        sf_points_add(r->member, bit, 0x17f, 0x17f); /* long s */
    if (lower == 'k')
        sf_points_add(r->member, bit, 0x212a, 0x212a); /* Kelvin sign */
}

/* One character of a class, written plainly or escaped; *single -1 if it was a class of its own. */
static int read_class_member(int64_t *single, struct rewriter *r, uint64_t bit)
{
    if (*r->at == '\\')
        return add_escape(single, r, bit);
    if (*r->at == '[' || (r->at[0] == '&' && r->at[1] == '&'))
        return refuse(r, r->at, "a class inside a class");
    *single = sf_utf8_next((const unsigned char **)&r->at);
    return SF_OK;
}

/* [...] at r->at. */
static int add_class(struct rewriter *r, uint64_t bit)
{
    const char *start = r->at++;
    bool negated = *r->at == '^';
    r->at += negated;
    if (*r->at == ']')
        return refuse(r, start, "an empty class");
    while (*r->at && *r->at != ']') {
        int64_t first = -1, last;
        int code = read_class_member(&first, r, bit);
        if (code != SF_OK)
            return code;
        last = first;
        if (r->at[0] == '-' && r->at[1] != ']') {
            r->at++;
            if (first >= 0)
                code = read_class_member(&last, r, bit);
            if (code != SF_OK || first < 0 || last < first)
                return code != SF_OK ? code : refuse(r, start, "a range without two ends in order");
        }
        if (first >= 0)
            sf_points_add(r->member, bit, (uint32_t)first, (uint32_t)last);
    }
    if (*r->at != ']')
        return refuse(r, start, "a class without its end");
    r->at++;
    if (negated)
        sf_points_invert(r->member, bit);
    return SF_OK;
}

/* One literal. Under (?i: only ASCII, and only where no folding joins it with its neighbour. */
static int add_literal(struct rewriter *r, uint64_t bit, bool fold)
{
    static const char *const joined[] = {"ss", "ff", "fi", "fl",
                                         "st"}; /* one letter folds to both */
    const char *start = r->at;
    uint32_t c = sf_utf8_next((const unsigned char **)&r->at);
    if (!fold) {
        sf_points_add(r->member, bit, c, c);
        return SF_OK;
    }
    if (c >= 0x80)
        return refuse(r, start, "a case-insensitive character outside ASCII");
    for (size_t i = 0; i < sizeof joined / sizeof joined[0]; i++)
        if ((start[0] | 0x20) == joined[i][0] && (start[1] | 0x20) == joined[i][1])
            return refuse(r, start, "a case-insensitive ss, ff, fi, fl or st");
    add_folded(r, bit, c);
    return SF_OK;
}

/* A set that the pattern wrote the same way before is the same set. */
static int known_set(const struct rewriter *r, const char *text, int bytes, bool fold)
{
    for (int i = 0; i < r->sets; i++)
        if (r->spelled[i].bytes == bytes && r->spelled[i].fold == fold &&
            memcmp(r->spelled[i].text, text, (size_t)bytes) == 0)
            return i;
    return -1;
}

/* How many bytes the set at `at` takes, found without painting: to its ']' or '}' or one character.
 */
static int spelled_bytes(const char *at)
{
    const char *p = at;
    if (*p == '\\' && (p[1] == 'p' || p[1] == 'P') && p[2] == '{') {
        const char *end = strchr(p, '}');
        return end ? (int)(end + 1 - at) : 2;
    }
    if (*p == '\\')
        return p[1] ? 2 : 1;
    if (*p != '[')
        return sf_utf8_bytes((unsigned char)*p);
    for (p++; *p && *p != ']'; p++)
        p += *p == '\\' && p[1];
    return (int)(p + (*p == ']') - at);
}

static int read_set(struct rewriter *r)
{
    const char *start = r->at;
    bool fold = r->fold[r->depth];
    int bytes = spelled_bytes(start), set = known_set(r, start, bytes, fold), code = SF_OK;
    int64_t single = -1;
    if (r->items == MAX_ITEMS)
        return refuse(r, start, "a pattern of more than 512 parts");
    if (set >= 0) {
        r->at += bytes;
    } else {
        if (r->sets == SF_POINT_SETS)
            return refuse(r, start, "a pattern of more than 64 different sets");
        if (fold && (*start == '[' || *start == '\\'))
            return refuse(r, start, "a case-insensitive class");
        uint64_t bit = (uint64_t)1 << r->sets;
        if (*start == '[')
            code = add_class(r, bit);
        else if (*start == '\\')
            code = add_escape(&single, r, bit);
        else
            code = add_literal(r, bit, fold);
        if (code != SF_OK)
            return code;
        if (single >= 0)
            sf_points_add(r->member, bit, (uint32_t)single, (uint32_t)single);
        set = r->sets++;
        r->spelled[set].text = start;
        r->spelled[set].bytes = bytes;
        r->spelled[set].fold = fold;
    }
    r->item[r->items++] = (struct item){.set = set};
    return SF_OK;
}

/* ---- everything that is no set ---- */

static int open_group(struct rewriter *r)
{
    static const char *const kinds[] = {"(?:", "(?i:", "(?=", "(?!"};
    const char *start = r->at, *kind = "(?:";
    int length = 1;
    if (r->at[1] == '?') {
        length = 0;
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && !length; i++)
            if (strncmp(r->at, kinds[i], strlen(kinds[i])) == 0) {
                length = (int)strlen(kinds[i]);
                kind = i == 1 ? "(?:" : kinds[i];
            }
    }
    if (length == 0)
        return refuse(r, start, "this kind of group");
    if (r->depth + 1 == MAX_DEPTH)
        return refuse(r, start, "nesting of more than 31 groups");
    bool fold = r->fold[r->depth] || length == 4;
    r->fold[++r->depth] = fold;
    r->at += length;
    return copy_item(r, kind, 3);
}

static int close_group(struct rewriter *r)
{
    if (r->depth == 0)
        return refuse(r, r->at, "a ')' without '('");
    r->depth--;
    r->at++;
    return copy_item(r, ")", 1);
}

/* {n}, {n,} or {n,m}; the other spellings mean different things to different engines. */
static int read_count(struct rewriter *r)
{
    const char *start = r->at, *p = start + 1;
    size_t low = strspn(p, "0123456789"), high = 0;
    p += low;
    if (*p == ',') {
        high = strspn(++p, "0123456789");
        p += high;
    }
    if (low == 0 || low > 4 || high > 4 || *p != '}' || (p[1] && strchr("?*+{", p[1])))
        return refuse(r, start, "this repetition");
    r->at = p + 1;
    return copy_item(r, start, (int)(r->at - start));
}

static int read_repeat(struct rewriter *r)
{
    const char *start = r->at++;
    if (*r->at == '?' || *r->at == '+')
        r->at++;
    if (*r->at && strchr("?*+{", *r->at))
        return refuse(r, start, "a repetition of a repetition");
    return copy_item(r, start, (int)(r->at - start));
}

static int read_item(struct rewriter *r)
{
    switch (*r->at) {
    case '(':
        return open_group(r);
    case ')':
        return close_group(r);
    case '|':
        return copy_item(r, r->at++, 1);
    case '{':
        return read_count(r);
    case '?':
    case '*':
    case '+':
        return read_repeat(r);
    case '.':
    case '^':
    case '$':
        return refuse(r, r->at, "'.', '^' or '$'");
    default:
        return read_set(r);
    }
}

/* ---- symbols ---- */

/* Numbers the different words of member[] in order of first appearance. */
static int make_symbols(uint64_t word[MAX_SYMBOLS], int *symbols, uint8_t *symbol,
                        const struct rewriter *r)
{
    int n = 0, last = 0;
    for (uint32_t c = 0; c < SF_UNICODE_END; c++) {
        uint64_t m = r->member[c];
        if (n == 0 || word[last] != m) {
            for (last = 0; last < n && word[last] != m; last++)
                ;
            if (last == MAX_SYMBOLS)
                return refuse(r, r->at, "a pattern that tells more than 256 kinds of character");
            if (last == n)
                word[n++] = m;
        }
        symbol[c] = (uint8_t)last;
    }
    *symbols = n;
    return SF_OK;
}

static char *write_set(char *out, int set, const uint64_t *word, int symbols)
{
    char *start = out;
    *out++ = '[';
    for (int s = 0; s < symbols; s++)
        if (word[s] >> set & 1)
            out += sprintf(out, "\\x%02x", (unsigned)s);
    if (out == start + 1)
        return start + sprintf(start, "(?!)"); /* an empty set matches nothing */
    *out++ = ']';
    return out;
}

static int write_regex(struct sf_pattern *pattern, const struct rewriter *r, struct sf_arena *arena)
{
    uint64_t word[MAX_SYMBOLS];
    int symbols = 0;
    pattern->symbol = sf_arena_alloc(arena, SF_UNICODE_END);
    pattern->regex = sf_arena_alloc(arena, (uint64_t)r->items * (4 * MAX_SYMBOLS + 8) + 16);
    if (!pattern->symbol || !pattern->regex)
        return sf_fail(r->err, SF_ENOMEM, "cannot allocate the split pattern");
    int code = make_symbols(word, &symbols, pattern->symbol, r);
    if (code != SF_OK)
        return code;
    char *out = pattern->regex;
    for (int i = 0; i < r->items; i++) {
        const struct item *item = &r->item[i];
        if (item->set >= 0) {
            out = write_set(out, item->set, word, symbols);
        } else {
            memcpy(out, item->text, (size_t)item->bytes);
            out += item->bytes;
        }
    }
    *out = 0;
    return SF_OK;
}

int sf_pattern_rewrite(struct sf_pattern *out, const char *pattern, struct sf_arena *arena,
                       struct sf_err *err)
{
    void *block, *member;
    if (!sf_utf8_valid(pattern, strlen(pattern), NULL))
        return sf_fail(err, SF_EFORMAT, "split pattern is not UTF-8");
    int code = sf_alloc_for(&block, sizeof(struct rewriter), "split pattern", err);
    if (code != SF_OK)
        return code;
    struct rewriter *r = block;
    code = sf_alloc_for(&member, SF_UNICODE_END * sizeof *r->member, "code point sets", err);
    if (code == SF_OK) {
        r->pattern = r->at = pattern;
        r->member = member;
        r->err = err;
        while (code == SF_OK && *r->at)
            code = read_item(r);
        if (code == SF_OK && r->depth > 0)
            code = refuse(r, r->at, "a '(' without ')'");
        if (code == SF_OK)
            code = write_regex(out, r, arena);
        sf_free(member);
    }
    sf_free(r);
    return code;
}
