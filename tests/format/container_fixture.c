#include "tests/format/container_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/frame.h"
#include "libformat/container/layout.h"

static struct sf_err err;

/* ---- the tensors ---- */

static void add(struct sf_layout *layout, const char *name, const char *source, enum sf_part part,
                int layer, int expert, enum sf_encoding encoding, enum sf_dtype dtype, int nested,
                struct sf_shape shape)
{
    struct sf_entry entry = {.name = name,
                             .source_name = source,
                             .role = {part, layer, expert},
                             .shape = shape,
                             .encoding = encoding,
                             .dtype = dtype,
                             .block_axis = -1};
    if (encoding == SF_ENCODING_NF4) {
        entry.block = 64;
        entry.nested_block = nested;
        entry.relative_rms_error = 0.0625;
    }
    int64_t index;
    assert_ok(sf_layout_tensor(&index, layout, &entry, &err), err);
}

static void extent(struct sf_layout *layout, enum sf_extent_kind kind, int layer, int expert)
{
    int code = sf_layout_extent(layout, kind, layer, expert, &err);
    ck_assert_msg(code >= 0, "%s", err.message);
}

static void add_experts(struct sf_layout *layout, int layer)
{
    static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
    for (int e = 0; e < 3; e++) {
        extent(layout, SF_EXTENT_EXPERT, layer, e);
        for (int p = 0; p < 3; p++) {
            char name[96], source[96];
            snprintf(name, sizeof name, "layers.%d.experts.%d.%s.weight", layer, e, names[p]);
            snprintf(source, sizeof source, "layers.%d.experts.%s", layer,
                     p < 2 ? "gate_up_proj" : "down_proj");
            /* Expert 1 keeps its down matrix in bf16, so that it is longer than the others. */
            bool raw = e == 1 && p == 2;
            add(layout, name, source, (enum sf_part)(SF_PART_EXPERT_GATE + p), layer, e,
                raw ? SF_ENCODING_RAW : SF_ENCODING_NF4, SF_BF16, 256,
                p < 2 ? (struct sf_shape){2, {128, 256}} : (struct sf_shape){2, {256, 128}});
        }
    }
}

struct sf_layout *fixture_layout(struct sf_arena *arena)
{
    struct sf_layout *layout = sf_layout_begin(arena);
    extent(layout, SF_EXTENT_EMBEDDING, -1, -1);
    add(layout, "embed.weight", "embed.weight", SF_PART_EMBEDDING, -1, -1, SF_ENCODING_RAW, SF_BF16,
        0, (struct sf_shape){2, {24, 256}});
    for (int layer = 0; layer < 2; layer++) {
        char name[3][64];
        extent(layout, SF_EXTENT_DENSE, layer, -1);
        snprintf(name[0], 64, "layers.%d.norm", layer);
        add(layout, name[0], name[0], SF_PART_INPUT_NORM, layer, -1, SF_ENCODING_RAW, SF_F32, 0,
            (struct sf_shape){1, {256}});
        snprintf(name[1], 64, "layers.%d.q", layer);
        add(layout, name[1], name[1], SF_PART_Q, layer, -1, SF_ENCODING_NF4, SF_BF16, 256,
            (struct sf_shape){2, {16, 256}});
        snprintf(name[2], 64, "layers.%d.k", layer); /* odd sizes, plain scales */
        add(layout, name[2], name[2], SF_PART_K, layer, -1, SF_ENCODING_NF4, SF_F16, 0,
            (struct sf_shape){2, {7, 21}});
        add_experts(layout, layer);
    }
    extent(layout, SF_EXTENT_HEAD, -1, -1);
    add(layout, "norm", "norm", SF_PART_FINAL_NORM, -1, -1, SF_ENCODING_RAW, SF_BF16, 0,
        (struct sf_shape){1, {256}});
    add(layout, "lm_head", "lm_head", SF_PART_HEAD, -1, -1, SF_ENCODING_RAW, SF_BF16, 0,
        (struct sf_shape){2, {24, 256}});
    extent(layout, SF_EXTENT_UNUSED, -1, -1);
    add(layout, "vision.patch", "vision.patch", SF_PART_UNUSED, -1, -1, SF_ENCODING_RAW, SF_F32, 0,
        (struct sf_shape){4, {2, 3, 5, 7}});
    add(layout, "vision.\xc3\xa9tage", "vision.etage", SF_PART_UNUSED, -1, -1, SF_ENCODING_RAW,
        SF_U8, 0, (struct sf_shape){1, {200000}});
    add(layout, "vision.count", "vision.count", SF_PART_UNUSED, -1, -1, SF_ENCODING_RAW, SF_I64, 0,
        (struct sf_shape){0, {0}});
    assert_ok(sf_layout_finish(layout, &err), err);
    return layout;
}

