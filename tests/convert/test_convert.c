#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/codec/frame.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"
#include "libformat/container/container_check.h"
#include "libformat/convert/convert.h"
#include "libformat/convert/names.h"
#include "tests/convert/conversion.h"

static const char TINY[] = "examples/tiny-scout";
static const char TINY_SCOUT[] = "tests/golden/llama4-tiny/scout/model";
static const char TINY_MAVERICK[] = "tests/golden/llama4-tiny/maverick/model";

static char *slurp(const char *path, uint64_t *bytes, struct sf_arena *arena)
{
    struct sf_err err = {0};
    char *data;
    assert_ok(sf_read_file(&data, bytes, arena, path, 1 << 28, &err), err);
    return data;
}

static void assert_same_file(const char *a, const char *b)
{
    struct sf_arena arena = {0};
    uint64_t n, m;
    char *x = slurp(a, &n, &arena), *y = slurp(b, &m, &arena);
    ck_assert_uint_eq(n, m);
    ck_assert(memcmp(x, y, n) == 0);
    sf_arena_free(&arena);
}

/* The tensor of the shards that holds a role, by the names of the format, without our plan. */
static const struct sf_tensor *source_tensor(const struct sf_hf_index *index, const char *prefix,
                                             struct sf_role role, const char *name)
{
    char fused[128];
    snprintf(fused, sizeof fused, "%smodel.layers.%d.feed_forward.experts.%s", prefix, role.layer,
             role.part == SF_PART_EXPERT_DOWN ? "down_proj" : "gate_up_proj");
    const struct sf_tensor *t =
        sf_hf_index_find(index, sf_part_is_expert(role.part) ? fused : name);
    ck_assert_ptr_nonnull(t);
    return t;
}

static uint16_t source_element(const struct sf_tensor *t, struct sf_role role, int64_t o, int64_t i)
{
    if (!sf_part_is_expert(role.part))
        return sf_get_u16((const char *)t->data + 2 * (o * t->shape.dim[t->shape.rank - 1] + i));
    int64_t in = t->shape.dim[1], columns = t->shape.dim[2];
    int64_t column = o + (role.part == SF_PART_EXPERT_UP ? columns / 2 : 0);
    return sf_get_u16((const char *)t->data + 2 * ((role.expert * in + i) * columns + column));
}

static int64_t dim_or_one(const struct sf_shape *s, int axis)
{
    return axis < s->rank ? s->dim[axis] : 1;
}

static void check_raw(const struct sf_map *map, const struct sf_entry *e, const uint16_t *want,
                      int64_t n)
{
    const unsigned char *have = sf_map_bytes(map, e->plane[SF_PLANE_CODES].address);
    int64_t k = 0;
    while (k < n && sf_get_u16(have + 2 * k) == want[k])
        k++;
    ck_assert_msg(k == n, "%s: element %lld", e->name, (long long)k);
}

/* Codes by the codec itself on the turned matrix in one piece: tiling and turning are what is
 * tested here, the codec has its own truth. */
static void check_nf4(const struct sf_map *map, const struct sf_entry *e, const uint16_t *want,
                      int64_t n)
{
    int64_t blocks = sf_nf4_blocks(n);
    uint8_t *codes = malloc((size_t)n), *q = malloc((size_t)blocks);
    float *absmax = malloc((size_t)blocks * sizeof *absmax), nested[64];
    ck_assert(codes && q && absmax && sf_nf4_groups(blocks) <= 64);
    sf_nf4_encode(codes, absmax, want, SF_BF16, n, NULL);
    float offset = sf_nf4_offset(absmax, blocks);
    sf_nf4_nest(q, nested, absmax, blocks, offset);
    const struct sf_plane *p = e->plane;
    ck_assert(memcmp(sf_map_bytes(map, p[SF_PLANE_CODES].address), codes, (size_t)(n + 1) / 2) ==
              0);
    ck_assert(memcmp(sf_map_bytes(map, p[SF_PLANE_SCALE].address), q, (size_t)blocks) == 0);
    ck_assert(memcmp(sf_map_bytes(map, p[SF_PLANE_SCALE2].address), nested,
                     (size_t)sf_nf4_groups(blocks) * 4) == 0);
    ck_assert(memcmp(sf_map_bytes(map, p[SF_PLANE_OFFSET].address), &offset, 4) == 0);
    sf_nf4_unnest(absmax, q, nested, sf_nf4_scale_map, offset, 0, blocks);
    double error = 0, norm = 0, block_error = 0, block_norm = 0, worst = 0;
    for (int64_t k = 0; k < n; k++) {
        int code = k % 2 == 0 ? codes[k / 2] >> 4 : codes[k / 2] & 15;
        double x = (double)sf_f32_from_bf16(want[k]);
        double y = (double)sf_round_bf16(sf_nf4_code_value[code] * absmax[k / SF_NF4_BLOCK]);
        error += (x - y) * (x - y);
        norm += x * x;
        block_error += (x - y) * (x - y);
        block_norm += x * x;
        if (k % SF_NF4_BLOCK < SF_NF4_BLOCK - 1)
            continue;
        if (block_norm > 0 && block_error / block_norm > worst)
            worst = block_error / block_norm;
        block_error = block_norm = 0;
    }
    ck_assert_double_eq_tol(e->relative_rms_error, sqrt(error / norm), 1e-6);
    ck_assert_double_eq_tol((double)e->worst_block_error, sqrt(worst), 1e-6);
    free(codes);
    free(q);
    free(absmax);
}

