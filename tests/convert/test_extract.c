#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/codec/halves.h"
#include "libformat/convert/entry_decode.h"
#include "libformat/convert/extract.h"
#include "libformat/convert/histogram.h"
#include "libformat/convert/npy.h"
#include "libformat/hf/safetensors.h"
#include "tests/convert/conversion.h"

static const char K[] = "language_model.model.layers.1.self_attn.k_proj.weight";
static const char ROUTER[] = "language_model.model.layers.2.feed_forward.router.weight";
enum { K_ROWS = 128, K_COLS = 256 };

static struct sf_map *tiny(void)
{
    return converted((struct conversion){.source = scout_source_path("examples/tiny-scout"),
                                         .output = scout_scratch_path("tiny.scout")});
}

static int extract(const char *path, const struct sf_map *map, const char *name,
                   struct sf_extract_options options, struct sf_err *err)
{
    const struct sf_entry *entry = sf_map_find_name(map, name);
    ck_assert_ptr_nonnull(entry);
    return sf_extract(path, map, &entry, 1, &options, err);
}

/* The header byte by byte, as NumPy 1.0 files begin. */
START_TEST(the_header_is_numpys)
{
    struct sf_arena arena = {0};
    struct sf_err err = {0};
    char *text;
    uint64_t bytes;
    struct sf_shape shape = {2, {3, 5}};
    assert_ok(sf_npy_header(&text, &bytes, &arena, SF_F32, &shape, &err), err);
    ck_assert_uint_eq(bytes, 128);
    ck_assert_mem_eq(text, "\x93NUMPY\x01\x00\x76\x00", 10);
    static const char dict[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 5), }";
    ck_assert_mem_eq(text + 10, dict, sizeof dict - 1);
    ck_assert_int_eq(text[127], '\n');
    for (size_t i = 10 + sizeof dict - 1; i < 127; i++)
        ck_assert_int_eq(text[i], ' ');
    shape = (struct sf_shape){1, {7}};
    assert_ok(sf_npy_header(&text, &bytes, &arena, SF_U8, &shape, &err), err);
    ck_assert_ptr_nonnull(strstr(text + 10, "'|u1', 'fortran_order': False, 'shape': (7, ), }"));
    shape.rank = 0;
    assert_ok(sf_npy_header(&text, &bytes, &arena, SF_I64, &shape, &err), err);
    ck_assert_ptr_nonnull(strstr(text + 10, "'<i8', 'fortran_order': False, 'shape': (), }"));
    assert_fails(sf_npy_header(&text, &bytes, &arena, SF_F8_E4M3, &shape, &err), SF_EUNSUPPORTED,
                 "no elements of type", err);
    sf_arena_free(&arena);
}
END_TEST

/* Rows that start inside a block: what is written is what decoding the whole gives there. */
START_TEST(numbers_are_the_decoded_ones)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_map *map = tiny();
    static float want[K_ROWS * K_COLS];
    const char *path = scout_scratch_path("k.npy");
    char *file;
    uint64_t bytes;
    assert_ok(sf_entry_decode(want, map, sf_map_find_name(map, K), 0, K_ROWS * K_COLS, &err), err);
    assert_ok(extract(path, map, K, (struct sf_extract_options){.form = SF_EXTRACT_F32}, &err),
              err);
    assert_ok(sf_read_file(&file, &bytes, &arena, path, 1 << 20, &err), err);
    ck_assert_uint_eq(bytes, 128 + sizeof want);
    ck_assert_mem_eq(file + 128, want, sizeof want);
    assert_ok(extract(path, map, K,
                      (struct sf_extract_options){
                          .form = SF_EXTRACT_BF16, .first_row = 5, .end_row = K_ROWS - 1},
                      &err),
              err);
    assert_ok(sf_read_file(&file, &bytes, &arena, path, 1 << 20, &err), err);
    ck_assert_uint_eq(bytes, 128 + 2 * (K_ROWS - 6) * K_COLS);
    for (int i = 0; i < (K_ROWS - 6) * K_COLS; i++)
        ck_assert_uint_eq(sf_get_u16((unsigned char *)file + 128 + 2 * i),
                          sf_bf16_from_f32(want[5 * K_COLS + i]));
    sf_arena_free(&arena);
    sf_map_close(map);
}
END_TEST

START_TEST(raw_is_the_planes_as_they_lie)
{
    struct sf_err err = {0};
    struct sf_map *map = tiny();
    const struct sf_entry *e = sf_map_find_name(map, K);
    const char *path = scout_scratch_path("k.safetensors");
    struct sf_safetensors *file;
    assert_ok(extract(path, map, K, (struct sf_extract_options){.form = SF_EXTRACT_RAW}, &err),
              err);
    assert_ok(sf_safetensors_open(&file, path, &err), err);
    ck_assert_int_eq(sf_safetensors_count(file), SF_PLANE_COUNT);
    for (int k = 0; k < SF_PLANE_COUNT; k++) {
        char name[128];
        snprintf(name, sizeof name, "%s.%s", K, sf_plane_name(k));
        const struct sf_tensor *t = sf_safetensors_find(file, name);
        ck_assert_ptr_nonnull(t);
        ck_assert_uint_eq(t->bytes, e->plane[k].bytes);
        ck_assert_mem_eq(t->data, sf_map_bytes(map, e->plane[k].address), t->bytes);
    }
    sf_safetensors_close(file);
    sf_map_close(map);
}
END_TEST

