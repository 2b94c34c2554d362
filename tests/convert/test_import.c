#include "tests/support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"
#include "libformat/convert/entry_decode.h"
#include "libformat/convert/export.h"
#include "libformat/hf/hf_index.h"
#include "tests/convert/conversion.h"

static const char *const models[] = {"tests/golden/bnb/linear", "tests/golden/bnb/axolotl",
                                     "tests/golden/bnb/stacked"};
enum { LINEAR, AXOLOTL, STACKED, MODELS };

static struct sf_hf_index *folder(const char *path)
{
    struct sf_err err = {0};
    struct sf_hf_index *index;
    assert_ok(sf_hf_index_open(&index, path, &err), err);
    return index;
}

static struct sf_map *imported(int m, const char *name, int threads)
{
    return converted((struct conversion){.source = scout_source_path(models[m]),
                                         .output = scout_scratch_path(name),
                                         .threads = threads});
}

static const struct sf_tensor *side(const struct sf_hf_index *index, const char *weight,
                                    const char *suffix)
{
    char name[512];
    snprintf(name, sizeof name, "%s%s", weight, suffix);
    return sf_hf_index_find(index, name);
}

/* ---- planes ---- */

static const struct {
    enum sf_plane_kind kind;
    const char *suffix;
} planes[] = {{SF_PLANE_CODES, ""},
              {SF_PLANE_SCALE, ".absmax"},
              {SF_PLANE_SCALE2, ".nested_absmax"},
              {SF_PLANE_CODEBOOK, ".quant_map"},
              {SF_PLANE_MAP, ".nested_quant_map"}};
enum { PLANES = sizeof planes / sizeof planes[0] };

/* Each plane is the source's tensor, or the expert's share of it; a map is shared whole. */
static void check_planes(const struct sf_map *map, const struct sf_hf_index *source,
                         const struct sf_entry *e)
{
    bool stacked = e->block_axis == 0;
    for (int i = 0; i < PLANES; i++) {
        const struct sf_plane *p = &e->plane[planes[i].kind];
        const struct sf_tensor *t = side(source, e->source_name, planes[i].suffix);
        bool shared = planes[i].kind >= SF_PLANE_CODEBOOK;
        uint64_t from = stacked && !shared ? (uint64_t)e->role.expert * p->bytes : 0;
        ck_assert_msg((t != NULL) == (p->dtype != SF_DTYPE_NONE), "%s%s", e->source_name,
                      planes[i].suffix);
        if (!t)
            continue;
        ck_assert_uint_eq(t->bytes, stacked && !shared ? 2 * p->bytes : p->bytes);
        ck_assert_msg(
            memcmp(sf_map_bytes(map, p->address), (const char *)t->data + from, p->bytes) == 0,
            "%s%s", e->name, planes[i].suffix);
    }
}

START_TEST(codes_scales_and_maps_land_bit_for_bit)
{
    struct sf_map *map = imported(_i, "planes.scout", 2);
    struct sf_hf_index *source = folder(scout_source_path(models[_i]));
    int taken = 0;
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++) {
        const struct sf_entry *e = sf_map_tensor(map, i);
        bool stacked = _i == STACKED && sf_part_is_expert(e->role.part);
        ck_assert_int_eq(e->encoding == SF_ENCODING_NF4, sf_part_is_matrix(e->role.part));
        if (e->encoding != SF_ENCODING_NF4)
            continue;
        ck_assert_int_eq(e->block_axis, stacked ? 0 : -1);
        ck_assert_int_eq(e->nested_block, _i == LINEAR && e->role.layer == 1 ? 0 : 256);
        ck_assert_int_eq(e->dtype, SF_BF16);
        check_planes(map, source, e);
        taken++;
    }
    ck_assert_int_eq(taken, _i == LINEAR ? 26 : 13);
    sf_hf_index_close(source);
    sf_map_close(map);
}
END_TEST

