#include "libformat/container/container_metadata.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/container/container_index.h"
#include "libformat/container/header_page.h"
#include "libformat/container/layout.h"
#include "libformat/container/string_table.h"

/* Summary fields that are strings and numbers, and where they lie. */
struct string_field {
    int at;
    size_t member;
};
static const struct string_field string_fields[] = {
    {META_FAMILY, offsetof(struct sf_summary, family)},
    {META_ARCHITECTURE, offsetof(struct sf_summary, architecture)},
    {META_MODEL_ID, offsetof(struct sf_summary, model_id)},
    {META_CONVERTER, offsetof(struct sf_summary, converter)},
    {META_OPTIONS, offsetof(struct sf_summary, options)},
};
static const struct string_field count_fields[] = {
    {META_LAYERS, offsetof(struct sf_summary, layers)},
    {META_HIDDEN, offsetof(struct sf_summary, hidden)},
    {META_EXPERTS, offsetof(struct sf_summary, experts)},
    {META_VOCABULARY, offsetof(struct sf_summary, vocabulary)},
    {META_PARAMETERS, offsetof(struct sf_summary, parameters)},
    {META_PARAMETERS_TEXT, offsetof(struct sf_summary, parameters_text)},
};
enum {
    STRING_FIELDS = sizeof string_fields / sizeof *string_fields,
    COUNT_FIELDS = sizeof count_fields / sizeof *count_fields
};

static const char **string_member(struct sf_summary *summary, int i)
{
    return (const char **)(void *)((char *)summary + string_fields[i].member);
}

static int64_t *count_member(struct sf_summary *summary, int i)
{
    return (int64_t *)(void *)((char *)summary + count_fields[i].member);
}

/* ---- writing ---- */

struct metadata_strings {
    struct string_table table;
    uint32_t summary[STRING_FIELDS];
    uint32_t *shard, *file;
};

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const struct carried_file *)a)->name, ((const struct carried_file *)b)->name);
}

static int prepare_files(void ***frames, struct sf_arena *arena,
                         struct container_metadata *metadata, struct sf_err *err)
{
    if (metadata->files)
        qsort(metadata->file, (size_t)metadata->files, sizeof *metadata->file, compare_files);
    *frames = sf_arena_array(arena, (uint64_t)metadata->files, sizeof **frames);
    if (!*frames)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %lld frames", (long long)metadata->files);
    for (int64_t i = 0; i < metadata->files; i++) {
        struct carried_file *file = &metadata->file[i];
        if (!file->name[0] || (i > 0 && strcmp(file->name, file[-1].name) == 0))
            return sf_fail(err, SF_EINVAL, "\"%s\": a carried file needs a name of its own",
                           file->name);
        if (file->bytes > META_LARGEST_FILE)
            return sf_fail(err, SF_EINVAL, "%s: %llu bytes, at most %d can be carried", file->name,
                           (unsigned long long)file->bytes, META_LARGEST_FILE);
        file->hash = sf_hash128(file->data, file->bytes);
        int code = sf_frame_compress(&(*frames)[i], &file->frame_bytes, arena, file->data,
                                     file->bytes, err);
        if (code != SF_OK)
            return sf_err_prefix(err, "%s", file->name);
    }
    return SF_OK;
}

static int collect_strings(struct metadata_strings *s, struct sf_arena *arena,
                           struct container_metadata *metadata, struct sf_err *err)
{
    struct sf_summary *summary = &metadata->summary;
    int code = string_table_begin(&s->table, arena, err);
    s->shard = sf_arena_array(arena, (uint64_t)summary->shard_count, sizeof *s->shard);
    s->file = sf_arena_array(arena, (uint64_t)metadata->files, sizeof *s->file);
    if (code == SF_OK && (!s->shard || !s->file))
        code = sf_fail(err, SF_ENOMEM, "cannot allocate the metadata's names");
    for (int i = 0; code == SF_OK && i < STRING_FIELDS; i++) {
        const char *text = *string_member(summary, i);
        code = string_table_add(&s->summary[i], &s->table, text ? text : "", err);
    }
    for (int64_t i = 0; code == SF_OK && i < summary->shard_count; i++)
        code = string_table_add(&s->shard[i], &s->table, summary->shard[i].name, err);
    for (int64_t i = 0; code == SF_OK && i < metadata->files; i++)
        code = string_table_add(&s->file[i], &s->table, metadata->file[i].name, err);
    return code == SF_OK ? string_table_end(&s->table, err) : code;
}

