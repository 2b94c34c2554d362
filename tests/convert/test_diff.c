#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "libformat/base/file.h"
#include "libformat/codec/nf4.h"
#include "libformat/convert/diff.h"
#include "libformat/convert/source_check.h"
#include "tests/convert/conversion.h"

static const char TINY[] = "examples/tiny-scout";
static const char K[] = "language_model.model.layers.1.self_attn.k_proj.weight";
static const char EXPERT[] =
    "language_model.model.layers.2.feed_forward.experts.3.down_proj.weight";

static struct sf_map *tiny(const char *name, const char *keep)
{
    return converted((struct conversion){.source = scout_source_path(TINY),
                                         .output = scout_scratch_path(name),
                                         .keep = {keep},
                                         .keep_count = keep != NULL});
}

/* A copy of tiny.scout in which byte `at` of a plane of `name` has been changed by `flip`. */
static struct sf_map *altered(const char *copy, const char *name, enum sf_plane_kind kind,
                              uint64_t at, unsigned char flip)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_map *map = tiny("tiny.scout", NULL);
    uint64_t bytes,
        place = sf_map_info(map)->payload_offset + sf_map_find_name(map, name)->plane[kind].address;
    char *file;
    assert_ok(sf_read_file(&file, &bytes, &arena, sf_map_path(map), 1 << 24, &err), err);
    file[place + at] = (char)(file[place + at] ^ flip);
    sf_map_close(map);
    assert_ok(sf_write_file(scout_scratch_path(copy), file, bytes, &err), err);
    assert_ok(sf_map_open(&map, scout_scratch_path(copy), &err), err);
    sf_arena_free(&arena);
    return map;
}

static void diff_maps(struct sf_diff *out, struct sf_weight_list list[2], const struct sf_map *a,
                      const struct sf_map *b, int threads)
{
    struct sf_err err = {0};
    struct sf_diff_options options = {.threads = threads};
    assert_ok(sf_weight_list_from_map(&list[0], a, &err), err);
    assert_ok(sf_weight_list_from_map(&list[1], b, &err), err);
    assert_ok(sf_diff_run(out, &list[0], &list[1], &options, &err), err);
}

static void close_diff(struct sf_diff *diff, struct sf_weight_list list[2])
{
    sf_diff_free(diff);
    sf_weight_list_close(&list[0]);
    sf_weight_list_close(&list[1]);
}

static const struct sf_diff_row *row_of(const struct sf_diff *diff, const char *name)
{
    for (int64_t i = 0; i < diff->rows; i++)
        if (diff->row[i].a && strcmp(diff->row[i].a->name, name) == 0)
            return &diff->row[i];
    ck_abort_msg("%s is not compared", name);
    return NULL;
}

/* ---- diff ---- */

START_TEST(one_code_is_one_code)
{
    struct sf_map *a = tiny("a.scout", NULL),
                  *b = altered("b.scout", K, SF_PLANE_CODES, 1000, 0x10);
    struct sf_weight_list list[2];
    struct sf_diff diff;
    struct sf_err err = {0};
    static float x[128 * 256], y[128 * 256];
    double difference = 0, norm = 0;
    diff_maps(&diff, list, a, b, 3);
    ck_assert_int_eq(diff.of_state[SF_DIFF_VALUES], 1);
    ck_assert_int_eq(diff.of_state[SF_DIFF_SAME], 132);
    const struct sf_diff_row *r = row_of(&diff, K);
    ck_assert_int_eq(r->codes_changed, 1);
    ck_assert_int_eq(r->changed, 1);
    ck_assert_int_eq(r->scales, 512);
    ck_assert_int_eq(r->scales_changed, 0);
    ck_assert_int_eq(r->largest_at, 2000); /* the high nibble */
    assert_ok(sf_weight_read(x, &list[0], r->a, 0, 128 * 256, &err), err);
    assert_ok(sf_weight_read(y, &list[1], r->b, 0, 128 * 256, &err), err);
    for (int i = 0; i < 128 * 256; i++) {
        difference += ((double)y[i] - x[i]) * ((double)y[i] - x[i]);
        norm += (double)x[i] * x[i];
    }
    ck_assert(fabs(r->relative_rms - sqrt(difference / norm)) <= 1e-12 * r->relative_rms);
    ck_assert(r->largest == fabs((double)y[2000] - x[2000]));
    close_diff(&diff, list);
    sf_map_close(a);
    sf_map_close(b);
}
END_TEST

START_TEST(one_scale_changes_its_block)
{
    struct sf_map *a = tiny("a.scout", NULL), *b = altered("b.scout", EXPERT, SF_PLANE_SCALE, 7, 1);
    struct sf_weight_list list[2];
    struct sf_diff diff;
    diff_maps(&diff, list, a, b, 2);
    const struct sf_diff_row *r = row_of(&diff, EXPERT);
    ck_assert_int_eq(diff.of_state[SF_DIFF_VALUES], 1);
    ck_assert_int_eq(r->codes_changed, 0);
    ck_assert_int_eq(r->scales_changed, 1);
    ck_assert(r->changed > 0 && r->changed <= 64);
    ck_assert(r->largest_at >= 7 * 64 && r->largest_at < 8 * 64);
    close_diff(&diff, list);
    sf_map_close(a);
    sf_map_close(b);
}
END_TEST

