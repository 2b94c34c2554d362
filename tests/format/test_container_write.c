/* The writer, and that the reader gives back what it wrote. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/base/mem.h"
#include "libformat/codec/nf4_tables.h"
#include "libformat/container/container_check.h"
#include "libformat/container/container_map.h"
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

static void assert_same_files(const char *a, const char *b)
{
    struct patch x = patch_load(a), y = patch_load(b);
    ck_assert_uint_eq(x.bytes, y.bytes);
    ck_assert_int_eq(memcmp(x.data, y.data, x.bytes), 0);
    patch_free(&x);
    patch_free(&y);
}

START_TEST(test_layout_places)
{
    struct sf_layout *layout = fixture_layout(&arena);
    uint64_t address = 0;
    for (int64_t e = 0; e < sf_layout_extent_count(layout); e++) {
        const struct sf_extent *extent = sf_layout_extent_at(layout, e);
        ck_assert_uint_eq(extent->address, address);
        ck_assert_uint_eq(extent->bytes % 65536, 0);
        address += extent->bytes;
    }
    ck_assert_uint_eq(address, sf_layout_payload_bytes(layout));
    /* gate and up of expert 0 in layer 0: one [2 * 128, 256] matrix, codes and scales alike */
    int64_t first, count;
    sf_layout_extent_entries(&first, &count, layout, 2);
    ck_assert_int_eq(count, 3);
    const struct sf_entry *gate = sf_layout_entry(layout, first);
    const struct sf_entry *up = sf_layout_entry(layout, first + 1);
    for (int kind = SF_PLANE_CODES; kind <= SF_PLANE_SCALE; kind++)
        ck_assert_uint_eq(gate->plane[kind].address + gate->plane[kind].bytes,
                          up->plane[kind].address);
    /* one stride, that of the longest expert */
    for (int64_t e = 2; e < 5; e++)
        ck_assert_uint_eq(sf_layout_extent_at(layout, e)->stride,
                          sf_layout_extent_at(layout, 3)->bytes);
    ck_assert_uint_gt(sf_layout_extent_at(layout, 3)->bytes, 65536);
}
END_TEST

static void check_entry(const struct sf_map *map, const struct sf_entry *want,
                        const struct sf_entry *got)
{
    ck_assert_str_eq(want->name, got->name);
    ck_assert_str_eq(want->source_name, got->source_name);
    ck_assert_int_eq(memcmp(&want->role, &got->role, sizeof want->role), 0);
    ck_assert(sf_shape_equal(&want->shape, &got->shape));
    ck_assert_int_eq(want->encoding, got->encoding);
    ck_assert_int_eq(want->dtype, got->dtype);
    ck_assert_int_eq(want->block, got->block);
    ck_assert_int_eq(want->nested_block, got->nested_block);
    ck_assert_int_eq(want->block_axis, got->block_axis);
    ck_assert(want->relative_rms_error == got->relative_rms_error);
    ck_assert_int_eq(want->extent, got->extent);
    for (int kind = 0; kind < SF_PLANE_COUNT; kind++) {
        ck_assert_int_eq(want->plane[kind].dtype, got->plane[kind].dtype);
        if (want->plane[kind].dtype == SF_DTYPE_NONE)
            continue;
        ck_assert(sf_shape_equal(&want->plane[kind].shape, &got->plane[kind].shape));
        ck_assert_uint_eq(want->plane[kind].address, got->plane[kind].address);
        ck_assert_uint_eq(want->plane[kind].bytes, got->plane[kind].bytes);
    }
    if (want->encoding == SF_ENCODING_NF4)
        ck_assert_int_eq(memcmp(sf_map_bytes(map, got->plane[SF_PLANE_CODEBOOK].address),
                                sf_nf4_code_value, sizeof sf_nf4_code_value),
                         0);
    if (want->nested_block)
        ck_assert_int_eq(memcmp(sf_map_bytes(map, got->plane[SF_PLANE_MAP].address),
                                sf_nf4_scale_map, sizeof sf_nf4_scale_map),
                         0);
}

