#include "train/image.h"

#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/codec/nf4.h"
#include "libformat/container/container_write.h"
#include "tests/support/support.h"
#include "tests/train/tiny.h"
#include "train/plan/plan.h"

static struct sf_arena arena;
static struct sf_model_spec spec;
static struct sf_err err;

/* What is wrong with the container that is being written; part SF_PART_COUNT: nothing. */
static struct flaw {
    struct sf_role role;
    enum { MISSING, TRANSPOSED, INTEGERS } what;
} flaw;

static void setup(void)
{
    arena = (struct sf_arena){0};
    flaw = (struct flaw){{SF_PART_COUNT, -1, -1}, MISSING};
    tiny_spec(&spec, &arena, 4, true);
}

static void teardown(void)
{
    sf_arena_free(&arena);
}

/* q is nested NF4, k plain NF4, norms float32, the rest bf16. */
static void add_tensor(struct sf_layout *layout, struct sf_role role)
{
    char name[SF_ROLE_TEXT];
    int64_t index;
    struct sf_entry entry = {
        .role = role, .shape = sf_spec_shape(&spec, role.part), .dtype = SF_BF16, .block_axis = -1};
    entry.name = entry.source_name = sf_role_format(name, role);
    if (role.part == SF_PART_Q || role.part == SF_PART_K) {
        entry.encoding = SF_ENCODING_NF4;
        entry.block = 64;
        entry.nested_block = role.part == SF_PART_Q ? 256 : 0;
    } else if (entry.shape.rank == 1) {
        entry.dtype = SF_F32;
    }
    if (memcmp(&role, &flaw.role, sizeof role) == 0) {
        int64_t rows = entry.shape.dim[0];
        if (flaw.what == MISSING)
            return;
        if (flaw.what == TRANSPOSED)
            entry.shape = (struct sf_shape){2, {entry.shape.dim[1], rows}};
        if (flaw.what == INTEGERS)
            entry.dtype = SF_I16;
    }
    assert_ok(sf_layout_tensor(&index, layout, &entry, &err), err);
}

static void add_extent(struct sf_layout *layout, enum sf_extent_kind kind, int32_t layer,
                       int32_t expert)
{
    int code = sf_layout_extent(layout, kind, layer, expert, &err);
    ck_assert_msg(code >= 0, "%s", err.message);
}

static void add_layer(struct sf_layout *layout, int32_t layer)
{
    add_extent(layout, SF_EXTENT_DENSE, layer, -1);
    for (int part = 0; part < SF_PART_UNUSED; part++)
        if (sf_spec_has(&spec, (enum sf_part)part, layer) && !sf_part_is_expert((enum sf_part)part))
            add_tensor(layout, (struct sf_role){(enum sf_part)part, layer, -1});
    for (int32_t e = 0; spec.layer[layer].moe && e < spec.experts; e++) {
        add_extent(layout, SF_EXTENT_EXPERT, layer, e);
        for (int part = SF_PART_EXPERT_GATE; part <= SF_PART_EXPERT_DOWN; part++)
            add_tensor(layout, (struct sf_role){(enum sf_part)part, layer, e});
    }
}

static struct sf_layout *make_layout(void)
{
    struct sf_layout *layout = sf_layout_begin(&arena);
    add_extent(layout, SF_EXTENT_EMBEDDING, -1, -1);
    add_tensor(layout, (struct sf_role){SF_PART_EMBEDDING, -1, -1});
    for (int32_t layer = 0; layer < spec.layers; layer++)
        add_layer(layout, layer);
    add_extent(layout, SF_EXTENT_HEAD, -1, -1);
    add_tensor(layout, (struct sf_role){SF_PART_FINAL_NORM, -1, -1});
    add_tensor(layout, (struct sf_role){SF_PART_HEAD, -1, -1});
    assert_ok(sf_layout_finish(layout, &err), err);
    return layout;
}

static struct sf_map *write_and_map(const char *name)
{
    const char *path = scout_scratch_path(name);
    struct sf_layout *layout = make_layout();
    struct sf_summary summary = {.family = "llama4",
                                 .architecture = "Llama4ForCausalLM",
                                 .model_id = "tiny",
                                 .converter = "test",
                                 .options = ""};
    struct sf_writer *writer;
    struct sf_map *map;
    assert_ok(sf_writer_open(&writer, path, layout, &err), err);
    for (int64_t e = 0; e < sf_layout_extent_count(layout); e++) {
        const struct sf_extent *extent = sf_layout_extent_at(layout, e);
        if (extent->kind != SF_EXTENT_SHARED)
            assert_ok(sf_writer_put(writer, e, 0, sf_arena_alloc(&arena, extent->bytes),
                                    extent->bytes, &err),
                      err);
    }
    assert_ok(sf_writer_commit(writer, &summary, &err), err);
    assert_ok(sf_map_open(&map, path, &err), err);
    return map;
}