/* ---- provenance ---- */

/* A tensor of a shard's header, read without our reader of safetensors. */
struct extent_of_shard {
    int64_t begin, end, slices; /* slices: of a tensor of rank 3, else 0 */
};

static int compare_begins(const void *a, const void *b)
{
    const struct extent_of_shard *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

static int64_t shard_tensors(struct extent_of_shard *out, int64_t room, const char *data,
                             uint64_t header)
{
    struct sf_err err = {0};
    struct sf_json *root;
    int64_t n = 0, first;
    assert_ok(sf_json_parse(&root, data + 8, header - 8, &err), err);
    for (const struct sf_json *v = sf_json_first(root); v; v = sf_json_next(v)) {
        const struct sf_json *range = sf_json_get(v, "data_offsets"), *shape;
        if (!range)
            continue;
        ck_assert_int_lt(n, room);
        shape = sf_json_get(v, "shape");
        assert_ok(sf_json_as_int(&out[n].begin, sf_json_first(range), "begin", &err), err);
        assert_ok(sf_json_as_int(&out[n].end, sf_json_next(sf_json_first(range)), "end", &err),
                  err);
        out[n].slices = 0;
        if (sf_json_count(shape) == 3) {
            assert_ok(sf_json_as_int(&first, sf_json_first(shape), "slices", &err), err);
            out[n].slices = first;
        }
        n++;
    }
    sf_json_free(root);
    qsort(out, (size_t)n, sizeof *out, compare_begins);
    return n;
}

/* The hash of a shard as spec/container.md, 7, defines it. */
static struct sf_hash128 shard_hash(const char *data)
{
    enum { TENSORS = 256, PIECES = 4096, PIECE = 33554432 };
    static unsigned char hashes[16 * PIECES];
    struct extent_of_shard tensor[TENSORS];
    uint64_t header = 8 + sf_get_u64((const unsigned char *)data);
    int64_t n = shard_tensors(tensor, TENSORS, data, header), pieces = 0;
    for (int64_t t = 0; t < n; t++) {
        int64_t bytes = tensor[t].end - tensor[t].begin;
        int64_t step = tensor[t].slices ? bytes / tensor[t].slices : PIECE;
        for (int64_t at = 0; at < bytes; at += step, pieces++) {
            int64_t size = bytes - at < step ? bytes - at : step;
            struct sf_hash128 h = sf_hash128(data + header + tensor[t].begin + at, (uint64_t)size);
            ck_assert_int_lt(pieces, PIECES);
            sf_put_u64(hashes + 16 * pieces, h.low);
            sf_put_u64(hashes + 16 * pieces + 8, h.high);
        }
    }
    return sf_hash128(hashes, 16 * (uint64_t)pieces);
}

static void check_shards(const struct sf_map *map, const char *folder)
{
    const struct sf_summary *summary = sf_map_summary(map);
    ck_assert_int_gt(summary->shard_count, 0);
    for (int64_t i = 0; i < summary->shard_count; i++) {
        struct sf_err err = {0};
        struct sf_arena arena = {0};
        char *data;
        uint64_t bytes;
        const char *path = sf_path_join(&arena, folder, summary->shard[i].name);
        assert_ok(sf_read_file(&data, &bytes, &arena, path, UINT64_MAX / 2, &err), err);
        struct sf_hash128 want = shard_hash(data);
        ck_assert_uint_eq(summary->shard[i].bytes, bytes);
        ck_assert_uint_eq(sf_get_u64(summary->shard[i].hash), want.low);
        ck_assert_uint_eq(sf_get_u64(summary->shard[i].hash + 8), want.high);
        sf_arena_free(&arena);
    }
}

static void check_against_shards(struct conversion c, const char *prefix)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    struct sf_map *map = converted(c);
    assert_ok(sf_hf_index_open(&index, c.source, &err), err);
    int64_t matrices = 0;
    for (int64_t t = 0; t < sf_map_info(map)->tensors; t++) {
        const struct sf_entry *e = sf_map_tensor(map, t);
        if (e->role.part == SF_PART_UNUSED)
            continue;
        int64_t out = dim_or_one(&e->shape, 0), in = dim_or_one(&e->shape, 1), n = out * in;
        const struct sf_tensor *source = source_tensor(index, prefix, e->role, e->name);
        uint16_t *want = calloc((size_t)n, sizeof *want);
        ck_assert_ptr_nonnull(want);
        for (int64_t o = 0; o < out; o++)
            for (int64_t i = 0; i < in; i++)
                want[o * in + i] = source_element(source, e->role, e->shape.rank == 1 ? 0 : o,
                                                  e->shape.rank == 1 ? o : i);
        if (e->encoding == SF_ENCODING_NF4)
            check_nf4(map, e, want, n);
        else
            check_raw(map, e, want, n);
        matrices += sf_part_is_matrix(e->role.part);
        free(want);
    }
    ck_assert_int_gt(matrices, 0);
    check_shards(map, c.source);
    sf_hf_index_close(index);
    sf_map_close(map);
}