unsigned char *fixture_extent(struct sf_arena *arena, struct sf_layout *layout, int64_t index)
{
    const struct sf_extent *e = sf_layout_extent_at(layout, index);
    unsigned char *data = sf_arena_alloc(arena, e->bytes);
    int64_t first, count;
    sf_layout_extent_entries(&first, &count, layout, index);
    for (int64_t i = first; i < first + count; i++) {
        const struct sf_entry *entry = sf_layout_entry(layout, i);
        struct scout_random random = {sf_hash64(entry->name, strlen(entry->name), 1)};
        for (int kind = 0; kind < SF_PLANE_CODEBOOK; kind++) {
            const struct sf_plane *plane = &entry->plane[kind];
            for (uint64_t b = 0; b < plane->bytes; b++)
                data[plane->address - e->address + b] = (unsigned char)scout_random_u64(&random);
        }
    }
    return data;
}

static const struct sf_source_shard source_shards[] = {
    {"model-00001-of-00002.safetensors", 123456, "0123456789abcdE"},
    {"model-00002-of-00002.safetensors", 654321, "fedcba987654321"},
};
const struct sf_summary fixture_summary = {.family = "llama4",
                                           .architecture = "Llama4ForCausalLM",
                                           .model_id = "example/tiny",
                                           .converter = "test 1",
                                           .options = "keep-bf16=*experts.1.down*",
                                           .layers = 2,
                                           .hidden = 256,
                                           .experts = 3,
                                           .vocabulary = 24,
                                           .parameters = 1234567,
                                           .parameters_text = 1000000,
                                           .source_bytes = 777777,
                                           .shard_count = 2,
                                           .shard = source_shards};

void fixture_add_files(struct sf_writer *writer)
{
    static const char config[] = "{\"model_type\": \"llama4_text\"}\n";
    static const char text[] = "to be or not to be, to be or not to be, to be or not to be";
    assert_ok(sf_writer_add_file(writer, "tokenizer.json", text, sizeof text - 1, &err), err);
    assert_ok(sf_writer_add_file(writer, "config.json", config, sizeof config - 1, &err), err);
    assert_ok(sf_writer_add_file(writer, "empty.txt", "", 0, &err), err);
}

void fixture_write(const char *path)
{
    struct sf_arena arena = {0};
    struct sf_layout *layout = fixture_layout(&arena);
    struct sf_writer *writer;
    assert_ok(sf_writer_open(&writer, path, layout, &err), err);
    for (int64_t e = 0; e < sf_layout_extent_count(layout); e++)
        if (sf_layout_extent_at(layout, e)->kind != SF_EXTENT_SHARED)
            assert_ok(sf_writer_put(writer, e, 0, fixture_extent(&arena, layout, e),
                                    sf_layout_extent_at(layout, e)->bytes, &err),
                      err);
    fixture_add_files(writer);
    assert_ok(sf_writer_commit(writer, &fixture_summary, &err), err);
    sf_arena_free(&arena);
}

int64_t fixture_write_set(const char *path)
{
    struct sf_arena arena = {0};
    struct sf_writer *writer;
    struct sf_layout *layout = fixture_layout(&arena);
    uint64_t most = 0;
    for (int64_t e = 0; e < sf_layout_extent_count(layout); e++)
        if (sf_layout_extent_at(layout, e)->bytes > most)
            most = sf_layout_extent_at(layout, e)->bytes;
    assert_ok(sf_layout_split(layout, most + HEADER_BYTES, &err), err);
    int64_t files = sf_layout_files(layout);
    assert_ok(sf_writer_open(&writer, path, layout, &err), err);
    for (int64_t e = 0; e < sf_layout_extent_count(layout); e++) {
        const struct sf_extent *x = sf_layout_extent_at(layout, e);
        if (x->kind != SF_EXTENT_SHARED)
            assert_ok(
                sf_writer_put(writer, e, 0, fixture_extent(&arena, layout, e), x->bytes, &err),
                err);
    }
    fixture_add_files(writer);
    assert_ok(sf_writer_commit(writer, &fixture_summary, &err), err);
    sf_arena_free(&arena);
    return files;
}

/* ---- patching ---- */

struct patch patch_load(const char *path)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "cannot open %s", path);
    fseek(f, 0, SEEK_END);
    struct patch p = {.bytes = (uint64_t)ftell(f)};
    rewind(f);
    p.data = malloc(p.bytes + 1);
    ck_assert_uint_eq(fread(p.data, 1, p.bytes, f), p.bytes);
    fclose(f);
    return p;
}

struct patch patch_copy(const struct patch *from)
{
    struct patch p = {.data = malloc(from->bytes + 1), .bytes = from->bytes};
    memcpy(p.data, from->data, from->bytes);
    return p;
}

void patch_save(const struct patch *patch, const char *path)
{
    FILE *f = fopen(path, "wb");
    ck_assert_msg(f != NULL, "cannot write %s", path);
    ck_assert_uint_eq(fwrite(patch->data, 1, patch->bytes, f), patch->bytes);
    fclose(f);
}

void patch_free(struct patch *patch)
{
    free(patch->data);
    patch->data = NULL;
}

