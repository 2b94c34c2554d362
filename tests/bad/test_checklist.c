/* The known ways of breaking readers of model files, one line each: a file is made, opened, and must be
 * refused with that line's words. README.md says which suites hold the ways that are not here. The
 * hashes of a container are right, so that nothing but the change is wrong. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/container/container_map.h"
#include "libformat/container/layout.h"
#include "libformat/hf/hf_config.h"
#include "libformat/hf/hf_index.h"
#include "libformat/hf/safetensors.h"
#include "libformat/text/tokenizer.h"
#include "tests/format/container_fixture.h"
#include "tests/format/hf_files.h"

static struct sf_err err;
static int tried, right;

/* Refused, and with these words. */
static void judge(const char *area, const char *input, int code, const char *says)
{
    tried++;
    if (code != SF_OK && strstr(err.message, says))
        right++;
    else
        fprintf(stderr, "%s: %s: %s \"%s\", expected \"%s\"\n", area, input, sf_code_name(code),
                err.message, says);
    err = (struct sf_err){0};
}

/* ---- containers: one field of a good one ---- */

enum place { HEADER = -2, METADATA = -1 }; /* else a table of the index */

struct field_line {
    const char *area, *input;
    int place, row, field, width;
    uint64_t value;
    const char *says;
};

static const struct field_line field_lines[] = {
    {"header", "bad magic", HEADER, 0, 0, 1, 'x', "wrong magic: not a .scout container"},
    {"header", "version 0", HEADER, 0, HEADER_MAJOR, 4, 0, "format version 0.0"},
    {"header", "future version", HEADER, 0, HEADER_MAJOR, 4, 2, "format version 2.0"},
    {"header", "swapped endian", HEADER, 0, HEADER_MAJOR, 4, 1u << 24, "format version 16777216.0"},
    {"header", "unknown feature", HEADER, 0, HEADER_INCOMPATIBLE, 8, 1u << 30,
     "incompatible features 0x40000000"},
    {"header", "length beyond the file", HEADER, 0, HEADER_FILE_BYTES, 8, UINT64_MAX,
     "(truncated)"},
    {"header", "2^32-1 sections", HEADER, 0, HEADER_SECTIONS, 4, UINT32_MAX,
     "4294967295 sections, at most 64"},
    {"header", "2^32-1 files", METADATA, 0, META_FILES, 4, UINT32_MAX, "its counts need"},
    {"header", "10^9 names in a small file", METADATA, 0, META_SHARDS, 4, 1000000000,
     "its counts need"},
    {"strings", "empty name", ROW_TENSOR, 0, TENSOR_NAME, 4, 0, "tensor 0 has no name"},
    {"strings", "offset beyond the table", ROW_TENSOR, 0, TENSOR_NAME, 4, UINT32_MAX,
     "string offset 4294967295"},
    {"strings", "inside another string", ROW_TENSOR, 0, TENSOR_SOURCE, 4, 3,
     "string offset 3 is inside"},
    {"strings", "invalid UTF-8", ROW_STRING, 1, 0, 1, 0xff, "string table is not UTF-8 at byte 1"},
    {"strings", "ESC", ROW_STRING, 1, 0, 1, 0x1b, "control character at byte 1"},
    {"strings", "no NUL at the end", METADATA, 0, META_STRING_BYTES, 4, 12,
     "string table of 12 bytes"},
    {"alignment", "2^0", HEADER, 0, HEADER_EXTENT_LOG2, 1, 0, "extent alignment 2^0"},
    {"alignment", "2^31", HEADER, 0, HEADER_EXTENT_LOG2, 1, 31, "extent alignment 2^31"},
    {"alignment", "2^255", HEADER, 0, HEADER_EXTENT_LOG2, 1, 255, "extent alignment 2^255"},
    {"alignment", "against the offsets", HEADER, 0, HEADER_EXTENT_LOG2, 1, 17,
     "part 0: 1376256 bytes at address 0"},
    {"alignment", "extent on 13", ROW_EXTENT, 1, EXTENT_ADDRESS, 8, 13,
     "extent 1: 65536 bytes at 13"},
    {"tensors", "nine dimensions", ROW_SHAPE, 0, SHAPE_RANK, 8, 9, "shape 0: rank 9"},
    {"tensors", "negative dimension", ROW_SHAPE, 0, SHAPE_DIMS, 8, UINT64_MAX,
     "dimension 0 is 18446744073709551615"},
    {"tensors", "dimension 0", ROW_SHAPE, 0, SHAPE_DIMS, 8, 0, "dimension 0 is 0"},
    {"tensors", "product wraps negative", ROW_SHAPE, 0, SHAPE_DIMS, 8, INT64_MAX,
     "plane 0: 12288 bytes do not hold"},
    {"tensors", "product wraps to small", ROW_SHAPE, 0, SHAPE_DIMS, 8, (uint64_t)1 << 56,
     "plane 0: 12288 bytes do not hold"},
    {"tensors", "bytes wrap", ROW_PLANE, 0, PLANE_SIZE, 8, UINT64_MAX,
     "18446744073709551615 bytes"},
    {"tensors", "sum wraps", HEADER, 0, HEADER_TABLE + SECTION_SIZE, 8, UINT64_MAX - 4095,
     "payload at 4096 has"},
    {"tensors", "padding wraps to 0", ROW_EXTENT, 0, EXTENT_SIZE, 8, UINT64_MAX,
     "extent 0: 18446744073709551615"},
    {"tensors", "type -1", ROW_PLANE, 0, PLANE_DTYPE, 2, 65535, "element type 65535 is not known"},
    {"tensors", "type past the last", ROW_TENSOR, 0, TENSOR_DTYPE, 2, 13,
     "element type 13 is not known"},
    {"tensors", "block size 0", ROW_TENSOR, 7, TENSOR_BLOCK, 4, 0, "nf4 with block 0"},
    {"tensors", "row no multiple of the block", ROW_TENSOR, 7, TENSOR_BLOCK_AXIS, 4, 0,
     "blocks of 64 do not divide axis 0 of length 16"},
    {"extents", "overlap", ROW_EXTENT, 1, EXTENT_ADDRESS, 8, 0, "65536 bytes at 0, where 65536"},
    {"extents", "hole", ROW_EXTENT, 1, EXTENT_ADDRESS, 8, 131072, "65536 bytes at 131072"},
    {"extents", "out of order", ROW_EXTENT, 3, EXTENT_LAYER, 4, 1, "after those of layer 1"},
    {"extents", "before the data", ROW_PART, 0, PART_OFFSET, 8, 0, "part 0: at 0 of file 0"},
    {"extents", "beyond the end", ROW_EXTENT, 11, EXTENT_SIZE, 8, 131072, "extent 11: 131072"},
    {"extents", "past 2^63", ROW_PLANE, 1, PLANE_ADDRESS, 8, (uint64_t)1 << 63,
     "at address 9223372036854775808"},
    {"complexity", "chunks without end", ROW_EXTENT, 1, EXTENT_FIRST_CHUNK, 8, UINT64_MAX,
     "first chunk 18446744073709551615"},
    {"complexity", "chunks of one byte", HEADER, 0, HEADER_CHUNK_LOG2, 1, 0, "chunk size 2^0"},
    {"complexity", "hashes of names made up", ROW_NAME, 0, NAME_HASH, 8, 0, "wrong hash or order"},
    {"shards", "file 1 of none", HEADER, 0, HEADER_FILE, 4, 1, "file 1 of 0"},
    {"payload", "frame of 2^64-1 bytes", METADATA, 0,
     META_HEAD_BYTES + 2 * SHARD_BYTES + FILE_FRAME_BYTES, 8, UINT64_MAX, "config.json: frame of"},
    {"payload", "zstd bomb", METADATA, 0, META_HEAD_BYTES + 2 * SHARD_BYTES + FILE_SIZE, 8,
     META_LARGEST_FILE + 1, "268435457 bytes, at most 268435456"},
    {"payload", "relative error NaN", ROW_TENSOR, 0, TENSOR_ERROR, 8, 0x7ff8000000000000u,
     "relative error is not a finite"},
};