START_TEST(test_round_trip)
{
    const char *path = scout_scratch_path("round.scout");
    fixture_write(path);
    struct sf_layout *layout = fixture_layout(&arena);
    struct sf_map *map;
    assert_ok(sf_map_open(&map, path, &err), err);
    const struct sf_container_info *info = sf_map_info(map);
    ck_assert_int_eq(info->tensors, sf_layout_entry_count(layout));
    ck_assert_int_eq(info->extents, sf_layout_extent_count(layout));
    ck_assert_uint_eq(info->payload_bytes, sf_layout_payload_bytes(layout));
    ck_assert_uint_eq(info->version_major, 1);
    ck_assert_uint_eq(info->version_minor, 0);
    for (int64_t i = 0; i < info->tensors; i++) {
        const struct sf_entry *want = sf_layout_entry(layout, i);
        const struct sf_entry *by_name = sf_map_find_name(map, want->name);
        ck_assert_ptr_nonnull(by_name);
        check_entry(map, want, by_name);
        const struct sf_entry *by_role = sf_map_find(map, want->role);
        ck_assert_ptr_eq(by_role, want->role.part == SF_PART_UNUSED ? NULL : by_name);
    }
    for (int64_t e = 0; e < info->extents; e++) {
        const struct sf_extent *want = sf_layout_extent_at(layout, e), *got = sf_map_extent(map, e);
        ck_assert_int_eq(memcmp(want, got, sizeof *want), 0);
        if (want->kind != SF_EXTENT_SHARED)
            ck_assert_int_eq(memcmp(fixture_extent(&arena, layout, e),
                                    sf_map_bytes(map, got->address), got->bytes),
                             0);
    }
    int64_t damaged = 99;
    assert_ok(sf_check_run(&damaged, map, NULL, &err), err);
    ck_assert_int_eq(damaged, 0);
    sf_map_close(map);
}
END_TEST

START_TEST(test_order_of_tensors)
{
    const char *path = scout_scratch_path("order.scout");
    fixture_write(path);
    struct sf_map *map;
    assert_ok(sf_map_open(&map, path, &err), err);
    for (int64_t i = 1; i < sf_map_info(map)->tensors; i++) {
        const struct sf_role *a = &sf_map_tensor(map, i - 1)->role,
                             *b = &sf_map_tensor(map, i)->role;
        ck_assert(a->layer < b->layer || (a->layer == b->layer && a->part < b->part) ||
                  (a->layer == b->layer && a->part == b->part && a->expert <= b->expert));
    }
    struct sf_role absent[] = {{SF_PART_V, 0, -1},         {SF_PART_EXPERT_UP, 0, 3},
                               {SF_PART_Q, 2, -1},         {SF_PART_Q, -1, -1},
                               {SF_PART_EXPERT_UP, 0, -1}, {SF_PART_UNUSED, -1, -1},
                               {SF_PART_EMBEDDING, 0, -1}, {SF_PART_COUNT, 0, 0}};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        ck_assert_ptr_null(sf_map_find(map, absent[i]));
    ck_assert_ptr_null(sf_map_find_name(map, "layers.0.v"));
    ck_assert_ptr_null(sf_map_find_name(map, ""));
    sf_map_close(map);
}
END_TEST

