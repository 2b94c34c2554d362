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

static uint64_t address_of(const struct sf_entry *entry)
{
    return entry->plane[SF_PLANE_CODES].address;
}

static int by_address(const void *a, const void *b)
{
    uint64_t x = address_of(*(const struct sf_entry *const *)a),
             y = address_of(*(const struct sf_entry *const *)b);
    return x < y ? -1 : x > y;
}

static int by_name(const void *a, const void *b)
{
    const struct sf_entry *x = *(const struct sf_entry *const *)a,
                          *y = *(const struct sf_entry *const *)b;
    int order = inspect_compare_names(x->name, y->name);
    return order ? order : strcmp(x->name, y->name);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = inspect_entry_bytes(*(const struct sf_entry *const *)a),
             y = inspect_entry_bytes(*(const struct sf_entry *const *)b);
    return x > y ? -1 : x < y ? 1 : by_address(a, b);
}

static int by_error(const void *a, const void *b)
{
    double x = (*(const struct sf_entry *const *)a)->relative_rms_error,
           y = (*(const struct sf_entry *const *)b)->relative_rms_error;
    return x > y ? -1 : x < y ? 1 : by_address(a, b);
}

static int sort(struct inspect_selection *s, const char *order, struct sf_err *err)
{
    static const struct {
        const char *name;
        int (*compare)(const void *, const void *);
    } orders[] = {{"address", by_address},
                  {"name", by_name},
                  {"size", by_size},
                  {"error", by_error},
                  {"role", NULL}}; /* as the index has them */
    size_t i = 0, count = sizeof orders / sizeof orders[0];
    while (order && i < count && strcmp(orders[i].name, order) != 0)
        i++;
    if (i == count)
        return sf_fail(err, SF_EINVAL, "--sort is address, name, size, error or role, not \"%s\"",
                       order);
    if (orders[i].compare && s->count > 0)
        qsort(s->entry, (size_t)s->count, sizeof *s->entry, orders[i].compare);
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
    return sort(out, f->sort, err);
}