START_TEST(every_weight_stands_where_its_role_says)
{
    check_against_shards((struct conversion){.source = scout_source_path(TINY),
                                             .output = scout_scratch_path("tiny.scout")},
                         "language_model.");
}
END_TEST

/* Unequal sizes: here a transposed or swapped matrix cannot have the right shape. */
START_TEST(llama4_tiny_too_quantized_and_kept)
{
    check_against_shards((struct conversion){.source = scout_source_path(TINY_SCOUT),
                                             .output = scout_scratch_path("s.scout")},
                         "");
    check_against_shards((struct conversion){.source = scout_source_path(TINY_MAVERICK),
                                             .output = scout_scratch_path("m.scout")},
                         "");
    check_against_shards((struct conversion){.source = scout_source_path(TINY_SCOUT),
                                             .output = scout_scratch_path("sk.scout"),
                                             .keep = {"*"},
                                             .keep_count = 1},
                         "");
}
END_TEST

START_TEST(threads_and_repetition_do_not_show)
{
    struct sf_err err = {0};
    struct conversion c = {.source = scout_source_path(TINY), .output = scout_scratch_path("a")};
    assert_ok(convert(&c, &err), err);
    c.output = scout_scratch_path("b");
    assert_ok(convert(&c, &err), err);
    assert_same_file(scout_scratch_path("a"), scout_scratch_path("b"));
    c.threads = 2;
    assert_ok(convert(&c, &err), err);
    assert_same_file(scout_scratch_path("a"), scout_scratch_path("b"));
    c.threads = 7;
    assert_ok(convert(&c, &err), err);
    assert_same_file(scout_scratch_path("a"), scout_scratch_path("b"));
}
END_TEST

START_TEST(the_published_form_of_config_gives_the_same_tensors)
{
    struct conversion c = {.source = scout_source_path(TINY), .output = scout_scratch_path("new")};
    struct sf_map *a = converted(c);
    c.config = "examples/tiny-scout-published";
    c.output = scout_scratch_path("old");
    struct sf_map *b = converted(c);
    ck_assert_int_eq(sf_map_info(a)->tensors, sf_map_info(b)->tensors);
    ck_assert_uint_eq(sf_map_info(a)->payload_bytes, sf_map_info(b)->payload_bytes);
    ck_assert(memcmp(sf_map_bytes(a, 0), sf_map_bytes(b, 0), sf_map_info(a)->payload_bytes) == 0);
    sf_map_close(a);
    sf_map_close(b);
}
END_TEST

