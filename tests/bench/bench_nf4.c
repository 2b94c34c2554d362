/* Times the way of a matrix into NF4, for every instruction set that this processor has.
 *
 *     bench_nf4                  one thread; GB/s of bf16 source, by processor time
 *
 * The whole is what a conversion does with a routed expert of Scout (gate, up and down from sources
 * that lie [in, out]): absmax, double quantization, turning, codes, error statistics, and the
 * checksums of the chunks that are written. Beside it its parts on a tile that stays in cache, and
 * memcpy on memory that does not. tests/bench/bench_bnb.py sets bitsandbytes' CPU encoder beside it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libformat/base/mem.h"
#include "libformat/codec/frame.h"
#include "libformat/codec/nf4.h"
#include "libformat/codec/nf4_search.h"
#include "libformat/convert/matrix_encode.h"
#include "libformat/convert/matrix_tiles.h"

enum { HIDDEN = 5120, WIDTH = 8192, CHUNK = 1 << 20, TILE = 1 << 17 };

static const char *const paths[] = {"portable", "neon", "avx2", "avx512"};

struct expert {
    unsigned char *gate_up, *down; /* [HIDDEN, 2 WIDTH] and [WIDTH, HIDDEN], bf16 */
    struct sf_tensor tensor[2];
    struct sf_entry entry[3];
    struct sf_convert_row row[3];
    struct sf_convert_plan plan;
    struct sf_encode_scratch scratch;
    unsigned char *extent;
    uint64_t extent_bytes, source_bytes;
};

/* The thread's own time: nothing here waits, and other programs should not count. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Best of the runs that fit into a second, at least three. */
static double seconds_of(void (*work)(void *), void *arg)
{
    double best = INFINITY, start = now();
    work(arg); /* pages are there after this */
    for (int i = 0; i < 3 || now() - start < 1; i++) {
        double before = now();
        work(arg);
        best = fmin(best, now() - before);
    }
    return best;
}

/* Roughly normal weights: the sum of four uniform numbers, from one multiplication. */
static void fill(unsigned char *to, int64_t elements, uint64_t state)
{
    for (int64_t i = 0; i < elements; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float sum = (float)((int)(state >> 48 & 4095) + (int)(state >> 36 & 4095) -
                            (int)(state >> 24 & 4095) - (int)(state >> 52));
        union {
            float f;
            uint32_t u;
        } bits = {sum * 1e-5f + 1e-7f};
        to[2 * i] = (unsigned char)(bits.u >> 16);
        to[2 * i + 1] = (unsigned char)(bits.u >> 24);
    }
}

static void add_row(struct expert *x, int k, const struct sf_tensor *from, int64_t out, int64_t in,
                    int64_t first, int64_t stride)
{
    static const enum sf_part part[] = {SF_PART_EXPERT_GATE, SF_PART_EXPERT_UP,
                                        SF_PART_EXPERT_DOWN};
    struct sf_entry *e = &x->entry[k];
    int64_t blocks = out * in / SF_NF4_BLOCK;
    uint64_t bytes[] = {(uint64_t)(out * in / 2), (uint64_t)blocks,
                        (uint64_t)sf_nf4_groups(blocks) * 4, 256};
    static const enum sf_plane_kind kind[] = {SF_PLANE_CODES, SF_PLANE_SCALE, SF_PLANE_SCALE2,
                                              SF_PLANE_OFFSET};
    *e = (struct sf_entry){.name = "weight",
                           .role = {.part = part[k]},
                           .dtype = SF_BF16,
                           .encoding = SF_ENCODING_NF4,
                           .shape = {.rank = 2, .dim = {out, in}}};
    for (int p = 0; p < 4; p++) {
        e->plane[kind[p]].address = x->extent_bytes;
        e->plane[kind[p]].bytes = bytes[p];
        x->extent_bytes = (x->extent_bytes + bytes[p] + 255) / 256 * 256;
    }
    x->row[k] = (struct sf_convert_row){
        .entry = e,
        .source = {.tensor = from, .transposed = true, .first = first, .row_stride = stride}};
    x->source_bytes += (uint64_t)(out * in) * 2;
}

