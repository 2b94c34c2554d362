/* The worked bytes of spec/container.md are those that the writer writes.
 * `test_container_spec --dump` prints them as the page shows them, for when the format moves. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/container/container_check.h"
#include "libformat/container/container_map.h"
#include "libformat/container/layout.h"
#include "tests/format/container_fixture.h"

static struct sf_err err;

/* ---- the tiny container of the page: one norm and one NF4 matrix ---- */

static void add_tensor(struct sf_layout *layout, const struct sf_entry *entry)
{
    int64_t index;
    assert_ok(sf_layout_tensor(&index, layout, entry, &err), err);
}

static struct sf_layout *tiny_layout(struct sf_arena *arena)
{
    struct sf_layout *layout = sf_layout_begin(arena);
    ck_assert_int_eq(sf_layout_extent(layout, SF_EXTENT_DENSE, 0, -1, &err), 0);
    add_tensor(layout, &(struct sf_entry){.name = "norm",
                                          .source_name = "norm",
                                          .role = {SF_PART_INPUT_NORM, 0, -1},
                                          .shape = {1, {4}},
                                          .dtype = SF_F32,
                                          .block_axis = -1});
    add_tensor(layout, &(struct sf_entry){.name = "q",
                                          .source_name = "q_proj",
                                          .role = {SF_PART_Q, 0, -1},
                                          .shape = {2, {2, 64}},
                                          .encoding = SF_ENCODING_NF4,
                                          .dtype = SF_BF16,
                                          .block = 64,
                                          .nested_block = 256,
                                          .block_axis = -1,
                                          .relative_rms_error = 0.0625});
    assert_ok(sf_layout_finish(layout, &err), err);
    return layout;
}

static void tiny_extent(unsigned char *data, struct sf_layout *layout)
{
    const struct sf_plane *norm = sf_layout_entry(layout, 0)->plane;
    const struct sf_plane *q = sf_layout_entry(layout, 1)->plane;
    for (int i = 0; i < 4; i++)
        sf_put_f32(data + norm[SF_PLANE_CODES].address + 4 * i, (float)(i + 1));
    for (int i = 0; i < 64; i++)
        data[q[SF_PLANE_CODES].address + i] = (unsigned char)(i % 16 << 4 | (15 - i % 16));
    data[q[SF_PLANE_SCALE].address] = 200;
    data[q[SF_PLANE_SCALE].address + 1] = 50;
    sf_put_f32(data + q[SF_PLANE_SCALE2].address, 0.5f);
    sf_put_f32(data + q[SF_PLANE_OFFSET].address, 1.0f);
}

static void tiny_write(const char *path)
{
    struct sf_arena arena = {0};
    struct sf_layout *layout = tiny_layout(&arena);
    uint64_t bytes = sf_layout_extent_at(layout, 0)->bytes;
    unsigned char *data = sf_arena_alloc(&arena, bytes);
    tiny_extent(data, layout);
    struct sf_source_shard shard = {"model.safetensors", 272, "0123456789abcde"};
    struct sf_summary summary = {.family = "llama4",
                                 .architecture = "Llama4ForCausalLM",
                                 .model_id = "example/tiny",
                                 .converter = "scout-convert 0.1.0",
                                 .layers = 1,
                                 .hidden = 64,
                                 .vocabulary = 8,
                                 .parameters = 132,
                                 .parameters_text = 132,
                                 .source_bytes = 272,
                                 .shard_count = 1,
                                 .shard = &shard};
    struct sf_writer *writer;
    assert_ok(sf_writer_open(&writer, path, layout, &err), err);
    assert_ok(sf_writer_put(writer, 0, 0, data, bytes, &err), err);
    assert_ok(sf_writer_add_file(writer, "config.json", "{}\n", 3, &err), err);
    assert_ok(sf_writer_commit(writer, &summary, &err), err);
    sf_arena_free(&arena);
}

/* ---- printing ---- */

static bool row_is_zero(const unsigned char *row, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (row[i])
            return false;
    return true;
}

static void dump_range(const unsigned char *data, uint64_t from, uint64_t to, const char *title)
{
    printf("# %s\n", title);
    for (uint64_t at = from; at < to; at += 16) {
        uint64_t n = to - at < 16 ? to - at : 16;
        if (row_is_zero(data + at, n))
            continue;
        printf("%06llx:", (unsigned long long)at);
        for (uint64_t i = 0; i < n; i++)
            printf(" %02x", data[at + i]);
        printf("%*s|", (int)(3 * (16 - n) + 2), "");
        for (uint64_t i = 0; i < n; i++)
            putchar(isprint(data[at + i]) ? data[at + i] : '.');
        printf("|\n");
    }
}