START_TEST(test_metadata)
{
    const char *path = scout_scratch_path("meta.scout");
    fixture_write(path);
    struct sf_map *map;
    assert_ok(sf_map_open(&map, path, &err), err);
    const struct sf_summary *got = sf_map_summary(map), *want = &fixture_summary;
    ck_assert_str_eq(got->family, want->family);
    ck_assert_str_eq(got->architecture, want->architecture);
    ck_assert_str_eq(got->model_id, want->model_id);
    ck_assert_str_eq(got->converter, want->converter);
    ck_assert_str_eq(got->options, want->options);
    ck_assert_int_eq(got->layers, 2);
    ck_assert_int_eq(got->hidden, 256);
    ck_assert_int_eq(got->experts, 3);
    ck_assert_int_eq(got->vocabulary, 24);
    ck_assert_int_eq(got->parameters, 1234567);
    ck_assert_int_eq(got->parameters_text, 1000000);
    ck_assert_uint_eq(got->source_bytes, 777777);
    ck_assert_int_eq(got->shard_count, 2);
    for (int i = 0; i < 2; i++) {
        ck_assert_str_eq(got->shard[i].name, want->shard[i].name);
        ck_assert_uint_eq(got->shard[i].bytes, want->shard[i].bytes);
        ck_assert_int_eq(memcmp(got->shard[i].hash, want->shard[i].hash, 16), 0);
    }
    static const char *const names[] = {"config.json", "empty.txt", "tokenizer.json"};
    ck_assert_int_eq(sf_map_info(map)->files, 3);
    for (int i = 0; i < 3; i++) {
        uint64_t bytes, directory_bytes;
        char *text;
        ck_assert_str_eq(sf_map_file_name(map, i, &directory_bytes), names[i]);
        assert_ok(sf_map_read_file(&text, &bytes, map, names[i], &arena, &err), err);
        ck_assert_uint_eq(bytes, directory_bytes);
        ck_assert_uint_eq(strlen(text), bytes);
        ck_assert(i != 0 || strcmp(text, "{\"model_type\": \"llama4_text\"}\n") == 0);
    }
    char *text;
    assert_fails(sf_map_read_file(&text, NULL, map, "nothing.json", &arena, &err), SF_ENOENT,
                 "carries no nothing.json", err);
    sf_map_close(map);
}
END_TEST

/* ---- order and threads ---- */

struct put_job {
    int64_t extent;
    uint64_t offset, bytes;
    const unsigned char *data;
};

struct put_thread {
    struct sf_writer *writer;
    struct put_job *job;
    int64_t count;
    int code;
};

static void *put_all(void *argument)
{
    struct put_thread *t = argument;
    for (int64_t i = 0; i < t->count && t->code == SF_OK; i++)
        t->code = sf_writer_put(t->writer, t->job[i].extent, t->job[i].offset, t->job[i].data,
                                t->job[i].bytes, NULL);
    return NULL;
}

/* Every chunk on its own, shuffled, from four threads: the file must not show it. */
START_TEST(test_any_order_same_bytes)
{
    enum { THREADS = 4, JOBS = 256 };
    static struct put_job job[JOBS];
    int64_t jobs = 0;
    const char *a = scout_scratch_path("a.scout"), *b = scout_scratch_path("b.scout");
    fixture_write(a);
    struct sf_layout *layout = fixture_layout(&arena);
    uint64_t chunk = sf_layout_chunk_bytes(layout);
    for (int64_t e = 0; e < sf_layout_extent_count(layout); e++) {
        const struct sf_extent *extent = sf_layout_extent_at(layout, e);
        if (extent->kind == SF_EXTENT_SHARED)
            continue;
        const unsigned char *data = fixture_extent(&arena, layout, e);
        for (uint64_t at = 0; at < extent->bytes; at += chunk)
            job[jobs++] = (struct put_job){e, at, chunk, data + at};
    }
    struct scout_random random = {(uint64_t)_i};
    for (int64_t i = jobs - 1; i > 0; i--) {
        int64_t j = (int64_t)(scout_random_u64(&random) % (uint64_t)(i + 1));
        struct put_job t = job[i];
        job[i] = job[j];
        job[j] = t;
    }
    struct sf_writer *writer;
    assert_ok(sf_writer_open(&writer, b, layout, &err), err);
    struct put_thread thread[THREADS];
    pthread_t id[THREADS];
    for (int t = 0; t < THREADS; t++) {
        int64_t from = jobs * t / THREADS, to = jobs * (t + 1) / THREADS;
        thread[t] = (struct put_thread){writer, job + from, to - from, SF_OK};
        ck_assert_int_eq(pthread_create(&id[t], NULL, put_all, &thread[t]), 0);
    }
    for (int t = 0; t < THREADS; t++) {
        pthread_join(id[t], NULL);
        ck_assert_int_eq(thread[t].code, SF_OK);
    }
    fixture_add_files(writer);
    assert_ok(sf_writer_commit(writer, &fixture_summary, &err), err);
    assert_same_files(a, b);
}
END_TEST