/* A source against its container: what is quantized differs by the recorded error. */
START_TEST(a_folder_differs_by_the_recorded_error)
{
    struct sf_err err = {0};
    struct sf_map *map = tiny("a.scout", "*o_proj*");
    struct sf_weight_list folder, mine;
    struct sf_diff diff;
    struct sf_diff_options options = {.threads = 2};
    assert_ok(sf_weight_list_from_folder(&folder, scout_source_path(TINY), &err), err);
    assert_ok(sf_weight_list_from_map(&mine, map, &err), err);
    assert_ok(sf_diff_run(&diff, &folder, &mine, &options, &err), err);
    ck_assert_int_eq(diff.rows, 133);
    ck_assert_int_eq(diff.of_state[SF_DIFF_VALUES], 72);
    ck_assert_int_eq(diff.of_state[SF_DIFF_SAME], 61);
    for (int64_t i = 0; i < diff.rows; i++) {
        double want = diff.row[i].b->entry->relative_rms_error;
        ck_assert_msg(fabs(diff.row[i].relative_rms - want) <= 1e-6 * want, "%s: %g, not %g",
                      diff.row[i].a->name, diff.row[i].relative_rms, want);
    }
    sf_diff_free(&diff);
    sf_weight_list_close(&folder);
    sf_weight_list_close(&mine);
    sf_map_close(map);
}
END_TEST

START_TEST(threads_do_not_show)
{
    struct sf_map *a = tiny("a.scout", NULL), *b = tiny("b.scout", "*o_proj*");
    struct sf_weight_list one[2], many[2];
    struct sf_diff x, y;
    diff_maps(&x, one, a, b, 1);
    diff_maps(&y, many, a, b, 5);
    ck_assert_int_eq(x.of_state[SF_DIFF_VALUES], 4);
    for (int64_t i = 0; i < x.rows; i++) {
        ck_assert(x.row[i].relative_rms == y.row[i].relative_rms);
        ck_assert_int_eq(x.row[i].changed, y.row[i].changed);
        ck_assert_int_eq(x.row[i].codes_changed, y.row[i].codes_changed);
    }
    close_diff(&x, one);
    close_diff(&y, many);
    sf_map_close(a);
    sf_map_close(b);
}
END_TEST

START_TEST(other_models_differ_in_shape_and_number)
{
    struct sf_err err = {0};
    struct sf_map *map = tiny("a.scout", NULL);
    struct sf_weight_list mine, other;
    struct sf_diff diff;
    struct sf_diff_options options = {.threads = 2};
    assert_ok(sf_weight_list_from_map(&mine, map, &err), err);
    assert_ok(sf_weight_list_from_folder(
                  &other, scout_source_path("tests/golden/llama4-tiny/maverick/model"), &err),
              err);
    assert_ok(sf_diff_run(&diff, &mine, &other, &options, &err), err);
    ck_assert_int_eq(diff.of_state[SF_DIFF_VALUES], 0);
    ck_assert_int_gt(diff.of_state[SF_DIFF_SHAPE], 0);
    ck_assert_int_gt(diff.of_state[SF_DIFF_ONLY_A], 0);
    ck_assert_int_gt(diff.of_state[SF_DIFF_ONLY_B], 0);
    sf_diff_free(&diff);
    sf_weight_list_close(&mine);
    sf_weight_list_close(&other);
    sf_map_close(map);
}
END_TEST

/* ---- verify against the source ---- */

static void check(struct sf_source_check *out, struct sf_weight_list *source,
                  const struct sf_map *map)
{
    struct sf_err err = {0};
    struct sf_source_check_options options = {.threads = 3};
    assert_ok(sf_weight_list_from_folder(source, scout_source_path(TINY), &err), err);
    assert_ok(sf_source_check_run(out, map, source, &options, &err), err);
}

static void close_check(struct sf_source_check *c, struct sf_weight_list *source)
{
    sf_source_check_free(c);
    sf_weight_list_close(source);
}

static const struct sf_source_check_row *proof_of(const struct sf_source_check *c, const char *name)
{
    for (int64_t i = 0; i < c->rows; i++)
        if (strcmp(c->row[i].entry->name, name) == 0)
            return &c->row[i];
    ck_abort_msg("%s is not checked", name);
    return NULL;
}

START_TEST(a_conversion_is_proved)
{
    static const char *const keeps[] = {NULL, "*o_proj*", "*"};
    for (int i = 0; i < 3; i++) {
        struct sf_map *map = tiny("a.scout", keeps[i]);
        struct sf_weight_list source;
        struct sf_source_check c;
        check(&c, &source, map);
        ck_assert_int_eq(c.of_proof[SF_PROOF_EXACT], 133);
        ck_assert_int_eq(c.left_out, 0);
        close_check(&c, &source);
        sf_map_close(map);
    }
}
END_TEST

