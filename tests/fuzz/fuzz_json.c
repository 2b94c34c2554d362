/* Any bytes: parsing refuses or gives a document; a document can be walked and written again, and
 * what was written reads back with as many members. */
#include <stddef.h>
#include <stdlib.h>

#include "libformat/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void rewrite(struct sf_json_writer *w, const char *key, const struct sf_json *value)
{
    struct sf_err err = {0};
    int64_t i;
    double d;
    bool b;
    const char *s;
    enum sf_json_type type = sf_json_type(value);
    if (type == SF_JSON_ARRAY || type == SF_JSON_OBJECT) {
        if (type == SF_JSON_ARRAY)
            sf_json_write_array(w, key);
        else
            sf_json_write_object(w, key);
        for (const struct sf_json *v = sf_json_first(value); v; v = sf_json_next(v))
            rewrite(w, sf_json_key(v), v);
        sf_json_write_end(w, type == SF_JSON_ARRAY ? ']' : '}');
    } else if (sf_json_as_string(&s, value, "s", &err) == SF_OK) {
        sf_json_write_string(w, key, s);
    } else if (sf_json_as_bool(&b, value, "b", &err) == SF_OK) {
        sf_json_write_bool(w, key, b);
    } else if (sf_json_as_int(&i, value, "i", &err) == SF_OK) {
        sf_json_write_int(w, key, i);
    } else if (sf_json_as_double(&d, value, "d", &err) == SF_OK) {
        sf_json_write_double(w, key, d);
    } else {
        sf_json_write_null(w, key);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sf_err err = {0};
    struct sf_json *root, *again;
    if (sf_json_parse(&root, (const char *)data, size, &err) != SF_OK)
        return 0;
    struct sf_arena arena = {0};
    struct sf_json_writer w;
    char *text;
    uint64_t bytes;
    sf_json_write_begin(&w, &arena, size % 3);
    rewrite(&w, NULL, root);
    if (sf_json_write_finish(&text, &bytes, &w, &err) != SF_OK ||
        sf_json_parse(&again, text, bytes, &err) != SF_OK ||
        sf_json_count(again) != sf_json_count(root))
        abort();
    sf_json_check_unique(root, &err);
    sf_json_free(again);
    sf_json_free(root);
    sf_arena_free(&arena);
    return 0;
}
