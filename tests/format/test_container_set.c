/* A container in several files: where it is cut, that it reads as one, and what no reader takes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/container/container_check.h"
#include "libformat/container/container_map.h"
#include "libformat/container/layout.h"
#include "libformat/container/set_name.h"
#include "tests/format/container_fixture.h"

static struct sf_err err;
static struct sf_arena arena;

static void setup(void)
{
    err = (struct sf_err){0};
}

static void teardown(void)
{
    sf_arena_free(&arena);
}

/* The fixture's largest extent and a page: as many files as can be. */
static uint64_t least_most(const struct sf_layout *layout)
{
    uint64_t most = 0;
    for (int64_t e = 0; e < sf_layout_extent_count(layout); e++)
        if (sf_layout_extent_at(layout, e)->bytes > most)
            most = sf_layout_extent_at(layout, e)->bytes;
    return most + HEADER_BYTES;
}

/* Writes the fixture in files of at most `most`; the first one's path. */
static const char *write_set(const char *name, uint64_t most)
{
    struct sf_layout *layout = fixture_layout(&arena);
    const char *path = scout_scratch_path(name);
    struct sf_writer *writer;
    assert_ok(sf_layout_split(layout, most, &err), err);
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
    return sf_set_name(&arena, path, 1, sf_layout_files(layout));
}

