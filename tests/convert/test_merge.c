/* Merging an adapter into its base: PEFT's own adapters against PEFT's own merge (tests/golden/merge),
 * every byte that no adapter touches, and what is refused. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/folders.h"
#include "libformat/codec/halves.h"
#include "libformat/convert/delta.h"
#include "libformat/convert/export.h"
#include "libformat/convert/merge.h"
#include "libformat/hf/hf_config.h"
#include "libformat/hf/hf_index.h"
#include "tests/convert/conversion.h"

enum { SAMPLES = 128 };

static struct sf_arena arena;
static struct sf_err err;

static void teardown(void)
{
    sf_arena_free(&arena);
}

static const struct {
    const char *name, *base;
    int64_t merged;
} cases[] = {
    {"tiny_swapped", "examples/tiny-scout", 7},
    {"tiny_natural", "examples/tiny-scout", 4},
    {"maverick_swapped", "tests/golden/llama4-tiny/maverick/model", 9},
    {"maverick_natural", "tests/golden/llama4-tiny/maverick/model", 1},
};
enum { CASES = sizeof cases / sizeof *cases };

static const char *golden(const char *name, const char *file)
{
    return scout_source_path(sf_arena_printf(&arena, "tests/golden/merge/%s%s", name, file));
}

static struct sf_merge_result merge(const char *base, const char *adapter, const char *directory,
                                    int threads)
{
    struct sf_merge_options options = {.threads = threads};
    struct sf_merge_result result;
    assert_ok(sf_merge_run(&result, &arena, base, adapter, directory, &options, &err), err);
    return result;
}

static struct sf_hf_index *index_of(const char *directory)
{
    struct sf_hf_index *index;
    assert_ok(sf_hf_index_open(&index, directory, &err), err);
    return index;
}

static float value(const struct sf_tensor *t, int64_t i)
{
    const char *data = t->data;
    return t->dtype == SF_F32 ? sf_get_f32(data + 4 * i)
                              : sf_f32_from_bf16(sf_get_u16(data + 2 * i));
}

/* PEFT's sum, rounded to the dtype; another order of additions may end beside it. */
static void check_samples(const struct sf_tensor *got, const struct sf_named_tensor *want)
{
    int64_t count = 0, off = 0;
    ck_assert_msg(got != NULL, "%s", want->name);
    ck_assert(sf_shape_count(&count, &got->shape));
    for (int64_t k = 0; k < SAMPLES; k++) {
        int64_t at = (int64_t)(((uint64_t)k * 2654435761u + 12345) % (uint64_t)count);
        float g = value(got, at), w = value(&want->tensor, k);
        float rounded = got->dtype == SF_BF16 ? sf_round_bf16(w) : w;
        float step = fabsf(w) * (got->dtype == SF_BF16 ? 0x1p-7f : 0x1p-21f) + 1e-7f;
        ck_assert_msg(fabsf(g - rounded) <= step, "%s[%lld] is %g, PEFT has %g", want->name,
                      (long long)at, (double)g, (double)w);
        off += g != rounded;
    }
    ck_assert_msg(off <= (got->dtype == SF_BF16 ? 1 : SAMPLES), "%s: %lld of %d roundings differ",
                  want->name, (long long)off, SAMPLES);
}

/* What PEFT changed is in `want`; all else is the base's, byte for byte. */
static void check_tensors(const char *base, const char *merged, const struct sf_safetensors *want)
{
    struct sf_hf_index *from = index_of(base), *to = index_of(merged);
    int64_t changed = 0;
    ck_assert_int_eq(sf_hf_index_count(from), sf_hf_index_count(to));
    for (int64_t i = 0; i < sf_hf_index_count(from); i++) {
        int64_t shard[2];
        const struct sf_named_tensor *a = sf_hf_index_at(from, i, &shard[0]);
        const struct sf_named_tensor *b = sf_hf_index_at(to, i, &shard[1]);
        bool same = memcmp(a->tensor.data, b->tensor.data, a->tensor.bytes) == 0;
        ck_assert_str_eq(a->name, b->name);
        ck_assert_int_eq(shard[0], shard[1]);
        ck_assert_msg(same == !sf_safetensors_find(want, a->name), "%s", a->name);
        changed += !same;
    }
    ck_assert_int_eq(changed, sf_safetensors_count(want));
    for (int64_t i = 0; i < sf_safetensors_count(want); i++) {
        const struct sf_named_tensor *w = sf_safetensors_at(want, i);
        check_samples(sf_hf_index_find(to, w->name), w);
    }
    sf_hf_index_close(from);
    sf_hf_index_close(to);
}

