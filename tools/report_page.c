#include "tools/report_page.h"

#include <string.h>

#include "libformat/base/file.h"
#include "tools/report/report_files.h"

static int append(struct sf_out *out, const char *text, size_t bytes, struct sf_err *err)
{
    return bytes ? sf_out_append(out, text, bytes, err) : SF_OK;
}

static const char *text_of(const unsigned char *file)
{
    return (const char *)file;
}

/* The frame with each mark's text in its place. */
static int write_parts(struct sf_out *out, const char *html, const char *js, const char *data,
                       struct sf_err *err)
{
    const struct {
        const char *mark, *text, *more;
    } fill[] = {
        {"@CSS@", text_of(report_css), ""}, {"@DATA@", data, ""}, {"@JS@", text_of(page_js), js}};
    const char *at = html;
    int code = SF_OK;
    for (size_t i = 0; i < sizeof fill / sizeof fill[0] && code == SF_OK; i++) {
        const char *mark = strstr(at, fill[i].mark);
        code = append(out, at, (size_t)(mark - at), err);
        if (code == SF_OK)
            code = append(out, fill[i].text, strlen(fill[i].text), err);
        if (code == SF_OK)
            code = append(out, fill[i].more, strlen(fill[i].more), err);
        at = mark + strlen(fill[i].mark);
    }
    return code == SF_OK ? append(out, at, strlen(at), err) : code;
}

int report_page_write(const char *path, const unsigned char *html, const unsigned char *js,
                      const char *data, struct sf_err *err)
{
    struct sf_out *out;
    int code = sf_out_open(&out, path, err);
    if (code != SF_OK)
        return code;
    code = write_parts(out, text_of(html), text_of(js), data, err);
    if (code == SF_OK)
        return sf_out_commit(out, err);
    sf_out_abort(out);
    return code;
}

/* '<' stands in strings only; written as an escape, no name can end the script element. */
char *report_page_safe(struct sf_arena *arena, const char *text, uint64_t bytes)
{
    uint64_t marks = 0;
    for (uint64_t i = 0; i < bytes; i++)
        marks += text[i] == '<';
    char *out = sf_arena_alloc(arena, bytes + 5 * marks + 1), *at = out;
    for (uint64_t i = 0; out && i < bytes; i++) {
        if (text[i] == '<') {
            memcpy(at, "\\u003c", 6);
            at += 6;
        } else {
            *at++ = text[i];
        }
    }
    return out;
}