static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "bench_nf4: no memory\n");
        exit(1);
    }
    return p;
}

static void open_expert(struct expert *x)
{
    struct sf_err err = {0};
    x->gate_up = must(sf_alloc(4ull * HIDDEN * WIDTH));
    x->down = must(sf_alloc(2ull * HIDDEN * WIDTH));
    fill(x->gate_up, 2ll * HIDDEN * WIDTH, 1);
    fill(x->down, 1ll * HIDDEN * WIDTH, 2);
    x->tensor[0] = (struct sf_tensor){.data = x->gate_up, .dtype = SF_BF16};
    x->tensor[1] = (struct sf_tensor){.data = x->down, .dtype = SF_BF16};
    add_row(x, 0, &x->tensor[0], WIDTH, HIDDEN, 0, 2 * WIDTH);
    add_row(x, 1, &x->tensor[0], WIDTH, HIDDEN, WIDTH, 2 * WIDTH);
    add_row(x, 2, &x->tensor[1], HIDDEN, WIDTH, 0, HIDDEN);
    x->extent = must(sf_alloc(x->extent_bytes));
    x->plan = (struct sf_convert_plan){.rows = 3, .row = x->row};
    if (sf_encode_scratch_open(&x->scratch, &x->plan, &err) != SF_OK)
        must(NULL);
}

static void close_expert(struct expert *x)
{
    sf_encode_scratch_close(&x->scratch);
    sf_free(x->extent);
    sf_free(x->gate_up);
    sf_free(x->down);
}

static uint64_t sink; /* keeps results alive */

static void convert_whole(void *arg)
{
    struct expert *x = arg;
    struct sf_err err = {0};
    memset(x->extent, 0, x->extent_bytes);
    for (int k = 0; k < 3; k++)
        if (sf_matrix_encode(x->extent, 0, &x->row[k], &x->scratch, &err) != SF_OK)
            fprintf(stderr, "bench_nf4: %s\n", err.message);
    for (uint64_t at = 0; at < x->extent_bytes; at += CHUNK)
        sink += sf_hash64(x->extent + at,
                          x->extent_bytes - at < CHUNK ? x->extent_bytes - at : CHUNK, at);
}

static void hash_source(void *arg)
{
    struct expert *x = arg;
    sink += sf_hash128(x->gate_up, 4ull * HIDDEN * WIDTH).low;
}

static void turn_only(void *arg)
{
    struct expert *x = arg;
    for (int k = 0; k < 3; k++)
        for (int64_t t = 0; t < sf_tile_count(&x->row[k]); t++) {
            struct sf_tile tile;
            sf_tile_at(&tile, &x->row[k], t, x->scratch.tile);
            sink += tile.data[0];
        }
}

static void absmax_only(void *arg)
{
    struct expert *x = arg;
    for (int64_t i = 0; i < HIDDEN; i += SF_NF4_BLOCK)
        sf_nf4_absmax_down(x->scratch.absmax + i / SF_NF4_BLOCK, HIDDEN / SF_NF4_BLOCK,
                           x->gate_up + i * 4 * WIDTH, 2 * WIDTH, 2 * WIDTH / 2, NULL);
}

static void copy_source(void *arg)
{
    struct expert *x = arg;
    memcpy(x->gate_up + 2ull * HIDDEN * WIDTH, x->gate_up, 2ull * HIDDEN * WIDTH);
}

/* A tile of TILE elements, 256 KiB. */
struct tile_work {
    const unsigned char *src;
    uint8_t codes[TILE / 2], q[TILE / 64];
    float absmax[TILE / 64], error[TILE / 64], norm[TILE / 64], nested[TILE / 16384], out[TILE];
};

static void encode_tile(void *arg)
{
    struct tile_work *w = arg;
    for (int i = 0; i < 16; i++)
        sf_nf4_encode(w->codes, w->absmax, w->src, SF_BF16, TILE, NULL);
}