START_TEST(raw_rows_are_rows_of_the_codes)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_map *map = tiny();
    const char *path = scout_scratch_path("rows.npy");
    const unsigned char *codes =
        sf_map_bytes(map, sf_map_find_name(map, K)->plane[SF_PLANE_CODES].address);
    char *file;
    uint64_t bytes;
    struct sf_extract_options options = {.form = SF_EXTRACT_RAW, .first_row = 2, .end_row = 4};
    assert_ok(extract(path, map, K, options, &err), err);
    assert_ok(sf_read_file(&file, &bytes, &arena, path, 1 << 20, &err), err);
    ck_assert_uint_eq(bytes, 128 + K_COLS);
    ck_assert_mem_eq(file + 128, codes + K_COLS, K_COLS);
    const char *router = sf_map_bytes(map, sf_map_find_name(map, ROUTER)->plane[0].address);
    assert_ok(extract(path, map, ROUTER, options, &err), err);
    assert_ok(sf_read_file(&file, &bytes, &arena, path, 1 << 20, &err), err);
    ck_assert_uint_eq(bytes, 128 + 2 * 2 * K_COLS);
    ck_assert_mem_eq(file + 128, router + 2 * 2 * K_COLS, 2 * 2 * K_COLS);
    options.plane = "scale";
    assert_fails(extract(path, map, K, options, &err), SF_EINVAL,
                 "no whole bytes of the plane scale", err);
    sf_arena_free(&arena);
    sf_map_close(map);
}
END_TEST

/* A refusal leaves the file that stood there alone. */
START_TEST(what_cannot_be_is_refused)
{
    struct sf_err err = {0};
    struct sf_map *map = tiny();
    const char *path = scout_scratch_path("kept.npy");
    const struct sf_entry *two[] = {sf_map_tensor(map, 0), sf_map_tensor(map, 1)};
    struct sf_extract_options options = {.form = SF_EXTRACT_F32};
    char *file;
    uint64_t bytes;
    struct sf_arena arena = {0};
    assert_ok(sf_write_file(path, "old", 3, &err), err);
    assert_fails(sf_extract(path, map, two, 2, &options, &err), SF_EINVAL,
                 "takes one tensor, not 2", err);
    assert_fails(sf_extract(scout_scratch_path("a.bin"), map, two, 1, &options, &err), SF_EINVAL,
                 "must end in .npy or .safetensors", err);
    options.end_row = K_ROWS + 1;
    assert_fails(extract(path, map, K, options, &err), SF_EINVAL, "rows 0 to 129 of 128", err);
    options = (struct sf_extract_options){.form = SF_EXTRACT_RAW, .plane = "scale"};
    assert_fails(extract(path, map, ROUTER, options, &err), SF_EINVAL, "has no plane \"scale\"",
                 err);
    assert_ok(sf_read_file(&file, &bytes, &arena, path, 100, &err), err);
    ck_assert_str_eq(file, "old");
    sf_arena_free(&arena);
    sf_map_close(map);
}
END_TEST

/* Against a count one by one. */
START_TEST(histograms_count_every_element)
{
    struct sf_err err = {0};
    struct sf_map *map = tiny();
    const struct sf_entry *e = sf_map_find_name(map, K);
    const unsigned char *codes = sf_map_bytes(map, e->plane[SF_PLANE_CODES].address);
    static float scale[K_ROWS * K_COLS / 64];
    int64_t want[16] = {0}, bins = 0;
    double most = 0;
    struct sf_histogram h;
    assert_ok(sf_entry_histogram(&h, map, e, &err), err);
    for (int i = 0; i < K_ROWS * K_COLS; i++)
        want[i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4]++;
    sf_entry_scales(scale, map, e, 0, K_ROWS * K_COLS / 64);
    for (int i = 0; i < K_ROWS * K_COLS / 64; i++)
        most = (double)scale[i] > most ? (double)scale[i] : most;
    for (int i = 0; i < 16; i++)
        ck_assert_int_eq(h.codes[i], want[i]);
    for (int i = 0; i < SF_HISTOGRAM_BINS; i++) {
        int64_t inside = 0;
        for (int k = 0; k < K_ROWS * K_COLS / 64; k++) {
            int bin = (int)((double)scale[k] / (most / SF_HISTOGRAM_BINS));
            inside += (bin < SF_HISTOGRAM_BINS ? bin : SF_HISTOGRAM_BINS - 1) == i;
        }
        ck_assert_int_eq(h.scales[i], inside);
        bins += h.scales[i];
    }
    ck_assert_int_eq(bins, K_ROWS * K_COLS / 64);
    ck_assert(h.greatest_scale == most && h.least_scale == 0);
    ck_assert(h.value[0] == -1.0f && h.value[15] == 1.0f);
    assert_fails(sf_entry_histogram(&h, map, sf_map_find_name(map, ROUTER), &err), SF_EUNSUPPORTED,
                 "is not NF4", err);
    sf_map_close(map);
}
END_TEST

static Suite *extract_suite(void)
{
    Suite *suite = suite_create("extract");
    TCase *tc = tcase_create("extract");
    tcase_add_test(tc, the_header_is_numpys);
    tcase_add_test(tc, numbers_are_the_decoded_ones);
    tcase_add_test(tc, raw_is_the_planes_as_they_lie);
    tcase_add_test(tc, raw_rows_are_rows_of_the_codes);
    tcase_add_test(tc, histograms_count_every_element);
    tcase_add_test(tc, what_cannot_be_is_refused);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(extract_suite)