static void write_summary(unsigned char *head, const struct metadata_strings *s,
                          struct container_metadata *metadata)
{
    struct sf_summary *summary = &metadata->summary;
    sf_put_u32(head + META_FILES, (uint32_t)metadata->files);
    sf_put_u32(head + META_SHARDS, (uint32_t)summary->shard_count);
    sf_put_u32(head + META_STRING_BYTES, (uint32_t)s->table.bytes);
    for (int i = 0; i < STRING_FIELDS; i++)
        sf_put_u32(head + string_fields[i].at, s->summary[i]);
    for (int i = 0; i < COUNT_FIELDS; i++)
        sf_put_u64(head + count_fields[i].at, (uint64_t)*count_member(summary, i));
    sf_put_u64(head + META_SOURCE_BYTES, summary->source_bytes);
    for (int64_t i = 0; i < summary->shard_count; i++) {
        unsigned char *at = head + META_HEAD_BYTES + i * SHARD_BYTES;
        sf_put_u32(at + SHARD_NAME, s->shard[i]);
        sf_put_u64(at + SHARD_SIZE, summary->shard[i].bytes);
        memcpy(at + SHARD_HASH, summary->shard[i].hash, 16);
    }
}

static int check_summary(struct sf_summary *summary, struct sf_err *err)
{
    for (int i = 0; i < COUNT_FIELDS; i++)
        if (*count_member(summary, i) < 0)
            return sf_fail(err, SF_EINVAL, "a count of the summary is negative");
    return summary->shard_count >= 0 ? SF_OK
                                     : sf_fail(err, SF_EINVAL, "a negative number of shards");
}

int metadata_encode(unsigned char **out, uint64_t *bytes, struct sf_arena *arena,
                    struct container_metadata *metadata, struct sf_err *err)
{
    struct metadata_strings s = {0};
    void **frames;
    int code = check_summary(&metadata->summary, err);
    if (code == SF_OK)
        code = prepare_files(&frames, arena, metadata, err);
    if (code == SF_OK)
        code = collect_strings(&s, arena, metadata, err);
    if (code != SF_OK)
        return code;
    uint64_t files_at = META_HEAD_BYTES + (uint64_t)metadata->summary.shard_count * SHARD_BYTES;
    uint64_t strings_at = files_at + (uint64_t)metadata->files * FILE_BYTES;
    uint64_t frame_at = strings_at + s.table.bytes, end = frame_at;
    for (int64_t i = 0; i < metadata->files; i++)
        end += metadata->file[i].frame_bytes;
    *bytes = (end + 7) & ~(uint64_t)7;
    unsigned char *data = *out = sf_arena_alloc(arena, *bytes);
    if (!data)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %llu bytes", (unsigned long long)*bytes);
    write_summary(data, &s, metadata);
    memcpy(data + strings_at, s.table.data, s.table.bytes);
    for (int64_t i = 0; i < metadata->files; i++) {
        const struct carried_file *file = &metadata->file[i];
        unsigned char *at = data + files_at + i * FILE_BYTES;
        sf_put_u32(at + FILE_NAME, s.file[i]);
        sf_put_u64(at + FILE_OFFSET, frame_at);
        sf_put_u64(at + FILE_FRAME_BYTES, file->frame_bytes);
        sf_put_u64(at + FILE_SIZE, file->bytes);
        hash128_put(at + FILE_HASH, file->hash);
        memcpy(data + frame_at, frames[i], file->frame_bytes);
        frame_at += file->frame_bytes;
    }
    return SF_OK;
}

/* ---- reading ---- */

struct metadata_reader {
    struct container_metadata *out;
    struct sf_arena *arena;
    const unsigned char *data;
    uint64_t bytes, files_at, strings_at, frames_at;
    struct string_view strings;
};