START_TEST(test_names)
{
    ck_assert_str_eq(sf_set_name(&arena, "a/m.scout", 1, 1), "a/m.scout");
    ck_assert_str_eq(sf_set_name(&arena, "a/m.scout", 2, 13), "a/m-00002-of-00013.scout");
    ck_assert_str_eq(sf_set_name(&arena, "a.b/m", 1, 2), "a.b/m-00001-of-00002.scout");
    ck_assert_str_eq(sf_set_sibling(&arena, "a/m-00001-of-00013.scout", 13, 13),
                     "a/m-00013-of-00013.scout");
    static const char *const wrong[] = {"m.scout", "-00001-of-00013.scout",
                                        "m-00002-of-00013.scout", "m-00001-of-00012.scout",
                                        "m-00001-of-00013.scout2"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_ptr_null(sf_set_sibling(&arena, wrong[i], 2, 13));
}
END_TEST

START_TEST(test_cuts)
{
    struct sf_layout *layout = fixture_layout(&arena);
    uint64_t most = least_most(layout), sum = 0;
    assert_fails(sf_layout_split(layout, most - 1, &err), SF_EINVAL, "is never split and needs",
                 err);
    assert_fails(sf_layout_split(layout, 1, &err), SF_EINVAL, "is never split and needs", err);
    ck_assert_int_eq(sf_layout_files(layout), 1);
    assert_ok(sf_layout_split(layout, most, &err), err);
    ck_assert_int_gt(sf_layout_files(layout), 3);
    for (int64_t f = 2; f <= sf_layout_files(layout); f++) {
        ck_assert_uint_le(sf_layout_file_bytes(layout, f), most);
        sum += sf_layout_file_bytes(layout, f) - HEADER_BYTES;
    }
    ck_assert_uint_eq(sum, sf_layout_payload_bytes(layout));
}
END_TEST

/* Any limit: the same entries, the same bytes, the same identity as of one file. */
START_TEST(test_reads_as_one)
{
    const char *one = scout_scratch_path("one.scout");
    struct sf_map *a, *b;
    fixture_write(one);
    uint64_t least = least_most(fixture_layout(&arena)), whole;
    assert_ok(sf_map_open(&a, one, &err), err);
    const struct sf_container_info *info = sf_map_info(a);
    whole = info->payload_bytes;
    ck_assert_int_eq(info->container_files, 1);
    unsigned char *copy = sf_arena_alloc(&arena, whole), *want = sf_arena_alloc(&arena, whole);
    sf_map_copy(want, a, 0, whole);
    for (uint64_t most = least; most < whole + 2 * HEADER_BYTES; most += 65536 + 1) {
        int64_t damaged;
        assert_ok(sf_map_open(&b, write_set("set.scout", most), &err), err);
        ck_assert_int_eq(memcmp(info->identity, sf_map_info(b)->identity, 16), 0);
        ck_assert_uint_eq(sf_map_info(b)->payload_bytes, whole);
        ck_assert_int_ge(sf_map_info(b)->container_files, 2);
        assert_ok(sf_check_run(&damaged, b, NULL, &err), err);
        sf_map_copy(copy, b, 0, whole);
        ck_assert_int_eq(memcmp(copy, want, whole), 0);
        for (int64_t i = 0; i < info->tensors; i++) {
            const struct sf_plane *p = &sf_map_tensor(b, i)->plane[SF_PLANE_CODES];
            ck_assert_str_eq(sf_map_tensor(a, i)->name, sf_map_tensor(b, i)->name);
            ck_assert_int_eq(memcmp(sf_map_bytes(b, p->address), want + p->address, p->bytes), 0);
        }
        sf_map_close(b);
    }
    sf_map_close(a);
}
END_TEST

START_TEST(test_place)
{
    struct sf_map *map;
    const char *first = write_set("place.scout", least_most(fixture_layout(&arena)));
    assert_ok(sf_map_open(&map, first, &err), err);
    for (int64_t e = 0; e < sf_map_info(map)->extents; e++) {
        const struct sf_extent *x = sf_map_extent(map, e);
        uint64_t offset;
        struct patch file = patch_load(sf_map_place(&offset, map, x->address + 5));
        ck_assert_int_eq(memcmp(file.data + offset, (const char *)sf_map_bytes(map, x->address) + 5,
                                x->bytes - 5),
                         0);
        patch_free(&file);
    }
    sf_map_close(map);
}
END_TEST

/* ---- what is refused ---- */

static void assert_refused(const char *first, int code, const char *says)
{
    struct sf_map *map;
    assert_fails(sf_map_open(&map, first, &err), code, says, err);
    assert_fails(sf_map_open_glance(&map, first, &err), code, says, err);
}

START_TEST(test_other_files)
{
    uint64_t least = least_most(fixture_layout(&arena));
    const char *first = write_set("bad.scout", least);
    int64_t files = 0;
    struct sf_map *map;
    assert_ok(sf_map_open(&map, first, &err), err);
    files = sf_map_info(map)->container_files;
    sf_map_close(map);
    const char *second = sf_set_sibling(&arena, first, 2, files);
    struct patch a = patch_load(first), b = patch_load(second);
    struct patch c = patch_load(sf_set_sibling(&arena, first, 3, files));

    remove(second);
    assert_refused(first, SF_ENOENT, "file 2 of ");
    patch_save(&c, second);
    assert_refused(first, SF_EFORMAT, ": file 3 of ");
    patch_save(&a, second);
    assert_refused(first, SF_EFORMAT, ": file 1 of ");
    fixture_write(second);
    assert_refused(first, SF_EFORMAT, "a container of its own, not file 2 of ");

    struct patch wrong = patch_copy(&b);
    wrong.data[HEADER_IDENTITY] ^= 1;
    patch_repair_header(&wrong);
    patch_save(&wrong, second);
    assert_refused(first, SF_EFORMAT, "of another container: its identity is ");
    patch_free(&wrong);

    wrong = patch_copy(&b);
    wrong.data[100]++;
    patch_save(&wrong, second);
    assert_refused(first, SF_EDAMAGED, "header: hash mismatch");
    patch_free(&wrong);

    wrong = patch_copy(&b);
    wrong.bytes -= 65536;
    patch_save(&wrong, second);
    assert_refused(first, SF_EFORMAT, "(truncated)");
    sf_put_u64(wrong.data + HEADER_FILE_BYTES, wrong.bytes);
    sf_put_u64(wrong.data + HEADER_TABLE + SECTION_SIZE, wrong.bytes - HEADER_BYTES);
    patch_repair_header(&wrong);
    patch_save(&wrong, second);
    assert_refused(first, SF_EFORMAT, "bytes of payload, the first file says ");
    patch_free(&wrong);

    patch_save(&b, second);
    assert_refused(second, SF_EINVAL, ": file 2 of ");
    const char *moved = scout_scratch_path("moved.scout");
    patch_save(&a, moved);
    assert_refused(moved, SF_EINVAL, "its name must end in -00001-of-");
    assert_ok(sf_map_open(&map, first, &err), err);
    sf_map_close(map);
    patch_free(&a), patch_free(&b), patch_free(&c);
}
END_TEST

/* The part table, and what the header page says of a set; all hashes are right. */
static const struct {
    bool table;
    int at, bytes;
    uint64_t value;
    const char *says;
} first_file[] = {
    {true, PART_ADDRESS, 8, 65536, "part 0: "},
    {true, PART_SIZE, 8, 0, "part 0: 0 bytes"},
    {true, PART_SIZE, 8, 65537, "part 0: 65537 bytes"},
    {true, PART_SIZE, 8, UINT64_MAX - 65535, "part 1: "},
    {true, PART_SIZE, 8, 65536, "part 1: "},
    {true, PART_OFFSET, 8, 0, "part 0: at 0 of file 2"},
    {true, PART_FILE, 4, 0, "of file 0"},
    {true, PART_FILE, 4, 3, "of file 3"},
    {true, PART_ZERO, 4, 1, "must be zero"},
    {false, HEADER_INCOMPATIBLE, 8, 0, "where all is in one"},
    {false, HEADER_INCOMPATIBLE, 8, 3, "needs incompatible features 0x3"},
    {false, HEADER_FILE, 4, 0, "header: file 0 of "},
    {false, HEADER_FILE, 4, 77, "header: file 77 of "},
    {false, HEADER_FILE, 4, 2, "header: no payload section"},
    {false, HEADER_FILES, 4, 1, "header: file 1 of 1"},
    {false, HEADER_FILES, 4, 2, "parts, not 1"},
    {false, HEADER_FILES, 4, UINT32_MAX, "parts, not 4294967294"},
    {false, HEADER_ZERO_2, 8, 1, "must be zero"},
};

START_TEST(test_first_file)
{
    const char *first = write_set("first.scout", least_most(fixture_layout(&arena)));
    struct patch good = patch_load(first), p = patch_copy(&good);
    unsigned char *at = first_file[_i].table ? patch_row(&p, ROW_PART, 0) : p.data;
    at += first_file[_i].at;
    if (first_file[_i].bytes == 8)
        sf_put_u64(at, first_file[_i].value);
    else
        sf_put_u32(at, (uint32_t)first_file[_i].value);
    if (first_file[_i].table)
        patch_repair(&p);
    else
        patch_repair_header(&p);
    patch_save(&p, first);
    struct sf_map *map;
    int code = sf_map_open(&map, first, &err);
    ck_assert_int_ne(code, SF_OK);
    ck_assert_msg(strstr(err.message, first_file[_i].says), "%s: not %s", err.message,
                  first_file[_i].says);
    patch_free(&p), patch_free(&good);
}
END_TEST

/* What is said beforehand of the first file is enough, and not much more. */
START_TEST(test_first_file_must_have_room)
{
    struct sf_layout *layout = fixture_layout(&arena);
    const char *first = write_set("room.scout", least_most(layout));
    struct sf_file_stat stat;
    uint64_t need;
    assert_ok(sf_file_stat(&stat, first, &err), err);
    assert_ok(sf_layout_first_bytes(&need, layout, 1000, &err), err);
    ck_assert_uint_ge(need, stat.bytes);
    ck_assert_uint_le(need, stat.bytes + (128 << 10));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("container_set");
    TCase *c = tcase_create("container_set");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, test_names);
    tcase_add_test(c, test_cuts);
    tcase_add_test(c, test_reads_as_one);
    tcase_add_test(c, test_place);
    tcase_add_test(c, test_other_files);
    tcase_add_loop_test(c, test_first_file, 0, sizeof first_file / sizeof *first_file);
    tcase_add_test(c, test_first_file_must_have_room);
    suite_add_tcase(s, c);
    return s;
}

SCOUT_TEST_MAIN(suite)