static char *bytes_of(const char *directory, const char *name, uint64_t *bytes)
{
    char *text;
    assert_ok(
        sf_read_file(&text, bytes, &arena, sf_path_join(&arena, directory, name), 1u << 30, &err),
        err);
    return text;
}

/* The same files; the same bytes but in shards, whose headers are the same. */
static void check_files(const char *base, const char *merged)
{
    const char *const *name[2];
    int64_t count[2];
    assert_ok(sf_folder_list(&name[0], &count[0], &arena, base, &err), err);
    assert_ok(sf_folder_list(&name[1], &count[1], &arena, merged, &err), err);
    ck_assert_int_eq(count[0], count[1]);
    for (int64_t i = 0; i < count[0]; i++) {
        uint64_t bytes[2], compared;
        ck_assert_str_eq(name[0][i], name[1][i]);
        char *a = bytes_of(base, name[0][i], &bytes[0]),
             *b = bytes_of(merged, name[1][i], &bytes[1]);
        ck_assert_uint_eq(bytes[0], bytes[1]);
        bool shard = strstr(name[0][i], ".safetensors") && !strstr(name[0][i], ".json");
        compared = shard ? 8 + sf_get_u64(a) : bytes[0];
        ck_assert_msg(memcmp(a, b, compared) == 0, "%s", name[0][i]);
    }
}

START_TEST(what_peft_merges)
{
    const char *base = scout_source_path(cases[_i].base);
    const char *merged = scout_scratch_path(cases[_i].name);
    const char *other = sf_arena_printf(&arena, "%s-alone", merged);
    struct sf_safetensors *want;
    assert_ok(sf_safetensors_open(&want, golden(cases[_i].name, "/merged.safetensors"), &err), err);
    struct sf_merge_result r = merge(base, golden(cases[_i].name, ""), merged, 3);
    ck_assert_int_eq(r.merged, cases[_i].merged);
    ck_assert_int_eq(r.left_outs, 0);
    check_tensors(base, merged, want);
    check_files(base, merged);
    sf_safetensors_close(want);
    merge(base, golden(cases[_i].name, ""), other, 1); /* threads do not show */
    struct sf_hf_index *a = index_of(merged), *b = index_of(other);
    for (int64_t i = 0; i < sf_hf_index_count(a); i++) {
        const struct sf_named_tensor *x = sf_hf_index_at(a, i, NULL),
                                     *y = sf_hf_index_at(b, i, NULL);
        ck_assert(memcmp(x->tensor.data, y->tensor.data, x->tensor.bytes) == 0);
    }
    sf_hf_index_close(a);
    sf_hf_index_close(b);
}
END_TEST

/* A container whose matrices are all bf16 gives the base's bytes, so that its export with the adapter
 * is the merge. */
START_TEST(export_merges_the_same)
{
    const char *adapter = golden("tiny_swapped", ""), *merged = scout_scratch_path("merge");
    struct conversion c = {.source = scout_source_path("examples/tiny-scout"),
                           .output = scout_scratch_path("bf16.scout"),
                           .keep = {"*"},
                           .keep_count = 1,
                           .threads = 2};
    struct sf_map *map = converted(c);
    struct sf_adapter_source *source;
    struct sf_model_spec spec;
    uint64_t bytes;
    char *config = bytes_of(scout_source_path("examples/tiny-scout"), "config.json", &bytes);
    assert_ok(sf_hf_config_parse(&spec, &arena, config, bytes, &err), err);
    assert_ok(sf_adapter_open(&source, adapter, &spec, &err), err);
    struct sf_export_options options = {SF_EXPORT_BF16, 2, 3u << 20,
                                        .adapter = sf_adapter_about(source), .source = source};
    assert_ok(sf_export_run(map, scout_scratch_path("export"), &options, &err), err);
    merge(scout_source_path("examples/tiny-scout"), adapter, merged, 2);
    struct sf_hf_index *a = index_of(merged), *b = index_of(scout_scratch_path("export"));
    ck_assert_int_eq(sf_hf_index_count(a), sf_hf_index_count(b));
    for (int64_t i = 0; i < sf_hf_index_count(a); i++) {
        const struct sf_named_tensor *x = sf_hf_index_at(a, i, NULL);
        const struct sf_tensor *y = sf_hf_index_find(b, x->name);
        ck_assert_msg(y && memcmp(x->tensor.data, y->data, x->tensor.bytes) == 0, "%s", x->name);
    }
    sf_hf_index_close(a);
    sf_hf_index_close(b);
    sf_adapter_close(source);
    sf_map_close(map);
}
END_TEST

