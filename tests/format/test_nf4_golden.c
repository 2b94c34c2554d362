/* The codec against results made elsewhere: tests/golden/nf4/README.md says by whom. */
#include "tests/support/support.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libformat/base/bytes.h"
#include "libformat/base/file.h"
#include "libformat/base/json.h"
#include "libformat/base/mem.h"
#include "libformat/codec/halves.h"
#include "libformat/codec/nf4.h"

/* ---- a safetensors file, trusted, as far as these tests need it ---- */

struct golden {
    struct sf_arena arena;
    struct sf_json *header;
    const unsigned char *payload;
};

struct golden_tensor {
    const unsigned char *data;
    uint64_t bytes;
    enum sf_dtype dtype;
    int64_t dims[3], count;
};

static void golden_open(struct golden *g, const char *path)
{
    struct sf_err err = {0};
    char *text;
    uint64_t bytes;
    *g = (struct golden){{0}, NULL, NULL};
    assert_ok(sf_read_file(&text, &bytes, &g->arena, path, 1 << 24, &err), err);
    uint64_t header_bytes = sf_get_u64(text);
    ck_assert(header_bytes < bytes - 8);
    assert_ok(sf_json_parse(&g->header, text + 8, header_bytes, &err), err);
    g->payload = (unsigned char *)text + 8 + header_bytes;
}

static void golden_close(struct golden *g)
{
    sf_json_free(g->header);
    sf_arena_free(&g->arena);
}

static void take_ints(int64_t *out, const struct sf_json *array)
{
    struct sf_err err = {0};
    for (const struct sf_json *v = sf_json_first(array); v; v = sf_json_next(v))
        assert_ok(sf_json_as_int(out++, v, "golden", &err), err);
}

static struct golden_tensor tensor_of(const struct golden *g, const struct sf_json *entry)
{
    struct sf_err err = {0};
    struct golden_tensor t = {.dims = {1, 1, 1}, .count = 1};
    const char *dtype;
    int64_t range[2];
    ck_assert(sf_json_count(sf_json_get(entry, "shape")) <= 3);
    assert_ok(sf_json_as_string(&dtype, sf_json_get(entry, "dtype"), "dtype", &err), err);
    take_ints(t.dims, sf_json_get(entry, "shape"));
    take_ints(range, sf_json_get(entry, "data_offsets"));
    t.dtype = sf_dtype_from_safetensors(dtype);
    t.count = t.dims[0] * t.dims[1] * t.dims[2];
    t.data = g->payload + range[0];
    t.bytes = (uint64_t)(range[1] - range[0]);
    ck_assert_uint_eq(t.bytes, (uint64_t)t.count * sf_dtype_bytes(t.dtype));
    return t;
}

static struct golden_tensor find(const struct golden *g, const char *name, const char *key)
{
    char full[256];
    snprintf(full, sizeof full, "%s%s%s", name, *key ? "." : "", key);
    const struct sf_json *entry = sf_json_get(g->header, full);
    ck_assert_msg(entry != NULL, "no golden tensor %s", full);
    return tensor_of(g, entry);
}

/* ---- our own results ---- */

struct encoded {
    uint8_t *codes, *q;
    float *absmax, *nested_absmax, *restored, *decoded;
    float offset;
    int64_t n, blocks, groups;
};

/* Encodes; nests with *offset, or with our own mean where that is NULL; decodes. */
static struct encoded encode(const void *src, enum sf_dtype dtype, int64_t n, const float *offset)
{
    struct encoded e = {.n = n, .blocks = sf_nf4_blocks(n)};
    e.groups = sf_nf4_groups(e.blocks);
    e.codes = sf_alloc((uint64_t)(n + 1) / 2);
    e.q = sf_alloc((uint64_t)e.blocks);
    e.absmax = sf_alloc((uint64_t)e.blocks * 4);
    e.restored = sf_alloc((uint64_t)e.blocks * 4);
    e.nested_absmax = sf_alloc((uint64_t)e.groups * 4);
    e.decoded = sf_alloc((uint64_t)n * 4);
    sf_nf4_encode(e.codes, e.absmax, src, dtype, n, NULL);
    e.offset = offset ? *offset : sf_nf4_offset(e.absmax, e.blocks);
    sf_nf4_nest(e.q, e.nested_absmax, e.absmax, e.blocks, e.offset);
    sf_nf4_unnest(e.restored, e.q, e.nested_absmax, sf_nf4_scale_map, e.offset, 0, e.blocks);
    sf_nf4_decode(e.decoded, e.codes, e.restored, sf_nf4_code_value, 0, n);
    return e;
}