/* ---- refusals ---- */

START_TEST(test_writer_refuses)
{
    const char *path = scout_scratch_path("refused.scout");
    struct sf_layout *layout = fixture_layout(&arena);
    unsigned char *data = fixture_extent(&arena, layout, 0);
    struct sf_writer *writer;
    assert_ok(sf_writer_open(&writer, path, layout, &err), err);
    assert_fails(sf_writer_put(writer, 0, 100, data, 65536, &err), SF_EINVAL, "no run of chunks",
                 err);
    assert_fails(sf_writer_put(writer, 0, 0, data, 65536 * 2, &err), SF_EINVAL, "no run of chunks",
                 err);
    assert_fails(sf_writer_put(writer, 0, 0, data, 1000, &err), SF_EINVAL, "no run of chunks", err);
    data[65535] = 1; /* behind the embedding */
    assert_fails(sf_writer_put(writer, 0, 0, data, 65536, &err), SF_EINVAL,
                 "padding at payload address 65535 is not zero", err);
    data[65535] = 0;
    assert_ok(sf_writer_put(writer, 0, 0, data, 65536, &err), err);
    assert_fails(sf_writer_commit(writer, &fixture_summary, &err), SF_EINVAL,
                 "extent 1: chunk 0 of 1 was never put", err);
    ck_assert(!sf_file_exists(path)); /* and nothing half-written */
    assert_ok(sf_writer_open(&writer, path, layout, &err), err);
    sf_writer_abort(writer);
    ck_assert(!sf_file_exists(path));
    sf_writer_abort(NULL);
    assert_fails(sf_writer_open(&writer, scout_scratch_path("no/such/dir/x.scout"), layout, &err),
                 SF_ENOENT, "cannot create", err);
}
END_TEST

START_TEST(test_files_need_names_of_their_own)
{
    struct sf_layout *layout = fixture_layout(&arena);
    struct sf_writer *writer;
    assert_ok(sf_writer_open(&writer, scout_scratch_path("twice.scout"), layout, &err), err);
    for (int64_t e = 0; e < sf_layout_extent_count(layout) - 1; e++)
        assert_ok(sf_writer_put(writer, e, 0, fixture_extent(&arena, layout, e),
                                sf_layout_extent_at(layout, e)->bytes, &err),
                  err);
    fixture_add_files(writer);
    assert_ok(sf_writer_add_file(writer, "config.json", "x", 1, &err), err);
    assert_fails(sf_writer_commit(writer, &fixture_summary, &err), SF_EINVAL, "config.json", err);
}
END_TEST

static struct sf_entry raw_entry(const char *name, enum sf_part part, int layer)
{
    return (struct sf_entry){.name = name,
                             .source_name = name,
                             .role = {part, layer, -1},
                             .shape = {1, {4}},
                             .dtype = SF_F32,
                             .block_axis = -1};
}