static unsigned char *table_row(const struct patch *patch, uint32_t type)
{
    uint32_t sections = sf_get_u32(patch->data + HEADER_SECTIONS);
    for (uint32_t i = 0; i < sections && i < HEADER_SECTIONS_MAX; i++) {
        unsigned char *row = patch->data + HEADER_TABLE + i * SECTION_BYTES;
        if (sf_get_u32(row + SECTION_TYPE) == type)
            return row;
    }
    return NULL;
}

unsigned char *patch_section(const struct patch *patch, uint32_t type, uint64_t *bytes)
{
    unsigned char *row = table_row(patch, type);
    ck_assert_msg(row != NULL, "no section %u", type);
    if (bytes)
        *bytes = sf_get_u64(row + SECTION_SIZE);
    return patch->data + sf_get_u64(row + SECTION_OFFSET);
}

static void put_hash(unsigned char *at, struct sf_hash128 hash)
{
    sf_put_u64(at, hash.low);
    sf_put_u64(at + 8, hash.high);
}

void patch_repair_header(struct patch *patch)
{
    memset(patch->data + HEADER_HASH, 0, 16);
    put_hash(patch->data + HEADER_HASH, sf_hash128(patch->data, HEADER_BYTES));
}

/* The identity as spec/container.md words it, computed here a second time. Zero where a patch made
 * the metadata unreadable: the reader must stop before it looks at the identity. */
static struct sf_hash128 identity(const struct patch *patch)
{
    struct sf_hash128 hash = {0, 0};
    uint64_t index_bytes, checksum_bytes, meta_bytes, n = 24;
    const unsigned char *index = patch_section(patch, SECTION_INDEX, &index_bytes);
    const unsigned char *checksums = patch_section(patch, SECTION_CHECKSUMS, &checksum_bytes);
    const unsigned char *meta = patch_section(patch, SECTION_METADATA, &meta_bytes);
    uint64_t files = sf_get_u32(meta + META_FILES), shards = sf_get_u32(meta + META_SHARDS);
    uint64_t row = META_HEAD_BYTES + shards * SHARD_BYTES, strings = row + files * FILE_BYTES;
    uint64_t skip = INDEX_HEAD_BYTES + (uint64_t)sf_get_u32(index + INDEX_PARTS) * PART_BYTES;
    if (skip > index_bytes || strings > meta_bytes)
        return hash;
    unsigned char *all = malloc(24 + index_bytes + checksum_bytes + files * (meta_bytes + 25));
    sf_put_u64(all, index_bytes - skip);
    sf_put_u64(all + 8, checksum_bytes);
    sf_put_u64(all + 16, files);
    memcpy(all + n, index + skip, index_bytes - skip);
    n += index_bytes - skip;
    memcpy(all + n, checksums, checksum_bytes);
    n += checksum_bytes;
    uint64_t i = 0;
    for (; i < files; i++, row += FILE_BYTES) {
        uint64_t at = strings + sf_get_u32(meta + row + FILE_NAME);
        if (at >= meta_bytes)
            break;
        uint64_t bytes = strnlen((const char *)meta + at, meta_bytes - at);
        memcpy(all + n, meta + at, bytes);
        all[n + bytes] = 0;
        memcpy(all + n + bytes + 1, meta + row + FILE_SIZE, 24); /* size and hash stand together */
        n += bytes + 25;
    }
    if (i == files)
        hash = sf_hash128(all, n);
    free(all);
    return hash;
}

void patch_repair(struct patch *patch)
{
    uint32_t sections = sf_get_u32(patch->data + HEADER_SECTIONS);
    for (uint32_t i = 0; i < sections; i++) {
        unsigned char *row = patch->data + HEADER_TABLE + i * SECTION_BYTES;
        uint64_t offset = sf_get_u64(row + SECTION_OFFSET), bytes = sf_get_u64(row + SECTION_SIZE);
        if (sf_get_u32(row + SECTION_TYPE) != SECTION_PAYLOAD)
            put_hash(row + SECTION_HASH, sf_hash128(patch->data + offset, bytes));
    }
    put_hash(patch->data + HEADER_IDENTITY, identity(patch));
    patch_repair_header(patch);
}

unsigned char *patch_row(const struct patch *patch, enum patch_table table, int64_t row)
{
    static const uint64_t record[] = {PART_BYTES,  EXTENT_BYTES, TENSOR_BYTES, PLANE_BYTES,
                                      SHAPE_BYTES, LABEL_BYTES,  NAME_BYTES,   1};
    static const int count[] = {INDEX_PARTS,  INDEX_EXTENTS, INDEX_TENSORS, INDEX_PLANES,
                                INDEX_SHAPES, INDEX_LABELS,  INDEX_TENSORS};
    unsigned char *index = patch_section(patch, SECTION_INDEX, NULL);
    unsigned char *at = index + INDEX_HEAD_BYTES;
    for (int t = 0; t < (int)table; t++)
        at += (uint64_t)sf_get_u32(index + count[t]) * record[t];
    return at + (uint64_t)row * record[table];
}
