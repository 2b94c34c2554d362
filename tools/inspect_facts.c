#include "tools/inspect_facts.h"

#include <string.h>

const char *inspect_kind_name(enum inspect_kind kind)
{
    static const char *const names[INSPECT_KINDS] = {"attention",      "shared expert", "dense MLP",
                                                     "routed experts", "router",        "norms",
                                                     "output head",    "embedding",     "unused"};
    return names[kind];
}

enum inspect_kind inspect_kind_of(enum sf_part part)
{
    switch (part) {
    case SF_PART_Q:
    case SF_PART_K:
    case SF_PART_V:
    case SF_PART_O:
        return INSPECT_ATTENTION;
    case SF_PART_SHARED_GATE:
    case SF_PART_SHARED_UP:
    case SF_PART_SHARED_DOWN:
        return INSPECT_SHARED_EXPERT;
    case SF_PART_DENSE_GATE:
    case SF_PART_DENSE_UP:
    case SF_PART_DENSE_DOWN:
        return INSPECT_DENSE_MLP;
    case SF_PART_EXPERT_GATE:
    case SF_PART_EXPERT_UP:
    case SF_PART_EXPERT_DOWN:
        return INSPECT_EXPERTS;
    case SF_PART_ROUTER:
        return INSPECT_ROUTER;
    case SF_PART_INPUT_NORM:
    case SF_PART_POST_NORM:
    case SF_PART_FINAL_NORM:
        return INSPECT_NORMS;
    case SF_PART_HEAD:
        return INSPECT_HEAD;
    case SF_PART_EMBEDDING:
        return INSPECT_EMBEDDING;
    default:
        return INSPECT_UNUSED;
    }
}

const char *inspect_form(const struct sf_entry *entry)
{
    return entry->encoding == SF_ENCODING_RAW ? sf_dtype_name(entry->dtype)
                                              : sf_encoding_name(entry->encoding);
}

uint64_t inspect_entry_bytes(const struct sf_entry *entry)
{
    uint64_t bytes = 0;
    for (int k = 0; k < SF_PLANE_COUNT; k++)
        if (k != SF_PLANE_CODEBOOK && k != SF_PLANE_MAP && entry->plane[k].dtype != SF_DTYPE_NONE)
            bytes += entry->plane[k].bytes; /* the index was checked: planes lie in the payload */
    return bytes;
}

double inspect_bits(const struct inspect_sum *sum)
{
    return sum->parameters ? 8.0 * (double)sum->bytes / (double)sum->parameters : 0;
}

static void count_form(struct inspect_sum *sum, const char *form)
{
    for (int i = 0; i < INSPECT_FORMS; i++) {
        if (sum->form[i].name && strcmp(sum->form[i].name, form) != 0)
            continue;
        sum->form[i].name = form;
        sum->form[i].tensors++;
        return;
    }
}

static int add_entry(struct inspect_sum *sum, const struct sf_entry *entry, struct sf_err *err)
{
    int64_t parameters;
    if (!sf_shape_count(&parameters, &entry->shape) ||
        __builtin_add_overflow(sum->parameters, parameters, &sum->parameters))
        return sf_fail(err, SF_EFORMAT, "tensor \"%s\": too many elements", entry->name);
    sum->tensors++;
    sum->bytes += inspect_entry_bytes(entry);
    count_form(sum, inspect_form(entry));
    if (entry->encoding != SF_ENCODING_RAW &&
        (!sum->worst || entry->relative_rms_error > sum->worst_error)) {
        sum->worst = entry;
        sum->worst_error = entry->relative_rms_error;
    }
    return SF_OK;
}

static void add_extent(struct inspect_facts *f, const struct sf_extent *extent)
{
    f->chunks += extent->chunks;
    switch (extent->kind) {
    case SF_EXTENT_UNUSED:
        f->unused_bytes += extent->bytes;
        break;
    case SF_EXTENT_EMBEDDING:
        f->host_bytes += extent->bytes;
        break;
    default:
        f->gpu_bytes += extent->bytes;
    }
}

/* Codebooks are few and shared by many: each address counts once. */
static void add_codebooks(struct inspect_facts *f, const struct sf_entry *entry)
{
    static const enum sf_plane_kind shared[] = {SF_PLANE_CODEBOOK, SF_PLANE_MAP};
    for (int k = 0; k < 2; k++) {
        const struct sf_plane *plane = &entry->plane[shared[k]];
        int i = 0;
        while (i < f->codebooks && f->codebook[i] != plane->address)
            i++;
        if (plane->dtype == SF_DTYPE_NONE || i < f->codebooks || i == INSPECT_CODEBOOKS)
            continue;
        f->codebook[f->codebooks++] = plane->address;
        f->codebook_bytes += plane->bytes;
    }
}

int inspect_facts_gather(struct inspect_facts *f, const struct sf_map *map, struct sf_err *err)
{
    const struct sf_container_info *info = sf_map_info(map);
    int code = SF_OK;
    *f = (struct inspect_facts){0};
    for (int64_t i = 0; i < info->tensors && code == SF_OK; i++) {
        const struct sf_entry *entry = sf_map_tensor(map, i);
        enum inspect_kind kind = inspect_kind_of(entry->role.part);
        code = add_entry(&f->kind[kind], entry, err);
        if (code == SF_OK)
            code = add_entry(&f->all, entry, err);
        if (code == SF_OK && kind != INSPECT_UNUSED)
            code = add_entry(&f->text, entry, err);
        add_codebooks(f, entry);
    }
    for (int64_t i = 0; i < info->extents; i++)
        add_extent(f, sf_map_extent(map, i));
    uint64_t used = f->all.bytes + f->codebook_bytes;
    f->padding_bytes = info->payload_bytes > used ? info->payload_bytes - used : 0;
    return code;
}
