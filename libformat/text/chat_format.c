/* Which format a chat template is: its text, brought into one shape, by its hash. */
#include <string.h>

#include "libformat/text/chat.h"

static const char *const names[] = {"none", "llama4", "llama4-trimmed"};

bool sf_chat_format_from_name(enum sf_chat_format *out, const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum sf_chat_format)i;
            return true;
        }
    }
    return false;
}

const char *sf_chat_format_name(enum sf_chat_format format)
{
    return names[format];
}

/* ---- one shape ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

struct reader {
    const char *at, *end;
};

static bool starts(const struct reader *r, const char *with)
{
    size_t n = strlen(with);
    return (size_t)(r->end - r->at) >= n && memcmp(r->at, with, n) == 0;
}

/* A string of the template: \n becomes the line's end that it means. */
static int add_literal(struct sf_text *out, struct reader *r, struct sf_err *err)
{
    char quote = *r->at, one = quote;
    int code = sf_text_add(out, &one, 1, err);
    for (r->at++; !code && r->at < r->end && *r->at != quote; r->at++) {
        if (*r->at == '\\' && r->end - r->at > 1 && r->at[1] == 'n') {
            r->at++;
            code = sf_text_add(out, "\n", 1, err);
        } else if (*r->at == '\\' && r->end - r->at > 1) {
            code = sf_text_add(out, r->at++, 2, err);
        } else {
            code = sf_text_add(out, r->at, 1, err);
        }
    }
    if (r->at < r->end)
        r->at++;
    return code ? code : sf_text_add(out, &one, 1, err);
}

/* "{% ... %}" or "{{ ... }}": blanks between words become one space, at its ends none. */
static int add_tag(struct sf_text *out, struct reader *r, const char *close, struct sf_err *err)
{
    bool space = false;
    char last = 0;
    int code = SF_OK;
    while (!code && r->at < r->end && !starts(r, close)) {
        if (is_blank(*r->at)) {
            space = true;
            r->at++;
            continue;
        }
        bool inner = last && last != '{' && last != '%' && last != '-' && *r->at != '-';
        if (space && inner)
            code = sf_text_add(out, " ", 1, err);
        space = false;
        last = *r->at;
        if (code)
            break;
        if (*r->at == '"' || *r->at == '\'')
            code = add_literal(out, r, err);
        else
            code = sf_text_add(out, r->at++, 1, err);
    }
    if (!starts(r, close))
        return code;
    r->at += 2;
    return code ? code : sf_text_add(out, close, 2, err);
}

/* Text between tags. Blanks in front of a tag that begins with '-' are never printed. */
static int add_between(struct sf_text *out, struct reader *r, struct sf_err *err)
{
    const char *from = r->at, *stop;
    while (r->at < r->end && !starts(r, "{%") && !starts(r, "{{") && !starts(r, "{#"))
        r->at++;
    stop = r->at;
    bool cut = r->at == r->end || (r->end - r->at > 2 && r->at[2] == '-');
    while (cut && stop > from && is_blank(stop[-1]))
        stop--;
    return sf_text_add(out, from, (uint64_t)(stop - from), err);
}

static int skip_comment(struct reader *r)
{
    while (r->at < r->end && !starts(r, "#}"))
        r->at++;
    r->at += r->at < r->end ? 2 : 0;
    return SF_OK;
}

static int add_piece(struct sf_text *out, struct reader *r, struct sf_err *err)
{
    if (starts(r, "{%"))
        return add_tag(out, r, "%}", err);
    if (starts(r, "{{"))
        return add_tag(out, r, "}}", err);
    if (starts(r, "{#-"))
        return skip_comment(r);
    if (starts(r, "{#")) /* one that keeps the blanks before it: as it stands */
        return sf_text_add(out, r->at++, 1, err);
    return add_between(out, r, err);
}

static uint64_t fnv1a(const char *text, uint64_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint64_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
    return hash;
}

/* Templates that were read and tested against (tests/golden/chat says where they come from). */
static const struct {
    uint64_t hash, bytes;
    enum sf_chat_format format;
} known[] = {
    {0x33fe6c2d6dbbb5f7, 3737, SF_CHAT_LLAMA4},
    {0x7dc9b913f79b629e, 224, SF_CHAT_LLAMA4_TRIMMED},
};

int sf_chat_format_recognise(enum sf_chat_format *out, const char *text, uint64_t bytes,
                             struct sf_err *err)
{
    struct sf_text shape = {0};
    struct reader r = {text, text + bytes};
    int code = SF_OK;
    while (!code && r.at < r.end)
        code = add_piece(&shape, &r, err);
    uint64_t hash = fnv1a(shape.at, shape.bytes), length = shape.bytes;
    sf_text_free(&shape);
    for (size_t i = 0; !code && i < sizeof known / sizeof known[0]; i++) {
        if (known[i].hash == hash && known[i].bytes == length) {
            *out = known[i].format;
            return SF_OK;
        }
    }
    return code ? code
                : sf_fail(err, SF_EUNSUPPORTED,
                          "a chat template (%llu bytes, %llu in short form, hash %016llx) that is "
                          "not known",
                          (unsigned long long)bytes, (unsigned long long)length,
                          (unsigned long long)hash);
}