static void check_view(const struct sk_matrix *m, const struct sf_map *map, struct sf_role role)
{
    const struct sf_entry *entry = sf_map_find(map, role);
    struct sf_shape shape = sf_spec_shape(&spec, role.part);
    ck_assert_ptr_nonnull(entry);
    ck_assert_int_eq(m->rows, shape.rank == 2 ? shape.dim[0] : 1);
    ck_assert_int_eq(m->cols, shape.dim[shape.rank - 1]);
    ck_assert_ptr_eq(m->data, sf_map_bytes(map, entry->plane[SF_PLANE_CODES].address));
    enum sk_format want = shape.rank == 1          ? SK_FORMAT_F32
                          : role.part == SF_PART_Q ? SK_FORMAT_NF4_NESTED
                          : role.part == SF_PART_K ? SK_FORMAT_NF4
                                                   : SK_FORMAT_BF16;
    ck_assert_int_eq(m->format, want);
    if (want == SK_FORMAT_NF4 || want == SK_FORMAT_NF4_NESTED) {
        ck_assert_ptr_eq(m->scale, sf_map_bytes(map, entry->plane[SF_PLANE_SCALE].address));
        ck_assert_mem_eq(m->codebook, sf_nf4_code_value, sizeof sf_nf4_code_value);
    }
    if (want == SK_FORMAT_NF4_NESTED) {
        ck_assert_ptr_eq(m->scale2, sf_map_bytes(map, entry->plane[SF_PLANE_SCALE2].address));
        ck_assert_mem_eq(m->map, sf_nf4_scale_map, sizeof sf_nf4_scale_map);
    }
}

START_TEST(views_point_into_the_mapping)
{
    struct sf_map *map = write_and_map("good.scout");
    struct sft_image *image;
    assert_ok(sft_image_open(&image, map, &spec, &err), err);
    int views = 0;
    for (int32_t layer = -1; layer < spec.layers; layer++) {
        for (int part = 0; part < SF_PART_UNUSED; part++) {
            struct sf_role role = {(enum sf_part)part, layer, -1};
            if (!sf_spec_has(&spec, role.part, layer))
                continue;
            const struct sk_matrix *m = sft_image_matrices(image, role);
            int64_t count = sf_part_is_expert(role.part) ? spec.experts : 1;
            for (int64_t e = 0; e < count; e++, views++) {
                role.expert = sf_part_is_expert(role.part) ? (int32_t)e : -1;
                check_view(&m[e], map, role);
            }
        }
    }
    ck_assert_int_eq(views, sf_map_info(map)->tensors);
    sft_image_close(image);
    sf_map_close(map);
}
END_TEST

START_TEST(what_does_not_fit_is_named)
{
    static const struct {
        struct flaw flaw;
        int code;
        const char *message;
    } row[] = {
        {{{SF_PART_EXPERT_UP, 1, 2}, MISSING}, SF_ENOENT, "layer 1 expert 2 expert_up"},
        {{{SF_PART_HEAD, -1, -1}, MISSING}, SF_ENOENT, "head"},
        {{{SF_PART_O, 3, -1}, INTEGERS}, SF_EUNSUPPORTED, "layer 3 o"},
        {{{SF_PART_SHARED_UP, 0, -1}, TRANSPOSED}, SF_EFORMAT, "[64, 80]"},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct sft_image *image;
        flaw = row[i].flaw;
        struct sf_map *map = write_and_map("flawed.scout");
        assert_fails(sft_image_open(&image, map, &spec, &err), row[i].code, row[i].message, err);
        ck_assert_msg(strstr(err.message, "flawed.scout"), "no path in: %s", err.message);
        ck_assert_ptr_null(image);
        sf_map_close(map);
    }
}
END_TEST

START_TEST(the_plan_counts_every_extent_once)
{
    struct sf_map *map = write_and_map("plan.scout");
    struct sft_plan plan = {0};
    sft_plan_weights(&plan, map);
    sft_plan_total(&plan);
    ck_assert_uint_eq(plan.resident_bytes + plan.embedding_bytes + plan.unused_bytes,
                      sf_map_info(map)->payload_bytes);
    ck_assert_uint_eq(plan.total_bytes, sf_map_info(map)->payload_bytes);
    ck_assert_uint_eq(plan.unused_bytes, 0);
    ck_assert_uint_ge(plan.embedding_bytes, 96 * 64 * 2);
    ck_assert_uint_gt(plan.weights[SF_EXTENT_EXPERT], plan.weights[SF_EXTENT_HEAD]);
    sf_map_close(map);
}
END_TEST

static Suite *image_suite(void)
{
    Suite *suite = suite_create("image");
    TCase *tc = tcase_create("image");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, views_point_into_the_mapping);
    tcase_add_test(tc, what_does_not_fit_is_named);
    tcase_add_test(tc, the_plan_counts_every_extent_once);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(image_suite)
