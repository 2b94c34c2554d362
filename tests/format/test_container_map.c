/* What the reader refuses: each rule of spec/container.md broken by a patch whose hashes are right.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/frame.h"
#include "libformat/container/container_check.h"
#include "libformat/container/container_map.h"
#include "libformat/container/layout.h"
#include "tests/format/container_fixture.h"

static struct sf_err err;
static struct sf_arena arena;
static struct patch good;
static char path[256];

static struct patch original; /* written once */

static void write_original(void)
{
    snprintf(path, sizeof path, "%s", scout_scratch_path("patched.scout"));
    fixture_write(path);
    original = patch_load(path);
}

static void free_original(void)
{
    patch_free(&original);
}

static void setup(void)
{
    err = (struct sf_err){0};
    good = patch_copy(&original);
}

static void teardown(void)
{
    patch_free(&good);
    sf_arena_free(&arena);
}

/* Pages in which `to` differs from `from`, which is what the file holds: a few kilobytes instead of
 * a megabyte per patch. */
static void change_file(const struct patch *from, const struct patch *to)
{
    int fd = open(path, O_WRONLY);
    ck_assert_int_ge(fd, 0);
    for (uint64_t at = 0; at < to->bytes; at += 4096) {
        uint64_t n = to->bytes - at < 4096 ? to->bytes - at : 4096;
        if (at + n <= from->bytes && memcmp(from->data + at, to->data + at, n) == 0)
            continue;
        ck_assert_int_eq(pwrite(fd, to->data + at, n, (off_t)at), (ssize_t)n);
    }
    ck_assert_int_eq(ftruncate(fd, (off_t)to->bytes), 0);
    close(fd);
}

/* The caller closes *map, then the file is the original again after restore_file. */
static int open_map(struct sf_map **map, const struct patch *patch)
{
    *map = NULL;
    change_file(&original, patch);
    return sf_map_open(map, path, &err);
}

static void restore_file(struct sf_map *map, const struct patch *patch)
{
    sf_map_close(map);
    change_file(patch, &original);
}

static int open_patch(const struct patch *patch)
{
    struct sf_map *map;
    int code = open_map(&map, patch);
    restore_file(map, patch);
    return code;
}

/* ---- header ---- */

struct header_case {
    int offset, width; /* width 16: all bytes 0xff */
    uint64_t value;
    int code;
    const char *says;
};