START_TEST(test_layout_refuses_tensors)
{
    struct sf_layout *layout = sf_layout_begin(&arena);
    int64_t index;
    struct sf_entry entry = raw_entry("x", SF_PART_UNUSED, -1);
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EINVAL, "before the first",
                 err);
    ck_assert_int_eq(sf_layout_extent(layout, SF_EXTENT_SHARED, -1, -1, &err), SF_EINVAL);
    ck_assert_int_eq(sf_layout_extent(layout, SF_EXTENT_EXPERT, 0, -1, &err), SF_EINVAL);
    ck_assert_int_eq(sf_layout_extent(layout, SF_EXTENT_DENSE, 0, -1, &err), 0);
    entry.name = "bad\033[31m";
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EINVAL, "control character",
                 err);
    entry.name = "bad\xff";
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EINVAL, "not UTF-8", err);
    entry.name = "";
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EINVAL, "without a name", err);
    entry.name = "x";
    entry.shape.dim[0] = 0;
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EFORMAT,
                 "x: shape [0] has no usable number", err);
    entry.shape = (struct sf_shape){3, {INT64_MAX, INT64_MAX, 4}};
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EFORMAT, "no usable number",
                 err);
    entry.shape = (struct sf_shape){1, {4}};
    entry.dtype = (enum sf_dtype)99;
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EUNSUPPORTED, "type 99", err);
    entry.dtype = SF_F32;
    entry.block = 64;
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EFORMAT, "raw elements", err);
    entry.encoding = SF_ENCODING_NF4;
    entry.block = 48;
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EFORMAT, "block 48", err);
    entry.block = 64;
    entry.block_axis = 1;
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EFORMAT, "block axis 1", err);
    entry.block_axis = 0;
    assert_fails(sf_layout_tensor(&index, layout, &entry, &err), SF_EFORMAT, "do not divide", err);
    assert_fails(sf_layout_finish(layout, &err), SF_EINVAL, "without tensors", err);
}
END_TEST

static struct sf_layout *layout_of(const struct sf_extent *extents, int count)
{
    struct sf_layout *layout = sf_layout_begin(&arena);
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "t%d", i);
        struct sf_entry entry = raw_entry(name, SF_PART_EXPERT_GATE, extents[i].layer);
        entry.role.expert = extents[i].expert;
        int64_t index;
        ck_assert_int_eq(
            sf_layout_extent(layout, extents[i].kind, extents[i].layer, extents[i].expert, &err),
            i);
        assert_ok(sf_layout_tensor(&index, layout, &entry, &err), err);
    }
    return layout;
}

START_TEST(test_layout_refuses_orders)
{
    struct sf_extent e[] = {{.kind = SF_EXTENT_EXPERT, .layer = 0, .expert = 1},
                            {.kind = SF_EXTENT_EXPERT, .layer = 0, .expert = 0},
                            {.kind = SF_EXTENT_EXPERT, .layer = 1, .expert = 0},
                            {.kind = SF_EXTENT_EXPERT, .layer = 0, .expert = 2}};
    assert_fails(sf_layout_finish(layout_of(e, 2), &err), SF_EINVAL,
                 "layer 0: expert 0 comes after expert 1", err);
    assert_fails(sf_layout_finish(layout_of(e + 1, 3), &err), SF_EINVAL,
                 "layer 0: its experts do not stand together", err);
    struct sf_extent same[] = {{.kind = SF_EXTENT_DENSE, .layer = 3, .expert = -1},
                               {.kind = SF_EXTENT_DENSE, .layer = 3, .expert = -1}};
    assert_fails(sf_layout_finish(layout_of(same, 2), &err), SF_EINVAL,
                 "t0 and t1 are both layer 3 experts' gate_up", err);
    struct sf_layout *empty = layout_of(same, 1);
    ck_assert_int_eq(sf_layout_extent(empty, SF_EXTENT_HEAD, -1, -1, &err), 1);
    assert_fails(sf_layout_finish(empty, &err), SF_EINVAL, "extent 1 holds no tensor", err);
}
END_TEST

/* Two unused tensors of one name have different places in the index, and one name too many. */
START_TEST(test_names_are_unique)
{
    struct sf_layout *layout = sf_layout_begin(&arena);
    struct sf_entry entry = raw_entry("same", SF_PART_UNUSED, -1);
    int64_t index;
    unsigned char *data = sf_arena_alloc(&arena, 65536);
    ck_assert_int_eq(sf_layout_extent(layout, SF_EXTENT_UNUSED, -1, -1, &err), 0);
    assert_ok(sf_layout_tensor(&index, layout, &entry, &err), err);
    entry.role.layer = 1;
    assert_ok(sf_layout_tensor(&index, layout, &entry, &err), err);
    assert_ok(sf_layout_finish(layout, &err), err);
    struct sf_writer *writer;
    const char *path = scout_scratch_path("names.scout");
    assert_ok(sf_writer_open(&writer, path, layout, &err), err);
    assert_ok(sf_writer_put(writer, 0, 0, data, 65536, &err), err);
    assert_fails(sf_writer_commit(writer, &fixture_summary, &err), SF_EINVAL,
                 "two tensors are named same", err);
}
END_TEST

