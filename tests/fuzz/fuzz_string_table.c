/* Any bytes, cut at NULs, as strings for a table: what it takes it gives back, each once, and its own
 * reader finds nothing wrong with it. And any bytes as a table. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/container/layout.h"
#include "libformat/container/string_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 512 };

/* data[0..size): refused with a sentence, or every offset gives a string or a sentence. */
static void read_as_table(const char *data, uint64_t bytes)
{
    struct string_view view = {data, bytes};
    struct sf_err err = {0};
    const char *text;
    if (string_view_check(&view, &err) != SF_OK) {
        if (!err.message[0])
            abort();
        return;
    }
    for (uint64_t at = 0; at <= bytes; at++) {
        err = (struct sf_err){0};
        int code = string_view_get(&text, &view, (uint32_t)at, "tensor", at % 2 ? 7 : -1, &err);
        if (code == SF_OK ? strlen(text) > LAYOUT_NAME_MAX : !err.message[0])
            abort();
    }
}

static void write_table(struct sf_arena *arena, char *text, const char *end)
{
    struct string_table table;
    struct sf_err err = {0};
    const char *taken[MOST], *found;
    uint32_t offset[MOST], again;
    int count = 0;
    if (string_table_begin(&table, arena, &err) != SF_OK)
        abort();
    for (; text < end && count < MOST; text += strlen(text) + 1) {
        err = (struct sf_err){0};
        if (string_table_add(&offset[count], &table, text, &err) == SF_OK)
            taken[count++] = text;
        else if (!err.message[0])
            abort();
    }
    if (string_table_end(&table, &err) != SF_OK)
        abort();
    struct string_view view = {table.data, table.bytes};
    if (string_view_check(&view, &err) != SF_OK)
        abort();
    for (int i = 0; i < count; i++)
        if (string_view_get(&found, &view, offset[i], "string", i, &err) != SF_OK ||
            strcmp(found, taken[i]) != 0 ||
            string_table_add(&again, &table, taken[i], &err) != SF_OK || again != offset[i])
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sf_arena arena = {0};
    char *copy = sf_arena_alloc(&arena, size + 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    read_as_table(copy, size);
    write_table(&arena, copy, copy + size);
    sf_arena_free(&arena);
    return 0;
}
