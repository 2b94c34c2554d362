/* Damage: every byte of header, checksums, index and metadata, and the payload's bytes by sample
 * and at every edge. Each is noticed, and named right. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libformat/container/container_check.h"
#include "libformat/container/container_map.h"
#include "libformat/container/layout.h"
#include "tests/format/container_fixture.h"

static struct sf_err err;
static struct sf_arena arena;
static struct sf_layout *layout;
static struct patch good;
static const char *path;
static int fd;
static struct sf_map *map; /* of the last check: what it reported is borrowed from it */

static void setup(void)
{
    err = (struct sf_err){0};
    path = scout_scratch_path("damaged.scout");
    fixture_write(path);
    good = patch_load(path);
    layout = fixture_layout(&arena);
    fd = open(path, O_RDWR);
    ck_assert_int_ge(fd, 0);
}

static void teardown(void)
{
    close(fd);
    sf_map_close(map);
    map = NULL;
    patch_free(&good);
    sf_arena_free(&arena);
}

/* Writes the good byte, with `flip` applied, at `offset`. */
static void set_byte(uint64_t offset, unsigned char flip)
{
    unsigned char byte = good.data[offset] ^ flip;
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
}

/* ---- header, checksums, index, metadata: exhaustive ---- */

static void flip_all(uint64_t from, uint64_t bytes, const char *name)
{
    char want[64];
    snprintf(want, sizeof want, ".scout: %s: ", name);
    for (uint64_t i = from; i < from + bytes; i++) {
        struct sf_map *never = NULL;
        set_byte(i, (unsigned char)(1u << i % 8));
        int code = sf_map_open(&never, path, &err);
        ck_assert_msg(code == SF_EDAMAGED || (code == SF_EFORMAT && i < 8), "byte %llu: %s: %s",
                      (unsigned long long)i, sf_code_name(code), err.message);
        ck_assert_msg(strstr(err.message, want) != NULL, "byte %llu: %s", (unsigned long long)i,
                      err.message);
        set_byte(i, 0);
    }
}

START_TEST(test_flip_header)
{
    flip_all(0, HEADER_BYTES, "header");
}
END_TEST

START_TEST(test_flip_sections)
{
    static const struct {
        uint32_t type;
        const char *name;
    } sections[] = {
        {SECTION_CHECKSUMS, "checksums"}, {SECTION_INDEX, "index"}, {SECTION_METADATA, "metadata"}};
    uint64_t bytes, end = HEADER_BYTES + sf_layout_payload_bytes(layout);
    for (int i = 0; i < 3; i++) {
        uint64_t from = (uint64_t)(patch_section(&good, sections[i].type, &bytes) - good.data);
        ck_assert_uint_eq(from, end); /* no byte of the file lies between */
        flip_all(from, bytes, sections[i].name);
        end = from + bytes;
    }
    ck_assert_uint_eq(end, good.bytes);
    assert_ok(sf_map_open(&map, path, &err), err);
}
END_TEST

/* ---- payload ---- */

enum { SEEN_MAX = 64 };
struct seen {
    int64_t count;
    struct sf_damage damage[SEEN_MAX];
    char text[SEEN_MAX][SF_DAMAGE_TEXT];
    const char *name[SEEN_MAX][64]; /* of the tensors named */
};

static void on_damage(void *context, const struct sf_damage *damage)
{
    struct seen *seen = context;
    ck_assert_int_lt(seen->count, SEEN_MAX);
    seen->damage[seen->count] = *damage;
    sf_damage_format(seen->text[seen->count], damage);
    for (int64_t i = 0; i < damage->entries; i++)
        seen->name[seen->count][i] = damage->entry[i]->name;
    seen->count++;
}

static int64_t check(struct seen *seen, int threads, uint32_t kinds)
{
    int64_t damaged;
    memset(seen, 0, sizeof *seen);
    sf_map_close(map);
    map = NULL;
    assert_ok(sf_map_open(&map, path, &err), err);
    struct sf_check_options options = {
        .threads = threads, .kinds = kinds, .on_damage = on_damage, .context = seen};
    int code = sf_check_run(&damaged, map, &options, &err);
    ck_assert_int_eq(code, damaged ? SF_EDAMAGED : SF_OK);
    ck_assert_int_eq(damaged, seen->count);
    if (damaged)
        ck_assert_msg(strstr(err.message, seen->text[0]) != NULL, "%s", err.message);
    return damaged;
}

static bool names(const struct seen *seen, int64_t damage, const char *name)
{
    for (int64_t i = 0; i < seen->damage[damage].entries; i++)
        if (strcmp(seen->name[damage][i], name) == 0)
            return true;
    return false;
}