/* Any cut into tiles, ranks above a block's, both orientations: against a plain sum. */
START_TEST(deltas_are_sums_rank_by_rank)
{
    enum { OUT = 150, IN = 70, RANK = 100, GROUPS = 2 };
    static float a[GROUPS * RANK * IN], b[GROUPS * OUT * RANK];
    static float plain[OUT][IN], turned[IN][OUT], want[OUT][IN];
    struct scout_random random = {5};
    struct sf_adapter_module m = {
        .groups = GROUPS, .rank = RANK, .in = IN, .out = OUT, .scale = 0.3, .a = a, .b = b};
    scout_random_fill(a, GROUPS * RANK * IN, 1, &random);
    scout_random_fill(b, GROUPS * OUT * RANK, 1, &random);
    for (int o = 0; o < OUT; o++)
        for (int i = 0; i < IN; i++) {
            float sum = 0;
            for (int k = 0; k < RANK; k++)
                sum += b[(OUT + o) * RANK + k] * a[(RANK + k) * IN + i];
            want[o][i] = 1 + 0.3f * sum;
            plain[o][i] = turned[i][o] = 1;
        }
    struct sf_delta d = sf_delta_of(&m, 1, 10), t = sf_delta_turned(&m, 1);
    sf_delta_add(plain[10], IN, &d, 0, 65, 0, IN);
    sf_delta_add(plain[75], IN, &d, 65, OUT - 75, 0, 33);
    sf_delta_add(&plain[75][33], IN, &d, 65, OUT - 75, 33, IN - 33);
    sf_delta_add(turned[0], OUT, &t, 0, IN, 0, OUT);
    for (int o = 0; o < OUT; o++)
        for (int i = 0; i < IN; i++) {
            ck_assert(turned[i][o] == want[o][i]);
            ck_assert(plain[o][i] == (o < 10 ? 1 : want[o][i]));
        }
}
END_TEST

/* ---- experts one by one, in float32: a base made from the fused one ---- */

static void split_experts(const char *directory, const struct sf_hf_index *from)
{
    struct sf_named_tensor list[256];
    int n = 0;
    for (int64_t i = 0; i < sf_hf_index_count(from); i++) {
        const struct sf_named_tensor *t = sf_hf_index_at(from, i, NULL);
        const char *end = strstr(t->name, "gate_up_proj");
        bool down = !end && (end = strstr(t->name, "experts.down_proj")) != NULL;
        if (!end) {
            list[n++] = *t;
            continue;
        }
        int64_t in = t->tensor.shape.dim[1], out = t->tensor.shape.dim[2] / (down ? 1 : 2);
        for (int64_t e = 0; e < t->tensor.shape.dim[0]; e++)
            for (int side = 0; side < (down ? 1 : 2); side++) {
                float *w = sf_arena_array(&arena, (uint64_t)(in * out), sizeof *w);
                for (int64_t o = 0; o < out; o++)
                    for (int64_t k = 0; k < in; k++)
                        w[o * in + k] = value(&t->tensor, (e * in + k) * t->tensor.shape.dim[2] +
                                                              side * out + o);
                const char *at = strstr(t->name, "experts.");
                list[n].name = sf_arena_printf(&arena, "%.*sexperts.%d.%s_proj.weight",
                                               (int)(at - t->name), t->name, (int)e,
                                               down   ? "down"
                                               : side ? "up"
                                                      : "gate");
                list[n++].tensor =
                    (struct sf_tensor){SF_F32, {2, {out, in}}, w, (uint64_t)(in * out) * sizeof *w};
            }
    }
    assert_ok(
        sf_safetensors_write(sf_path_join(&arena, directory, "model.safetensors"), list, n, &err),
        err);
}