START_TEST(threads_do_not_show)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    char *a, *b;
    uint64_t n, m;
    sf_map_close(imported(_i, "one.scout", 1));
    sf_map_close(imported(_i, "many.scout", 4));
    assert_ok(sf_read_file(&a, &n, &arena, scout_scratch_path("one.scout"), 1 << 24, &err), err);
    assert_ok(sf_read_file(&b, &m, &arena, scout_scratch_path("many.scout"), 1 << 24, &err), err);
    ck_assert(n == m && memcmp(a, b, n) == 0);
    sf_arena_free(&arena);
}
END_TEST

/* One k_proj of the fixture has a map that is an ulp off in places. */
START_TEST(a_map_of_its_own_is_kept)
{
    struct sf_map *map = imported(LINEAR, "own.scout", 1);
    const struct sf_entry *k = sf_map_find(map, (struct sf_role){SF_PART_K, 0, -1});
    const struct sf_entry *q = sf_map_find(map, (struct sf_role){SF_PART_Q, 0, -1});
    const struct sf_entry *v = sf_map_find(map, (struct sf_role){SF_PART_V, 0, -1});
    const float *own = sf_map_bytes(map, k->plane[SF_PLANE_MAP].address);
    ck_assert_uint_ne(k->plane[SF_PLANE_MAP].address, q->plane[SF_PLANE_MAP].address);
    ck_assert_uint_eq(v->plane[SF_PLANE_MAP].address, q->plane[SF_PLANE_MAP].address);
    ck_assert_uint_eq(k->plane[SF_PLANE_CODEBOOK].address, q->plane[SF_PLANE_CODEBOOK].address);
    ck_assert(memcmp(own, sf_nf4_scale_map, 256 * sizeof(float)) != 0);
    ck_assert(own[1] != sf_nf4_scale_map[1] && own[2] == sf_nf4_scale_map[2]);
    sf_map_close(map);
}
END_TEST

/* ---- numbers ---- */

static uint32_t crc32_add(uint32_t crc, const unsigned char *p, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return crc;
}

/* The CRC goes over the elements in the order of the source: [in, out] for one of a stack. */
static uint32_t crc_of_decoded(uint32_t crc, const struct sf_map *map, const struct sf_entry *e)
{
    struct sf_err err = {0};
    int64_t out = e->shape.dim[0], in = e->shape.dim[1];
    float *value = malloc((size_t)(out * in) * sizeof *value);
    scout_poison(value, out * in);
    assert_ok(sf_entry_decode(value, map, e, 0, out * in, &err), err);
    for (int64_t k = 0; k < out * in; k++) {
        unsigned char bytes[2];
        int64_t at = e->block_axis == 0 ? k % out * in + k / out : k;
        sf_put_u16(bytes, sf_bf16_from_f32(value[at]));
        crc = crc32_add(crc, bytes, 2);
    }
    free(value);
    return crc;
}

static uint32_t crc_of_source(const struct sf_map *map, const char *source_name)
{
    uint32_t crc = 0xffffffffu;
    int found = 0;
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++) { /* experts in order */
        const struct sf_entry *e = sf_map_tensor(map, i);
        if (strcmp(e->source_name, source_name) == 0) {
            crc = crc_of_decoded(crc, map, e);
            found++;
        }
    }
    ck_assert_msg(found > 0, "%s", source_name);
    return ~crc;
}

START_TEST(numbers_are_those_of_bitsandbytes)
{
    struct sf_map *map = imported(_i, "numbers.scout", 2);
    char path[4096], name[512];
    unsigned crc;
    int lines = 0;
    snprintf(path, sizeof path, "%s/decoded.txt", scout_source_path(models[_i]));
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    for (; fscanf(file, "%511s %x", name, &crc) == 2; lines++)
        ck_assert_msg(crc_of_source(map, name) == crc, "%s", name);
    fclose(file);
    ck_assert_int_eq(lines, _i == LINEAR ? 26 : _i == AXOLOTL ? 13 : 10);
    sf_map_close(map);
}
END_TEST