/* What must be named follows from the layout alone: the tensors with a plane in the chunk. */
static void expect_named(const struct seen *seen, uint64_t address)
{
    uint64_t from = address / 65536 * 65536, to = from + 65536;
    int64_t hits = 0;
    ck_assert_int_eq(seen->count, 1);
    ck_assert_uint_eq(seen->damage[0].address, from);
    ck_assert_uint_eq(seen->damage[0].chunk, from / 65536);
    for (int64_t i = 0; i < sf_layout_entry_count(layout); i++) {
        const struct sf_entry *entry = sf_layout_entry(layout, i);
        bool hit = false;
        for (int kind = 0; kind < SF_PLANE_COUNT; kind++) {
            const struct sf_plane *plane = &entry->plane[kind];
            hit |= plane->dtype != SF_DTYPE_NONE && plane->address < to &&
                   plane->address + plane->bytes > from;
        }
        ck_assert_msg(hit == names(seen, 0, entry->name), "address %llu: %s: %s",
                      (unsigned long long)address, entry->name, seen->text[0]);
        hits += hit;
    }
    ck_assert_int_eq(hits, seen->damage[0].entries);
    if (hits == 0)
        ck_assert_msg(strstr(seen->text[0], "padding of ") != NULL, "%s", seen->text[0]);
}

static void flip_payload(uint64_t address, unsigned char flip)
{
    static struct seen seen;
    set_byte(HEADER_BYTES + address, flip);
    ck_assert_int_eq(check(&seen, 1, 0), 1);
    expect_named(&seen, address);
    set_byte(HEADER_BYTES + address, 0);
}

START_TEST(test_flip_payload_edges)
{
    for (int64_t i = 0; i < sf_layout_entry_count(layout); i++)
        for (int kind = 0; kind < SF_PLANE_COUNT; kind++) {
            const struct sf_plane *plane = &sf_layout_entry(layout, i)->plane[kind];
            if (plane->dtype == SF_DTYPE_NONE)
                continue;
            flip_payload(plane->address, 1);
            flip_payload(plane->address + plane->bytes - 1, 0x80);
            if ((plane->address + plane->bytes) % 65536) /* padding, or the plane behind */
                flip_payload(plane->address + plane->bytes, 0x10);
        }
    for (int64_t e = 0; e < sf_layout_extent_count(layout); e++) {
        const struct sf_extent *extent = sf_layout_extent_at(layout, e);
        flip_payload(extent->address + extent->bytes - 1, 2);
    }
}
END_TEST

START_TEST(test_flip_payload_sample)
{
    struct scout_random random = {2026};
    for (int i = 0; i < 2000; i++) {
        uint64_t address = scout_random_u64(&random) % sf_layout_payload_bytes(layout);
        flip_payload(address, (unsigned char)(1u << scout_random_u64(&random) % 8));
    }
}
END_TEST

START_TEST(test_messages)
{
    static struct seen seen;
    const struct sf_extent *expert = sf_layout_extent_at(layout, 3);
    char want[SF_DAMAGE_TEXT];
    set_byte(HEADER_BYTES + expert->address + 5, 1);
    check(&seen, 0, 0);
    snprintf(want, sizeof want,
             "chunk %llu (payload %llu..%llu): layer 0 expert 1 expert_gate, layer 0 expert 1 "
             "expert_up, layer 0 expert 1 expert_down",
             (unsigned long long)expert->first_chunk, (unsigned long long)expert->address,
             (unsigned long long)expert->address + 65536);
    ck_assert_str_eq(seen.text[0], want);
    set_byte(HEADER_BYTES + expert->address + 5, 0);

    /* the second chunk of expert 0 exists because expert 1 is longer: padding only */
    const struct sf_extent *short_one = sf_layout_extent_at(layout, 2);
    set_byte(HEADER_BYTES + short_one->address + 65536 + 9, 1);
    check(&seen, 0, 0);
    ck_assert_msg(strstr(seen.text[0], "): padding of layer 0 expert 0") != NULL, "%s",
                  seen.text[0]);
    ck_assert_int_eq(seen.damage[0].entries, 0);
    set_byte(HEADER_BYTES + short_one->address + 65536 + 9, 0);

    const struct sf_extent *shared = sf_layout_extent_at(layout, 11);
    set_byte(HEADER_BYTES + shared->address, 1);
    check(&seen, 0, 0);
    ck_assert_msg(strstr(seen.text[0], "): codebooks of layer 0 q, layer 0 k, ") != NULL, "%s",
                  seen.text[0]);
    const char *more = strstr(seen.text[0], " more");
    ck_assert_msg(more && more[5] == 0, "%s", seen.text[0]); /* too many for one line */
    set_byte(HEADER_BYTES + shared->address, 0);

    const struct sf_extent *unused = sf_layout_extent_at(layout, 10);
    set_byte(HEADER_BYTES + unused->address + 70000, 1);
    check(&seen, 0, 0);
    ck_assert_msg(strstr(seen.text[0], "): vision.\xc3\xa9tage") != NULL, "%s", seen.text[0]);
    ck_assert_int_eq(check(&seen, 0, SF_CHECK_TRAINED), 0); /* training does not touch it */
}
END_TEST

