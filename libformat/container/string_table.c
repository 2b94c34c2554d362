#include "libformat/container/string_table.h"

#include <string.h>

#include "libformat/base/json.h"
#include "libformat/base/mem.h"
#include "libformat/codec/frame.h"
#include "libformat/container/layout.h"

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

int string_check(const char *text, const char *what, struct sf_err *err)
{
    uint64_t bytes = strlen(text);
    if (bytes > LAYOUT_NAME_MAX)
        return sf_fail(err, SF_EINVAL, "%s of %llu bytes, at most %d are allowed", what,
                       (unsigned long long)bytes, LAYOUT_NAME_MAX);
    if (!sf_utf8_valid(text, bytes, NULL))
        return sf_fail(err, SF_EINVAL, "%s \"%.64s\" is not UTF-8", what, text);
    for (uint64_t i = 0; i < bytes; i++)
        if (is_control(text[i]))
            return sf_fail(err, SF_EINVAL, "%s \"%s\" has a control character", what, text);
    return SF_OK;
}

/* ---- writing ---- */

int string_table_begin(struct string_table *table, struct sf_arena *arena, struct sf_err *err)
{
    *table = (struct string_table){.arena = arena};
    uint32_t empty;
    return string_table_add(&empty, table, "", err);
}

static void insert_slot(uint32_t *slot, uint64_t slots, const char *data, uint32_t offset)
{
    const char *text = data + offset;
    uint64_t i = sf_hash64(text, strlen(text), 0) & (slots - 1);
    while (slot[i])
        i = (i + 1) & (slots - 1);
    slot[i] = offset + 1;
}

static int grow_slots(struct string_table *table, struct sf_err *err)
{
    uint64_t slots = table->slots ? 2 * table->slots : 256;
    uint32_t *slot = sf_arena_array(table->arena, slots, sizeof *slot);
    if (!slot)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %llu string slots",
                       (unsigned long long)slots);
    for (uint64_t i = 0; i < table->slots; i++)
        if (table->slot[i])
            insert_slot(slot, slots, table->data, table->slot[i] - 1);
    table->slot = slot;
    table->slots = slots;
    return SF_OK;
}

static int grow_data(struct string_table *table, uint64_t more, struct sf_err *err)
{
    if (table->bytes + more > UINT32_MAX - 8)
        return sf_fail(err, SF_EINVAL, "the strings need more than 4 GiB");
    if (table->bytes + more <= table->room)
        return SF_OK;
    uint64_t room = 2 * (table->bytes + more) + 4096;
    char *data = sf_arena_alloc(table->arena, room);
    if (!data)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %llu bytes of strings",
                       (unsigned long long)room);
    if (table->bytes)
        memcpy(data, table->data, table->bytes);
    table->data = data;
    table->room = room;
    return SF_OK;
}

int string_table_add(uint32_t *offset, struct string_table *table, const char *text,
                     struct sf_err *err)
{
    int code = string_check(text, "string", err);
    if (code != SF_OK)
        return code;
    uint64_t bytes = strlen(text) + 1;
    if (2 * table->used >= table->slots && (code = grow_slots(table, err)) != SF_OK)
        return code;
    uint64_t i = sf_hash64(text, bytes - 1, 0) & (table->slots - 1);
    for (; table->slot[i]; i = (i + 1) & (table->slots - 1)) {
        *offset = table->slot[i] - 1;
        if (strcmp(table->data + *offset, text) == 0)
            return SF_OK;
    }
    if ((code = grow_data(table, bytes, err)) != SF_OK)
        return code;
    *offset = (uint32_t)table->bytes;
    memcpy(table->data + table->bytes, text, bytes);
    table->bytes += bytes;
    table->slot[i] = *offset + 1;
    table->used++;
    return SF_OK;
}

int string_table_end(struct string_table *table, struct sf_err *err)
{
    uint64_t padded = (table->bytes + 7) & ~(uint64_t)7;
    int code = grow_data(table, padded - table->bytes, err);
    if (code == SF_OK)
        table->bytes = padded; /* arena memory is zero already */
    return code;
}

/* ---- reading ---- */

/* The first control character but NUL; view->bytes if there is none. */
static uint64_t find_control(const struct string_view *view)
{
    enum { STEP = 64 }; /* without a branch a byte: tables have megabytes */
    uint64_t i = 0;
    for (unsigned bad = 0; i + STEP <= view->bytes; i += STEP) {
        for (int k = 0; k < STEP; k++) {
            unsigned char c = (unsigned char)view->data[i + (uint64_t)k];
            bad |= (unsigned char)(c - 1) < 0x1f || c == 0x7f;
        }
        if (bad)
            break;
    }
    while (i < view->bytes && (view->data[i] == 0 || !is_control(view->data[i])))
        i++;
    return i;
}

int string_view_check(const struct string_view *view, struct sf_err *err)
{
    uint64_t bad;
    if (view->bytes == 0 || view->bytes % 8 != 0)
        return sf_fail(err, SF_EFORMAT, "string table of %llu bytes, not a multiple of 8",
                       (unsigned long long)view->bytes);
    if (view->data[0] != 0 || view->data[view->bytes - 1] != 0)
        return sf_fail(err, SF_EFORMAT, "string table does not start and end with NUL");
    if (!sf_utf8_valid(view->data, view->bytes, &bad))
        return sf_fail(err, SF_EFORMAT, "string table is not UTF-8 at byte %llu",
                       (unsigned long long)bad);
    if ((bad = find_control(view)) < view->bytes)
        return sf_fail(err, SF_EFORMAT, "string table has a control character at byte %llu",
                       (unsigned long long)bad);
    return SF_OK;
}

static int bad_string(const char *what, int64_t row, struct sf_err *err)
{
    return row < 0 ? sf_err_prefix(err, "%s", what)
                   : sf_err_prefix(err, "%s %lld", what, (long long)row);
}

int string_view_get(const char **out, const struct string_view *view, uint32_t offset,
                    const char *what, int64_t row, struct sf_err *err)
{
    int code = SF_OK;
    if (offset >= view->bytes)
        code = sf_fail(err, SF_EFORMAT, "string offset %u, the table has %llu bytes", offset,
                       (unsigned long long)view->bytes);
    else if (offset > 0 && view->data[offset - 1] != 0)
        code = sf_fail(err, SF_EFORMAT, "string offset %u is inside a string", offset);
    else if (strnlen(view->data + offset, LAYOUT_NAME_MAX + 1) > LAYOUT_NAME_MAX)
        code = sf_fail(err, SF_EFORMAT, "string at %u is longer than %d bytes", offset,
                       LAYOUT_NAME_MAX);
    if (code != SF_OK)
        return bad_string(what, row, err);
    *out = view->data + offset;
    return SF_OK;
}