START_TEST(patterns_keep_what_they_match)
{
    struct conversion c = {.source = scout_source_path(TINY),
                           .output = scout_scratch_path("kept.scout"),
                           .keep = {"*self_attn*", "*experts.gate_up_proj"},
                           .keep_count = 2};
    struct sf_map *map = converted(c);
    for (int64_t t = 0; t < sf_map_info(map)->tensors; t++) {
        const struct sf_entry *e = sf_map_tensor(map, t);
        enum sf_part p = e->role.part;
        bool nf4 = p == SF_PART_SHARED_GATE || p == SF_PART_SHARED_UP || p == SF_PART_SHARED_DOWN ||
                   p == SF_PART_EXPERT_DOWN;
        ck_assert_msg((e->encoding == SF_ENCODING_NF4) == nf4, "%s", e->name);
    }
    sf_map_close(map);
}
END_TEST

START_TEST(a_pattern_that_matches_nothing_is_an_error)
{
    struct sf_err err = {0};
    struct conversion c = {.source = scout_source_path(TINY),
                           .output = scout_scratch_path("none.scout"),
                           .keep = {"*q_proj*", "*lm_head*"},
                           .keep_count = 2};
    assert_fails(convert(&c, &err), SF_EINVAL, "--keep-bf16 *lm_head*", err);
    ck_assert(!sf_file_exists(c.output));
}
END_TEST

/* ---- broken checkpoints: tiny-scout's tensors, one thing wrong ---- */

enum breakage { DROP, RENAME, RESHAPE, RETYPE, DOUBLE, POISON, EXTRA };

/* scratch/name: the tensors of llama4-tiny's scout in one file, `victim` treated. */
static const char *broken_checkpoint(const char *name, const char *victim, enum breakage how)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    struct sf_named_tensor list[128];
    static unsigned char poisoned[1 << 20];
    char path[4096];
    int64_t n = 0;
    assert_ok(sf_make_directory(scout_scratch_path(name), &err), err);
    assert_ok(sf_hf_index_open(&index, scout_source_path(TINY_SCOUT), &err), err);
    for (int64_t i = 0; i < sf_hf_index_count(index); i++) {
        list[n] = *sf_hf_index_at(index, i, NULL);
        struct sf_tensor *t = &list[n].tensor;
        bool hit = strcmp(list[n].name, victim) == 0;
        if (hit && how == DROP)
            continue;
        if (hit && how == RENAME)
            list[n].name = "model.layers.0.self_attn.z_proj.weight";
        if (hit && how == RESHAPE) {
            int64_t rows = t->shape.dim[0];
            t->shape.dim[0] = t->shape.dim[1];
            t->shape.dim[1] = rows;
        }
        if (hit && how == RETYPE)
            t->dtype = SF_I16;
        if (hit && how == DOUBLE) {
            list[n + 1] = list[n];
            list[++n].name = "language_model.model.layers.0.self_attn.q_proj.weight";
        }
        if (hit && how == EXTRA) {
            list[n + 1] = list[n];
            list[++n].name = "model.layers.0.self_attn.z_proj.weight";
        }
        if (hit && how == POISON) {
            ck_assert_uint_le(t->bytes, sizeof poisoned);
            memcpy(poisoned, t->data, t->bytes);
            sf_put_u16(poisoned + 2 * 777, 0x7fc0);
            t->data = poisoned;
        }
        n++;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", scout_scratch_path(name));
    assert_ok(sf_safetensors_write(path, list, n, &err), err);
    sf_hf_index_close(index);
    return scout_scratch_path(name);
}