START_TEST(experts_one_by_one_get_the_same)
{
    const char *base = scout_source_path(cases[2].base), *adapter = golden(cases[2].name, "");
    const char *single = scout_scratch_path("single"), *fused = scout_scratch_path("fused");
    struct sf_hf_index *from = index_of(base);
    uint64_t bytes;
    assert_ok(sf_make_directory(single, &err), err);
    split_experts(single, from);
    sf_hf_index_close(from);
    char *config = bytes_of(base, "config.json", &bytes);
    assert_ok(sf_write_file(sf_path_join(&arena, single, "config.json"), config, bytes, &err), err);
    const char *merged = scout_scratch_path("single-merged");
    merge(single, adapter, merged, 2);
    merge(base, adapter, fused, 2);
    struct sf_hf_index *one = index_of(merged), *all = index_of(fused);
    const struct sf_tensor *whole =
        sf_hf_index_find(all, "model.layers.1.feed_forward.experts.gate_up_proj");
    int64_t in = whole->shape.dim[1], wide = whole->shape.dim[2];
    for (int e = 0; e < 4; e++)
        for (int side = 0; side < 2; side++) {
            const struct sf_tensor *t = sf_hf_index_find(
                one,
                sf_arena_printf(&arena, "model.layers.1.feed_forward.experts.%d.%s_proj.weight", e,
                                side ? "up" : "gate"));
            ck_assert_ptr_nonnull(t);
            for (int64_t i = 0; i < in; i++)
                for (int64_t o = 0; o < wide / 2; o++) {
                    float got = value(t, o * in + i);
                    float want = value(whole, (e * in + i) * wide + side * wide / 2 + o);
                    ck_assert(whole->dtype == SF_F32 ? got == want : sf_round_bf16(got) == want);
                }
        }
    sf_hf_index_close(one);
    sf_hf_index_close(all);
}
END_TEST

/* ---- what is refused, and what is left behind ---- */

static int try_merge(const char *base, const char *adapter, const char *directory)
{
    struct sf_merge_options options = {.threads = 2};
    struct sf_merge_result result;
    int code = sf_merge_run(&result, &arena, base, adapter, directory, &options, &err);
    if (code != SF_OK) {
        ck_assert(!sf_file_exists(sf_arena_printf(&arena, "%s.partial", directory)));
        ck_assert(!sf_file_exists(sf_arena_printf(&arena, "%s.partial.lock", directory)));
    }
    return code;
}

START_TEST(what_cannot_be_merged_is_refused)
{
    const char *tiny = scout_source_path("examples/tiny-scout"), *out = scout_scratch_path("no");
    assert_fails(try_merge(tiny, golden("maverick_swapped", ""), out), SF_EFORMAT,
                 "this model of 4 layers has no such module", err);
    assert_fails(
        try_merge(scout_source_path("tests/golden/bnb/linear"), golden("tiny_swapped", ""), out),
        SF_EUNSUPPORTED, "the base is quantized", err);
    assert_fails(try_merge(tiny, scout_scratch_path("nowhere"), out), SF_ENOENT, "nowhere", err);
    assert_fails(try_merge(scout_scratch_path("nowhere"), golden("tiny_swapped", ""), out),
                 SF_ENOENT, "nowhere/config.json", err);
    ck_assert(!sf_file_exists(out));
    assert_ok(sf_make_directory(out, &err), err);
    assert_ok(sf_write_file(sf_path_join(&arena, out, "mine"), "x", 1, &err), err);
    assert_fails(try_merge(tiny, golden("tiny_swapped", ""), out), SF_EINVAL,
                 "is there and not empty (mine)", err);
}
END_TEST

