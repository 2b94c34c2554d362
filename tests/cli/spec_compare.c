/* spec_compare SPEC_DECODER FILE: everything that libformat reads from a container, printed or
 * decoded here, is byte for byte what spec_decoder prints: tensors and extents, every tensor's
 * numbers as float32, the carried files. */
#include <stdlib.h>
#include <string.h>

#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"
#include "libformat/container/container_map.h"
#include "tests/cli/spec_run.h"

static const char *decoder, *path;
static struct sf_err err;

static void expect_ok(int code)
{
    if (code != SF_OK)
        spec_die("%s", err.message);
}

/* ---- lists ---- */

static void list_tensor(FILE *out, const struct sf_entry *entry)
{
    fputs("tensor\t", out);
    spec_print_name(out, entry->name);
    fprintf(out, "\t%d\t%s\t%d\t%s\t%s\t[", entry->role.layer, sf_part_name(entry->role.part),
            entry->role.expert, sf_encoding_name(entry->encoding), sf_dtype_name(entry->dtype));
    for (int d = 0; d < entry->shape.rank; d++)
        fprintf(out, "%s%lld", d ? "," : "", (long long)entry->shape.dim[d]);
    fputc(']', out);
    for (int kind = 0; kind < SF_PLANE_COUNT; kind++) {
        const struct sf_plane *plane = &entry->plane[kind];
        if (plane->dtype != SF_DTYPE_NONE)
            fprintf(out, "\t%s %llu %llu", sf_plane_name((enum sf_plane_kind)kind),
                    (unsigned long long)plane->address, (unsigned long long)plane->bytes);
    }
    fputc('\n', out);
}

static void list_all(FILE *out, const struct sf_map *map)
{
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++)
        list_tensor(out, sf_map_tensor(map, i));
    for (int64_t i = 0; i < sf_map_info(map)->extents; i++) {
        const struct sf_extent *extent = sf_map_extent(map, i);
        fprintf(out, "extent\t%llu\t%llu\t%s\t%d\t%d\n", (unsigned long long)extent->address,
                (unsigned long long)extent->bytes, sf_extent_kind_name(extent->kind), extent->layer,
                extent->expert);
    }
}

static void list_files(FILE *out, const struct sf_map *map)
{
    for (int64_t i = 0; i < sf_map_info(map)->files; i++) {
        uint64_t bytes;
        fputs("file\t", out);
        spec_print_name(out, sf_map_file_name(map, i, &bytes));
        fprintf(out, "\t%llu\n", (unsigned long long)bytes);
    }
}

static void compare(const char *what, const char *name, const void *want, uint64_t bytes,
                    struct spec_output *got)
{
    uint64_t at = 0;
    if (got->status != 0)
        spec_die("%s: %s %s: spec_decoder exits with %d", path, what, name, got->status);
    while (at < bytes && at < got->bytes && ((const char *)want)[at] == got->data[at])
        at++;
    if (at < bytes || at < got->bytes)
        spec_die("%s: %s %s: byte %llu of %llu differs (spec_decoder has %llu)", path, what, name,
                 (unsigned long long)at, (unsigned long long)bytes, (unsigned long long)got->bytes);
    spec_output_free(got);
}

static void compare_list(const char *verb, void (*print)(FILE *, const struct sf_map *),
                         const struct sf_map *map)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        spec_die("no memory for a list");
    print(out, map);
    fclose(out);
    struct spec_output got = spec_run(decoder, verb, path, NULL);
    compare(verb, "", text, bytes, &got);
    free(text);
}

/* ---- numbers ---- */

static const void *plane(const struct sf_map *map, const struct sf_entry *entry,
                         enum sf_plane_kind kind)
{
    return sf_map_bytes(map, entry->plane[kind].address);
}

/* Elements numbered column by column become row-major. */
static void turn(float *out, int64_t rows, int64_t cols, struct sf_arena *arena)
{
    float *turned = sf_arena_array(arena, (uint64_t)(rows * cols), sizeof *turned);
    if (!turned)
        spec_die("no memory for %lld elements", (long long)(rows * cols));
    memcpy(turned, out, (size_t)(rows * cols) * sizeof *out);
    for (int64_t i = 0; i < rows * cols; i++)
        out[i % rows * cols + i / rows] = turned[i];
}