START_TEST(dump)
{
    static const struct {
        enum patch_table table;
        const char *title;
    } tables[] = {{ROW_PART, "index: part table"},     {ROW_EXTENT, "index: extent table"},
                  {ROW_TENSOR, "index: tensor table"}, {ROW_PLANE, "index: plane table"},
                  {ROW_SHAPE, "index: shape table"},   {ROW_LABEL, "index: label table"},
                  {ROW_NAME, "index: name table"},     {ROW_STRING, "index: strings"}};
    tiny_write(scout_scratch_path("tiny.scout"));
    struct patch p = patch_load(scout_scratch_path("tiny.scout"));
    uint64_t bytes, at;
    printf("# length %llu\n", (unsigned long long)p.bytes);
    dump_range(p.data, 0, HEADER_TABLE, "header");
    dump_range(p.data, HEADER_TABLE, HEADER_BYTES, "header: section table");
    patch_section(&p, SECTION_PAYLOAD, &bytes);
    dump_range(p.data, HEADER_BYTES, HEADER_BYTES + 65536, "payload: extent 0");
    dump_range(p.data, HEADER_BYTES + 65536, HEADER_BYTES + bytes, "payload: extent 1, codebooks");
    at = (uint64_t)(patch_section(&p, SECTION_CHECKSUMS, &bytes) - p.data);
    dump_range(p.data, at, at + bytes, "checksums");
    at = (uint64_t)(patch_section(&p, SECTION_INDEX, &bytes) - p.data);
    dump_range(p.data, at, at + INDEX_HEAD_BYTES, "index: head");
    for (int t = 0; t < 8; t++) {
        uint64_t from = (uint64_t)(patch_row(&p, tables[t].table, 0) - p.data);
        uint64_t to =
            t < 7 ? (uint64_t)(patch_row(&p, tables[t + 1].table, 0) - p.data) : at + bytes;
        dump_range(p.data, from, to, tables[t].title);
    }
    at = (uint64_t)(patch_section(&p, SECTION_METADATA, &bytes) - p.data);
    uint64_t strings = at + META_HEAD_BYTES + SHARD_BYTES + FILE_BYTES;
    uint64_t frames = strings + sf_get_u32(p.data + at + META_STRING_BYTES);
    dump_range(p.data, at, at + META_HEAD_BYTES, "metadata: head and summary");
    dump_range(p.data, at + META_HEAD_BYTES, strings, "metadata: shard, file");
    dump_range(p.data, strings, frames, "metadata: strings");
    dump_range(p.data, frames, at + bytes, "metadata: frame of config.json");
    patch_free(&p);
    fflush(stdout);
}
END_TEST

/* ---- comparing ---- */

/* The page's dump as a file: rows that are not shown are zero. */
static struct patch page_bytes(void)
{
    char line[512];
    struct patch p = {0};
    bool inside = false;
    FILE *f = fopen(scout_source_path("spec/container.md"), "r");
    ck_assert_msg(f != NULL, "no spec/container.md");
    while (fgets(line, sizeof line, f)) {
        unsigned long long length;
        if (strncmp(line, "```hex", 6) == 0)
            inside = true;
        else if (strncmp(line, "```", 3) == 0)
            inside = false;
        if (!inside)
            continue;
        if (sscanf(line, "# length %llu", &length) == 1) {
            ck_assert_msg(!p.data, "two lengths on one page");
            p.bytes = length;
            p.data = calloc(1, length);
        }
        char *at = NULL;
        unsigned long long offset = strtoull(line, &at, 16);
        if (at - line != 6 || *at != ':')
            continue;
        ck_assert_msg(p.data != NULL, "no length before %s", line);
        for (at++; at[0] == ' ' && isxdigit((unsigned char)at[1]); at += 3, offset++) {
            ck_assert_uint_lt(offset, p.bytes);
            p.data[offset] = (unsigned char)strtoul(at, NULL, 16);
        }
    }
    fclose(f);
    return p;
}

START_TEST(test_worked_bytes)
{
    const char *path = scout_scratch_path("tiny.scout");
    tiny_write(path);
    struct patch want = page_bytes(), got = patch_load(path);
    ck_assert_msg(want.bytes == got.bytes, "the page's file has %llu bytes, the writer's %llu",
                  (unsigned long long)want.bytes, (unsigned long long)got.bytes);
    for (uint64_t i = 0; i < want.bytes; i++)
        ck_assert_msg(want.data[i] == got.data[i], "byte 0x%llx: %02x on the page, %02x written",
                      (unsigned long long)i, want.data[i], got.data[i]);
    patch_free(&want);
    patch_free(&got);
}
END_TEST

/* And the other way: the page's bytes are a container that the reader takes. */
START_TEST(test_page_is_readable)
{
    const char *path = scout_scratch_path("page.scout");
    struct patch page = page_bytes();
    struct sf_map *map;
    int64_t damaged;
    patch_save(&page, path);
    assert_ok(sf_map_open(&map, path, &err), err);
    assert_ok(sf_check_run(&damaged, map, NULL, &err), err);
    const struct sf_entry *q = sf_map_find(map, (struct sf_role){SF_PART_Q, 0, -1});
    ck_assert_str_eq(q->source_name, "q_proj");
    ck_assert_uint_eq(q->plane[SF_PLANE_CODES].address, 256);
    sf_map_close(map);
    patch_free(&page);
}
END_TEST

static Suite *container_spec_suite(bool only_dump)
{
    Suite *suite = suite_create("container_spec");
    TCase *tc = tcase_create("all");
    if (only_dump) {
        tcase_add_test(tc, dump);
    } else {
        tcase_add_test(tc, test_worked_bytes);
        tcase_add_test(tc, test_page_is_readable);
    }
    suite_add_tcase(suite, tc);
    return suite;
}

int main(int argc, char **argv)
{
    return scout_test_run(container_spec_suite(argc == 2 && strcmp(argv[1], "--dump") == 0));
}
