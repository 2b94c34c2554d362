#include "libformat/text/python_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add_value(struct sf_text *out, const struct sf_json *value, int indent, int level,
                     struct sf_err *err);

static int add_character(struct sf_text *out, char c, struct sf_err *err)
{
    static const char named[] = "\"\\\n\r\t\b\f", letter[] = "\"\\nrtbf";
    const char *at = c ? strchr(named, c) : NULL;
    char text[8] = {c};
    if (at)
        snprintf(text, sizeof text, "\\%c", letter[at - named]);
    else if ((unsigned char)c < 0x20)
        snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
    return sf_text_add_string(out, text, err);
}

static int add_string(struct sf_text *out, const char *text, struct sf_err *err)
{
    int code = sf_text_add(out, "\"", 1, err);
    for (; !code && *text; text++)
        code = add_character(out, *text, err);
    return code ? code : sf_text_add(out, "\"", 1, err);
}

/* Digits and exponent of the shortest decimal that reads back: value = 0.digits * 10^*point. */
static void shortest(char digits[24], int *point, double value)
{
    char text[40];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    int n = 0;
    char *p = text;
    for (; *p != 'e'; p++)
        if (*p != '.')
            digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = 0;
    *point = atoi(p + 1) + 1;
}

/* Python's repr: exponents outside -4 .. 15 are written as such, with two digits or more. */
static int add_fraction(struct sf_text *out, double value, struct sf_err *err)
{
    char digits[24], text[64];
    int point, n = 0;
    shortest(digits, &point, fabs(value));
    int count = (int)strlen(digits);
    if (value < 0)
        text[n++] = '-';
    if (point > 16 || point < -3) {
        n += snprintf(text + n, sizeof text - (size_t)n, count > 1 ? "%c.%se%c%02d" : "%c%se%c%02d",
                      digits[0], digits + 1, point > 0 ? '+' : '-', abs(point - 1));
    } else if (point <= 0) {
        n += snprintf(text + n, sizeof text - (size_t)n, "0.%.*s%s", -point, "0000", digits);
    } else {
        int whole = point < count ? point : count;
        n += snprintf(text + n, sizeof text - (size_t)n, "%.*s%.*s.%s", whole, digits,
                      point - whole, "0000000000000000", whole < count ? digits + whole : "0");
    }
    return sf_text_add(out, text, (uint64_t)n, err);
}

static int add_number(struct sf_text *out, const struct sf_json *value, struct sf_err *err)
{
    double number;
    char text[32];
    int code = sf_json_as_double(&number, value, "a number", err);
    if (code)
        return code;
    if (number != floor(number) || fabs(number) >= 0x1p53)
        return add_fraction(out, number, err);
    snprintf(text, sizeof text, "%lld", (long long)number);
    return sf_text_add_string(out, text, err);
}

static int add_line(struct sf_text *out, int spaces, struct sf_err *err)
{
    int code = sf_text_add(out, "\n", 1, err);
    for (; !code && spaces > 0; spaces--)
        code = sf_text_add(out, " ", 1, err);
    return code;
}

static int add_members(struct sf_text *out, const struct sf_json *value, int indent, int level,
                       struct sf_err *err)
{
    int code = SF_OK;
    const struct sf_json *first = sf_json_first(value);
    for (const struct sf_json *m = first; !code && m; m = sf_json_next(m)) {
        if (m != first)
            code = sf_text_add_string(out, indent ? "," : ", ", err);
        if (!code && indent)
            code = add_line(out, indent * (level + 1), err);
        if (!code && sf_json_key(m))
            code = add_string(out, sf_json_key(m), err);
        if (!code && sf_json_key(m))
            code = sf_text_add_string(out, ": ", err);
        if (!code)
            code = add_value(out, m, indent, level + 1, err);
    }
    return !code && first && indent ? add_line(out, indent * level, err) : code;
}

static int add_container(struct sf_text *out, const struct sf_json *value, const char *brackets,
                         int indent, int level, struct sf_err *err)
{
    int code = sf_text_add(out, brackets, 1, err);
    if (!code)
        code = add_members(out, value, indent, level, err);
    return code ? code : sf_text_add(out, brackets + 1, 1, err);
}

static int add_value(struct sf_text *out, const struct sf_json *value, int indent, int level,
                     struct sf_err *err)
{
    const char *string;
    bool truth;
    int code = SF_OK;
    switch (sf_json_type(value)) {
    case SF_JSON_NULL:
        return sf_text_add_string(out, "null", err);
    case SF_JSON_BOOL:
        code = sf_json_as_bool(&truth, value, "a truth value", err);
        return code ? code : sf_text_add_string(out, truth ? "true" : "false", err);
    case SF_JSON_NUMBER:
        return add_number(out, value, err);
    case SF_JSON_STRING:
        code = sf_json_as_string(&string, value, "a string", err);
        return code ? code : add_string(out, string, err);
    case SF_JSON_ARRAY:
        return add_container(out, value, "[]", indent, level, err);
    case SF_JSON_OBJECT:
        code = sf_json_check_unique(value, err);
        return code ? code : add_container(out, value, "{}", indent, level, err);
    }
    return SF_OK;
}

int sf_python_json(struct sf_text *out, const struct sf_json *value, int indent, struct sf_err *err)
{
    return add_value(out, value, indent, 0, err);
}