/* Any rectangle and any range is a part of the whole, for blocks along either axis. */
START_TEST(parts_decode_as_the_whole)
{
    struct sf_err err = {0};
    struct sf_map *map = imported(STACKED, "parts.scout", 1);
    const struct sf_entry *e = sf_map_find(map, (struct sf_role){SF_PART_EXPERT_UP, 0, 1});
    int64_t in = e->shape.dim[1], n = e->shape.dim[0] * in;
    float *whole = malloc((size_t)n * 2 * sizeof *whole), *part = whole + n;
    assert_ok(sf_entry_decode(whole, map, e, 0, n, &err), err);
    static const int64_t cut[][4] = {
        {0, 1, 0, 128}, {3, 130, 5, 7}, {255, 1, 127, 1}, {64, 64, 64, 64}};
    for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++) {
        const int64_t *c = cut[i];
        scout_poison(part, n);
        assert_ok(sf_entry_rectangle(part, map, e, c[0], c[1], c[2], c[3], &err), err);
        for (int64_t r = 0; r < c[1]; r++)
            for (int64_t k = 0; k < c[3]; k++)
                ck_assert(part[r * c[3] + k] == whole[(c[0] + r) * in + c[2] + k]);
    }
    assert_ok(sf_entry_decode(part, map, e, 37, 1000, &err), err);
    ck_assert(memcmp(part, whole + 37, 1000 * sizeof *part) == 0);
    free(whole);
    sf_map_close(map);
}
END_TEST

/* ---- out again ---- */

START_TEST(bitsandbytes_in_bitsandbytes_out)
{
    struct sf_err err = {0};
    struct sf_map *map = imported(_i, "out.scout", 2);
    char name[32];
    snprintf(name, sizeof name, "out-%d", _i);
    const char *directory = scout_scratch_path(name);
    struct sf_export_options options = {SF_EXPORT_BNB4, 2, 200000};
    assert_ok(sf_export_run(map, directory, &options, &err), err);
    struct sf_hf_index *out = folder(directory);
    struct sf_hf_index *source = folder(scout_source_path(models[_i]));
    ck_assert_int_eq(sf_hf_index_count(out), sf_hf_index_count(source));
    for (int64_t i = 0; i < sf_hf_index_count(source) && _i != AXOLOTL; i++) {
        const struct sf_named_tensor *want = sf_hf_index_at(source, i, NULL);
        const struct sf_tensor *have = sf_hf_index_find(out, want->name);
        ck_assert_msg(have && have->dtype == want->tensor.dtype &&
                          sf_shape_equal(&have->shape, &want->tensor.shape) &&
                          memcmp(have->data, want->tensor.data, have->bytes) == 0,
                      "%s", want->name);
    }
    sf_hf_index_close(out);
    sf_hf_index_close(source);
    sf_map_close(map);
}
END_TEST

/* ---- requantized ---- */

START_TEST(requantizing_turns_the_blocks)
{
    struct sf_map *as_is = imported(STACKED, "as_is.scout", 1);
    struct sf_map *anew =
        converted((struct conversion){.source = scout_source_path(models[STACKED]),
                                      .output = scout_scratch_path("anew.scout"),
                                      .requantize = true,
                                      .threads = 2});
    for (int part = SF_PART_EXPERT_GATE; part <= SF_PART_EXPERT_DOWN; part++) {
        struct sf_role role = {part, 0, 1};
        struct sf_err err = {0};
        const struct sf_entry *a = sf_map_find(as_is, role), *b = sf_map_find(anew, role);
        int64_t n = a->shape.dim[0] * a->shape.dim[1];
        float *was = malloc((size_t)n * 2 * sizeof *was), *is = was + n;
        uint8_t *codes = malloc((size_t)n / 2);
        float *absmax = malloc((size_t)n / 64 * sizeof *absmax);
        ck_assert_int_eq(b->block_axis, -1);
        assert_ok(sf_entry_decode(was, as_is, a, 0, n, &err), err);
        sf_nf4_encode(codes, absmax, was, SF_F32, n, NULL);
        ck_assert(memcmp(codes, sf_map_bytes(anew, b->plane[SF_PLANE_CODES].address),
                         (size_t)n / 2) == 0);
        assert_ok(sf_entry_decode(is, anew, b, 0, n, &err), err);
        double error = scout_relative_error(is, was, n);
        ck_assert_msg(error > 0.02 && error < 0.1, "%g", error);
        ck_assert_msg(error > 0.999 * b->relative_rms_error &&
                          error < 1.001 * b->relative_rms_error,
                      "%g, recorded %g", error, b->relative_rms_error);
        free(was);
        free(codes);
        free(absmax);
    }
    sf_map_close(as_is);
    sf_map_close(anew);
}
END_TEST

