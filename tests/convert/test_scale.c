/* Scales by search through a whole conversion: less error, the same whatever the threads, weighed by
 * a file of importance, and found out by whoever checks a container against its source. */
#include "tests/support/support.h"

#include <math.h>
#include <string.h>

#include "libformat/convert/source_check.h"
#include "libformat/hf/safetensors.h"
#include "tests/convert/conversion.h"

static const char TINY[] = "examples/tiny-scout";
enum { IN = 256, EXPERTS = 4 };
static const char Q[] = "language_model.model.layers.0.self_attn.q_proj.weight";
static const char DOWN[] = "language_model.model.layers.1.feed_forward.experts.down_proj";
static const char DOWN_2[] =
    "language_model.model.layers.1.feed_forward.experts.2.down_proj.weight";

static struct conversion conversion(const char *name, enum sf_scale_choice scale)
{
    return (struct conversion){
        .source = scout_source_path(TINY), .output = scout_scratch_path(name), .scale = scale};
}

static double error_of(const struct sf_map *map, const char *name)
{
    const struct sf_entry *e = sf_map_find_name(map, name);
    ck_assert_msg(e != NULL, "%s", name);
    return e->relative_rms_error;
}

START_TEST(every_matrix_has_less_error)
{
    static const char *const names[] = {"absmax.scout", "search.scout", "signed.scout"};
    static const double most[] = {0, 0.95, 0.92};
    struct sf_map *map[3];
    int64_t compared = 0;
    for (int k = 0; k < 3; k++)
        map[k] = converted(conversion(names[k], (enum sf_scale_choice)k));
    for (int64_t i = 0; i < sf_map_info(map[0])->tensors; i++) {
        const struct sf_entry *e = sf_map_tensor(map[0], i);
        if (e->encoding != SF_ENCODING_NF4)
            continue;
        compared++;
        for (int k = 1; k < 3; k++) {
            double ratio = error_of(map[k], e->name) / e->relative_rms_error;
            ck_assert_msg(ratio < most[k] && ratio > 0.7, "%s: %s: %.4f", names[k], e->name, ratio);
        }
    }
    ck_assert_int_eq(compared, 76);
    for (int k = 0; k < 3; k++)
        sf_map_close(map[k]);
}
END_TEST

/* ---- importance ---- */

static float weights[EXPERTS][IN];

static const char *write_importance(const char *file, const char *name, int rank, int64_t rows,
                                    int64_t columns)
{
    struct sf_err err = {0};
    struct sf_named_tensor t = {.name = name,
                                .tensor = {.dtype = SF_F32,
                                           .shape = {rank, {rank == 2 ? rows : columns, columns}},
                                           .data = weights,
                                           .bytes = (uint64_t)(rows * columns) * 4}};
    const char *path = scout_scratch_path(file);
    assert_ok(sf_safetensors_write(path, &t, 1, &err), err);
    return path;
}

static void draw_weights(void)
{
    struct scout_random r = {.state = 12};
    for (int e = 0; e < EXPERTS; e++)
        for (int i = 0; i < IN; i++)
            weights[e][i] = expf(2 * scout_random_normal(&r));
}

/* Only the matrix that the vector is for changes, and another expert's vector gives another. */
START_TEST(importance_reaches_its_matrix)
{
    draw_weights();
    struct sf_map *plain = converted(conversion("plain.scout", SF_SCALE_SEARCH));
    struct conversion c = conversion("q.scout", SF_SCALE_SEARCH);
    c.importance = write_importance("q.safetensors", Q, 1, 1, IN);
    struct sf_map *q = converted(c);
    for (int64_t i = 0; i < sf_map_info(plain)->tensors; i++) {
        const struct sf_entry *e = sf_map_tensor(plain, i);
        if (e->encoding == SF_ENCODING_NF4)
            ck_assert_msg((error_of(q, e->name) == e->relative_rms_error) == !!strcmp(e->name, Q),
                          "%s", e->name);
    }
    ck_assert(error_of(q, Q) > error_of(plain, Q)); /* its own sum does not weigh */
    c = conversion("one.scout", SF_SCALE_SEARCH);
    c.importance = write_importance("down.safetensors", DOWN, 2, EXPERTS, IN);
    struct sf_map *stacked = converted(c);
    c.importance = write_importance("first.safetensors", DOWN, 1, 1, IN);
    c.output = scout_scratch_path("first.scout");
    struct sf_map *first = converted(c);
    memcpy(weights[0], weights[2], sizeof weights[0]);
    c.importance = write_importance("two.safetensors", DOWN_2, 1, 1, IN);
    c.output = scout_scratch_path("two.scout");
    struct sf_map *two = converted(c);
    ck_assert(error_of(two, DOWN_2) == error_of(stacked, DOWN_2));
    ck_assert(error_of(two, DOWN_2) != error_of(first, DOWN_2));
    ck_assert(error_of(two, DOWN_2) != error_of(plain, DOWN_2));
    sf_map_close(plain), sf_map_close(q), sf_map_close(stacked), sf_map_close(first);
    sf_map_close(two);
}
END_TEST

