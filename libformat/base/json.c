#include "libformat/base/json.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/mem.h"

/* 2^53 itself may be the rounding of 2^53 + 1, so it does not count as exact. */
static const double INTEGER_LIMIT = 9007199254740992.0;

/* struct sf_json is never defined: a value *is* a cJSON node, seen through these two. */
static const cJSON *node_of(const struct sf_json *value)
{
    return (const cJSON *)value;
}

static const struct sf_json *value_of(const cJSON *node)
{
    return (const struct sf_json *)node;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* What cJSON would let through or recurse into: checked in one pass before it sees the text. */
static int check_text(const char *text, uint64_t bytes, struct sf_err *err)
{
    uint64_t bad;
    if (!sf_utf8_valid(text, bytes, &bad))
        return sf_fail(err, SF_EFORMAT, "not UTF-8 at byte %llu", (unsigned long long)bad);
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        return sf_fail(err, SF_EFORMAT, "JSON starts with a byte-order mark");
    int depth = 0;
    bool in_string = false;
    for (uint64_t i = 0; i < bytes; i++) {
        char c = text[i];
        if ((unsigned char)c < 0x20 && (in_string || !is_space(c)))
            return sf_fail(err, SF_EFORMAT, "control character 0x%02x in JSON at byte %llu", c,
                           (unsigned long long)i);
        if (in_string && c == '\\') {
            if (bytes - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
                return sf_fail(err, SF_EFORMAT, "\\u0000 in a JSON string at byte %llu",
                               (unsigned long long)i);
            i++;
        } else if (c == '"') {
            in_string = !in_string;
        } else if (!in_string && (c == '{' || c == '[') && ++depth > SF_JSON_DEPTH) {
            return sf_fail(err, SF_EFORMAT, "JSON nested deeper than %d levels at byte %llu",
                           SF_JSON_DEPTH, (unsigned long long)i);
        } else if (!in_string && (c == '}' || c == ']')) {
            depth--;
        }
    }
    return SF_OK;
}

int sf_json_parse(struct sf_json **out, const char *text, uint64_t bytes, struct sf_err *err)
{
    int code = check_text(text, bytes, err);
    *out = NULL;
    if (code != SF_OK)
        return code;
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, (size_t)bytes, &end, 0);
    if (!root)
        return sf_fail(err, SF_EFORMAT, "malformed JSON near byte %lld",
                       end ? (long long)(end - text) : 0LL);
    for (; end < text + bytes; end++) {
        if (!is_space(*end)) {
            cJSON_Delete(root);
            return sf_fail(err, SF_EFORMAT, "text behind the JSON value at byte %lld",
                           (long long)(end - text));
        }
    }
    *out = (struct sf_json *)root;
    return SF_OK;
}

void sf_json_free(struct sf_json *root)
{
    cJSON_Delete((cJSON *)root);
}

enum sf_json_type sf_json_type(const struct sf_json *value)
{
    switch (node_of(value)->type & 0xff) {
    case cJSON_False:
    case cJSON_True:
        return SF_JSON_BOOL;
    case cJSON_Number:
        return SF_JSON_NUMBER;
    case cJSON_String:
        return SF_JSON_STRING;
    case cJSON_Array:
        return SF_JSON_ARRAY;
    case cJSON_Object:
        return SF_JSON_OBJECT;
    default:
        return SF_JSON_NULL;
    }
}

const char *sf_json_type_name(enum sf_json_type type)
{
    static const char *const names[] = {"null",     "a boolean", "a number",
                                        "a string", "an array",  "an object"};
    return names[type];
}

const struct sf_json *sf_json_get(const struct sf_json *object, const char *key)
{
    if (!object || sf_json_type(object) != SF_JSON_OBJECT)
        return NULL;
    return value_of(cJSON_GetObjectItemCaseSensitive(node_of(object), key));
}

const struct sf_json *sf_json_first(const struct sf_json *container)
{
    return container ? value_of(node_of(container)->child) : NULL;
}

const struct sf_json *sf_json_next(const struct sf_json *value)
{
    return value_of(node_of(value)->next);
}

const char *sf_json_key(const struct sf_json *member)
{
    return node_of(member)->string;
}

int64_t sf_json_count(const struct sf_json *container)
{
    int64_t n = 0;
    for (const struct sf_json *v = sf_json_first(container); v; v = sf_json_next(v))
        n++;
    return n;
}

static int check_type(const struct sf_json *value, enum sf_json_type want, const char *what,
                      struct sf_err *err)
{
    if (!value)
        return sf_fail(err, SF_EFORMAT, "%s is missing", what);
    if (sf_json_type(value) != want)
        return sf_fail(err, SF_EFORMAT, "%s is %s, not %s", what,
                       sf_json_type_name(sf_json_type(value)), sf_json_type_name(want));
    return SF_OK;
}

int sf_json_as_int(int64_t *out, const struct sf_json *value, const char *what, struct sf_err *err)
{
    int code = check_type(value, SF_JSON_NUMBER, what, err);
    if (code != SF_OK)
        return code;
    double d = node_of(value)->valuedouble;
    if (!(fabs(d) < INTEGER_LIMIT) || d != floor(d))
        return sf_fail(err, SF_EFORMAT, "%s is %.17g, not a whole number below 2^53", what, d);
    *out = (int64_t)d;
    return SF_OK;
}

int sf_json_as_double(double *out, const struct sf_json *value, const char *what,
                      struct sf_err *err)
{
    int code = check_type(value, SF_JSON_NUMBER, what, err);
    if (code != SF_OK)
        return code;
    if (!isfinite(node_of(value)->valuedouble))
        return sf_fail(err, SF_EFORMAT, "%s is too large for a double", what);
    *out = node_of(value)->valuedouble;
    return SF_OK;
}

int sf_json_as_bool(bool *out, const struct sf_json *value, const char *what, struct sf_err *err)
{
    int code = check_type(value, SF_JSON_BOOL, what, err);
    if (code == SF_OK)
        *out = cJSON_IsTrue(node_of(value));
    return code;
}

int sf_json_as_string(const char **out, const struct sf_json *value, const char *what,
                      struct sf_err *err)
{
    int code = check_type(value, SF_JSON_STRING, what, err);
    if (code == SF_OK)
        *out = node_of(value)->valuestring;
    return code;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int sf_json_check_unique(const struct sf_json *object, struct sf_err *err)
{
    int64_t n = sf_json_count(object), i = 0;
    void *block;
    if (sf_json_type(object) != SF_JSON_OBJECT) /* elements of an array have no keys */
        return SF_OK;
    int code = sf_alloc_for(&block, (uint64_t)n * sizeof(const char *), "JSON keys", err);
    if (code != SF_OK)
        return code;
    const char **keys = block;
    for (const struct sf_json *v = sf_json_first(object); v; v = sf_json_next(v))
        keys[i++] = sf_json_key(v);
    qsort(keys, (size_t)n, sizeof *keys, compare_keys);
    for (i = 1; i < n && code == SF_OK; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            code = sf_fail(err, SF_EFORMAT, "key \"%s\" stands twice", keys[i]);
    sf_free(block);
    return code;
}

/* ---- writing ---- */

static void put(struct sf_json_writer *w, const char *text, uint64_t n)
{
    if (w->failed)
        return;
    if (w->bytes + n + 1 > w->capacity) {
        uint64_t capacity = (w->bytes + n + 1) * 2;
        char *grown = sf_arena_alloc(w->arena, capacity);
        if (!grown) {
            w->failed = true;
            return;
        }
        if (w->bytes)
            memcpy(grown, w->text, w->bytes);
        w->text = grown;
        w->capacity = capacity;
    }
    memcpy(w->text + w->bytes, text, n);
    w->bytes += n;
    w->text[w->bytes] = 0;
}

static void put_text(struct sf_json_writer *w, const char *text)
{
    put(w, text, strlen(text));
}

static void put_newline(struct sf_json_writer *w)
{
    if (!w->indent)
        return;
    put_text(w, "\n");
    for (int i = 0; i < w->depth * w->indent; i++)
        put_text(w, " ");
}

static void put_escape(struct sf_json_writer *w, unsigned char c)
{
    char escape[8];
    if (c == '\n')
        snprintf(escape, sizeof escape, "\\n");
    else if (c == '"' || c == '\\')
        snprintf(escape, sizeof escape, "\\%c", c);
    else
        snprintf(escape, sizeof escape, "\\u%04x", c);
    put_text(w, escape);
}

/* A byte that is no UTF-8 (a path may hold one) becomes U+FFFD: the text stays JSON. */
static void put_quoted(struct sf_json_writer *w, const char *text)
{
    uint64_t left = strlen(text);
    put_text(w, "\"");
    while (left) {
        unsigned char c = (unsigned char)*text;
        int n = sf_utf8_length(text, left);
        if (n == 0)
            put_text(w, "\xef\xbf\xbd");
        else if (c == '"' || c == '\\' || c < 0x20 || c == 0x7f)
            put_escape(w, c);
        else
            put(w, text, (uint64_t)n);
        n = n ? n : 1;
        text += n;
        left -= (uint64_t)n;
    }
    put_text(w, "\"");
}

static void put_key(struct sf_json_writer *w, const char *key)
{
    if (w->need_comma)
        put_text(w, w->indent ? "," : ", ");
    if (w->depth)
        put_newline(w);
    if (key) {
        put_quoted(w, key);
        put_text(w, ": ");
    }
    w->need_comma = true;
}

void sf_json_write_begin(struct sf_json_writer *w, struct sf_arena *arena, int indent)
{
    *w = (struct sf_json_writer){.arena = arena, .indent = indent};
}

static void open_container(struct sf_json_writer *w, const char *key, const char *bracket)
{
    put_key(w, key);
    put_text(w, bracket);
    w->depth++;
    w->need_comma = false;
}

void sf_json_write_object(struct sf_json_writer *w, const char *key)
{
    open_container(w, key, "{");
}

void sf_json_write_array(struct sf_json_writer *w, const char *key)
{
    open_container(w, key, "[");
}

void sf_json_write_end(struct sf_json_writer *w, char closing)
{
    bool empty = !w->need_comma;
    w->depth--;
    if (!empty)
        put_newline(w);
    put(w, &closing, 1);
    w->need_comma = true;
}

void sf_json_write_string(struct sf_json_writer *w, const char *key, const char *value)
{
    put_key(w, key);
    put_quoted(w, value);
}

void sf_json_write_int(struct sf_json_writer *w, const char *key, int64_t value)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", (long long)value);
    put_key(w, key);
    put_text(w, digits);
}

void sf_json_write_double(struct sf_json_writer *w, const char *key, double value)
{
    char digits[40];
    if (!isfinite(value)) {
        sf_json_write_null(w, key);
        return;
    }
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    put_key(w, key);
    put_text(w, digits);
}

void sf_json_write_bool(struct sf_json_writer *w, const char *key, bool value)
{
    put_key(w, key);
    put_text(w, value ? "true" : "false");
}

void sf_json_write_null(struct sf_json_writer *w, const char *key)
{
    put_key(w, key);
    put_text(w, "null");
}

int sf_json_write_finish(char **text, uint64_t *bytes, struct sf_json_writer *w, struct sf_err *err)
{
    if (w->failed)
        return sf_fail(err, SF_ENOMEM, "cannot allocate JSON text of more than %llu bytes",
                       (unsigned long long)w->bytes);
    assert(w->depth == 0 && w->text); /* every object and array was ended */
    *text = w->text;
    if (bytes)
        *bytes = w->bytes;
    return SF_OK;
}
