#include "tests/support/gpu_suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "tests/convert/conversion.h"
#include "train/device_image.h"

static struct sk_device *device;

static struct sf_map *tiny(const char *name)
{
    return converted((struct conversion){.source = scout_source_path("examples/tiny-scout"),
                                         .output = scout_scratch_path(name)});
}

/* Whatever the slots and threads, the block holds each resident extent's bytes and nothing else. */
START_TEST(the_block_is_the_file)
{
    static const struct sft_load_options options[] = {
        {.threads = 1}, {.threads = 5, .slot_bytes = 4096}, {.threads = 3, .slot_bytes = 100000}};
    struct sf_err err = {0};
    struct sft_device_image *image;
    struct sft_load_report report;
    struct sf_map *map = tiny("block.scout");
    assert_ok(sft_device_image_open(&image, map, device, &options[_i], &report, &err), err);
    uint64_t resident = 0;
    for (int64_t i = 0; i < sf_map_info(map)->extents; i++) {
        const struct sf_extent *x = sf_map_extent(map, i);
        void *at = sft_device_image_at(image, x->address);
        ck_assert_int_eq(at != NULL, SF_CHECK_RESIDENT >> x->kind & 1);
        if (!at)
            continue;
        unsigned char *back = malloc(x->bytes);
        ck_assert_ptr_nonnull(back);
        assert_ok(sk_device_read(back, at, x->bytes, &err), err);
        ck_assert(memcmp(back, sf_map_bytes(map, x->address), x->bytes) == 0);
        free(back);
        resident += x->bytes;
    }
    ck_assert_uint_eq(sft_device_image_bytes(image), resident);
    ck_assert_uint_eq(report.bytes, resident);
    sft_device_image_close(image);
    sf_map_close(map);
}
END_TEST

/* A byte of each resident extent, flipped in the file: found in device memory, named. */
START_TEST(damage_is_found_on_the_device_and_named)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_map *map = tiny("good.scout");
    const struct sf_container_info *info = sf_map_info(map);
    struct sft_load_options options = {.threads = 2};
    struct sft_device_image *image;
    char *whole, place[SF_EXTENT_TEXT];
    uint64_t bytes;
    assert_ok(sf_read_file(&whole, &bytes, &arena, sf_map_path(map), 1 << 28, &err), err);
    for (int64_t i = 0; i < info->extents; i++) {
        const struct sf_extent *x = sf_map_extent(map, i);
        const char *path = scout_scratch_path("damaged.scout");
        struct sf_map *damaged;
        uint64_t at = info->payload_offset + x->address + (uint64_t)i * 97 % x->bytes;
        bool resident = SF_CHECK_RESIDENT >> x->kind & 1;
        whole[at] ^= 0x10;
        assert_ok(sf_write_file(path, whole, bytes, &err), err);
        whole[at] ^= 0x10;
        assert_ok(sf_map_open(&damaged, path, &err), err);
        int code = sft_device_image_open(&image, damaged, device, &options, NULL, &err);
        ck_assert_int_eq(code, resident ? SF_EDAMAGED : SF_OK);
        if (!resident)
            sft_device_image_close(image);
        else if (x->kind == SF_EXTENT_EXPERT || x->kind == SF_EXTENT_DENSE) {
            snprintf(place, sizeof place, "layer %d", x->layer);
            ck_assert_msg(strstr(err.message, place) != NULL, "%s", err.message);
        }
        sf_map_close(damaged);
    }
    sf_map_close(map);
    sf_arena_free(&arena);
}
END_TEST

static Suite *device_image_suite(void)
{
    Suite *suite = suite_create("device_image");
    TCase *tc = tcase_create("device_image");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, the_block_is_the_file, 0, 3);
    tcase_add_test(tc, damage_is_found_on_the_device_and_named);
    suite_add_tcase(suite, tc);
    return suite;
}

int main(void)
{
    return scout_gpu_test_run(&device, device_image_suite);
}
