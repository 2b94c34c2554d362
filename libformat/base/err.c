#include "libformat/base/err.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/utf8_check.h"

static const struct {
    int code;
    const char *name;
    const char *sentence;
} code_table[] = {
    {SF_OK, "SF_OK", "done"},
    {SF_ENOMEM, "SF_ENOMEM", "out of memory"},
    {SF_ENOENT, "SF_ENOENT", "not found"},
    {SF_EIO, "SF_EIO", "input/output error"},
    {SF_ENOSPC, "SF_ENOSPC", "no space left"},
    {SF_EACCES, "SF_EACCES", "permission denied"},
    {SF_EFORMAT, "SF_EFORMAT", "malformed data"},
    {SF_EUNSUPPORTED, "SF_EUNSUPPORTED", "not supported"},
    {SF_EINVAL, "SF_EINVAL", "invalid argument"},
    {SF_EDAMAGED, "SF_EDAMAGED", "checksum mismatch"},
    {SF_ECUDA, "SF_ECUDA", "CUDA error"},
    {SF_ENUMERIC, "SF_ENUMERIC", "not a finite number"},
    {SF_EINTERRUPTED, "SF_EINTERRUPTED", "interrupted"},
};
enum { CODE_COUNT = sizeof code_table / sizeof code_table[0] };

const char *sf_code_name(int code)
{
    for (int i = 0; i < CODE_COUNT; i++)
        if (code_table[i].code == code)
            return code_table[i].name;
    return "SF_E?";
}

const char *sf_code_sentence(int code)
{
    for (int i = 0; i < CODE_COUNT; i++)
        if (code_table[i].code == code)
            return code_table[i].sentence;
    return "unknown error";
}

/* U+0080..U+009F in UTF-8: terminals take U+009B for the start of a command. */
static bool is_c1_control(const unsigned char *s, int n)
{
    return n == 2 && s[0] == 0xc2 && s[1] < 0xa0;
}

/* Names from files end up in messages, and messages on terminals: control characters and bytes that
 * are no UTF-8 become \xNN, and a cut never parts a character. */
static void escape_into(char *dst, size_t dst_bytes, const char *src)
{
    enum { CUT = 4 }; /* "..." and NUL */
    size_t used = 0, left = strlen(src);
    while (left) {
        const unsigned char *s = (const unsigned char *)src;
        int n = sf_utf8_length(src, left);
        bool plain = n > 0 && s[0] >= 0x20 && s[0] != 0x7f && !is_c1_control(s, n);
        int take = plain ? n : 1;
        if (used + (plain ? (size_t)n : 4) + CUT > dst_bytes) {
            memcpy(dst + used, "...", 3);
            used += 3;
            break;
        }
        if (plain)
            memcpy(dst + used, src, (size_t)n);
        else
            snprintf(dst + used, 5, "\\x%02x", s[0]);
        used += plain ? (size_t)n : 4;
        src += take;
        left -= (size_t)take;
    }
    dst[used] = 0;
}

static void set_message(struct sf_err *err, const char *fmt, va_list args, const char *tail)
{
    char raw[sizeof err->message] = "";
    vsnprintf(raw, sizeof raw, fmt, args);
    size_t used = strlen(raw);
    snprintf(raw + used, sizeof raw - used, "%s", tail);
    escape_into(err->message, sizeof err->message, raw);
}

static void set_place(struct sf_err *err, int code, int sys_errno, const char *file, int line)
{
    err->code = code;
    err->sys_errno = sys_errno;
    err->file = file;
    err->line = line;
}

int sf_fail_at(struct sf_err *err, int code, int sys_errno, const char *file, int line,
               const char *fmt, ...)
{
    if (err) {
        va_list args;
        va_start(args, fmt);
        set_message(err, fmt, args, "");
        va_end(args);
        set_place(err, code, sys_errno, file, line);
    }
    return code;
}

static int code_of_errno(int sys_errno)
{
    switch (sys_errno) {
    case ENOENT:
        return SF_ENOENT;
    case EACCES:
    case EPERM:
    case EROFS:
        return SF_EACCES;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return SF_ENOSPC;
    case ENOMEM:
        return SF_ENOMEM;
    default:
        return SF_EIO;
    }
}

int sf_fail_errno_at(struct sf_err *err, int sys_errno, const char *file, int line, const char *fmt,
                     ...)
{
    int code = code_of_errno(sys_errno);
    if (err) {
        char tail[160];
        snprintf(tail, sizeof tail, ": %s", strerror(sys_errno));
        va_list args;
        va_start(args, fmt);
        set_message(err, fmt, args, tail);
        va_end(args);
        set_place(err, code, sys_errno, file, line);
    }
    return code;
}

int sf_put_before(struct sf_err *err, const char *fmt, ...)
{
    if (!err)
        return SF_EINVAL;
    char tail[sizeof err->message];
    snprintf(tail, sizeof tail, ": %s", err->message);
    va_list args;
    va_start(args, fmt);
    set_message(err, fmt, args, tail);
    va_end(args);
    return err->code;
}