static int find_tables(struct metadata_reader *r, struct sf_err *err)
{
    if (r->bytes < META_HEAD_BYTES)
        return sf_fail(err, SF_EFORMAT, "%llu bytes, its head alone has %d",
                       (unsigned long long)r->bytes, META_HEAD_BYTES);
    uint64_t shards = sf_get_u32(r->data + META_SHARDS), files = sf_get_u32(r->data + META_FILES);
    uint64_t string_bytes = sf_get_u32(r->data + META_STRING_BYTES);
    r->files_at = META_HEAD_BYTES + shards * SHARD_BYTES;
    r->strings_at = r->files_at + files * FILE_BYTES;
    r->frames_at = r->strings_at + string_bytes;
    if (r->frames_at > r->bytes)
        return sf_fail(err, SF_EFORMAT, "its counts need %llu bytes, the section has %llu",
                       (unsigned long long)r->frames_at, (unsigned long long)r->bytes);
    r->out->files = (int64_t)files;
    r->out->summary.shard_count = (int64_t)shards;
    r->strings =
        (struct string_view){.data = (const char *)r->data + r->strings_at, .bytes = string_bytes};
    if (sf_get_u64(r->data + META_ZERO) != 0)
        return sf_fail(err, SF_EFORMAT, "a field that must be zero is not");
    return string_view_check(&r->strings, err);
}

static int read_summary(struct metadata_reader *r, struct sf_err *err)
{
    struct sf_summary *summary = &r->out->summary;
    int code = SF_OK;
    for (int i = 0; code == SF_OK && i < STRING_FIELDS; i++)
        code = string_view_get(string_member(summary, i), &r->strings,
                               sf_get_u32(r->data + string_fields[i].at), "summary", -1, err);
    for (int i = 0; code == SF_OK && i < COUNT_FIELDS; i++) {
        uint64_t value = sf_get_u64(r->data + count_fields[i].at);
        if (value > INT64_MAX)
            code = sf_fail(err, SF_EFORMAT, "summary: count %llu at byte %d",
                           (unsigned long long)value, count_fields[i].at);
        *count_member(summary, i) = (int64_t)value;
    }
    summary->source_bytes = sf_get_u64(r->data + META_SOURCE_BYTES);
    return code;
}

static int read_shards(struct metadata_reader *r, struct sf_err *err)
{
    uint64_t count = (uint64_t)r->out->summary.shard_count;
    struct sf_source_shard *shard = sf_arena_array(r->arena, count, sizeof *shard);
    if (!shard)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %llu shards", (unsigned long long)count);
    for (uint64_t i = 0; i < count; i++) {
        const unsigned char *at = r->data + META_HEAD_BYTES + i * SHARD_BYTES;
        int code = string_view_get(&shard[i].name, &r->strings, sf_get_u32(at + SHARD_NAME),
                                   "shard", -1, err);
        if (code != SF_OK)
            return code;
        if (sf_get_u32(at + SHARD_ZERO) != 0)
            return sf_fail(err, SF_EFORMAT, "shard %s: a field that must be zero is not",
                           shard[i].name);
        shard[i].bytes = sf_get_u64(at + SHARD_SIZE);
        memcpy(shard[i].hash, at + SHARD_HASH, 16);
    }
    r->out->summary.shard = shard;
    return SF_OK;
}

