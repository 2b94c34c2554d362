/* json_get FILE PATH... -- prints values of a JSON file, one a line; fails when one is missing.
 *
 * PATH: keys with '.' between, [3] or [name=x] behind an array, '#' at the end for how many
 * members: file.bytes   contents[kind=unused].bytes   damage#
 * tensors[name=a.b].planes.codes.address */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"

/* A number or string as text, "" for anything else. */
static const char *text_of(char number[32], const struct sf_json *value)
{
    const char *text = "";
    double d;
    if (value && sf_json_as_double(&d, value, "value", NULL) == SF_OK) {
        snprintf(number, 32, "%.15g", d);
        return number;
    }
    return value && sf_json_as_string(&text, value, "value", NULL) == SF_OK ? text : "";
}

/* The element that inside[0..length) picks: "3", or "key=value". */
static const struct sf_json *pick(const struct sf_json *array, const char *inside, size_t length)
{
    char want[512], number[32];
    snprintf(want, sizeof want, "%.*s", (int)length, inside);
    char *value = strchr(want, '=');
    const struct sf_json *v = sf_json_first(array);
    if (!value) {
        for (long n = strtol(want, NULL, 10); v && n > 0; n--)
            v = sf_json_next(v);
        return v;
    }
    *value++ = 0;
    while (v && strcmp(text_of(number, sf_json_get(v, want)), value) != 0)
        v = sf_json_next(v);
    return v;
}

static const struct sf_json *walk(const struct sf_json *value, const char *path, int *count)
{
    *count = 0;
    while (value && *path) {
        char key[128];
        size_t n = strcspn(path, ".[#");
        if (n > 0) {
            snprintf(key, sizeof key, "%.*s", (int)n, path);
            value = sf_json_get(value, key);
        } else if (*path == '[') {
            n = strcspn(path, "]");
            value = pick(value, path + 1, n - 1);
            n += path[n] == ']';
        } else {
            *count = *path == '#';
            n = 1;
        }
        path += n;
    }
    return value;
}

static int print(const struct sf_json *root, const char *path)
{
    char number[32];
    int count;
    bool flag;
    const struct sf_json *v = walk(root, path, &count);
    if (!v) {
        fprintf(stderr, "json_get: no %s\n", path);
        return 1;
    }
    if (count)
        printf("%lld\n", (long long)sf_json_count(v));
    else if (sf_json_type(v) == SF_JSON_NULL)
        printf("null\n");
    else if (sf_json_as_bool(&flag, v, "value", NULL) == SF_OK)
        printf("%s\n", flag ? "true" : "false");
    else
        printf("%s\n", text_of(number, v));
    return 0;
}

int main(int argc, char **argv)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct sf_json *root = NULL;
    char *text;
    uint64_t bytes;
    int failed = argc < 2;
    if (!failed && (sf_read_file(&text, &bytes, &arena, argv[1], 1 << 26, &err) != SF_OK ||
                    sf_json_parse(&root, text, bytes, &err) != SF_OK)) {
        fprintf(stderr, "json_get: %s: %s\n", argv[1], err.message);
        failed = 1;
    }
    for (int i = 2; i < argc && root; i++)
        failed |= print(root, argv[i]);
    sf_json_free(root);
    sf_arena_free(&arena);
    return failed;
}