/* ---- refused ---- */

struct change {
    const char *name;       /* the tensor */
    const char *rename;     /* NULL: the same; "": left out */
    const char *find, *put; /* text inside it, of one length; NULL: none */
    int64_t nan_at;         /* float element that becomes NaN, -1: none */
    enum sf_dtype dtype;    /* NONE: the same */
    int code;
    const char *message;
};

static void alter(struct sf_named_tensor *t, const struct change *c, struct sf_arena *arena)
{
    unsigned char *data = sf_arena_alloc(arena, t->tensor.bytes);
    memcpy(data, t->tensor.data, t->tensor.bytes);
    t->tensor.data = data;
    t->name = c->rename ? c->rename : t->name;
    if (c->dtype != SF_DTYPE_NONE)
        t->tensor.dtype = c->dtype;
    if (c->nan_at >= 0)
        sf_put_u32(data + 4 * c->nan_at, 0x7fc00000u);
    for (uint64_t i = 0; c->find && i + strlen(c->find) <= t->tensor.bytes; i++)
        if (memcmp(data + i, c->find, strlen(c->find)) == 0)
            memcpy(data + i, c->put, strlen(c->put));
}

/* A copy of a fixture with one tensor changed. */
static const char *changed(int m, const struct change *c)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_hf_index *source = folder(scout_source_path(models[m]));
    int64_t count = sf_hf_index_count(source), n = 0;
    struct sf_named_tensor *list = sf_arena_array(&arena, (uint64_t)count, sizeof *list);
    char path[4096];
    bool met = false;
    for (int64_t i = 0; i < count; i++) {
        struct sf_named_tensor t = *sf_hf_index_at(source, i, NULL);
        bool this = strcmp(t.name, c->name) == 0;
        met = met || this;
        if (this && c->rename && !*c->rename)
            continue;
        if (this)
            alter(&t, c, &arena);
        list[n++] = t;
    }
    ck_assert_msg(met, "%s", c->name);
    const char *directory = scout_scratch_path("changed");
    assert_ok(sf_make_directory(directory, &err), err);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    assert_ok(sf_safetensors_write(path, list, n, &err), err);
    sf_hf_index_close(source);
    sf_arena_free(&arena);
    return directory;
}