/* Frames follow each other from the end of the strings to the end of the section. */
static int read_file(struct metadata_reader *r, int64_t i, uint64_t *frame_at, struct sf_err *err)
{
    const unsigned char *at = r->data + r->files_at + i * FILE_BYTES;
    struct carried_file *file = &r->out->file[i];
    int code =
        string_view_get(&file->name, &r->strings, sf_get_u32(at + FILE_NAME), "file", -1, err);
    if (code != SF_OK)
        return code;
    file->frame_bytes = sf_get_u64(at + FILE_FRAME_BYTES);
    file->bytes = sf_get_u64(at + FILE_SIZE);
    file->hash = hash128_get(at + FILE_HASH);
    if (!file->name[0] || (i > 0 && strcmp(file->name, file[-1].name) <= 0))
        return sf_fail(err, SF_EFORMAT, "file \"%s\" stands out of order or twice", file->name);
    if (sf_get_u32(at + FILE_ZERO) != 0)
        return sf_fail(err, SF_EFORMAT, "file %s: a field that must be zero is not", file->name);
    if (sf_get_u64(at + FILE_OFFSET) != *frame_at || file->frame_bytes > r->bytes - *frame_at)
        return sf_fail(err, SF_EFORMAT,
                       "file %s: frame of %llu bytes at %llu, expected at %llu of %llu", file->name,
                       (unsigned long long)file->frame_bytes,
                       (unsigned long long)sf_get_u64(at + FILE_OFFSET),
                       (unsigned long long)*frame_at, (unsigned long long)r->bytes);
    if (file->bytes > META_LARGEST_FILE)
        return sf_fail(err, SF_EFORMAT, "file %s: %llu bytes, at most %d are allowed", file->name,
                       (unsigned long long)file->bytes, META_LARGEST_FILE);
    file->data = r->data + *frame_at;
    *frame_at += file->frame_bytes;
    return SF_OK;
}

static int read_files(struct metadata_reader *r, struct sf_err *err)
{
    uint64_t at = r->frames_at;
    r->out->file = sf_arena_array(r->arena, (uint64_t)r->out->files, sizeof *r->out->file);
    if (!r->out->file)
        return sf_fail(err, SF_ENOMEM, "cannot allocate %lld files", (long long)r->out->files);
    for (int64_t i = 0; i < r->out->files; i++) {
        int code = read_file(r, i, &at, err);
        if (code != SF_OK)
            return code;
    }
    if (r->bytes - at >= 8)
        return sf_fail(err, SF_EFORMAT, "frames end at %llu, the section at %llu",
                       (unsigned long long)at, (unsigned long long)r->bytes);
    for (; at < r->bytes; at++)
        if (r->data[at] != 0)
            return sf_fail(err, SF_EFORMAT, "padding at %llu is not zero", (unsigned long long)at);
    return SF_OK;
}

int metadata_decode(struct container_metadata *out, struct sf_arena *arena,
                    const unsigned char *data, uint64_t bytes, struct sf_err *err)
{
    *out = (struct container_metadata){0};
    struct metadata_reader r = {.out = out, .arena = arena, .data = data, .bytes = bytes};
    int code = find_tables(&r, err);
    if (code == SF_OK)
        code = read_summary(&r, err);
    if (code == SF_OK)
        code = read_shards(&r, err);
    return code == SF_OK ? read_files(&r, err) : code;
}

const struct carried_file *metadata_find(const struct container_metadata *metadata,
                                         const char *name)
{
    int64_t low = 0, high = metadata->files;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        int order = strcmp(metadata->file[mid].name, name);
        if (order == 0)
            return &metadata->file[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

/* ---- identity ---- */

static void add_u64(struct sf_hasher *hasher, uint64_t value)
{
    unsigned char bytes[8];
    sf_put_u64(bytes, value);
    sf_hasher_add(hasher, bytes, sizeof bytes);
}

int container_identity(struct sf_hash128 *out, const unsigned char *index, uint64_t index_bytes,
                       const unsigned char *checksums, uint64_t checksum_bytes,
                       const struct container_metadata *metadata, struct sf_err *err)
{
    struct sf_hasher *hasher;
    int code = sf_hasher_open(&hasher, err);
    if (code != SF_OK)
        return code;
    uint64_t skip = index_placing_bytes(index);
    add_u64(hasher, index_bytes - skip);
    add_u64(hasher, checksum_bytes);
    add_u64(hasher, (uint64_t)metadata->files);
    sf_hasher_add(hasher, index + skip, index_bytes - skip);
    sf_hasher_add(hasher, checksums, checksum_bytes);
    for (int64_t i = 0; i < metadata->files; i++) {
        const struct carried_file *file = &metadata->file[i];
        unsigned char hash[16];
        hash128_put(hash, file->hash);
        sf_hasher_add(hasher, file->name, strlen(file->name) + 1);
        add_u64(hasher, file->bytes);
        sf_hasher_add(hasher, hash, sizeof hash);
    }
    *out = sf_hasher_digest(hasher);
    sf_hasher_close(hasher);
    return SF_OK;
}
