/* json_shape FILE -- the schema that a JSON file shows: one line a path, with the types seen there.
 *
 *   contents[].worst_error null|number
 * Members whose names are data (forms, planes, states) are shown as *. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/json.h"

enum { MOST = 512, LONGEST = 256 };

static struct line {
    char path[LONGEST];
    unsigned types; /* bit of each enum sf_json_type */
} lines[MOST];
static int count;

static void note(const char *path, enum sf_json_type type)
{
    int i = 0;
    while (i < count && strcmp(lines[i].path, path) != 0)
        i++;
    if (i == MOST) {
        fprintf(stderr, "json_shape: more than %d paths\n", MOST);
        exit(1);
    }
    if (i == count)
        snprintf(lines[count++].path, LONGEST, "%s", path);
    lines[i].types |= 1u << type;
}

static bool names_are_data(const char *path)
{
    static const char *const with[] = {"stored_as", "planes", "states", "proofs"};
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof with / sizeof with[0]; i++)
        if (n >= strlen(with[i]) && strcmp(path + n - strlen(with[i]), with[i]) == 0)
            return true;
    return false;
}

static void walk(const char *path, const struct sf_json *value)
{
    enum sf_json_type type = sf_json_type(value);
    if (*path)
        note(path, type);
    for (const struct sf_json *v = sf_json_first(value); v; v = sf_json_next(v)) {
        char inner[LONGEST];
        if (type == SF_JSON_ARRAY)
            snprintf(inner, sizeof inner, "%s[]", path);
        else
            snprintf(inner, sizeof inner, "%s%s%s", path, *path ? "." : "",
                     names_are_data(path) ? "*" : sf_json_key(v));
        walk(inner, v);
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct line *)a)->path, ((const struct line *)b)->path);
}

int main(int argc, char **argv)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    struct sf_json *root;
    char *text;
    uint64_t bytes;
    if (argc != 2 || sf_read_file(&text, &bytes, &arena, argv[1], 1 << 26, &err) != SF_OK ||
        sf_json_parse(&root, text, bytes, &err) != SF_OK) {
        fprintf(stderr, "json_shape: %s\n", err.message);
        return 1;
    }
    walk("", root);
    qsort(lines, (size_t)count, sizeof *lines, compare);
    for (int i = 0; i < count; i++) {
        const char *bar = " ";
        printf("%s", lines[i].path);
        for (int t = 0; t <= SF_JSON_OBJECT; t++)
            if (lines[i].types >> t & 1) {
                printf("%s%s", bar, sf_json_type_name((enum sf_json_type)t));
                bar = "|";
            }
        printf("\n");
    }
    sf_json_free(root);
    sf_arena_free(&arena);
    return 0;
}
