/* json.h -- the one door to cJSON: strict reading, bounded, with errors that say where.
 *
 * A value is borrowed from its document and lives until sf_json_free. Getters take the place of the
 * value as text ("config.json: text_config.hidden_size") from the key they are asked for; the
 * caller prefixes the file. Numbers are doubles in cJSON: an integer getter refuses what is not a
 * whole number below 2^53, a double getter what overflows. A text with \u0000, invalid UTF-8, a
 * bare control character, a byte-order mark, anything behind the value, or nesting deeper than
 * SF_JSON_DEPTH is refused. Threads: reading one document is safe. */
#ifndef SCOUT_LIBFORMAT_BASE_JSON_H
#define SCOUT_LIBFORMAT_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "libformat/base/arena.h"
#include "libformat/base/err.h"
#include "libformat/base/utf8_check.h"

enum { SF_JSON_DEPTH = 64 };

struct sf_json; /* one value; in truth a cJSON node */

/* Parses text[0..bytes). The caller owns *out (the root; NULL on failure) and ends it with
 * sf_json_free. */
int sf_json_parse(struct sf_json **out, const char *text, uint64_t bytes, struct sf_err *err);
void sf_json_free(struct sf_json *root); /* NULL is welcome */

enum sf_json_type {
    SF_JSON_NULL,
    SF_JSON_BOOL,
    SF_JSON_NUMBER,
    SF_JSON_STRING,
    SF_JSON_ARRAY,
    SF_JSON_OBJECT
};
enum sf_json_type sf_json_type(const struct sf_json *value);
const char *sf_json_type_name(enum sf_json_type type);

/* Member of an object by exact name, NULL if missing or if `object` is NULL or no object. Linear in
 * the members: walk large objects with first/next instead. */
const struct sf_json *sf_json_get(const struct sf_json *object, const char *key);
/* Members of an object, elements of an array, in file order; NULL ends. */
const struct sf_json *sf_json_first(const struct sf_json *container);
const struct sf_json *sf_json_next(const struct sf_json *value);
const char *sf_json_key(const struct sf_json *member); /* NULL in arrays */
int64_t sf_json_count(const struct sf_json *container);

/* The value itself: the type is checked, `what` names it in the message. */
int sf_json_as_int(int64_t *out, const struct sf_json *value, const char *what, struct sf_err *err);
int sf_json_as_double(double *out, const struct sf_json *value, const char *what,
                      struct sf_err *err);
int sf_json_as_bool(bool *out, const struct sf_json *value, const char *what, struct sf_err *err);
int sf_json_as_string(const char **out, const struct sf_json *value, const char *what,
                      struct sf_err *err);

/* SF_EFORMAT naming the key when an object (here, not below) has one key twice. n log n. */
int sf_json_check_unique(const struct sf_json *object, struct sf_err *err);

/* ---- writing: text built in order, escaped, deterministic ---- */

struct sf_json_writer {
    struct sf_arena *arena; /* the text lives there */
    char *text;
    uint64_t bytes, capacity;
    int depth;
    bool need_comma, failed; /* failed: out of memory; later calls do nothing */
    int indent;              /* spaces per level, 0 = one line */
};
void sf_json_write_begin(struct sf_json_writer *w, struct sf_arena *arena, int indent);
void sf_json_write_object(struct sf_json_writer *w, const char *key); /* key NULL inside arrays */
void sf_json_write_array(struct sf_json_writer *w, const char *key);
void sf_json_write_end(struct sf_json_writer *w, char closing); /* '}' or ']' */
void sf_json_write_string(struct sf_json_writer *w, const char *key, const char *value);
void sf_json_write_int(struct sf_json_writer *w, const char *key, int64_t value);
/* Shortest decimal that reads back as the same double; NaN and Inf become null. */
void sf_json_write_double(struct sf_json_writer *w, const char *key, double value);
void sf_json_write_bool(struct sf_json_writer *w, const char *key, bool value);
void sf_json_write_null(struct sf_json_writer *w, const char *key);
/* The finished text with a NUL behind it; SF_ENOMEM if any call before failed. */
int sf_json_write_finish(char **text, uint64_t *bytes, struct sf_json_writer *w,
                         struct sf_err *err);

#endif