static const struct header_case header_cases[] = {
    {HEADER_MAJOR, 4, 2, SF_EUNSUPPORTED, "header: format version 2.0, this program reads 1.x"},
    {HEADER_MAJOR, 4, 0, SF_EUNSUPPORTED, "header: format version 0.0, this program reads 1.x"},
    {HEADER_MAJOR, 4, UINT32_MAX, SF_EUNSUPPORTED, "header: format version 4294967295.0"},
    {HEADER_INCOMPATIBLE, 8, 2, SF_EUNSUPPORTED, "incompatible features 0x2"},
    {HEADER_INCOMPATIBLE, 8, 1, SF_EFORMAT, "header: file 0 of 0, in a set"},
    {HEADER_FILE, 4, 1, SF_EFORMAT, "header: file 1 of 0, where all is in one"},
    {HEADER_FILES, 4, 2, SF_EFORMAT, "header: file 0 of 2, where all is in one"},
    {HEADER_INCOMPATIBLE, 8, UINT64_MAX, SF_EUNSUPPORTED, "0xffffffffffffffff"},
    {HEADER_FILE_BYTES, 8, UINT64_MAX, SF_EFORMAT, "truncated"},
    {HEADER_FILE_BYTES, 8, 0, SF_EFORMAT, "something follows the end"},
    {HEADER_EXTENT_LOG2, 1, 0, SF_EFORMAT, "header: extent alignment 2^0, not within 2^12..2^30"},
    {HEADER_EXTENT_LOG2, 1, 17, SF_EFORMAT, "index: part 0: 1376256 bytes at address 0"},
    {HEADER_EXTENT_LOG2, 1, 31, SF_EFORMAT, "extent alignment 2^31"},
    {HEADER_EXTENT_LOG2, 1, 255, SF_EFORMAT, "extent alignment 2^255"},
    {HEADER_EXTENT_LOG2, 1, 20, SF_EFORMAT, "index: part 0: 1376256 bytes at address 0"},
    {HEADER_CHUNK_LOG2, 1, 11, SF_EFORMAT, "chunk size 2^11"},
    {HEADER_CHUNK_LOG2, 1, 64, SF_EFORMAT, "chunk size 2^64"},
    {HEADER_CHUNK_LOG2, 1, 15, SF_EFORMAT, "first chunk"},
    {HEADER_ZERO_1, 1, 1, SF_EFORMAT, "header: bytes that must be zero are not"},
    {HEADER_ZERO_2, 1, 1, SF_EFORMAT, "header: bytes that must be zero are not"},
    {HEADER_ZERO_2 + 39, 1, 1, SF_EFORMAT, "header: bytes that must be zero are not"},
    {HEADER_BYTES - 1, 1, 1, SF_EFORMAT, "header: bytes that must be zero are not"},
    {HEADER_TABLE + 4 * SECTION_BYTES, 1, 9, SF_EFORMAT, "header: bytes that must be zero are not"},
    {HEADER_TABLE + SECTION_ZERO, 4, 1, SF_EFORMAT, "header: bytes that must be zero are not"},
    {HEADER_SECTIONS, 4, 65, SF_EFORMAT, "header: 65 sections, at most 64"},
    {HEADER_SECTIONS, 4, UINT32_MAX, SF_EFORMAT, "4294967295 sections"},
    {HEADER_SECTIONS, 4, 0, SF_EFORMAT, "header: bytes that must be zero are not"},
    {HEADER_SECTIONS, 4, 5, SF_EFORMAT, "header: section type 0 begins at 0"},
    {HEADER_IDENTITY, 8, 1, SF_EFORMAT, "header: the identity is not that of the content"},
    {HEADER_TABLE + SECTION_TYPE, 4, 9, SF_EFORMAT, "header: no payload section"},
    {HEADER_TABLE + SECTION_TYPE, 4, SECTION_INDEX, SF_EFORMAT, "header: index stands twice"},
    {HEADER_TABLE + 3 * SECTION_BYTES, 4, SECTION_SIGNATURE, SF_EFORMAT,
     "header: no metadata section"},
    {HEADER_TABLE + SECTION_OFFSET, 8, 4352, SF_EFORMAT, "payload begins at 4352"},
    {HEADER_TABLE + SECTION_OFFSET, 8, UINT64_MAX, SF_EFORMAT,
     "payload begins at 18446744073709551615"},
    {HEADER_TABLE + SECTION_SIZE, 8, UINT64_MAX, SF_EFORMAT,
     "payload at 4096 has 18446744073709551615"},
    {HEADER_TABLE + SECTION_SIZE, 8, UINT64_MAX - 4095, SF_EFORMAT, "payload at 4096"},
    {HEADER_TABLE + SECTION_SIZE, 8, 0, SF_EFORMAT, "payload at 4096 has 0 bytes"},
    {HEADER_TABLE + SECTION_SIZE, 8, 65536, SF_EFORMAT, "checksums begins at"},
    {HEADER_TABLE + SECTION_HASH, 8, 1, SF_EFORMAT, "payload's hash field is not zero"},
    {HEADER_TABLE + 2 * SECTION_BYTES + SECTION_OFFSET, 8, 4096, SF_EFORMAT,
     "index begins at 4096"},
    {HEADER_TABLE + 3 * SECTION_BYTES + SECTION_SIZE, 8, 8, SF_EFORMAT, "header: sections end at"},
    {HEADER_TABLE + 3 * SECTION_BYTES + SECTION_SIZE, 8, 1u << 20, SF_EFORMAT,
     "header: metadata at"},
    {HEADER_TABLE + SECTION_BYTES + SECTION_HASH, 8, 1, SF_EDAMAGED, "checksums: hash mismatch"},
    {HEADER_TABLE + 2 * SECTION_BYTES + SECTION_HASH + 8, 8, 1, SF_EDAMAGED,
     "index: hash mismatch"},
    {HEADER_TABLE + 3 * SECTION_BYTES + SECTION_HASH, 8, 1, SF_EDAMAGED, "metadata: hash mismatch"},
};
enum { HEADER_CASES = sizeof header_cases / sizeof *header_cases };