static void decode_nf4(float *out, int64_t n, const struct sf_map *map,
                       const struct sf_entry *entry, struct sf_arena *arena)
{
    int64_t blocks = sf_nf4_blocks(n);
    const float *absmax = plane(map, entry, SF_PLANE_SCALE);
    if (entry->block != SF_NF4_BLOCK || entry->block_axis > 0 ||
        (entry->nested_block != 0 && entry->nested_block != SF_NF4_NEST))
        spec_die("%s: %s: its blocks are not those that libformat decodes", path, entry->name);
    if (entry->nested_block) {
        const float *offset = plane(map, entry, SF_PLANE_OFFSET);
        float *restored = sf_arena_array(arena, (uint64_t)blocks, sizeof *restored);
        if (!restored)
            spec_die("no memory for %lld scales", (long long)blocks);
        sf_nf4_unnest(restored, plane(map, entry, SF_PLANE_SCALE),
                      plane(map, entry, SF_PLANE_SCALE2), plane(map, entry, SF_PLANE_MAP), *offset,
                      0, blocks);
        absmax = restored;
    }
    sf_nf4_decode(out, plane(map, entry, SF_PLANE_CODES), absmax,
                  plane(map, entry, SF_PLANE_CODEBOOK), 0, n);
    if (entry->block_axis == 0)
        turn(out, entry->shape.dim[0], n / entry->shape.dim[0], arena);
}

/* false: no float of 16 or 32 bits */
static bool decode_raw(float *out, int64_t n, const struct sf_map *map,
                       const struct sf_entry *entry)
{
    const void *codes = plane(map, entry, SF_PLANE_CODES);
    const uint16_t *halves = codes;
    if (entry->dtype == SF_F32)
        memcpy(out, codes, (size_t)n * sizeof *out);
    else if (entry->dtype == SF_BF16 || entry->dtype == SF_F16)
        for (int64_t i = 0; i < n; i++)
            out[i] =
                entry->dtype == SF_BF16 ? sf_f32_from_bf16(halves[i]) : sf_f32_from_f16(halves[i]);
    else
        return false;
    return true;
}

/* Which NaN an operation gives is the processor's and the compiler's affair (spec/quantization.md,
 * 2); that it is one is not. */
static void same_nan(char *floats, int64_t n)
{
    static const uint32_t nan = 0x7fc00000;
    for (int64_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, floats + 4 * i, 4);
        if (value != value)
            memcpy(floats + 4 * i, &nan, 4);
    }
}

/* true if its numbers could be compared; otherwise spec_decoder must have refused them. */
static bool compare_tensor(const struct sf_map *map, const struct sf_entry *entry)
{
    struct sf_arena arena = {0};
    int64_t n;
    bool decoded = true;
    float *want = NULL;
    if (sf_shape_count(&n, &entry->shape))
        want = sf_arena_array(&arena, (uint64_t)n, sizeof *want);
    if (!want)
        spec_die("no memory for %s", entry->name);
    if (entry->encoding == SF_ENCODING_NF4)
        decode_nf4(want, n, map, entry, &arena);
    else
        decoded = decode_raw(want, n, map, entry);
    struct spec_output got = spec_run(decoder, "tensor", path, entry->name);
    if (entry->encoding == SF_ENCODING_NF4) {
        same_nan((char *)want, n);
        same_nan(got.data, (int64_t)(got.bytes / sizeof *want));
    }
    if (decoded)
        compare("tensor", entry->name, want, (uint64_t)n * sizeof *want, &got);
    else if (got.status != 1)
        spec_die("%s: %s: spec_decoder decodes what has no float32", path, entry->name);
    spec_output_free(&got);
    sf_arena_free(&arena);
    return decoded;
}

/* ---- carried files ---- */

static void compare_file(const struct sf_map *map, const char *name)
{
    struct sf_arena arena = {0};
    char *want;
    uint64_t bytes;
    expect_ok(sf_map_read_file(&want, &bytes, map, name, &arena, &err));
    struct spec_output got = spec_run(decoder, "file", path, name);
    compare("file", name, want, bytes, &got);
    sf_arena_free(&arena);
}

int main(int argc, char **argv)
{
    struct sf_map *map = NULL;
    int64_t decoded = 0;
    if (argc != 3)
        spec_die("usage: spec_compare SPEC_DECODER FILE");
    decoder = argv[1];
    path = argv[2];
    expect_ok(sf_map_open(&map, path, &err));
    compare_list("list", list_all, map);
    compare_list("files", list_files, map);
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++)
        decoded += compare_tensor(map, sf_map_tensor(map, i));
    for (int64_t i = 0; i < sf_map_info(map)->files; i++)
        compare_file(map, sf_map_file_name(map, i, NULL));
    printf("%lld of %lld tensors decoded alike, %lld files\n", (long long)decoded,
           (long long)sf_map_info(map)->tensors, (long long)sf_map_info(map)->files);
    sf_map_close(map);
    return 0;
}