static unsigned char *place_of(struct patch *patch, const struct field_line *line)
{
    if (line->place == HEADER)
        return patch->data + line->field;
    if (line->place == METADATA)
        return patch_section(patch, SECTION_METADATA, NULL) + line->field;
    return patch_row(patch, (enum patch_table)line->place, line->row) + line->field;
}

static void open_container(const char *area, const char *input, const struct patch *patch,
                           const char *says)
{
    struct sf_map *map = NULL;
    const char *path = scout_scratch_path("bad.scout");
    patch_save(patch, path);
    int code = sf_map_open(&map, path, &err);
    sf_map_close(map);
    judge(area, input, code, says);
}

static void try_fields(const struct patch *original)
{
    for (size_t i = 0; i < sizeof field_lines / sizeof *field_lines; i++) {
        const struct field_line *line = &field_lines[i];
        struct patch bad = patch_copy(original);
        unsigned char *at = place_of(&bad, line);
        for (int k = 0; k < line->width; k++)
            at[k] = (unsigned char)(line->value >> 8 * k);
        if (line->place == HEADER)
            patch_repair_header(&bad);
        else
            patch_repair(&bad);
        open_container(line->area, line->input, &bad, line->says);
        patch_free(&bad);
    }
}

/* ---- containers: the file as a whole ---- */