/* An extent's kind is a hint. A codebook's tensors are named whatever its extent is called. */
START_TEST(test_codebooks_elsewhere)
{
    static struct seen seen;
    const struct sf_extent *shared = sf_layout_extent_at(layout, 11);
    unsigned char *row = patch_row(&good, ROW_EXTENT, 11);
    memcpy(row + EXTENT_KIND, patch_row(&good, ROW_EXTENT, 1) + EXTENT_KIND, 4);
    patch_repair(&good);
    patch_save(&good, path);
    set_byte(HEADER_BYTES + shared->address, 1);
    ck_assert_int_eq(check(&seen, 0, false), 1);
    ck_assert_int_eq(sf_map_extent(map, 11)->kind, SF_EXTENT_DENSE);
    expect_named(&seen, shared->address);
    ck_assert_msg(strstr(seen.text[0], "): layer 0 q, layer 0 k, ") != NULL, "%s", seen.text[0]);
}
END_TEST

/* Extents of one size change places: each chunk is intact, but not where it belongs. Their second
 * chunks are zeros alike, so there is no difference to see. */
START_TEST(test_swapped_experts)
{
    static struct seen seen;
    const struct sf_extent *a = sf_layout_extent_at(layout, 2), *b = sf_layout_extent_at(layout, 4);
    ck_assert_uint_eq(a->bytes, b->bytes);
    ck_assert_int_eq(pwrite(fd, good.data + HEADER_BYTES + a->address, a->bytes,
                            (off_t)(HEADER_BYTES + b->address)),
                     (ssize_t)a->bytes);
    ck_assert_int_eq(pwrite(fd, good.data + HEADER_BYTES + b->address, b->bytes,
                            (off_t)(HEADER_BYTES + a->address)),
                     (ssize_t)a->bytes);
    ck_assert_int_eq(check(&seen, 2, 0), 2);
    ck_assert(names(&seen, 0, "layers.0.experts.0.gate_proj.weight"));
    ck_assert(names(&seen, 1, "layers.0.experts.2.gate_proj.weight"));
}
END_TEST

/* The same report from any number of threads, in order of address. */
START_TEST(test_many)
{
    static struct seen one, four;
    struct scout_random random = {5};
    for (int i = 0; i < 12; i++)
        set_byte(HEADER_BYTES + scout_random_u64(&random) % sf_layout_payload_bytes(layout), 4);
    int64_t damaged = check(&one, 1, 0);
    ck_assert_int_gt(damaged, 3);
    ck_assert_int_eq(check(&four, 4, 0), damaged);
    for (int64_t i = 0; i < damaged; i++) {
        ck_assert_str_eq(one.text[i], four.text[i]);
        ck_assert(i == 0 || one.damage[i - 1].address < one.damage[i].address);
    }
    ck_assert_msg(strstr(err.message, "damaged chunks in all") != NULL, "%s", err.message);
}
END_TEST

static void count_progress(void *context, uint64_t done, uint64_t total)
{
    uint64_t *last = context;
    ck_assert_uint_gt(done, *last);
    ck_assert_uint_le(done, total);
    ck_assert_uint_eq(total, sf_layout_payload_bytes(layout));
    *last = done;
}

START_TEST(test_progress)
{
    int64_t damaged;
    uint64_t last = 0;
    assert_ok(sf_map_open(&map, path, &err), err);
    struct sf_check_options options = {.on_progress = count_progress, .context = &last};
    assert_ok(sf_check_run(&damaged, map, &options, &err), err);
    ck_assert_uint_eq(last, sf_layout_payload_bytes(layout));
}
END_TEST

static Suite *container_check_suite(void)
{
    Suite *suite = suite_create("container_check");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, test_flip_header);
    tcase_add_test(tc, test_flip_sections);
    tcase_add_test(tc, test_flip_payload_edges);
    tcase_add_test(tc, test_flip_payload_sample);
    tcase_add_test(tc, test_messages);
    tcase_add_test(tc, test_codebooks_elsewhere);
    tcase_add_test(tc, test_swapped_experts);
    tcase_add_test(tc, test_many);
    tcase_add_test(tc, test_progress);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(container_check_suite)