/* Whatever allocation fails, the answer is SF_ENOMEM and nothing is left behind. */
START_TEST(test_out_of_memory)
{
    const char *path = scout_scratch_path("memory.scout");
    fixture_write(path);
    int64_t n = 1;
    for (;; n++) {
        struct sf_map *map = NULL;
        int64_t damaged;
        sf_alloc_fail_after(n);
        int code = sf_map_open(&map, path, &err);
        if (code == SF_OK)
            code = sf_check_run(&damaged, map, NULL, &err);
        sf_alloc_fail_after(0);
        sf_map_close(map);
        if (code == SF_OK)
            break;
        ck_assert_msg(code == SF_ENOMEM, "allocation %lld: %s", (long long)n, err.message);
    }
    ck_assert_int_gt(n, 3);
}
END_TEST

static int write_small(const char *path, const unsigned char *data)
{
    struct sf_arena run = {0};
    struct sf_layout *layout = sf_layout_begin(&run);
    struct sf_writer *writer = NULL;
    struct sf_entry entry = raw_entry("x", SF_PART_INPUT_NORM, 0);
    entry.encoding = SF_ENCODING_NF4;
    entry.block = 64;
    int64_t index;
    int code = layout ? sf_layout_extent(layout, SF_EXTENT_DENSE, 0, -1, &err) : SF_ENOMEM;
    if (code >= 0)
        code = sf_layout_tensor(&index, layout, &entry, &err);
    if (code == SF_OK)
        code = sf_layout_finish(layout, &err);
    if (code == SF_OK)
        code = sf_writer_open(&writer, path, layout, &err);
    if (code == SF_OK)
        code = sf_writer_put(writer, 0, 0, data, 65536, &err);
    if (code == SF_OK)
        code = sf_writer_add_file(writer, "config.json", "{}", 2, &err);
    if (code == SF_OK)
        code = sf_writer_commit(writer, &fixture_summary, &err);
    else
        sf_writer_abort(writer);
    sf_arena_free(&run);
    return code;
}

START_TEST(test_writer_out_of_memory)
{
    const char *path = scout_scratch_path("no-memory.scout");
    unsigned char *data = sf_arena_alloc(&arena, 65536);
    int64_t n = 1;
    for (;; n++) {
        sf_alloc_fail_after(n);
        int code = write_small(path, data);
        sf_alloc_fail_after(0);
        if (code == SF_OK)
            break;
        ck_assert_msg(code == SF_ENOMEM, "allocation %lld: %s", (long long)n, err.message);
        ck_assert(!sf_file_exists(path));
    }
    ck_assert_int_gt(n, 5);
}
END_TEST

static Suite *container_write_suite(void)
{
    Suite *suite = suite_create("container_write");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_layout_places);
    tcase_add_test(tc, test_round_trip);
    tcase_add_test(tc, test_order_of_tensors);
    tcase_add_test(tc, test_metadata);
    tcase_add_loop_test(tc, test_any_order_same_bytes, 0, 4);
    tcase_add_test(tc, test_writer_refuses);
    tcase_add_test(tc, test_files_need_names_of_their_own);
    tcase_add_test(tc, test_layout_refuses_tensors);
    tcase_add_test(tc, test_layout_refuses_orders);
    tcase_add_test(tc, test_names_are_unique);
    tcase_add_test(tc, test_out_of_memory);
    tcase_add_test(tc, test_writer_out_of_memory);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(container_write_suite)