#define Q "model.layers.0.self_attn.q_proj.weight"
#define STATE ".quant_state.bitsandbytes__nf4"
#define GATE "model.layers.0.feed_forward.experts.1.gate_proj.weight"
static const struct change changes[] = {
    {Q STATE, NULL, "\"blocksize\": 64", "\"blocksize\":128", -1, SF_DTYPE_NONE, SF_EUNSUPPORTED,
     Q STATE ": blocksize 128; only 64 can be taken over"},
    {Q STATE, NULL, "\"nf4\"", "\"af4\"", -1, SF_DTYPE_NONE, SF_EUNSUPPORTED,
     "quant_type \"af4\"; only \"nf4\" can be taken over"},
    {Q STATE, NULL, "nested_dtype", "nested_stype", -1, SF_DTYPE_NONE, SF_EUNSUPPORTED,
     "key \"nested_stype\" is not known"},
    {Q STATE, NULL, "{\"quant", "{_quant", -1, SF_DTYPE_NONE, SF_EFORMAT, Q STATE},
    {Q STATE, NULL, "[128, 128]", "[128, 256]", -1, SF_DTYPE_NONE, SF_EFORMAT,
     Q ": 8192 bytes of codes, its shape [128, 256] asks for 16384"},
    {Q STATE, NULL, "[128, 128]", "[ 64, 256]", -1, SF_DTYPE_NONE, SF_EFORMAT,
     Q ": shape [64, 256], the config asks for [128, 128]"},
    {Q STATE, Q ".quant_state.bitsandbytes__fp4", NULL, NULL, -1, SF_DTYPE_NONE, SF_EUNSUPPORTED,
     Q ": bitsandbytes' FP4; only NF4 can be taken over"},
    {Q STATE, "", NULL, NULL, -1, SF_DTYPE_NONE, SF_EUNSUPPORTED, Q ": u8 weights"},
    {Q ".absmax", "", NULL, NULL, -1, SF_DTYPE_NONE, SF_EFORMAT, Q ": absmax is missing"},
    {Q ".nested_absmax", NULL, NULL, NULL, 0, SF_DTYPE_NONE, SF_ENUMERIC,
     Q ": nested_absmax: element 0 is NaN or Inf"},
    {Q ".nested_quant_map", NULL, NULL, NULL, 200, SF_DTYPE_NONE, SF_ENUMERIC,
     Q ": nested_quant_map: element 200 is NaN or Inf"},
    {Q ".quant_map", Q ".quant_map.absmax", NULL, NULL, -1, SF_DTYPE_NONE, SF_EFORMAT, Q},
    {Q, "", NULL, NULL, -1, SF_DTYPE_NONE, SF_EFORMAT, "describes no 4-bit weight"},
    {GATE, "model.layers.0.feed_forward.experts.7.gate_proj.weight", NULL, NULL, -1, SF_DTYPE_NONE,
     SF_EFORMAT, "describes no"},
    {"model.layers.1.feed_forward.experts.0.up_proj.weight.absmax", NULL, NULL, NULL, 77,
     SF_DTYPE_NONE, SF_ENUMERIC, "absmax: element 77 is NaN or Inf"},
    {"model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight_packed", NULL,
     NULL, -1, SF_DTYPE_NONE, SF_EUNSUPPORTED, "packed integers such as W4A16"},
    {"model.layers.0.input_layernorm.weight", "model.layers.0.feed_forward.experts.down_proj_scale",
     NULL, NULL, -1, SF_DTYPE_NONE, SF_EUNSUPPORTED, "FBGEMM, FP8"},
    {"model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.qweight", NULL, NULL,
     -1, SF_DTYPE_NONE, SF_EUNSUPPORTED, "GPTQ or AWQ"},
    {"model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.SCB", NULL, NULL, -1,
     SF_DTYPE_NONE, SF_EUNSUPPORTED, "bitsandbytes, 8 bit"},
    {"model.layers.0.feed_forward.router.weight", "model.layers.0.self_attn.q_proj.weight_scale",
     NULL, NULL, -1, SF_DTYPE_NONE, SF_EUNSUPPORTED, "FP8 or integers with scales"},
};

START_TEST(what_cannot_be_taken_over_is_named)
{
    struct sf_err err = {0};
    struct conversion c = {.source = changed(LINEAR, &changes[_i]),
                           .config = models[LINEAR],
                           .output = scout_scratch_path("refused.scout")};
    assert_fails(convert(&c, &err), changes[_i].code, changes[_i].message, err);
    ck_assert(!sf_file_exists(scout_scratch_path("refused.scout")));
}
END_TEST

/* ---- other element types ---- */

static uint16_t f16_from(float x)
{
    uint32_t bits = sf_bits_from_f32(x);
    int exponent = (int)(bits >> 23 & 255) - 112;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (exponent <= 0)
        return sign; /* small ones become zero: enough for a fixture */
    return (uint16_t)(sign | exponent << 10 | (bits >> 13 & 0x3ff));
}