static const struct {
    const char *victim;
    enum breakage how;
    int code;
    const char *message;
} breakages[] = {
    {"model.layers.2.self_attn.k_proj.weight", DROP, SF_EFORMAT, "layer 2 k is missing"},
    {"model.layers.1.feed_forward.experts.down_proj", DROP, SF_EFORMAT,
     "layer 1 expert 0 expert_down is missing"},
    {"model.norm.weight", DROP, SF_EFORMAT, "final_norm is missing"},
    {"model.layers.0.self_attn.q_proj.weight", RENAME, SF_EFORMAT, "z_proj.weight: no weight"},
    {"model.layers.0.self_attn.q_proj.weight", RESHAPE, SF_EFORMAT,
     "q_proj.weight: shape [128, 256], the config asks for [256, 128]"},
    {"model.layers.0.feed_forward.experts.gate_up_proj", RESHAPE, SF_EFORMAT,
     "gate_up_proj: shape"},
    {"model.layers.0.self_attn.q_proj.weight", RETYPE, SF_EUNSUPPORTED, "q_proj.weight: i16"},
    {"model.layers.0.self_attn.q_proj.weight", DOUBLE, SF_EFORMAT, "are the same weight"},
    {"model.layers.0.self_attn.q_proj.weight", POISON, SF_ENUMERIC,
     "q_proj.weight: element 777 of [out, in] is NaN or Inf"},
    {"model.layers.0.feed_forward.experts.gate_up_proj", POISON, SF_ENUMERIC,
     "experts.0.gate_proj.weight: element 1154 of [out, in]"},
    {"model.embed_tokens.weight", POISON, SF_ENUMERIC, "embed_tokens.weight: element 777 is NaN"},
    {"model.layers.0.feed_forward.router.weight", DROP, SF_EFORMAT, "layer 0 router is missing"},
};
enum { BREAKAGES = sizeof breakages / sizeof breakages[0] };

START_TEST(broken_checkpoints_are_refused_by_name)
{
    struct sf_err err = {0};
    char name[32];
    snprintf(name, sizeof name, "broken%d", _i);
    struct conversion c = {.source =
                               broken_checkpoint(name, breakages[_i].victim, breakages[_i].how),
                           .config = TINY_SCOUT,
                           .output = scout_scratch_path("broken.scout")};
    assert_fails(convert(&c, &err), breakages[_i].code, breakages[_i].message, err);
    ck_assert(!sf_file_exists(c.output));
}
END_TEST

START_TEST(unknown_tensors_are_carried_when_asked)
{
    struct conversion c = {
        .source = broken_checkpoint("extra", "model.layers.0.self_attn.q_proj.weight", DOUBLE),
        .config = TINY_SCOUT,
        .output = scout_scratch_path("extra.scout")};
    struct sf_err err = {0};
    ck_assert_int_ne(convert(&c, &err), SF_OK); /* a double is no unknown name */
    c.keep_unknown = true;
    ck_assert_int_ne(convert(&c, &err), SF_OK);
    c.source = broken_checkpoint("renamed", "model.layers.0.self_attn.q_proj.weight", RENAME);
    assert_fails(convert(&c, &err), SF_EFORMAT, "layer 0 q is missing", err);
    c.source = broken_checkpoint("stranger", "model.layers.0.self_attn.q_proj.weight", EXTRA);
    c.keep_unknown = false;
    assert_fails(convert(&c, &err), SF_EFORMAT, "z_proj.weight: no weight", err);
    c.keep_unknown = true;
    struct sf_map *map = converted(c);
    const struct sf_entry *q = sf_map_find_name(map, "model.layers.0.self_attn.q_proj.weight");
    const struct sf_entry *z = sf_map_find_name(map, "model.layers.0.self_attn.z_proj.weight");
    ck_assert(q && z && q->encoding == SF_ENCODING_NF4 && z->encoding == SF_ENCODING_RAW);
    ck_assert_int_eq(z->role.part, SF_PART_UNUSED);
    sf_map_close(map);
}
END_TEST

static Suite *convert_suite(void)
{
    Suite *suite = suite_create("convert");
    TCase *tc = tcase_create("convert");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_weight_stands_where_its_role_says);
    tcase_add_test(tc, llama4_tiny_too_quantized_and_kept);
    tcase_add_test(tc, threads_and_repetition_do_not_show);
    tcase_add_test(tc, the_published_form_of_config_gives_the_same_tensors);
    tcase_add_test(tc, patterns_keep_what_they_match);
    tcase_add_test(tc, a_pattern_that_matches_nothing_is_an_error);
    tcase_add_loop_test(tc, broken_checkpoints_are_refused_by_name, 0, BREAKAGES);
    tcase_add_test(tc, unknown_tensors_are_carried_when_asked);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(convert_suite)
