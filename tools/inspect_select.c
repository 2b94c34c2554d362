#include "tools/inspect_select.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

/* ---- the filter ---- */

struct range {
    int64_t first, last;
};

/* "7" or "0-3". */
static int read_range(struct range *out, const char *what, const char *text, struct sf_err *err)
{
    char *end;
    *out = (struct range){INT64_MIN, INT64_MAX};
    if (!text)
        return SF_OK;
    out->first = out->last = strtoll(text, &end, 10);
    bool good = end != text && *text != '-';
    if (good && *end == '-') {
        const char *second = end + 1;
        out->last = strtoll(second, &end, 10);
        good = end != second && *second != '-';
    }
    if (!good || *end || out->last < out->first)
        return sf_fail(err, SF_EINVAL, "--%s takes a number or a range as 0-3, not \"%s\"", what,
                       text);
    return SF_OK;
}

static bool lies_in(const struct range *r, int64_t n)
{
    return n >= r->first && n <= r->last;
}

/* ---- the order ---- */

int inspect_compare_names(const char *a, const char *b)
{
    while (*a && *b) {
        if (*a >= '0' && *a <= '9' && *b >= '0' && *b <= '9') {
            char *a_end, *b_end;
            unsigned long long x = strtoull(a, &a_end, 10), y = strtoull(b, &b_end, 10);
            if (x != y)
                return x < y ? -1 : 1;
            a = a_end;
            b = b_end;
        } else if (*a != *b) {
            break;
        } else {
            a++;
            b++;
        }
    }
    return (unsigned char)*a - (unsigned char)*b;
}

/* Sorted by rank, then by address; names by themselves. */
struct sortable {
    const struct sf_entry *entry;
    uint64_t rank, address;
};

static int by_rank(const void *a, const void *b)
{
    const struct sortable *x = *(const struct sortable *const *)a,
                          *y = *(const struct sortable *const *)b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->address < y->address ? -1 : x->address > y->address;
}

static int by_name(const void *a, const void *b)
{
    const struct sf_entry *x = (*(const struct sortable *const *)a)->entry,
                          *y = (*(const struct sortable *const *)b)->entry;
    int order = inspect_compare_names(x->name, y->name);
    return order ? order : strcmp(x->name, y->name);
}

static uint64_t same_rank(const struct sf_entry *entry)
{
    (void)entry;
    return 0;
}

static uint64_t largest_first(const struct sf_entry *entry)
{
    return UINT64_MAX - inspect_entry_bytes(entry);
}

/* The bits of doubles that are not negative ascend as they do. */
static uint64_t worst_first(const struct sf_entry *entry)
{
    uint64_t bits;
    memcpy(&bits, &entry->relative_rms_error, sizeof bits);
    return UINT64_MAX - bits;
}

static int sort(struct inspect_selection *s, const char *order, struct sf_arena *arena,
                struct sf_err *err)
{
    static const struct {
        const char *name;
        uint64_t (*rank)(const struct sf_entry *); /* NULL: as the index has them */
        int (*compare)(const void *, const void *);
    } orders[] = {{"address", same_rank, by_rank},
                  {"name", same_rank, by_name},
                  {"size", largest_first, by_rank},
                  {"error", worst_first, by_rank},
                  {"role", NULL, NULL}};
    size_t k = 0, count = sizeof orders / sizeof orders[0];
    while (order && k < count && strcmp(orders[k].name, order) != 0)
        k++;
    if (k == count)
        return sf_fail(err, SF_EINVAL, "--sort is address, name, size, error or role, not \"%s\"",
                       order);
    if (!orders[k].rank || s->count == 0)
        return SF_OK;
    struct sortable *row = sf_arena_array(arena, (uint64_t)s->count, sizeof *row);
    const struct sortable **sorted = sf_arena_array(arena, (uint64_t)s->count, sizeof(void *));
    if (!row || !sorted)
        return sf_fail(err, SF_ENOMEM, "cannot sort %lld tensors", (long long)s->count);
    for (int64_t i = 0; i < s->count; i++) {
        row[i] = (struct sortable){s->entry[i], orders[k].rank(s->entry[i]),
                                   s->entry[i]->plane[SF_PLANE_CODES].address};
        sorted[i] = &row[i];
    }
    qsort(sorted, (size_t)s->count, sizeof(void *), orders[k].compare);
    for (int64_t i = 0; i < s->count; i++)
        s->entry[i] = sorted[i]->entry;
    return SF_OK;
}

/* ---- the choice ---- */

int inspect_select(struct inspect_selection *out, struct inspect *in,
                   const struct inspect_filter *f, struct sf_err *err)
{
    int64_t tensors = sf_map_info(in->map)->tensors;
    struct range layer, expert;
    int code = read_range(&layer, "layer", f->layer, err);
    if (code == SF_OK)
        code = read_range(&expert, "expert", f->expert, err);
    if (code != SF_OK)
        return code;
    *out = (struct inspect_selection){
        .entry = sf_arena_array(in->arena, (uint64_t)tensors + 1, sizeof *out->entry)};
    if (!out->entry)
        return sf_fail(err, SF_ENOMEM, "cannot list %lld tensors", (long long)tensors);
    for (int64_t i = 0; i < tensors; i++) {
        const struct sf_entry *e = sf_map_tensor(in->map, i);
        if (lies_in(&layer, e->role.layer) && lies_in(&expert, e->role.expert) &&
            (!f->name || fnmatch(f->name, e->name, 0) == 0) &&
            (!f->encoding || strcmp(f->encoding, inspect_form(e)) == 0))
            out->entry[out->count++] = e;
    }
    if (out->count == 0 && tensors > 0)
        return sf_fail(err, SF_EINVAL,
                       "%s: none of its %lld tensors is of that name, layer, expert and encoding",
                       sf_map_path(in->map), (long long)tensors);
    return sort(out, f->sort, in->arena, err);
}
