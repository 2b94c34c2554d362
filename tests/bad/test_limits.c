/* What reading may cost, counted at the allocator's door: little before a header's hash is known to be
 * right, in proportion to the file after that, and never what a few bytes merely claim. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/mem.h"
#include "libformat/codec/frame.h"
#include "libformat/container/container_map.h"
#include "libformat/container/layout.h"
#include "libformat/hf/safetensors.h"
#include "tests/format/container_fixture.h"
#include "tests/format/hf_files.h"

enum { MIB = 1 << 20, RLE_BLOCK = 131072, RLE_BLOCKS = 4096 };

static struct sf_err err;

START_TEST(little_before_the_headers_hash)
{
    const char *path = scout_scratch_path("patched.scout");
    struct sf_map *map = NULL;
    fixture_write(path);
    struct patch bad = patch_load(path);
    for (int at = HEADER_MAJOR; at + 8 <= HEADER_BYTES; at += at < 1024 ? 4 : 256) {
        uint64_t kept = sf_get_u64(bad.data + at);
        sf_put_u64(bad.data + at, ~kept);
        patch_save(&bad, path);
        uint64_t before = sf_alloc_bytes();
        assert_fails(sf_map_open(&map, path, &err), SF_EDAMAGED, "header: hash mismatch", err);
        ck_assert_uint_le(sf_alloc_bytes() - before, MIB);
        sf_put_u64(bad.data + at, kept);
    }
    patch_free(&bad);
}
END_TEST

/* Frames of runs: four bytes for each 128 KiB. */
static uint64_t make_bomb(unsigned char *frame, uint32_t says)
{
    uint64_t n = 0;
    sf_put_u32(frame, 0xFD2FB528u);
    frame[4] = 0xA0; /* one segment, the size in four bytes */
    sf_put_u32(frame + 5, says);
    for (n = 9; n < 9 + 4 * RLE_BLOCKS; n += 4)
        sf_put_u32(frame + n, (uint32_t)RLE_BLOCK << 3 | 1u << 1 | (n == 9 + 4 * (RLE_BLOCKS - 1)));
    return n;
}

START_TEST(bombs_are_refused)
{
    static unsigned char frame[9 + 4 * RLE_BLOCKS + 4];
    static const uint64_t whole = (uint64_t)RLE_BLOCK * RLE_BLOCKS; /* 512 MiB of 16 KiB */
    struct sf_arena arena = {0};
    void *out;
    uint64_t bytes = make_bomb(frame, 100), before = sf_alloc_bytes();
    assert_fails(sf_frame_decompress(&out, &arena, frame, bytes, 100, &err), SF_EFORMAT,
                 "does not inflate", err);
    ck_assert_uint_le(sf_alloc_bytes() - before, MIB);
    bytes = make_bomb(frame, (uint32_t)whole);
    before = sf_alloc_bytes();
    assert_fails(sf_frame_decompress(&out, &arena, frame, bytes, 100, &err), SF_EFORMAT,
                 "holds 536870912 bytes, expected 100", err);
    ck_assert_uint_le(sf_alloc_bytes() - before, MIB);
    sf_arena_free(&arena);
}
END_TEST

/* A container may not even say so: what a carried file inflates to has a limit, seen at open. */
START_TEST(claims_have_a_limit)
{
    const char *path = scout_scratch_path("claim.scout");
    struct sf_map *map = NULL;
    fixture_write(path);
    struct patch bad = patch_load(path);
    unsigned char *size =
        patch_section(&bad, SECTION_METADATA, NULL) + META_HEAD_BYTES + 2 * SHARD_BYTES + FILE_SIZE;
    sf_put_u64(size, META_LARGEST_FILE + 1);
    patch_repair(&bad);
    patch_save(&bad, path);
    uint64_t before = sf_alloc_bytes();
    assert_fails(sf_map_open(&map, path, &err), SF_EFORMAT, "at most 268435456 are allowed", err);
    ck_assert_uint_le(sf_alloc_bytes() - before, MIB);
    patch_free(&bad);
}
END_TEST

/* Bytes that opening a safetensors file of n tensors asks for. */
static uint64_t cost_of(int n)
{
    struct sf_safetensors *file;
    size_t room = (size_t)n * 96 + 16, used = 0;
    char *text = malloc(room);
    ck_assert_ptr_nonnull(text);
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(
            text + used, room - used,
            "%c\"t%08d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? ',' : '{',
            i, 4 * i, 4 * i + 4);
    snprintf(text + used, room - used, "}");
    const char *path = hf_write_safetensors("many.safetensors", text, -1, 4 * (uint64_t)n);
    uint64_t before = sf_alloc_bytes();
    assert_ok(sf_safetensors_open(&file, path, &err), err);
    uint64_t cost = sf_alloc_bytes() - before;
    sf_safetensors_close(file);
    free(text);
    return cost;
}

/* Powers of two, so that blocks which double are as full each time. */
START_TEST(cost_is_linear)
{
    for (int n = 4096; n <= 16384; n *= 2) {
        uint64_t once = cost_of(n), twice = cost_of(2 * n);
        ck_assert_msg(twice <= 2 * once + once / 4, "%d tensors %llu bytes, twice as many %llu", n,
                      (unsigned long long)once, (unsigned long long)twice);
    }
}
END_TEST

static Suite *limits_suite(void)
{
    Suite *suite = suite_create("limits");
    TCase *tc = tcase_create("limits");
    tcase_add_test(tc, little_before_the_headers_hash);
    tcase_add_test(tc, bombs_are_refused);
    tcase_add_test(tc, claims_have_a_limit);
    tcase_add_test(tc, cost_is_linear);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(limits_suite)