static void try_whole_files(const struct patch *original)
{
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\n";
    struct patch bad = patch_copy(original);
    bad.bytes /= 2;
    open_container("header", "cut in half", &bad, "(truncated)");
    bad.bytes = 0;
    open_container("header", "empty", &bad, "the file has 0 bytes");
    patch_free(&bad);
    bad = patch_copy(original);
    memset(bad.data + bad.bytes - 4096, 0, 4096);
    open_container("file", "tail of zeros", &bad, "hash mismatch");
    memset(bad.data, 0, HEADER_BYTES);
    open_container("file", "head of zeros", &bad, "all zero: the file was never finished");
    memcpy(bad.data, pointer, sizeof pointer - 1);
    bad.bytes = 130;
    open_container("file", "LFS pointer", &bad, "Git-LFS pointer");
    patch_free(&bad);
    bad = patch_copy(original);
    bad.data = realloc(bad.data, bad.bytes + 22);
    memset(bad.data + bad.bytes, 0, 22); /* an empty zip behind it: a polyglot */
    memcpy(bad.data + bad.bytes, "PK\5\6", 4);
    bad.bytes += 22;
    open_container("extents", "trailing bytes", &bad, "something follows the end");
    patch_free(&bad);
}

/* A FIFO without a writer would hold up who opens it. */
static void try_no_files(void)
{
    const char *fifo = scout_scratch_path("fifo");
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    const struct {
        const char *input, *path, *says;
    } lines[] = {{"FIFO", fifo, "not a regular file"},
                 {"directory", scout_scratch(), "not a regular file"},
                 {"device", "/dev/zero", "not a regular file"},
                 {"missing", scout_scratch_path("nothing"), "nothing"}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct sf_map *map = NULL;
        struct sf_safetensors *file = NULL;
        judge("file", lines[i].input, sf_map_open(&map, lines[i].path, &err), lines[i].says);
        judge("file", lines[i].input, sf_safetensors_open(&file, lines[i].path, &err),
              lines[i].says);
    }
}

/* ---- safetensors ---- */

#define ONE(shape, begin, end)                                                                     \
    "{\"a\":{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end "]}}"

static const struct {
    const char *area, *input, *header;
    int64_t claimed;
    uint64_t data;
    const char *says;
} tensor_lines[] = {
    {"header", "length > file", "{}", 3, 0, "header of 3 bytes, but only 2 follow"},
    {"header", "length 2^63-1", "{}", INT64_MAX, 0, "the format allows 100000000"},
    {"header", "length over the limit", "{}", 100000001, 0, "the format allows 100000000"},
    {"strings", "empty key", "{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1,
     4, "without a name"},
    {"strings", "key twice", "{\"a\":{},\"a\":{}}", -1, 0, "\"a\""},
    {"strings", "invalid UTF-8", "{\"\xff\":{}}", -1, 0, "not UTF-8 at byte"},
    {"strings", "NUL", "{\"a\\u0000\":{}}", -1, 0, "\\u0000 in a JSON string"},
    {"strings", "ESC", "{\"\x1b[2J\":{}}", -1, 0, "control character 0x1b"},
    {"strings", "wrong type", "{\"a\":7}", -1, 0, "a: described by a number"},
    {"tensors", "nine dimensions", ONE("1,1,1,1,1,1,1,1,1", "0", "4"), -1, 4, "9 dimensions"},
    {"tensors", "negative", ONE("-1", "0", "4"), -1, 4, "a: dimension 0 is -1"},
    {"tensors", "zero", ONE("0", "0", "4"), -1, 4, "needs 0 bytes, its range holds 4"},
    {"tensors", "product wraps", ONE("4294967296,4294967296,4", "0", "4"), -1, 4, "too large"},
    {"tensors", "bytes wrap", ONE("4611686018427387904", "0", "4"), -1, 4, "a"},
    {"tensors", "unknown type", "{\"a\":{\"dtype\":\"Q7\",\"shape\":[1],\"data_offsets\":[0,4]}}",
     -1, 4, "unknown dtype \"Q7\""},
    {"extents", "overlap",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     -1, 8, "b: starts at byte 4 of the data, inside another tensor"},
    {"extents", "hole", ONE("1", "4", "8"), -1, 8, "behind a hole"},
    {"extents", "backwards", ONE("1", "4", "0"), -1, 4, "a: range 4..0"},
    {"extents", "beyond the end", ONE("2", "0", "8"), -1, 4, "lies outside the 4 bytes"},
    {"extents", "past 2^63", ONE("1", "0", "9223372036854775809"), -1, 4, "whole number"},
    {"extents", "trailing bytes", ONE("1", "0", "4"), -1, 9, "5 bytes behind the last tensor"},
};