START_TEST(one_wrong_byte_is_found)
{
    static const struct {
        const char *name;
        enum sf_plane_kind plane;
        uint64_t at;
        int64_t codes, scales;
    } cases[] = {
        {K, SF_PLANE_CODES, 5, 1, 0},
        {EXPERT, SF_PLANE_SCALE, 9, 0, 1},
        {EXPERT, SF_PLANE_SCALE2, 2, 0, 1},
        {K, SF_PLANE_OFFSET, 1, 0, 1},
        {"language_model.model.layers.0.feed_forward.router.weight", SF_PLANE_CODES, 77, 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sf_map *map = altered("b.scout", cases[i].name, cases[i].plane, cases[i].at, 3);
        struct sf_weight_list source;
        struct sf_source_check c;
        check(&c, &source, map);
        ck_assert_int_eq(c.of_proof[SF_PROOF_EXACT], 132);
        ck_assert_int_eq(c.of_proof[SF_PROOF_DIFFERS], 1);
        const struct sf_source_check_row *r = proof_of(&c, cases[i].name);
        ck_assert_int_eq(r->proof, SF_PROOF_DIFFERS);
        ck_assert_int_eq(r->codes_changed, cases[i].codes);
        ck_assert_int_eq(r->scales_changed, cases[i].scales);
        close_check(&c, &source);
        sf_map_close(map);
    }
}
END_TEST

/* The codes are right, the record is not: it differs, and what is measured block by block is what
 * the encoder said, to the last bit. */
START_TEST(a_wrong_record_is_found)
{
    struct sf_map *map = tiny("a.scout", NULL);
    struct sf_weight_list source;
    struct sf_source_check c;
    static const char *const names[] = {K, EXPERT};
    for (int i = 0; i < 2; i++) {
        uintptr_t entry = (uintptr_t)sf_map_find_name(map, names[i]);
        ((struct sf_entry *)entry)->relative_rms_error *= 0.999;
    }
    check(&c, &source, map);
    ck_assert_int_eq(c.of_proof[SF_PROOF_DIFFERS], 2);
    for (int i = 0; i < 2; i++) {
        const struct sf_source_check_row *r = proof_of(&c, names[i]);
        ck_assert_int_eq(r->codes_changed, 0);
        ck_assert_int_eq(r->scales_changed, 0);
        ck_assert(r->measured == r->plain);
    }
    close_check(&c, &source);
    sf_map_close(map);
}
END_TEST

/* Tries scales until one serves its block better than absmax does, as a search would. */
static struct sf_map *searched(void)
{
    for (uint64_t at = 0; at < 512; at++)
        for (unsigned char flip = 1; flip < 4; flip++) {
            struct sf_map *map = altered("s.scout", K, SF_PLANE_SCALE, at, flip);
            struct sf_weight_list source;
            struct sf_source_check c;
            check(&c, &source, map);
            const struct sf_source_check_row *r = proof_of(&c, K);
            double measured = r->measured;
            bool better = measured < r->plain;
            ck_assert_int_eq(r->proof, SF_PROOF_DIFFERS); /* it is not what the index records */
            close_check(&c, &source);
            if (better) { /* now record it, as the search would have */
                uintptr_t entry = (uintptr_t)sf_map_find_name(map, K);
                ((struct sf_entry *)entry)->relative_rms_error = measured;
                return map;
            }
            sf_map_close(map);
        }
    ck_abort_msg("no scale is better than absmax");
    return NULL;
}

START_TEST(a_searched_scale_is_told_from_a_wrong_one)
{
    struct sf_map *map = searched();
    struct sf_weight_list source;
    struct sf_source_check c;
    check(&c, &source, map);
    const struct sf_source_check_row *r = proof_of(&c, K);
    ck_assert_int_eq(r->proof, SF_PROOF_SEARCHED);
    ck_assert_int_eq(r->codes_changed, 0);
    ck_assert_int_eq(r->scales_changed, 1);
    ck_assert(r->measured < r->plain);
    ck_assert(r->half > 0.05 && r->half <= r->most && r->most <= r->nearly_all);
    ck_assert(r->nearly_all <= r->worst + 0.0005 && r->worst < 0.3);
    close_check(&c, &source);
    sf_map_close(map);
}
END_TEST

static Suite *diff_suite(void)
{
    Suite *suite = suite_create("diff");
    TCase *tc = tcase_create("diff");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, one_code_is_one_code);
    tcase_add_test(tc, one_scale_changes_its_block);
    tcase_add_test(tc, a_folder_differs_by_the_recorded_error);
    tcase_add_test(tc, threads_do_not_show);
    tcase_add_test(tc, other_models_differ_in_shape_and_number);
    tcase_add_test(tc, a_conversion_is_proved);
    tcase_add_test(tc, one_wrong_byte_is_found);
    tcase_add_test(tc, a_wrong_record_is_found);
    tcase_add_test(tc, a_searched_scale_is_told_from_a_wrong_one);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(diff_suite)
