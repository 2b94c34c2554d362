#include <stdlib.h>
#include <string.h>

#include "tools/columns.h"
#include "tools/inspect.h"
#include "tools/tool.h"

const char *inspect_hash_format(char text[INSPECT_HASH_TEXT], const unsigned char hash[16])
{
    for (int i = 0; i < 16; i++)
        sprintf(text + 2 * i, "%02x", hash[i]);
    return text;
}

/* "nf4" or "nf4 48, bf16 2". */
static const char *forms_of(char text[128], const struct inspect_sum *sum)
{
    int n = 0;
    text[0] = 0;
    if (sum->tensors > 0 && !sum->form[1].name)
        return sum->form[0].name;
    for (int i = 0; i < INSPECT_FORMS && sum->form[i].name && n < 96; i++)
        n += snprintf(text + n, (size_t)(128 - n), "%s%s %lld", i ? ", " : "", sum->form[i].name,
                      (long long)sum->form[i].tensors);
    return text;
}

const char *inspect_number(struct inspect *in, uint64_t n)
{
    const char *text = columns_number(in->arena, n);
    return text ? text : "?";
}

const char *inspect_size(struct inspect *in, uint64_t n)
{
    char *text = sf_arena_alloc(in->arena, TOOL_SIZE_TEXT);
    return text ? tool_size(text, n) : "?";
}

/* An escaped string of the file; what is not recorded says so. */
const char *inspect_shown(struct inspect *in, const char *text)
{
    const char *escaped = text ? columns_escape(in->arena, text) : NULL;
    return !text || !*text ? "not recorded" : escaped ? escaped : "?";
}

/* ---- summary, section by section ---- */

static void print_model(struct inspect *in)
{
    const struct sf_container_info *info = sf_map_info(in->map);
    const struct sf_summary *s = sf_map_summary(in->map);
    fprintf(in->out, "%s: scout container %u.%u\n", inspect_shown(in, sf_map_path(in->map)),
            info->version_major, info->version_minor);
    fprintf(in->out, "  model         %s\n", inspect_shown(in, s->model_id));
    fprintf(in->out, "  architecture  %s (%s)\n", inspect_shown(in, s->architecture),
            inspect_shown(in, s->family));
    fprintf(in->out, "  shape         %s layers, hidden %s, %s experts, vocabulary %s\n",
            inspect_number(in, (uint64_t)s->layers), inspect_number(in, (uint64_t)s->hidden),
            inspect_number(in, (uint64_t)s->experts), inspect_number(in, (uint64_t)s->vocabulary));
    fprintf(in->out, "  parameters    %s, of them %s for text\n",
            inspect_number(in, (uint64_t)s->parameters),
            inspect_number(in, (uint64_t)s->parameters_text));
    fprintf(in->out, "  file%s         %s (%s bytes", info->container_files > 1 ? "s" : " ",
            inspect_size(in, info->file_bytes), inspect_number(in, info->file_bytes));
    if (info->container_files > 1)
        fprintf(in->out, " in %s files", inspect_number(in, (uint64_t)info->container_files));
    fprintf(in->out, ")\n");
}

static void add_sum(struct columns *c, struct inspect *in, const char *name,
                    const struct inspect_sum *sum, bool total)
{
    char forms[128];
    columns_cell(c, "%s", name);
    columns_cell(c, "%s", inspect_number(in, (uint64_t)sum->tensors));
    columns_cell(c, "%s", inspect_number(in, (uint64_t)sum->parameters));
    columns_cell(c, "%s", inspect_size(in, sum->bytes));
    columns_cell(c, "%s", inspect_number(in, sum->bytes));
    if (sum->parameters)
        columns_cell(c, "%.3f", inspect_bits(sum));
    else
        columns_cell(c, "-");
    if (sum->worst)
        columns_cell(c, "%.3f %%", 100 * sum->worst_error);
    else
        columns_cell(c, "-");
    columns_cell(c, "%s", total ? "-" : forms_of(forms, sum));
}

static int print_kinds(struct inspect *in, struct sf_err *err)
{
    static const struct column heads[] = {
        {"what", false, false, 0},       {"tensors", true, false, 3},
        {"parameters", true, false, 4},  {"size", true, false, 0},
        {"bytes", true, false, 2},       {"bits/param", true, false, 0},
        {"worst error", true, false, 1}, {"stored as", false, false, 0}};
    struct columns c;
    columns_begin(&c, in->arena, heads, 8);
    for (int k = 0; k < INSPECT_KINDS; k++)
        if (in->facts.kind[k].tensors > 0)
            add_sum(&c, in, inspect_kind_name(k), &in->facts.kind[k], false);
    add_sum(&c, in, "all for text", &in->facts.text, true);
    add_sum(&c, in, "all", &in->facts.all, true);
    fprintf(in->out, "\ncontents (worst error: relative RMS against the source)\n");
    return columns_print(&c, in->out, 2, in->width, err);
}

static void add_place(struct columns *c, struct inspect *in, const char *what, uint64_t n,
                      const char *note)
{
    columns_cell(c, "%s", what);
    columns_cell(c, "%s", inspect_size(in, n));
    columns_cell(c, "%s", inspect_number(in, n));
    columns_cell(c, "%s", note);
}