static void measure_tile(void *arg)
{
    struct tile_work *w = arg;
    for (int i = 0; i < 16; i++)
        sf_nf4_errors(w->error, w->norm, w->src, SF_BF16, w->codes, w->absmax, TILE);
}

static void decode_tile(void *arg)
{
    struct tile_work *w = arg;
    for (int i = 0; i < 16; i++)
        sf_nf4_decode(w->out, w->codes, w->absmax, sf_nf4_code_value, 0, TILE);
}

static void nest_tile(void *arg)
{
    struct tile_work *w = arg;
    for (int i = 0; i < 16; i++)
        sf_nf4_nest(w->q, w->nested, w->absmax, TILE / 64, sf_nf4_offset(w->absmax, TILE / 64));
}

static void search_tile(void *arg)
{
    static const struct sf_nf4_search how = {0};
    struct tile_work *w = arg;
    sf_nf4_search_scales(w->error, w->absmax, w->src, SF_BF16, 0, TILE, &how);
    sf_nf4_search_codes(w->codes, w->src, SF_BF16, w->error, TILE);
}

static void search_signs_tile(void *arg)
{
    static const struct sf_nf4_search how = {.negative = true};
    struct tile_work *w = arg;
    sf_nf4_search_scales(w->error, w->absmax, w->src, SF_BF16, 0, TILE, &how);
    sf_nf4_search_codes(w->codes, w->src, SF_BF16, w->error, TILE);
}

static double rate(void (*work)(void *), void *arg, double bytes)
{
    return bytes / seconds_of(work, arg) * 1e-9;
}

static void bench_path(struct expert *x, struct tile_work *w, double copy, double hash)
{
    const double tile = 16.0 * 2 * TILE, expert = (double)x->source_bytes;
    double encode = rate(encode_tile, w, tile), measure = rate(measure_tile, w, tile);
    double nest = rate(nest_tile, w, tile), decode = rate(decode_tile, w, tile);
    double turn = rate(turn_only, x, expert), whole = rate(convert_whole, x, expert);
    double absmax = rate(absmax_only, x, expert / 3);
    double work = 1 / (1 / encode + 1 / measure + 1 / nest);
    printf("%s\n", sf_nf4_path());
    printf("  whole expert      %7.2f GB/s   %4.0f %% of memcpy, %3.0f %% of encode in cache, "
           "%3.0f %% of encode + nest + measure in cache\n",
           whole, 100 * whole / copy, 100 * whole / encode, 100 * whole / work);
    printf("    with the source's own hash %7.2f GB/s\n", 1 / (1 / whole + 1 / hash));
    printf("  turn alone        %7.2f GB/s   %4.0f %% of the whole's time\n", turn,
           100 * whole / turn);
    printf("  absmax down       %7.2f GB/s   %4.0f %% of the whole's time\n", absmax,
           100 * whole / absmax);
    printf("  in cache: encode %.2f, nest %.2f, measure %.2f, decode %.2f GB/s of bf16\n", encode,
           nest, measure, decode);
    printf("  scale search      %7.3f GB/s, with negative scales %.3f GB/s\n",
           rate(search_tile, w, 2.0 * TILE), rate(search_signs_tile, w, 2.0 * TILE));
}

int main(void)
{
    static struct expert x;
    static struct tile_work w;
    open_expert(&x);
    w.src = x.down;
    double copy = rate(copy_source, &x, 2.0 * HIDDEN * WIDTH);
    double hash = rate(hash_source, &x, 4.0 * HIDDEN * WIDTH);
    printf("memcpy %.2f GB/s, XXH3-128 of the source %.2f GB/s; one thread, 1 GB = 10^9 bytes of "
           "bf16\n",
           copy, hash);
    for (size_t p = 0; p < sizeof paths / sizeof paths[0]; p++)
        if (sf_nf4_use(paths[p]))
            bench_path(&x, &w, copy, hash);
    close_expert(&x);
    return sink == 42;
}