static void encoded_free(struct encoded *e)
{
    sf_free(e->codes);
    sf_free(e->q);
    sf_free(e->absmax);
    sf_free(e->restored);
    sf_free(e->nested_absmax);
    sf_free(e->decoded);
}

static uint32_t crc32_of(const void *data, uint64_t bytes)
{
    const unsigned char *p = data;
    uint32_t crc = 0xffffffffu;
    for (uint64_t i = 0; i < bytes; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

/* Of the bf16 patterns, with one pattern for NaN. */
static uint32_t crc32_of_decoded(const struct encoded *e)
{
    unsigned char *bytes = sf_alloc((uint64_t)e->n * 2);
    for (int64_t i = 0; i < e->n; i++) {
        float x = e->decoded[i];
        if (!isnan(x) && sf_round_bf16(x) != x)
            ck_abort_msg("decoded %a is no bf16 number", x);
        sf_put_u16(bytes + 2 * i, isnan(x) ? 0x7fc0 : sf_bf16_from_f32(x));
    }
    uint32_t crc = crc32_of(bytes, (uint64_t)e->n * 2);
    sf_free(bytes);
    return crc;
}

static void same_bytes(const char *name, const char *what, const void *got,
                       const struct golden_tensor *want)
{
    for (uint64_t i = 0; i < want->bytes; i++)
        if (((const unsigned char *)got)[i] != want->data[i])
            ck_abort_msg("%s: %s: byte %" PRIu64 " of %" PRIu64 " is %02x, not %02x", name, what, i,
                         want->bytes, ((const unsigned char *)got)[i], want->data[i]);
}

static void compare(const char *name, const struct golden_tensor *x, const struct golden *results)
{
    struct golden_tensor codes = find(results, name, "codes"), q = find(results, name, "q"),
                         absmax = find(results, name, "absmax"),
                         nested = find(results, name, "nested_absmax"),
                         crc = find(results, name, "decoded_crc");
    float offset = sf_get_f32(find(results, name, "offset").data);
    struct encoded e = encode(x->data, x->dtype, x->count, &offset);
    ck_assert_uint_eq(codes.bytes, (uint64_t)(x->count + 1) / 2);
    ck_assert_int_eq(absmax.count, e.blocks);
    ck_assert_int_eq(q.count, e.blocks);
    ck_assert_int_eq(nested.count, e.groups);
    same_bytes(name, "codes", e.codes, &codes);
    same_bytes(name, "absmax", e.absmax, &absmax);
    same_bytes(name, "absmax codes", e.q, &q);
    same_bytes(name, "nested absmax", e.nested_absmax, &nested);
    ck_assert_msg(crc32_of_decoded(&e) == sf_get_u32(crc.data), "%s: decoded", name);

    float mean = sf_nf4_offset(e.absmax, e.blocks); /* the library sums in float32 */
    if (isfinite(mean) && isfinite(offset))
        ck_assert_msg(fabsf(mean - offset) <= 0x1p-20f * fabsf(offset), "%s: offset %a, not %a",
                      name, mean, offset);
    encoded_free(&e);
}

static void compare_all(const char *results_path)
{
    struct golden vectors, results;
    int64_t compared = 0;
    golden_open(&vectors, scout_source_path("tests/golden/nf4/vectors.safetensors"));
    golden_open(&results, scout_source_path(results_path));
    for (const struct sf_json *v = sf_json_first(vectors.header); v; v = sf_json_next(v)) {
        struct golden_tensor x = tensor_of(&vectors, v);
        compare(sf_json_key(v), &x, &results);
        compared++;
    }
    ck_assert_int_eq(compared, 32);
    ck_assert_int_eq(sf_json_count(results.header), 32 * 6);
    golden_close(&vectors);
    golden_close(&results);
}

START_TEST(formulas_byte_for_byte)
{
    compare_all("tests/golden/nf4/reference.safetensors");
}
END_TEST

/* What bitsandbytes' CUDA back end gave (check_bnb_cuda.py wrote it). */
#define LIBRARY_RESULTS "tests/golden/nf4/bnb_cuda.safetensors"

START_TEST(library_byte_for_byte)
{
    compare_all(LIBRARY_RESULTS);
}
END_TEST

/* ---- every matrix of tiny-scout that is quantized ---- */

enum { SHARDS = 2 };

static struct golden_tensor find_in_shards(const struct golden shards[SHARDS], const char *name)
{
    for (int i = 0; i < SHARDS; i++)
        if (sf_json_get(shards[i].header, name))
            return find(&shards[i], name, "");
    ck_abort_msg("tiny-scout has no %s", name);
    return (struct golden_tensor){0};
}

/* [out, in] of one expert's part of a Hugging Face [expert, in, out] tensor. */
static void turn_expert(unsigned char *out, const struct golden_tensor *t, int expert,
                        const char *part, int64_t rows, int64_t cols)
{
    int64_t skip = strcmp(part, "up") == 0 ? rows : 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            memcpy(out + 2 * (r * cols + c),
                   t->data + 2 * ((expert * t->dims[1] + c) * t->dims[2] + skip + r), 2);
}

static void compare_line(const char *line, const struct golden shards[SHARDS])
{
    char name[200], part[16];
    int expert;
    int64_t rows, cols;
    uint32_t codes, absmax, offset, q, nested, decoded;
    int fields =
        sscanf(line,
               "%199s %d %15s %" SCNd64 " %" SCNd64 " %" SCNx32 " %" SCNx32 " %" SCNx32 " %" SCNx32
               " %" SCNx32 " %" SCNx32,
               name, &expert, part, &rows, &cols, &codes, &absmax, &offset, &q, &nested, &decoded);
    ck_assert_msg(fields == 11, "tiny_scout.txt: %s", line);
    struct golden_tensor t = find_in_shards(shards, name);
    unsigned char *turned = sf_alloc((uint64_t)(rows * cols) * 2);
    if (expert >= 0)
        turn_expert(turned, &t, expert, part, rows, cols);
    struct encoded e = encode(expert >= 0 ? turned : t.data, t.dtype, rows * cols, NULL);
    ck_assert_msg(crc32_of(e.codes, (uint64_t)e.n / 2) == codes, "%s %d: codes", name, expert);
    ck_assert_msg(crc32_of(e.absmax, (uint64_t)e.blocks * 4) == absmax, "%s %d: absmax", name,
                  expert);
    ck_assert_msg(sf_bits_from_f32(e.offset) == offset, "%s %d: offset", name, expert);
    ck_assert_msg(crc32_of(e.q, (uint64_t)e.blocks) == q, "%s %d: absmax codes", name, expert);
    ck_assert_msg(crc32_of(e.nested_absmax, (uint64_t)e.groups * 4) == nested,
                  "%s %d: nested absmax", name, expert);
    ck_assert_msg(crc32_of_decoded(&e) == decoded, "%s %d: decoded", name, expert);
    encoded_free(&e);
    sf_free(turned);
}

START_TEST(every_matrix_of_tiny_scout)
{
    struct golden shards[SHARDS];
    golden_open(&shards[0],
                scout_source_path("examples/tiny-scout/model-00001-of-00002.safetensors"));
    golden_open(&shards[1],
                scout_source_path("examples/tiny-scout/model-00002-of-00002.safetensors"));
    FILE *list = fopen(scout_source_path("tests/golden/nf4/tiny_scout.txt"), "r");
    ck_assert(list != NULL);
    char line[512];
    int compared = 0;
    while (fgets(line, sizeof line, list)) {
        if (line[0] == '#')
            continue;
        compare_line(line, shards);
        compared++;
    }
    fclose(list);
    ck_assert_int_eq(compared, 4 * (4 + 3 + 4 * 3)); /* layers: attention, shared expert, experts */
    golden_close(&shards[0]);
    golden_close(&shards[1]);
}
END_TEST

static Suite *nf4_golden_suite(void)
{
    Suite *suite = suite_create("nf4_golden");
    TCase *tc = tcase_create("nf4_golden");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, formulas_byte_for_byte);
    tcase_add_test(tc, library_byte_for_byte);
    tcase_add_test(tc, every_matrix_of_tiny_scout);
    suite_add_tcase(suite, tc);
    return suite;
}
SCOUT_TEST_MAIN(nf4_golden_suite)