static int print_places(struct inspect *in, struct sf_err *err)
{
    static const struct column heads[] = {{"where", false, false, 0},
                                          {"size", true, false, 0},
                                          {"bytes", true, false, 1},
                                          {"what", false, false, 2}};
    const struct inspect_facts *f = &in->facts;
    const struct sf_container_info *info = sf_map_info(in->map);
    struct columns c;
    columns_begin(&c, in->arena, heads, 4);
    add_place(&c, in, "GPU memory", f->gpu_bytes, "layers, experts, head, codebooks");
    add_place(&c, in, "host memory", f->host_bytes, "embedding rows");
    add_place(&c, in, "stays in the file", f->unused_bytes, "not used by text training");
    add_place(&c, in, "rest of the file", info->file_bytes - info->payload_bytes,
              "header, checksums, index, metadata");
    fprintf(in->out, "\nresident in training (weights only; scout-ft plan counts the rest)\n");
    return columns_print(&c, in->out, 2, in->width, err);
}

static void print_health(struct inspect *in)
{
    const struct sf_container_info *info = sf_map_info(in->map);
    char hash[INSPECT_HASH_TEXT];
    fprintf(in->out, "\nhealth\n");
    if (info->checksums_unread || info->metadata_unread) {
        fprintf(in->out, "  header, index            match their hashes\n");
        fprintf(in->out, "  %-24s not compared with their hashes: too large for a look\n",
                !info->metadata_unread   ? "checksums"
                : info->checksums_unread ? "checksums, metadata"
                                         : "metadata");
    } else {
        fprintf(in->out, "  header, index, metadata  match their hashes\n");
    }
    fprintf(in->out, "  payload                  not read: scout-inspect verify %s\n",
            inspect_shown(in, sf_map_path(in->map)));
    fprintf(in->out, "  payload layout           %s extents, %s chunks of %s, padding %s bytes\n",
            inspect_number(in, (uint64_t)info->extents), inspect_number(in, in->facts.chunks),
            inspect_size(in, info->chunk_bytes), inspect_number(in, in->facts.padding_bytes));
    fprintf(in->out, "  identity                 %s\n", inspect_hash_format(hash, info->identity));
}

static int print_shards(struct inspect *in, struct sf_err *err)
{
    static const struct column heads[] = {{"source", false, true, 0},
                                          {"size", true, false, 2},
                                          {"bytes", true, false, 0},
                                          {"XXH3-128 of the tensors read", false, false, 1}};
    const struct sf_summary *s = sf_map_summary(in->map);
    struct columns c;
    char hash[INSPECT_HASH_TEXT];
    columns_begin(&c, in->arena, heads, 4);
    for (int64_t i = 0; i < s->shard_count; i++) {
        columns_cell(&c, "%s", s->shard[i].name);
        columns_cell(&c, "%s", inspect_size(in, s->shard[i].bytes));
        columns_cell(&c, "%s", inspect_number(in, s->shard[i].bytes));
        columns_cell(&c, "%s", inspect_hash_format(hash, s->shard[i].hash));
    }
    return columns_print(&c, in->out, 2, in->width, err);
}

static int print_carried(struct inspect *in, struct sf_err *err)
{
    static const struct column heads[] = {{"carried file", false, true, 0},
                                          {"bytes", true, false, 0}};
    struct columns c;
    columns_begin(&c, in->arena, heads, 2);
    for (int64_t i = 0; i < sf_map_info(in->map)->files; i++) {
        uint64_t n;
        const char *name = sf_map_file_name(in->map, i, &n);
        columns_cell(&c, "%s", name);
        columns_cell(&c, "%s", inspect_number(in, n));
    }
    return columns_print(&c, in->out, 2, in->width, err);
}

int inspect_print_provenance(struct inspect *in, struct sf_err *err)
{
    const struct sf_summary *s = sf_map_summary(in->map);
    char hash[INSPECT_HASH_TEXT];
    fprintf(in->out, "provenance\n");
    fprintf(in->out, "  identity   %s\n",
            inspect_hash_format(hash, sf_map_info(in->map)->identity));
    fprintf(in->out, "  converter  %s\n", inspect_shown(in, s->converter));
    fprintf(in->out, "  options    %s\n",
            s->options && *s->options ? inspect_shown(in, s->options) : "none that change content");
    fprintf(in->out, "  source     %s of tensors (%s bytes) in %lld files\n",
            inspect_size(in, s->source_bytes), inspect_number(in, s->source_bytes),
            (long long)s->shard_count);
    int code = s->shard_count > 0 ? print_shards(in, err) : SF_OK;
    if (code == SF_OK && sf_map_info(in->map)->files > 0)
        code = print_carried(in, err);
    return code;
}

int inspect_print_summary(struct inspect *in, struct sf_err *err)
{
    print_model(in);
    int code = print_kinds(in, err);
    if (code == SF_OK)
        code = print_places(in, err);
    if (code != SF_OK)
        return code;
    print_health(in);
    fputc('\n', in->out);
    return inspect_print_provenance(in, err);
}