static void refused(const char *file, int want, const char *part)
{
    struct sf_err err = {0};
    struct conversion c = conversion("refused.scout", SF_SCALE_SEARCH);
    c.importance = file;
    assert_fails(convert(&c, &err), want, part, err);
}

START_TEST(bad_importance_is_named)
{
    draw_weights();
    refused(write_importance("a.safetensors", "model.no_such", 1, 1, IN), SF_EINVAL,
            "a.safetensors: model.no_such: no matrix");
    refused(
        write_importance("b.safetensors", Q, 1, 1, IN - 1), SF_EFORMAT,
        "b.safetensors: language_model.model.layers.0.self_attn.q_proj.weight: shape [255], but");
    refused(write_importance("c.safetensors", Q, 2, 1, IN), SF_EFORMAT, "has 256 input channels");
    refused(write_importance("d.safetensors", DOWN, 2, EXPERTS - 1, IN), SF_EFORMAT,
            "256 input channels in each expert");
    refused(write_importance("e.safetensors", DOWN_2, 2, EXPERTS, IN), SF_EFORMAT, "[4, 256]");
    weights[0][17] = -1;
    refused(write_importance("f.safetensors", Q, 1, 1, IN), SF_ENUMERIC, "element 17 is -1");
    weights[0][17] = NAN;
    refused(write_importance("g.safetensors", Q, 1, 1, IN), SF_ENUMERIC, "element 17 is");
    weights[0][17] = INFINITY;
    refused(write_importance("h.safetensors", Q, 1, 1, IN), SF_ENUMERIC, "element 17 is inf");
    memset(weights, 0, sizeof weights);
    refused(write_importance("i.safetensors", Q, 1, 1, IN), SF_ENUMERIC, "all 256 numbers are 0");
    refused(scout_scratch_path("j.safetensors"), SF_ENOENT, "j.safetensors");
}
END_TEST

/* ---- proof against the source ---- */

static void assert_proof(struct conversion c, enum sf_proof want)
{
    struct sf_err err = {0};
    struct sf_weight_list source;
    struct sf_source_check check;
    struct sf_source_check_options options = {.threads = 1};
    struct sf_map *map = converted(c);
    assert_ok(sf_weight_list_from_folder(&source, scout_source_path(TINY), &err), err);
    assert_ok(sf_source_check_run(&check, map, &source, &options, &err), err);
    ck_assert_int_eq(check.of_proof[want], 76);
    ck_assert_int_eq(check.of_proof[want] + check.of_proof[SF_PROOF_EXACT], check.rows);
    sf_source_check_free(&check);
    sf_weight_list_close(&source);
    sf_map_close(map);
}

START_TEST(a_searched_container_is_proved)
{
    assert_proof(conversion("proof-1.scout", SF_SCALE_SEARCH), SF_PROOF_SEARCHED);
    struct conversion c = conversion("proof-3.scout", SF_SCALE_SEARCH);
    draw_weights(); /* weighed, a matrix may have more error than with absmax */
    c.importance = write_importance("proof.safetensors", Q, 1, 1, IN);
    c.options_text = "scale=search importance=0123";
    assert_proof(c, SF_PROOF_SEARCHED);
    assert_proof(conversion("proof-2.scout", SF_SCALE_SEARCH_SIGNED), SF_PROOF_SEARCHED);
}
END_TEST

static Suite *scale_suite(void)
{
    Suite *suite = suite_create("scale");
    TCase *tc = tcase_create("scale");
    tcase_add_test(tc, every_matrix_has_less_error);
    tcase_add_test(tc, importance_reaches_its_matrix);
    tcase_add_test(tc, bad_importance_is_named);
    tcase_add_test(tc, a_searched_container_is_proved);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(scale_suite)