/* A base that lacks what is adapted: its config promises it, its shard does not have it. */
START_TEST(an_adapter_that_matches_nothing_is_refused)
{
    const char *base = scout_source_path(cases[3].base), *poor = scout_scratch_path("poor");
    struct sf_hf_index *from = index_of(base);
    struct sf_named_tensor list[256];
    uint64_t bytes;
    int n = 0;
    assert_ok(sf_make_directory(poor, &err), err);
    for (int64_t i = 0; i < sf_hf_index_count(from); i++)
        if (!strstr(sf_hf_index_at(from, i, NULL)->name, "layers.3.feed_forward.experts.down_proj"))
            list[n++] = *sf_hf_index_at(from, i, NULL);
    assert_ok(sf_safetensors_write(sf_path_join(&arena, poor, "model.safetensors"), list, n, &err),
              err);
    char *config = bytes_of(base, "config.json", &bytes);
    assert_ok(sf_write_file(sf_path_join(&arena, poor, "config.json"), config, bytes, &err), err);
    assert_fails(try_merge(poor, golden(cases[3].name, ""), scout_scratch_path("out")), SF_EINVAL,
                 "layer 3 experts' down matches nothing in the base (0 of ", err);
    sf_hf_index_close(from);
}
END_TEST

static bool stop_at_once(void *context, uint64_t done, uint64_t total)
{
    (void)context, (void)done, (void)total;
    return false;
}

START_TEST(an_interrupted_merge_leaves_nothing)
{
    struct sf_merge_options options = {.threads = 1, .on_progress = stop_at_once};
    struct sf_merge_result result;
    const char *out = scout_scratch_path("stopped");
    ck_assert_int_eq(sf_merge_run(&result, &arena, scout_source_path("examples/tiny-scout"),
                                  golden("tiny_swapped", ""), out, &options, &err),
                     SF_EINTERRUPTED);
    ck_assert(!sf_file_exists(out));
    ck_assert(!sf_file_exists(scout_scratch_path("stopped.partial")));
}
END_TEST

/* What a killed run left is not taken over; weights in other files stay behind, and that is said. */
START_TEST(only_what_belongs_is_in_the_folder)
{
    const char *base = scout_scratch_path("base"), *out = scout_scratch_path("out");
    const char *const from = scout_source_path(cases[3].base), *const * name;
    const char *partial = scout_scratch_path("out.partial");
    int64_t count;
    assert_ok(sf_make_directory(partial, &err), err);
    assert_ok(sf_write_file(sf_path_join(&arena, partial, "model-x"), "x", 1, &err), err);
    assert_ok(sf_make_directory(sf_path_join(&arena, base, "original"), &err), err);
    assert_ok(sf_write_file(sf_path_join(&arena, base, "old.gguf"), "x", 1, &err), err);
    assert_ok(sf_folder_list(&name, &count, &arena, from, &err), err);
    for (int64_t i = 0; i < count; i++) {
        uint64_t bytes;
        char *data = bytes_of(from, name[i], &bytes);
        assert_ok(sf_write_file(sf_path_join(&arena, base, name[i]), data, bytes, &err), err);
    }
    struct sf_merge_result r =
        merge(base, golden(cases[3].name, ""), sf_arena_printf(&arena, "%s/", out), 1);
    ck_assert_int_eq(r.left_outs, 2);
    ck_assert_str_eq(r.left_out[0], "old.gguf");
    ck_assert_str_eq(r.left_out[1], "original");
    check_files(from, out);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("merge");
    TCase *tc = tcase_create("merge");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_loop_test(tc, what_peft_merges, 0, CASES);
    tcase_add_test(tc, export_merges_the_same);
    tcase_add_test(tc, deltas_are_sums_rank_by_rank);
    tcase_add_test(tc, experts_one_by_one_get_the_same);
    tcase_add_test(tc, what_cannot_be_merged_is_refused);
    tcase_add_test(tc, an_adapter_that_matches_nothing_is_refused);
    tcase_add_test(tc, an_interrupted_merge_leaves_nothing);
    tcase_add_test(tc, only_what_belongs_is_in_the_folder);
    suite_add_tcase(suite, tc);
    return suite;
}

SCOUT_TEST_MAIN(make_suite)