static void try_safetensors(void)
{
    struct sf_safetensors *file;
    for (size_t i = 0; i < sizeof tensor_lines / sizeof *tensor_lines; i++) {
        const char *path = hf_write_safetensors("bad.safetensors", tensor_lines[i].header,
                                                tensor_lines[i].claimed, tensor_lines[i].data);
        judge(tensor_lines[i].area, tensor_lines[i].input, sf_safetensors_open(&file, path, &err),
              tensor_lines[i].says);
    }
}

/* ---- JSON, wherever it comes from ---- */

enum { DEPTH = 100000 };

static void try_depth(void)
{
    static char deep[DEPTH + 16];
    static const char says[] = "nested deeper than 64 levels";
    struct sf_arena arena = {0};
    struct sf_model_spec spec;
    struct sf_tokenizer *tokenizer;
    struct sf_safetensors *file;
    struct sf_hf_index *index;
    memcpy(deep, "{\"a\":", 5);
    memset(deep + 5, '[', DEPTH);
    judge("strings", "depth 10^5 (config.json)",
          sf_hf_config_parse(&spec, &arena, deep, DEPTH + 5, &err), says);
    judge("strings", "depth 10^5 (tokenizer.json)",
          sf_tokenizer_open(&tokenizer, deep, DEPTH + 5, &err), says);
    judge("strings", "depth 10^5 (safetensors)",
          sf_safetensors_open(&file, hf_write_safetensors("deep.safetensors", deep, -1, 0), &err),
          says);
    ck_assert_int_eq(mkdir(scout_scratch_path("deep"), 0700), 0);
    hf_write_text("deep/model.safetensors.index.json", deep);
    judge("strings", "depth 10^5 (index.json)",
          sf_hf_index_open(&index, scout_scratch_path("deep"), &err), says);
    sf_arena_free(&arena);
}

static void try_shards(void)
{
    static const struct {
        const char *input, *text, *says;
    } lines[] = {
        {"path traversal", "{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "no plain file name"},
        {"missing", "{\"weight_map\":{\"a\":\"two.safetensors\"}}", "shard 1 of 1 is missing"},
        {"of another model", "{\"weight_map\":{\"z\":\"one.safetensors\"}}",
         "z is said to be in one.safetensors"},
    };
    struct sf_hf_index *index;
    ck_assert_int_eq(mkdir(scout_scratch_path("shards"), 0700), 0);
    hf_write_safetensors("shards/one.safetensors", ONE("1", "0", "4"), -1, 4);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        hf_write_text("shards/model.safetensors.index.json", lines[i].text);
        judge("shards", lines[i].input,
              sf_hf_index_open(&index, scout_scratch_path("shards"), &err), lines[i].says);
    }
}

START_TEST(every_line_is_refused_in_its_words)
{
    const char *path = scout_scratch_path("good.scout");
    fixture_write(path);
    struct patch original = patch_load(path);
    try_fields(&original);
    try_whole_files(&original);
    try_no_files();
    try_safetensors();
    try_depth();
    try_shards();
    patch_free(&original);
    printf("bad files tried %d, refused with the right message %d\n", tried, right);
    ck_assert_int_eq(tried, right);
    ck_assert_int_gt(tried, 80);
}
END_TEST

static Suite *checklist_suite(void)
{
    Suite *suite = suite_create("checklist");
    TCase *tc = tcase_create("checklist");
    tcase_add_test(tc, every_line_is_refused_in_its_words);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(checklist_suite)