static void put(unsigned char *at, int width, uint64_t value)
{
    for (int i = 0; i < width; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

START_TEST(test_header_refusals)
{
    const struct header_case *c = &header_cases[_i];
    put(good.data + c->offset, c->width, c->value);
    patch_repair_header(&good);
    assert_fails(open_patch(&good), c->code, c->says, err);
    ck_assert_ptr_nonnull(strstr(err.message, path));
}
END_TEST

START_TEST(test_not_a_container)
{
    struct sf_map *map;
    assert_fails(sf_map_open(&map, scout_scratch_path("absent"), &err), SF_ENOENT, "absent", err);
    assert_fails(sf_map_open(&map, scout_scratch(), &err), SF_EFORMAT, "not a regular file", err);
    good.data[0] = 'x';
    patch_repair_header(&good);
    assert_fails(open_patch(&good), SF_EFORMAT, "header: wrong magic: not a .scout container", err);
    memset(good.data, 0, HEADER_BYTES);
    assert_fails(open_patch(&good), SF_EFORMAT, "header: all zero: the file was never finished",
                 err);
    strcpy((char *)good.data, "version https://git-lfs.github.com/spec/v1\n");
    good.bytes = 130;
    assert_fails(open_patch(&good), SF_EFORMAT, "Git-LFS pointer", err);
    good.bytes = 0;
    assert_fails(open_patch(&good), SF_EFORMAT, "header: the file has 0 bytes", err);
}
END_TEST

/* Version 1.9 with compatible features and sections that nobody has heard of: read all the same. */
START_TEST(test_what_may_come)
{
    struct patch more = patch_copy(&good);
    patch_free(&good);
    good = more;
    good.data = realloc(good.data, good.bytes + 64);
    memset(good.data + good.bytes, 7, 64);
    unsigned char *row = good.data + HEADER_TABLE + 4 * SECTION_BYTES;
    sf_put_u32(row + SECTION_TYPE, SECTION_SIGNATURE);
    sf_put_u64(row + SECTION_OFFSET, good.bytes);
    sf_put_u64(row + SECTION_SIZE, 24);
    sf_put_u32(row + SECTION_BYTES + SECTION_TYPE, 4711);
    sf_put_u64(row + SECTION_BYTES + SECTION_OFFSET, good.bytes + 24);
    sf_put_u64(row + SECTION_BYTES + SECTION_SIZE, 40);
    good.bytes += 64;
    sf_put_u32(good.data + HEADER_SECTIONS, 6);
    sf_put_u64(good.data + HEADER_FILE_BYTES, good.bytes);
    sf_put_u32(good.data + HEADER_MINOR, 9);
    sf_put_u64(good.data + HEADER_COMPATIBLE, UINT64_MAX);
    patch_repair(&good);
    assert_ok(open_patch(&good), err);
    good.data[good.bytes - 1] ^= 1; /* nobody reads it, but damage is damage */
    assert_fails(open_patch(&good), SF_EDAMAGED, "section type 4711: hash mismatch", err);
    good.data[good.bytes - 1] ^= 1;
    good.data[good.bytes - 64] ^= 1;
    assert_fails(open_patch(&good), SF_EDAMAGED, "signature: hash mismatch", err);
}
END_TEST

/* A file that ends early or late is refused by its header, whatever is missing. */
START_TEST(test_lengths)
{
    struct sf_map *map;
    uint64_t full = good.bytes;
    ck_assert_int_eq(truncate(path, (off_t)(full + 1)), 0);
    assert_fails(sf_map_open(&map, path, &err), SF_EFORMAT, "something follows the end", err);
    for (uint64_t bytes = full; bytes-- > 0;) {
        if (bytes > 4200 && bytes < full - 16384 && bytes % 4096 > 1)
            continue;
        ck_assert_int_eq(truncate(path, (off_t)bytes), 0);
        assert_fails(sf_map_open(&map, path, &err), SF_EFORMAT, "header: the file has", err);
    }
    patch_save(&original, path);
}
END_TEST

/* ---- index ---- */

enum { TAKE_U16 = 2, TAKE_U32 = 4, TAKE_U64 = 8 };

struct index_case {
    enum patch_table table;
    int row, field, width;
    uint64_t value;
    int code;
    const char *says;
};

/* The fixture's index order: embedding, final norm, head, unused x 3, layer 0: norm, q, k, gates
 * 0-2, ups, downs, layer 1. Extents: embedding, dense 0, experts 0.0-0.2, dense 1, 1.0-1.2, head,
 * unused, shared. */
static const struct index_case index_cases[] = {
    {ROW_PART, 0, PART_ADDRESS, 8, 256, SF_EFORMAT, "part 0: 1376256 bytes at address 256"},
    {ROW_PART, 0, PART_SIZE, 8, UINT64_MAX, SF_EFORMAT, "part 0: 18446744073709551615 bytes at"},
    {ROW_PART, 0, PART_SIZE, 8, 65536, SF_EFORMAT, "part 0 does not describe"},
    {ROW_PART, 0, PART_OFFSET, 8, 0, SF_EFORMAT, "part 0: at 0 of file 0"},
    {ROW_PART, 0, PART_FILE, 4, 1, SF_EFORMAT, "part 0: at 4096 of file 1"},
    {ROW_PART, 0, PART_ZERO, 4, 1, SF_EFORMAT, "part 0: a field that must be zero holds 1"},
    {ROW_EXTENT, 0, EXTENT_KIND, 4, UINT32_MAX, SF_EFORMAT, "extent 0: string offset 4294967295"},
    {ROW_EXTENT, 0, EXTENT_KIND, 4, 2, SF_EFORMAT, "extent 0: string offset 2 is inside a string"},
    {ROW_EXTENT, 0, EXTENT_LAYER, 4, 0x80000000u, SF_EFORMAT,
     "extent 0: embedding of layer -2147483648"},
    {ROW_EXTENT, 2, EXTENT_LAYER, 4, UINT32_MAX, SF_EFORMAT, "extent 2: expert of layer -1"},
    {ROW_EXTENT, 3, EXTENT_EXPERT, 4, 0, SF_EFORMAT, "extent 3: layer 0 has expert 0"},
    {ROW_EXTENT, 3, EXTENT_LAYER, 4, 1, SF_EFORMAT,
     "extent 4: experts of layer 0 after those of layer 1"},
    {ROW_EXTENT, 0, EXTENT_STORAGE, 4, 1, SF_EUNSUPPORTED, "extent 0: storage 1 is not known"},
    {ROW_EXTENT, 1, EXTENT_ADDRESS, 8, 0, SF_EFORMAT, "extent 1: 65536 bytes at 0, where 65536"},
    {ROW_EXTENT, 1, EXTENT_ADDRESS, 8, 131072, SF_EFORMAT, "extent 1: 65536 bytes at 131072"},
    {ROW_EXTENT, 0, EXTENT_SIZE, 8, 0, SF_EFORMAT, "extent 0: 0 bytes"},
    {ROW_EXTENT, 0, EXTENT_SIZE, 8, 256, SF_EFORMAT,
     "extent 0: 256 bytes, not a multiple of 65536"},
    {ROW_EXTENT, 0, EXTENT_SIZE, 8, 131072, SF_EFORMAT,
     "extent 1: 65536 bytes at 65536, where 131072"},
    {ROW_EXTENT, 0, EXTENT_SIZE, 8, UINT64_MAX - 65535, SF_EFORMAT,
     "extent 0: 18446744073709486080"},
    {ROW_EXTENT, 11, EXTENT_SIZE, 8, 131072, SF_EFORMAT, "extent 11: 131072 bytes at"},
    {ROW_EXTENT, 2, EXTENT_STRIDE, 8, 65536, SF_EFORMAT, "extent 2: stride 65536, not 131072"},
    {ROW_EXTENT, 1, EXTENT_STRIDE, 8, 65536, SF_EFORMAT, "extent 1: stride 65536, not 0"},
    {ROW_EXTENT, 1, EXTENT_FIRST_CHUNK, 8, 0, SF_EFORMAT, "extent 1: first chunk 0, not 1"},
    {ROW_EXTENT, 1, EXTENT_FIRST_CHUNK, 8, UINT64_MAX, SF_EFORMAT,
     "extent 1: first chunk 18446744073709551615"},
    {ROW_SHAPE, 0, SHAPE_RANK, 8, 9, SF_EFORMAT, "shape 0: rank 9"},
    {ROW_SHAPE, 0, SHAPE_RANK, 8, UINT64_MAX, SF_EFORMAT, "shape 0: rank 18446744073709551615"},
    {ROW_SHAPE, 0, SHAPE_RANK, 8, 3, SF_EFORMAT, "shape 0: dimension 2 is 0"},
    {ROW_SHAPE, 0, SHAPE_RANK, 8, 1, SF_EFORMAT, "shape 0: dimension 1 is 256"},
    {ROW_SHAPE, 0, SHAPE_DIMS, 8, 0, SF_EFORMAT, "shape 0: dimension 0 is 0"},
    {ROW_SHAPE, 0, SHAPE_DIMS, 8, UINT64_MAX, SF_EFORMAT,
     "shape 0: dimension 0 is 18446744073709551615"},
    {ROW_SHAPE, 0, SHAPE_DIMS, 8, INT64_MAX, SF_EFORMAT, "plane 0: 12288 bytes do not hold"},
    {ROW_SHAPE, 0, SHAPE_DIMS, 8, (uint64_t)1 << 55, SF_EFORMAT,
     "plane 0: 12288 bytes do not hold"},
    {ROW_SHAPE, 0, SHAPE_DIMS, 8, 25, SF_EFORMAT,
     "plane 0: 12288 bytes do not hold [25, 256] of bf16"},
    {ROW_PLANE, 0, PLANE_KIND, 2, 6, SF_EUNSUPPORTED, "plane 0: kind 6"},
    {ROW_PLANE, 0, PLANE_KIND, 2, 1, SF_EFORMAT, "plane codes: number 0 is of another kind"},
    {ROW_PLANE, 0, PLANE_DTYPE, 2, 0, SF_EUNSUPPORTED, "plane 0: kind 0 with element type 0"},
    {ROW_PLANE, 0, PLANE_DTYPE, 2, 65535, SF_EUNSUPPORTED, "element type 65535 is not known"},
    {ROW_PLANE, 0, PLANE_DTYPE, 2, SF_F16, SF_EFORMAT,
     "tensor 0 (embed.weight): plane codes is f16"},
    {ROW_PLANE, 0, PLANE_SHAPE, 4, UINT32_MAX, SF_EFORMAT, "plane 0: shape 4294967295 of"},
    {ROW_PLANE, 0, PLANE_SIZE, 8, UINT64_MAX, SF_EFORMAT,
     "plane 0: 18446744073709551615 bytes do not"},
    {ROW_PLANE, 0, PLANE_SIZE, 8, 0, SF_EFORMAT, "plane 0: 0 bytes do not hold"},
    {ROW_PLANE, 0, PLANE_ADDRESS, 8, 256, SF_EFORMAT, "plane 0: at address 256, expected at 0"},
    {ROW_PLANE, 1, PLANE_ADDRESS, 8, 0, SF_EFORMAT, "plane 1: at address 0, expected at 12288"},
    {ROW_PLANE, 1, PLANE_ADDRESS, 8, UINT64_MAX, SF_EFORMAT,
     "plane 1: at address 18446744073709551615"},
    {ROW_PLANE, 2, PLANE_ADDRESS, 8, 65536, SF_EFORMAT,
     "plane 2: at address 65536, expected at 66560"},
    {ROW_PLANE, 2, PLANE_ADDRESS, 8, 66816, SF_EFORMAT,
     "plane 2: at address 66816, expected at 66560"},
    {ROW_TENSOR, 0, TENSOR_NAME, 4, UINT32_MAX, SF_EFORMAT, "tensor 0: string offset 4294967295"},
    {ROW_TENSOR, 0, TENSOR_NAME, 4, 0, SF_EFORMAT, "tensor 0 has no name"},
    {ROW_TENSOR, 0, TENSOR_NAME, 4, 1, SF_EFORMAT, "name "},
    {ROW_TENSOR, 0, TENSOR_SOURCE, 4, 3, SF_EFORMAT, "tensor 0: string offset 3 is inside"},
    {ROW_TENSOR, 0, TENSOR_LABEL, 4, SF_PART_COUNT, SF_EFORMAT, "(embed.weight): label 20 of 20"},
    {ROW_TENSOR, 0, TENSOR_LABEL, 4, SF_PART_HEAD, SF_EFORMAT, "stands out of order"},
    {ROW_TENSOR, 0, TENSOR_LAYER, 4, 0x80000000u, SF_EFORMAT, "layer -2147483648, expert -1"},
    {ROW_TENSOR, 0, TENSOR_LAYER, 4, 1, SF_EFORMAT, "tensor 1 (norm): stands out of order"},
    {ROW_TENSOR, 0, TENSOR_EXPERT, 4, 0xfffffffeu, SF_EFORMAT, "layer -1, expert -2"},
    {ROW_TENSOR, 10, TENSOR_EXPERT, 4, 0, SF_EFORMAT,
     "or its role is that of layers.0.experts.0.gate"},
    {ROW_TENSOR, 0, TENSOR_EXTENT, 4, 12, SF_EFORMAT, "extent 12 of 12"},
    {ROW_TENSOR, 0, TENSOR_EXTENT, 4, 1, SF_EFORMAT,
     "plane codes: number 0 is not in the tensor's extent"},
    {ROW_TENSOR, 0, TENSOR_SHAPE, 4, UINT32_MAX, SF_EFORMAT, "shape 4294967295 of"},
    {ROW_TENSOR, 0, TENSOR_SHAPE, 4, 1, SF_EFORMAT,
     "plane codes is bf16 [24, 256], its encoding needs bf16 [256]"},
    {ROW_TENSOR, 0, TENSOR_ENCODING, 2, 2, SF_EUNSUPPORTED, "encoding 2 is not known"},
    {ROW_TENSOR, 0, TENSOR_ENCODING, 2, 65535, SF_EUNSUPPORTED, "encoding 65535 is not known"},
    {ROW_TENSOR, 0, TENSOR_ENCODING, 2, 1, SF_EFORMAT, "nf4 with block 0"},
    {ROW_TENSOR, 7, TENSOR_ENCODING, 2, 0, SF_EFORMAT, "raw elements, but block 64"},
    {ROW_TENSOR, 0, TENSOR_DTYPE, 2, 0, SF_EUNSUPPORTED, "element type 0 is not known"},
    {ROW_TENSOR, 0, TENSOR_DTYPE, 2, 13, SF_EUNSUPPORTED, "element type 13 is not known"},
    {ROW_TENSOR, 7, TENSOR_BLOCK, 4, 0, SF_EFORMAT, "(layers.0.q): nf4 with block 0"},
    {ROW_TENSOR, 7, TENSOR_BLOCK, 4, 63, SF_EFORMAT, "nf4 with block 63"},
    {ROW_TENSOR, 7, TENSOR_BLOCK, 4, 128, SF_EFORMAT,
     "plane scale is u8 [64], its encoding needs u8 [32]"},
    {ROW_TENSOR, 7, TENSOR_BLOCK, 4, UINT32_MAX, SF_EFORMAT, "block 4294967295"},
    {ROW_TENSOR, 7, TENSOR_NESTED_BLOCK, 4, 0, SF_EFORMAT,
     "plane scale is u8 [64], its encoding needs f32 [64]"},
    {ROW_TENSOR, 7, TENSOR_NESTED_BLOCK, 4, 32, SF_EFORMAT,
     "plane scale2 is f32 [1], its encoding needs f32 [2]"},
    {ROW_TENSOR, 7, TENSOR_NESTED_BLOCK, 4, 0x80000000u, SF_EFORMAT, "nested block 2147483648"},
    {ROW_TENSOR, 7, TENSOR_BLOCK_AXIS, 4, 2, SF_EFORMAT, "block axis 2 of a tensor of rank 2"},
    {ROW_TENSOR, 7, TENSOR_BLOCK_AXIS, 4, 0xfffffffeu, SF_EFORMAT, "block axis -2"},
    {ROW_TENSOR, 7, TENSOR_BLOCK_AXIS, 4, 0, SF_EFORMAT,
     "blocks of 64 do not divide axis 0 of length 16"},
    {ROW_TENSOR, 0, TENSOR_WORST_BLOCK, 4, 0x7fc00000, SF_EFORMAT, "worst block's error is not"},
    {ROW_TENSOR, 0, TENSOR_WORST_BLOCK, 4, 0xbf800000, SF_EFORMAT, "worst block's error is not"},
    {ROW_TENSOR, 0, TENSOR_ERROR, 8, 0x7ff8000000000000u, SF_EFORMAT,
     "relative error is not a finite"},
    {ROW_TENSOR, 0, TENSOR_ERROR, 8, 0x7ff0000000000000u, SF_EFORMAT,
     "relative error is not a finite"},
    {ROW_TENSOR, 0, TENSOR_ERROR, 8, 0xbff0000000000000u, SF_EFORMAT,
     "relative error is not a finite"},
    {ROW_TENSOR, 0, TENSOR_PLANES, 4, UINT32_MAX, SF_EFORMAT, "plane codes is missing"},
    {ROW_TENSOR, 0, TENSOR_PLANES, 4, 10000, SF_EFORMAT, "plane codes is number 10000 of"},
    {ROW_TENSOR, 0, TENSOR_PLANES + 4, 4, 0, SF_EFORMAT, "plane scale is there"},
    {ROW_TENSOR, 0, TENSOR_PLANES + 28, 4, 0, SF_EFORMAT, "plane ? is there"},
    {ROW_TENSOR, 7, TENSOR_PLANES + 16, 4, UINT32_MAX, SF_EFORMAT, "plane codebook is missing"},
    {ROW_LABEL, 0, 0, 4, UINT32_MAX, SF_EFORMAT, "label 0: string offset"},
    {ROW_LABEL, 0, 4, 4, 1, SF_EFORMAT, "label 0: a field that must be zero"},
    {ROW_NAME, 0, NAME_HASH, 8, 0, SF_EFORMAT, "name 0: wrong hash or order"},
    {ROW_NAME, 0, NAME_TENSOR, 4, UINT32_MAX, SF_EFORMAT, "name 0: tensor 4294967295 of"},
    {ROW_NAME, 0, NAME_ZERO, 4, 1, SF_EFORMAT, "name 0: a field that must be zero"},
    {ROW_STRING, 0, 0, 1, 'x', SF_EFORMAT, "string table does not start and end with NUL"},
    {ROW_STRING, 1, 0, 1, 0x1b, SF_EFORMAT, "string table has a control character at byte 1"},
    {ROW_STRING, 1, 0, 1, 0xff, SF_EFORMAT, "string table is not UTF-8 at byte 1"},
};
enum { INDEX_CASES = sizeof index_cases / sizeof *index_cases };

START_TEST(test_index_refusals)
{
    const struct index_case *c = &index_cases[_i];
    put(patch_row(&good, c->table, c->row) + c->field, c->width, c->value);
    patch_repair(&good);
    assert_fails(open_patch(&good), c->code, c->says, err);
    ck_assert_msg(strstr(err.message, ": index: ") != NULL, "%s", err.message);
}
END_TEST

/* Every count of the head, too large by one, by a lot, or zero. */
START_TEST(test_index_counts)
{
    static const uint32_t values[] = {0, 1, 2, 1000, 0x7fffffff, 0x80000000, UINT32_MAX};
    unsigned char *head = patch_section(&good, SECTION_INDEX, NULL);
    for (int field = 0; field < INDEX_HEAD_BYTES; field += 4) {
        uint32_t kept = sf_get_u32(head + field);
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            if (values[v] == kept)
                continue;
            sf_put_u32(head + field, values[v]);
            patch_repair(&good);
            assert_fails(open_patch(&good), SF_EFORMAT, ": index: ", err);
        }
        sf_put_u32(head + field, kept);
    }
    patch_repair(&good);
    assert_ok(open_patch(&good), err);
}
END_TEST

/* Two planes trade tensors; one plane belongs to two; one to none. */
START_TEST(test_planes_belong_once)
{
    unsigned char *a = patch_row(&good, ROW_TENSOR, 9) + TENSOR_PLANES;  /* gate of expert 0 */
    unsigned char *b = patch_row(&good, ROW_TENSOR, 12) + TENSOR_PLANES; /* up of expert 0 */
    sf_put_u32(b, sf_get_u32(a));
    patch_repair(&good);
    assert_fails(open_patch(&good), SF_EFORMAT, "belongs to another tensor too", err);
}
END_TEST

START_TEST(test_labels_are_distinct)
{
    sf_put_u32(patch_row(&good, ROW_LABEL, 1), sf_get_u32(patch_row(&good, ROW_LABEL, 0)));
    patch_repair(&good);
    assert_fails(open_patch(&good), SF_EFORMAT, "label 1: \"embedding\" stands twice", err);
}
END_TEST

/* A family with parts and extents we have no word for can be listed, checked and found by name. */
START_TEST(test_unknown_label_and_kind)
{
    char *label =
        (char *)patch_row(&good, ROW_STRING, sf_get_u32(patch_row(&good, ROW_LABEL, SF_PART_HEAD)));
    ck_assert_str_eq(label, "head"); /* the extent's kind is the same string */
    memcpy(label, "neck", 4);
    patch_repair(&good);
    struct sf_map *map;
    assert_ok(open_map(&map, &good), err);
    ck_assert_ptr_null(sf_map_find(map, (struct sf_role){SF_PART_HEAD, -1, -1}));
    const struct sf_entry *entry = sf_map_find_name(map, "lm_head");
    ck_assert_ptr_nonnull(entry);
    ck_assert_int_eq(entry->role.part, SF_PART_UNUSED);
    ck_assert_int_eq(sf_map_extent(map, entry->extent)->kind, SF_EXTENT_DENSE);
    restore_file(map, &good);
}
END_TEST

/* ---- metadata ---- */

struct metadata_case {
    int offset, width;
    uint64_t value;
    const char *says;
};
enum { FILES_AT = META_HEAD_BYTES + 2 * SHARD_BYTES, STRINGS_AT = FILES_AT + 3 * FILE_BYTES };

static const struct metadata_case metadata_cases[] = {
    {META_FILES, 4, UINT32_MAX, "metadata: its counts need"},
    {META_SHARDS, 4, UINT32_MAX, "metadata: its counts need"},
    {META_STRING_BYTES, 4, UINT32_MAX, "metadata: its counts need"},
    {META_STRING_BYTES, 4, 0, "metadata: string table of 0 bytes"},
    {META_STRING_BYTES, 4, 12, "metadata: string table of 12 bytes"},
    {META_FILES, 4, 0, "metadata: "},
    {META_SHARDS, 4, 0, "metadata: "},
    {META_FAMILY, 4, UINT32_MAX, "metadata: summary: string offset 4294967295"},
    {META_OPTIONS, 4, 2, "metadata: summary: string offset 2 is inside"},
    {META_LAYERS, 8, UINT64_MAX, "metadata: summary: count 18446744073709551615"},
    {META_PARAMETERS_TEXT, 8, (uint64_t)1 << 63, "metadata: summary: count 9223372036854775808"},
    {META_ZERO, 8, 1, "metadata: a field that must be zero is not"},
    {META_HEAD_BYTES + SHARD_NAME, 4, 1u << 30, "metadata: shard: string offset"},
    {META_HEAD_BYTES + SHARD_ZERO, 4, 1,
     "metadata: shard model-00001-of-00002.safetensors: a field"},
    {FILES_AT + FILE_NAME, 4, 1u << 30, "metadata: file: string offset"},
    {FILES_AT + FILE_NAME, 4, 0, "metadata: file \"\" stands out of order"},
    {FILES_AT + FILE_ZERO, 4, 1, "metadata: file config.json: a field that must be zero"},
    {FILES_AT + FILE_OFFSET, 8, 0, "metadata: file config.json: frame of"},
    {FILES_AT + FILE_OFFSET, 8, UINT64_MAX, "metadata: file config.json: frame of"},
    {FILES_AT + FILE_FRAME_BYTES, 8, UINT64_MAX, "metadata: file config.json: frame of"},
    {FILES_AT + FILE_FRAME_BYTES, 8, 1, "metadata: file empty.txt: frame of"},
    {FILES_AT + FILE_SIZE, 8, UINT64_MAX,
     "metadata: file config.json: 18446744073709551615 bytes, at most"},
    {FILES_AT + FILE_SIZE, 8, META_LARGEST_FILE + 1,
     "config.json: 268435457 bytes, at most 268435456"},
    {FILES_AT + 2 * FILE_BYTES + FILE_FRAME_BYTES, 8, 1, "metadata: frames end at"},
    {STRINGS_AT, 1, 'x', "metadata: string table does not start"},
    {STRINGS_AT + 1, 1, 0xc0, "metadata: string table is not UTF-8"},
};
enum { METADATA_CASES = sizeof metadata_cases / sizeof *metadata_cases };

START_TEST(test_metadata_refusals)
{
    const struct metadata_case *c = &metadata_cases[_i];
    put(patch_section(&good, SECTION_METADATA, NULL) + c->offset, c->width, c->value);
    patch_repair(&good);
    assert_fails(open_patch(&good), SF_EFORMAT, c->says, err);
}
END_TEST

/* Inflating believes neither the size nor the frame. */
START_TEST(test_carried_files)
{
    static const struct {
        int offset;
        uint64_t value;
        int code;
        const char *says;
    } cases[] = {{FILE_SIZE, META_LARGEST_FILE, SF_EFORMAT, "metadata: config.json: "},
                 {FILE_SIZE, 7, SF_EFORMAT, "metadata: config.json: "},
                 {FILE_HASH, 7, SF_EDAMAGED, "config.json: hash mismatch after inflating"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct patch bad = patch_copy(&good);
        struct sf_map *map;
        char *text;
        put(patch_section(&bad, SECTION_METADATA, NULL) + FILES_AT + cases[i].offset, 8,
            cases[i].value);
        patch_repair(&bad);
        assert_ok(open_map(&map, &bad), err);
        assert_fails(sf_map_read_file(&text, NULL, map, "config.json", &arena, &err), cases[i].code,
                     cases[i].says, err);
        restore_file(map, &bad);
        patch_free(&bad);
    }
}
END_TEST

/* ---- anything at all ---- */

static void use_everything(const struct sf_map *map)
{
    const struct sf_container_info *info = sf_map_info(map);
    volatile unsigned char sink = 0;
    for (int64_t i = 0; i < info->tensors; i++) {
        const struct sf_entry *entry = sf_map_tensor(map, i);
        ck_assert_ptr_eq(sf_map_find_name(map, entry->name), entry);
        for (int kind = 0; kind < SF_PLANE_COUNT; kind++) {
            const struct sf_plane *plane = &entry->plane[kind];
            if (plane->dtype == SF_DTYPE_NONE)
                continue;
            const unsigned char *data = sf_map_bytes(map, plane->address);
            sink = (unsigned char)(sink + data[0] + data[plane->bytes - 1]);
        }
    }
    for (int64_t i = 0; i < info->files; i++) {
        char *text;
        uint64_t bytes;
        sf_map_read_file(&text, &bytes, map, sf_map_file_name(map, i, &bytes), &arena, NULL);
    }
    int64_t damaged;
    sf_check_run(&damaged, map, &(struct sf_check_options){.threads = 1}, NULL);
}

static uint64_t strange_number(struct scout_random *random)
{
    static const uint64_t special[] = {0,     1,         255,        256,       65535,
                                       65536, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
    uint64_t pick = scout_random_u64(random);
    return pick % 3 == 0 ? special[pick / 3 % 10] : pick % 3 == 1 ? pick >> 40 : pick / 3 % 300;
}

/* Random fields of index, metadata and section table set to strange numbers, every hash made right:
 * the reader opens or refuses; it never reads outside, and what it opens can be used. */
START_TEST(test_random_patches)
{
    struct scout_random random = {(uint64_t)_i + 1};
    int64_t opened = 0, refused = 0;
    for (int round = 0; round < 500; round++) {
        struct patch bad = patch_copy(&good);
        uint32_t type = scout_random_u64(&random) % 4 ? SECTION_INDEX : SECTION_METADATA;
        uint64_t bytes;
        unsigned char *at = patch_section(&bad, type, &bytes);
        for (uint64_t n = 1 + scout_random_u64(&random) % 3; n > 0; n--) {
            int width = 1 << scout_random_u64(&random) % 4;
            uint64_t where = scout_random_u64(&random) % (bytes - 8) / (uint64_t)width;
            put(at + where * (uint64_t)width, width, strange_number(&random));
        }
        patch_repair(&bad);
        struct sf_map *map;
        if (open_map(&map, &bad) == SF_OK) {
            use_everything(map);
            opened++;
        } else {
            refused++;
            ck_assert_msg(strstr(err.message, "index: ") || strstr(err.message, "metadata: ") ||
                              strstr(err.message, "checksums: "),
                          "%s", err.message);
        }
        restore_file(map, &bad);
        patch_free(&bad);
        sf_arena_reset(&arena);
    }
    ck_assert_int_gt(refused, opened); /* most fields are checked against another */
}
END_TEST

/* ---- a glance ---- */

enum { LARGE_FILE = SF_GLANCE_BYTES + 4096 };

/* The fixture with a carried file that zstd cannot make small. */
static struct patch with_large_file(void)
{
    static unsigned char noise[LARGE_FILE];
    struct scout_random random = {7};
    struct sf_layout *layout = fixture_layout(&arena);
    struct sf_writer *writer;
    for (int i = 0; i < LARGE_FILE; i++)
        noise[i] = (unsigned char)scout_random_u64(&random);
    assert_ok(sf_writer_open(&writer, path, layout, &err), err);
    for (int64_t x = 0; x < sf_layout_extent_count(layout); x++)
        if (sf_layout_extent_at(layout, x)->kind != SF_EXTENT_SHARED)
            assert_ok(sf_writer_put(writer, x, 0, fixture_extent(&arena, layout, x),
                                    sf_layout_extent_at(layout, x)->bytes, &err),
                      err);
    assert_ok(sf_writer_add_file(writer, "noise", noise, LARGE_FILE, &err), err);
    assert_ok(sf_writer_commit(writer, &fixture_summary, &err), err);
    return patch_load(path);
}

/* Small files are read whole; of a large one a glance leaves the metadata's hash, and says so. What
 * it does read it still refuses when damaged, and a carried file has a hash of its own. */
START_TEST(test_glance)
{
    struct sf_map *map;
    uint64_t bytes;
    char *text;
    patch_save(&good, path);
    assert_ok(sf_map_open_glance(&map, path, &err), err);
    ck_assert(!sf_map_info(map)->metadata_unread && !sf_map_info(map)->checksums_unread);
    sf_map_close(map);
    struct patch large = with_large_file();
    assert_ok(sf_map_open(&map, path, &err), err);
    ck_assert(!sf_map_info(map)->metadata_unread);
    sf_map_close(map);
    assert_ok(sf_map_open_glance(&map, path, &err), err);
    ck_assert(sf_map_info(map)->metadata_unread && !sf_map_info(map)->checksums_unread);
    ck_assert_int_eq(sf_map_info(map)->tensors, sf_layout_entry_count(fixture_layout(&arena)));
    assert_ok(sf_map_read_file(&text, &bytes, map, "noise", &arena, &err), err);
    ck_assert_uint_eq(bytes, LARGE_FILE);
    sf_map_close(map);

    unsigned char *metadata = patch_section(&large, SECTION_METADATA, &bytes);
    metadata[bytes / 2] ^= 1; /* inside the frame */
    patch_save(&large, path);
    assert_fails(sf_map_open(&map, path, &err), SF_EDAMAGED, "metadata: hash mismatch", err);
    assert_ok(sf_map_open_glance(&map, path, &err), err);
    int code = sf_map_read_file(&text, &bytes, map, "noise", &arena, &err);
    ck_assert_msg(code == SF_EDAMAGED || code == SF_EFORMAT, "a damaged file was read: %d", code);
    sf_map_close(map);
    metadata[bytes / 2] ^= 1;
    patch_section(&large, SECTION_INDEX, &bytes)[40] ^= 1;
    patch_save(&large, path);
    assert_fails(sf_map_open_glance(&map, path, &err), SF_EDAMAGED, "index: hash mismatch", err);
    patch_free(&large);
}
END_TEST

static Suite *container_map_suite(void)
{
    Suite *suite = suite_create("container_map");
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_original, free_original);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 300);
    tcase_add_loop_test(tc, test_header_refusals, 0, HEADER_CASES);
    tcase_add_test(tc, test_not_a_container);
    tcase_add_test(tc, test_what_may_come);
    tcase_add_test(tc, test_lengths);
    tcase_add_loop_test(tc, test_index_refusals, 0, INDEX_CASES);
    tcase_add_test(tc, test_index_counts);
    tcase_add_test(tc, test_planes_belong_once);
    tcase_add_test(tc, test_labels_are_distinct);
    tcase_add_test(tc, test_unknown_label_and_kind);
    tcase_add_loop_test(tc, test_metadata_refusals, 0, METADATA_CASES);
    tcase_add_test(tc, test_carried_files);
    tcase_add_loop_test(tc, test_random_patches, 0, 4);
    tcase_add_test(tc, test_glance);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(container_map_suite)