/* examples/tiny-scout's layout in another type; bf16 fits f32, and f16 but for its range. */
static const char *retyped(enum sf_dtype dtype)
{
    struct sf_err err = {0};
    struct sf_arena arena = {0};
    struct sf_hf_index *source = folder(scout_source_path("tests/golden/llama4-tiny/scout/model"));
    int64_t count = sf_hf_index_count(source);
    struct sf_named_tensor *list = sf_arena_array(&arena, (uint64_t)count, sizeof *list);
    char path[4096];
    for (int64_t i = 0; i < count; i++) {
        list[i] = *sf_hf_index_at(source, i, NULL);
        const unsigned char *from = list[i].tensor.data;
        uint64_t n = list[i].tensor.bytes / 2, size = sf_dtype_bytes(dtype);
        unsigned char *to = sf_arena_alloc(&arena, n * size);
        for (uint64_t k = 0; k < n; k++) {
            float x = sf_f32_from_bf16(sf_get_u16(from + 2 * k));
            if (dtype == SF_F32)
                sf_put_f32(to + 4 * k, x);
            else
                sf_put_u16(to + 2 * k, f16_from(x));
        }
        list[i].tensor.dtype = dtype;
        list[i].tensor.data = to;
        list[i].tensor.bytes = n * size;
    }
    const char *directory = scout_scratch_path(dtype == SF_F32 ? "f32" : "f16");
    assert_ok(sf_make_directory(directory, &err), err);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    assert_ok(sf_safetensors_write(path, list, count, &err), err);
    sf_hf_index_close(source);
    sf_arena_free(&arena);
    return directory;
}

START_TEST(float16_and_float32_are_taken)
{
    static const enum sf_dtype dtypes[] = {SF_F16, SF_F32};
    const char *model = "tests/golden/llama4-tiny/scout/model";
    struct sf_map *want = converted((struct conversion){
        .source = scout_source_path(model), .output = scout_scratch_path("bf16.scout")});
    struct sf_map *map =
        converted((struct conversion){.source = retyped(dtypes[_i]),
                                      .config = model,
                                      .output = scout_scratch_path("other.scout")});
    for (int64_t i = 0; i < sf_map_info(map)->tensors; i++) {
        const struct sf_entry *e = sf_map_tensor(map, i), *w = sf_map_tensor(want, i);
        struct sf_err err = {0};
        int64_t n = 0;
        sf_shape_count(&n, &e->shape);
        float *a = malloc((size_t)n * 2 * sizeof *a), *b = a + n;
        ck_assert_int_eq(e->dtype, dtypes[_i]);
        assert_ok(sf_entry_decode(a, map, e, 0, n, &err), err);
        assert_ok(sf_entry_decode(b, want, w, 0, n, &err), err);
        if (dtypes[_i] == SF_F32)
            ck_assert_msg(memcmp(a, b, (size_t)n * sizeof *a) == 0, "%s", e->name);
        else
            scout_assert_close(e->name, a, b, n, 1e-3);
        free(a);
    }
    sf_map_close(map);
    sf_map_close(want);
}
END_TEST

static Suite *import_suite(void)
{
    Suite *suite = suite_create("import");
    TCase *tc = tcase_create("import");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, codes_scales_and_maps_land_bit_for_bit, 0, MODELS);
    tcase_add_loop_test(tc, threads_do_not_show, 0, MODELS);
    tcase_add_test(tc, a_map_of_its_own_is_kept);
    tcase_add_loop_test(tc, numbers_are_those_of_bitsandbytes, 0, MODELS);
    tcase_add_test(tc, parts_decode_as_the_whole);
    tcase_add_loop_test(tc, bitsandbytes_in_bitsandbytes_out, 0, MODELS);
    tcase_add_test(tc, requantizing_turns_the_blocks);
    tcase_add_loop_test(tc, what_cannot_be_taken_over_is_named, 0,
                        sizeof changes / sizeof changes[0]);
    tcase_add_loop_test(tc, float16_and_float32_are_taken, 0, 2);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(import_suite)
